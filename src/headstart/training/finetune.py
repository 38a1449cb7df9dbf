"""Fine-tunes stages and the head on cached activations: the only loop that trains stages of a backbone.

The frozen part ran once per image; its activations come from the cache, so an epoch costs the trainable part
and nothing else. The same loop trains a whole network from scratch (`FineTuneConfig(scratch=True)`), where
the activations are pixels.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.errors import OptionError
from headstart.files import make, whole
from headstart.heads import LinearHead, calibrate_temperature
from headstart.training.devices import device_of, precision_of

Epoch = dict[str, float]
InputTransform = Callable[[torch.Tensor], torch.Tensor]

_log = logging.getLogger(__name__)

_PRECISIONS = ("auto", "f32", "bf16")
# Written into every checkpoint; one of another layout is ignored.
_CHECKPOINT_VERSION = 3


class Activations(Protocol):
    """What a frozen part computed for the images of one split, cached.

    Attributes:
        labels: int64 [N].
        views: How many renderings of each image there are.
    """

    @property
    def labels(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def views(self) -> int: ...  # noqa: D102

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[Any]:
        """Activations [n, ...] of some images, each in its view: float16 or float32, or pixels in uint8."""


@dataclass(frozen=True)
class FineTuneConfig:
    """How to train.

    Attributes:
        epochs: At most so many.
        batch_size: Images per step; the last batch of an epoch may be smaller.
        learning_rate: The last stage's, at its highest. None is 0.001, and 0.1 from scratch.
        stage_factor: Each stage further from the head learns at this factor of the one after it, as general
            features need less change (Howard and Ruder, ACL 2018); ignored from scratch.
        head_factor: The head learns at this factor of it; ignored from scratch.
        head_scale: The head's first weights are multiplied by this; ignored from scratch. A head that starts
            as a ridge is right about all its training images already, and from a loss near zero the stages
            below it learn nothing; a smaller head leaves the work to them (Chizat et al., "On Lazy Training
            in Differentiable Programming", NeurIPS 2019).
        momentum: Of Nesterov's SGD, which trains from scratch. Fine-tuned stages are trained by AdamW
            (Loshchilov and Hutter, ICLR 2019), which was more accurate than SGD and Muon in the same time.
        weight_decay: On matrices and kernels; biases and norms are spared. None is 0.05, and 0.0005 from
            scratch.
        warm_up: Share of all steps over which the rate rises linearly, before a cosine takes it to zero.
        clip_norm: Gradients longer than this, all parameters together, are shortened to it: a head that
            starts from ridge on features of small scale has large weights, whose first gradients would throw
            the trainable part far.
        label_smoothing: Share of the target spread evenly over the classes (Szegedy et al., CVPR 2016). None
            is 0.1 from scratch, and 0 for fine-tuned stages, which it made less accurate.
        class_weights: One per class, multiplying the images' losses; None is all 1.
        patience: Epochs without a better validation before stopping; None never stops early.
        train_norms: Let BatchNorm see the batches and update its statistics. None is no for fine-tuned
            stages, whose statistics are better than a small data set's, and yes from scratch.
        precision: "f32", "bf16" (autocast) or "auto": bf16 where the processor multiplies in it (CUDA, AMX,
            AVX-512 bf16), unless a depthwise kernel is larger than 3 x 3, for which PyTorch on a processor
            has no fast bf16 (5 x 5 took three times as long).
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        scratch: The network knows nothing yet: one rate for all stages, norms train.
        seed: Of the orders of images and of dropout.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float | None = None
    stage_factor: float = 0.5
    head_factor: float = 0.1
    head_scale: float = 0.1
    momentum: float = 0.9
    weight_decay: float | None = None
    warm_up: float = 0.1
    clip_norm: float = 1.0
    label_smoothing: float | None = None
    class_weights: tuple[float, ...] | None = None
    patience: int | None = 5
    train_norms: bool | None = None
    precision: str = "auto"
    device: str = "auto"
    scratch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise OptionError(
                f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise OptionError(f"learning_rate must be above zero, got {self.learning_rate}")
        if not 0 <= self.warm_up < 1 or not 0 <= (self.label_smoothing or 0) < 1:
            raise OptionError(
                "warm_up and label_smoothing must be from 0 to below 1, "
                f"got {self.warm_up} and {self.label_smoothing}"
            )
        if self.precision not in _PRECISIONS:
            raise OptionError(f"precision must be one of {', '.join(_PRECISIONS)}, got {self.precision!r}")


@dataclass(frozen=True, eq=False)
class FineTuneResult:
    """A trained trainable part and head.

    Attributes:
        trainable: In eval mode, without gradients, on the CPU; a new module, the one given is untouched.
        head: Over the trainable part's features; its temperature is calibrated on the validation images, 1
            without any.
        history: One row per epoch: `epoch`, `loss`, `accuracy`, `learning_rate` and, given validation images,
            `validation_loss` and `validation_accuracy`.
        best_epoch: The epoch whose weights these are; 0 if training never beat the start.
        precision: What it ran in, "f32" or "bf16".
        uses_rng: Whether its epochs drew PyTorch's random numbers, as dropout does; those are the process's,
            so such trainings must not run at once.
        validation_outcomes: What the start and each epoch said of the validation images, float32
            [rows, 2, N]: right (1) or wrong (0), and the loss. From scratch there is no start; None without
            validation images.
    """

    trainable: nn.Module
    head: LinearHead
    history: tuple[Epoch, ...]
    best_epoch: int
    precision: str
    uses_rng: bool
    validation_outcomes: NDArray[np.float32] | None = None


@dataclass
class _State:
    """All that changes from epoch to epoch; what a checkpoint holds."""

    model: nn.Sequential  # tail, head
    optimizer: torch.optim.Optimizer
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf  # of the validation images
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    best_logits: torch.Tensor | None = None  # of the validation images; not in a checkpoint
    validation_outcomes: list[torch.Tensor] = field(
        default_factory=list
    )  # the start's, then each epoch's, see `outcomes`
    uses_rng: bool = False

    def keep_if_best(self, *, epoch: int, loss: float, logits: torch.Tensor | None = None) -> None:
        if loss < self.best_loss:
            self.best_logits = logits
            self.best_epoch, self.best_loss = epoch, loss
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}

    def scale_head(self, factor: float) -> None:
        with torch.no_grad():
            for parameter in self.model[1].parameters():
                parameter.mul_(factor)


def fine_tune(
    trainable: nn.Module,
    head: LinearHead,
    train: Activations,
    validation: Activations | None,
    *,
    config: FineTuneConfig,
    input_transform: InputTransform | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], object] | None = None,
    stop: Callable[[], bool] | None = None,
    start_logits: torch.Tensor | None = None,
) -> FineTuneResult:
    """Trains the trainable part and the head together.

    Args:
        trainable: Maps activations [n, ...] to features [n, D]; its children are the stages, in order.
        head: Where the head starts, normally a ridge fit on the trainable part's features; its temperature is
            folded in.
        train: Images to learn from. Each is seen in a view that is drawn anew in every
            epoch.
        validation: Images that decide when to stop and which epoch's weights to keep; seen in their first
            view.
        config: How.
        input_transform: Applied to each batch before the trainable part; pixels need one, see
            `normalise_pixels`.
        checkpoint: A file, written whole after every epoch but the last; where it cannot be, that is said
            once. If it is there, left by the same training that was stopped, training goes on from it.
        progress: Called with the history's row after each epoch, the checkpoint already written;
            training ends where it returns True.
        stop: Asked before every step but the first; where it says yes the epoch ends there and training with
            it. That epoch's row speaks of the images it saw, and no checkpoint is written of it.
        start_logits: What the start says of the validation images, see `start_logits`; None computes it.

    Returns:
        The best epoch's weights on validation (the start included, so training never makes it worse there);
        the last epoch's without validation images.

    Raises:
        OptionError: No images, a head that does not fit the labels, or a training that diverges.
    """
    _check_images(head, train, validation)
    device = device_of(config.device)
    precision = precision_of(config.precision, trainable, device=device)
    run = _Run(config, device, precision, input_transform)
    state = _start(trainable, head, config=config, device=device)
    fingerprint = _fingerprint(config, state.model, len(train.labels), precision)
    resumed = checkpoint is not None and _resume(state, checkpoint, fingerprint=fingerprint)
    logits: torch.Tensor | None
    if validation is not None and not resumed and not config.scratch:
        logits = run.logits(state.model, validation) if start_logits is None else start_logits
        start = validation_scores(logits, validation.labels)
        state.keep_if_best(epoch=0, loss=start["validation_loss"], logits=logits)
        state.validation_outcomes.append(outcomes(logits, validation.labels))
    if not resumed and not config.scratch:
        state.scale_head(config.head_scale)
    while not _ended(state, config):
        epoch = len(state.history) + 1
        scores_seen, whole = run.epoch(state, train, epoch=epoch, stop=stop)
        row = {"epoch": float(epoch), **scores_seen}
        found, logits = -float(epoch), None  # without validation images the latest is the best
        if validation is not None:
            logits = run.logits(state.model, validation)
            row |= validation_scores(logits, validation.labels)
            found = row["validation_loss"]
            state.validation_outcomes.append(outcomes(logits, validation.labels))
        state.keep_if_best(epoch=epoch, loss=found, logits=logits)
        state.history.append(row)
        if checkpoint is not None and whole and not _ended(state, config):
            try:
                _write_checkpoint(state, checkpoint, fingerprint=fingerprint)
            except (OSError, RuntimeError) as error:  # RuntimeError is what torch makes of a full disk
                _log.warning("%s: %s; going on without checkpoints", checkpoint.parent, error)
                checkpoint = None
        if (progress is not None and progress(row) is True) or not whole:
            break
    return _result(state, run, validation)


def start_logits(
    trainable: nn.Module,
    head: LinearHead,
    images: Activations,
    *,
    config: FineTuneConfig,
    input_transform: InputTransform | None = None,
) -> torch.Tensor:
    """What both say of images before training, float32 [N, C]; trainings may share it."""
    device = device_of(config.device)
    precision = precision_of(config.precision, trainable, device=device)
    run = _Run(config, device, precision, input_transform)
    return run.logits(_start(trainable, head, config=config, device=device).model, images)


@dataclass(frozen=True)
class _Run:
    """One training's settings, and the two things done with them: an epoch, and logits of other images."""

    config: FineTuneConfig
    device: torch.device
    precision: str
    input_transform: InputTransform | None

    def epoch(
        self, state: _State, train: Activations, *, epoch: int, stop: Callable[[], bool] | None = None
    ) -> tuple[Epoch, bool]:
        """One pass over the images in a new order: loss and accuracy on the way, and whether it is whole."""
        config, model = self.config, state.model
        _set_modes(model, train_norms=config.scratch if config.train_norms is None else config.train_norms)
        rng = np.random.default_rng((config.seed, epoch))
        order = rng.permutation(len(train.labels))
        views = rng.integers(train.views, size=len(order))
        per_epoch = len(_chunks(order, config.batch_size))
        criterion = nn.CrossEntropyLoss(self._class_weights(), label_smoothing=_smoothing(config))
        loss_sum, correct, seen, rate = 0.0, 0, 0, 0.0
        batches = self._batches(train, order, views)
        with torch.random.fork_rng():  # dropout uses_rng this epoch's own numbers, resumed or not
            torch.manual_seed(config.seed * 1_000_003 + epoch)
            undrawn = torch.get_rng_state()
            for step, (inputs, labels) in enumerate(batches, (epoch - 1) * per_epoch):
                rate = schedule(step, steps=config.epochs * per_epoch, warm_up=config.warm_up)
                for group in state.optimizer.param_groups:
                    group["lr"] = group["peak"] * rate
                logits = self._logits(model, inputs)
                loss = criterion(logits, labels)
                state.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
                state.optimizer.step()
                loss_sum += float(loss.detach()) * len(labels)
                correct += int((logits.argmax(dim=1) == labels).sum())
                seen += len(labels)
                if stop is not None and seen < len(order) and stop():
                    break
            state.uses_rng |= not torch.equal(torch.get_rng_state(), undrawn)
        if not math.isfinite(loss_sum):
            raise OptionError(
                f"training diverged in epoch {epoch}: its loss is {loss_sum}; "
                f"try a lower learning rate than {_peak(config):g}"
            )
        return {
            "loss": loss_sum / seen,
            "accuracy": correct / seen,
            "learning_rate": rate * _peak(config),
        }, seen == len(order)

    def logits(self, model: nn.Module, images: Activations) -> torch.Tensor:
        """Logits of every image in its first view, float32 [N, C] on the CPU."""
        model.eval()
        order = np.arange(len(images.labels))
        first = np.zeros_like(order)
        with torch.inference_mode():
            return torch.cat(
                [self._logits(model, inputs).cpu() for inputs, _ in self._batches(images, order, first)]
            )

    def _logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: torch.Tensor = model(inputs)
        return logits.float()

    def _batches(
        self, images: Activations, order: NDArray[np.int64], views: NDArray[np.int64]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches in this order and these views, each read while the one before is being worked on."""
        size, all_labels = self.config.batch_size, np.asarray(images.labels)
        chunks = list(zip(_chunks(order, size), _chunks(views, size), strict=True))

        def read(chunk: NDArray[np.int64], seen_in: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            inputs = torch.from_numpy(np.ascontiguousarray(images.read(chunk, views=seen_in.tolist())))
            return inputs.to(self.device), torch.from_numpy(all_labels[chunk]).to(self.device)

        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(read, *chunks[0])
            for chunk in [*chunks[1:], None]:
                inputs, labels = following.result()
                if chunk is not None:
                    following = reader.submit(read, *chunk)
                yield _transformed(inputs, self.input_transform), labels

    def _class_weights(self) -> torch.Tensor | None:
        weights = self.config.class_weights
        return None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self.device)


def validation_scores(logits: torch.Tensor, labels: NDArray[np.int64]) -> Epoch:
    """Validation accuracy, and the loss that ranks epochs: of calibrated logits, as they are saved."""
    right, losses = outcomes(logits, labels).double().mean(dim=1).tolist()
    return {"validation_loss": losses, "validation_accuracy": right}


def outcomes(logits: torch.Tensor, labels: NDArray[np.int64]) -> torch.Tensor:
    """Of each image whether the logits are right (1) or wrong (0), and their calibrated loss, float32 [2, N].

    Whatever epoch is kept is calibrated in the end, so that one that is merely too sure is not behind.
    """
    wanted = torch.from_numpy(np.asarray(labels))
    right = (logits.argmax(dim=1) == wanted).float()
    calibrated = logits / calibrate_temperature(logits.numpy(), wanted.numpy())
    return torch.stack([right, nn.functional.cross_entropy(calibrated, wanted, reduction="none")])


def run_fine_tuned(
    trainable: nn.Module,
    activations: NDArray[Any],
    *,
    batch_size: int = 64,
    input_transform: InputTransform | None = None,
) -> NDArray[np.float32]:
    """Features [N, D] that trained stages compute from activations [N, ...], in float32."""
    device = next((parameter.device for parameter in trainable.parameters()), torch.device("cpu"))
    trainable.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(activations), batch_size):
            batch = np.ascontiguousarray(activations[start : start + batch_size])
            inputs = _transformed(torch.from_numpy(batch).to(device), input_transform)
            parts.append(trainable(inputs).float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def normalise_pixels(mean: Sequence[float], std: Sequence[float]) -> InputTransform:
    """The input transform for depth 0: `(pixel / 255 - mean) / std`.

    Its argument is uint8 [n, S, S, 3], its result float32 [n, 3, S, S].
    """
    scale = 1 / (255 * torch.tensor(std))
    shift = -torch.tensor(mean) / torch.tensor(std)

    def transform(pixels: torch.Tensor) -> torch.Tensor:
        device = pixels.device
        return torch.addcmul(shift.to(device), pixels.float(), scale.to(device)).permute(0, 3, 1, 2)

    return transform


def schedule(step: int, *, steps: int, warm_up: float) -> float:
    """The learning rate at a step, as a share of its peak: linear warm-up, then half a cosine down to zero.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017 (without restarts); Goyal et al., arXiv 1706.02677.
    """
    rise = round(warm_up * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def parameter_groups(
    trainable: nn.Module, head: nn.Module, *, config: FineTuneConfig
) -> list[dict[str, Any]]:
    """Every trainable parameter with its peak rate and weight decay: the head's, then stage by stage down.

    A stage's rate is the last one's times `stage_factor` per stage that lies between them.
    """
    peak = _peak(config)
    factor = 1.0 if config.scratch else config.stage_factor
    stages = [stage for stage in trainable.children() if any(True for _ in stage.parameters())]
    if sum(1 for _ in trainable.parameters()) != sum(1 for stage in stages for _ in stage.parameters()):
        stages = [trainable]  # parameters of its own, or shared between children: one stage
    decay = config.weight_decay
    if decay is None:
        decay = 5e-4 if config.scratch else 0.05
    groups = _decayed(head, peak * (1.0 if config.scratch else config.head_factor), decay)
    for distance, stage in enumerate(reversed(stages)):
        groups += _decayed(stage, peak * factor**distance, decay)
    return groups


def _decayed(module: nn.Module, peak: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: what decays (matrices and kernels) and what does not (biases, norms)."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    both = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": p, "lr": peak, "peak": peak, "weight_decay": decay} for p, decay in both if p]


def _start(trainable: nn.Module, head: LinearHead, *, config: FineTuneConfig, device: torch.device) -> _State:
    """Copies of the trainable part and the head, ready to train."""
    fine_tuned = copy.deepcopy(trainable).requires_grad_(True)
    # The ridge's scores only become logits once divided by its temperature; from then on it is 1.
    dense = nn.Linear(*head.weight.shape)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(head.weight.T / head.temperature))
        dense.bias.copy_(torch.from_numpy(head.bias / head.temperature))
    model = nn.Sequential(fine_tuned, dense).to(device)
    model.to(memory_format=torch.channels_last)
    groups = parameter_groups(fine_tuned, dense, config=config)
    if config.scratch:
        return _State(model, torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0))
    return _State(model, torch.optim.AdamW(groups))


def _result(state: _State, run: _Run, validation: Activations | None) -> FineTuneResult:
    """The best weights, calibrated."""
    state.model.load_state_dict(state.best_weights)
    temperature = 1.0
    if validation is not None:
        logits = run.logits(state.model, validation) if state.best_logits is None else state.best_logits
        temperature = calibrate_temperature(logits.numpy(), np.asarray(validation.labels))
    trainable, dense = state.model.to("cpu").eval().requires_grad_(False)
    head = LinearHead(
        kind="softmax",
        weight=np.ascontiguousarray(dense.get_parameter("weight").numpy().T),
        bias=dense.get_parameter("bias").numpy().copy(),
        temperature=temperature,
    )
    answers = torch.stack(state.validation_outcomes).numpy() if state.validation_outcomes else None
    return FineTuneResult(
        trainable, head, tuple(state.history), state.best_epoch, run.precision, state.uses_rng, answers
    )


def _check_images(head: LinearHead, *splits: Activations | None) -> None:
    classes = len(head.bias)
    for labels in (np.asarray(split.labels) for split in splits if split is not None):
        if not len(labels):
            raise OptionError("there are no images to train or validate on; give None for no validation")
        if labels.min() < 0 or labels.max() >= classes:
            raise OptionError(
                f"labels must be 0 to {classes - 1} for the head's {classes} classes, "
                f"got {labels.min()} to {labels.max()}"
            )


def _ended(state: _State, config: FineTuneConfig) -> bool:
    """Whether these were all epochs, or validation has not improved for too long."""
    exhausted = config.patience is not None and len(state.history) - state.best_epoch >= config.patience
    return exhausted or len(state.history) >= config.epochs


def _set_modes(model: nn.Module, *, train_norms: bool) -> None:
    """Dropout trains; BatchNorm keeps the statistics it was pre-trained with unless told otherwise."""
    model.train()
    if not train_norms:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _chunks(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Consecutive batches; a single image left over joins the one before: BatchNorm cannot learn from one."""
    starts = [i for i in range(0, len(order), size) if i == 0 or size == 1 or i + 1 < len(order)]
    return np.split(order, starts[1:])


def _transformed(inputs: torch.Tensor, transform: InputTransform | None) -> torch.Tensor:
    """What the trainable part takes: float32, maps with their channels last in memory."""
    if transform is None and not inputs.is_floating_point():
        raise OptionError("activations that are pixels need an input_transform; see normalise_pixels")
    values = inputs.float() if transform is None else transform(inputs)
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _peak(config: FineTuneConfig) -> float:
    return config.learning_rate or (0.1 if config.scratch else 1e-3)


def _smoothing(config: FineTuneConfig) -> float:
    if config.label_smoothing is None:
        return 0.1 if config.scratch else 0.0
    return config.label_smoothing


# --- checkpoints -------------------------------------------------------------------------------------


def _fingerprint(config: FineTuneConfig, model: nn.Module, images: int, precision: str) -> str:
    """What a checkpoint must agree in to be continued."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return repr((_CHECKPOINT_VERSION, sorted(asdict(config).items()), precision, images, shapes))


def _write_checkpoint(state: _State, path: Path, *, fingerprint: str) -> None:
    """Whole or not at all."""
    content = {
        "fingerprint": fingerprint,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss,
        "best_weights": state.best_weights,
        "answers": state.validation_outcomes,
    }
    make(path.parent)
    with whole(path, mode=0o600) as draft:
        torch.save(content, draft)


def _resume(state: _State, path: Path, *, fingerprint: str) -> bool:
    """Takes up a checkpoint of this same training; another training's, or a damaged one, counts as none."""
    if not path.is_file():
        return False
    try:
        content: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["fingerprint"] != fingerprint:
            return False
    except Exception:  # torch names no common class for what a damaged file raises
        return False
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.history = [dict(row) for row in content["history"]]
    state.best_epoch = content["best_epoch"]
    state.best_loss, state.best_weights = content["best_loss"], dict(content["best_weights"])
    state.validation_outcomes = list(content["answers"])
    return True
