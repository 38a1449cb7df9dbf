"""Trains what is not frozen: a ridge or softmax head alone, or fine-tuned stages with it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart import heads
from headstart.backbones import Backbone
from headstart.data.images import CENTRE, View
from headstart.features.shards import ShardedExtraction
from headstart.files import cache_folder
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.runs.formatting import percent
from headstart.training.decisions import decision_notes, read_costs, with_config_priors
from headstart.training.layer_features import batches, can_leave_out, choose_layers, layer_widths
from headstart.training.preparation import Prepared

if TYPE_CHECKING:
    from headstart.training.finetune import FineTuneConfig, InputTransform

_ARRAY_BYTES = 1 << 29
"""Features beyond this many bytes are streamed from the cache instead of being held in memory."""

_PARTS_PER_WORKER, _MOST_PARTS = 2, 256
"""So that workers end at about the same time; each part sends its matrices, 13 MB of 1,280 features."""

_ROWS_PER_CHUNK = 1024
_MAPS_PER_CHUNK = 64


@dataclass(frozen=True)
class Trained:
    """What training gave: a head and, where stages were fine-tuned, the network with its new weights."""

    config: FitConfig  # what was asked of this training, settled
    head: heads.LinearHead
    layers: tuple[str, ...] | None = None
    history: tuple[dict[str, Any], ...] = ()
    fit: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    costs: NDArray[np.float64] | None = None  # of mistakes, [C, C]; None where the likeliest class is called
    trainable: Any = None  # torch.nn.Module, in eval mode; None where only the head was trained
    uses_rng: bool = False  # whether its epochs drew PyTorch's random numbers, see `TailResult`
    validation_outcomes: NDArray[np.float32] | None = (
        None  # of each epoch about each validation image, see there
    )


@dataclass(frozen=True)
class Start:
    """Where a training of fine-tuned stages begins. Training changes neither part, so several may share it.

    Attributes:
        trainable: the fine-tuned stages (torch.nn.Module), as pre-trained, or random.
        head: fitted on what the frozen network computes; zeros where that knows nothing yet.
        logits: what the two say of the validation images (torch.Tensor); None lets the training compute it.
    """

    trainable: Any
    head: Trained
    logits: Any = None


def train(
    prepared: Prepared,
    *,
    config: FitConfig,
    watch: Callback | None = None,
    start: Start | None = None,
    resumable: bool = True,
) -> Trained:
    """Train the head and, where the depth leaves stages fine-tuned, those too.

    Args:
        prepared: the images, looked at.
        config: the training, settled.
        watch: told of the phases ``train`` and ``epochs``; may end the training after an epoch.
        start: what `starting_point` gives, for trainings that share it.
        resumable: go on where a killed training with the same settings had come to; its seconds are then
            those of the rest.
    """
    watch = watch or Callback()
    watch.on_phase_begin("train")
    if config.fine_tuned:
        start = start or starting_point(prepared, prepared.extraction.backbone, config=config)
        trained = _fine_tune(prepared, start, config=config, watch=watch, resumable=resumable)
    elif config.head == "softmax":
        trained = _train_softmax(prepared, config=config, watch=watch)
    else:
        trained = train_ridge(prepared, config=config)
    trained = _decided(trained, prepared, config=config)
    watch.on_phase_end("train", trained)
    return trained


def _decided(trained: Trained, prepared: Prepared, *, config: FitConfig) -> Trained:
    """What was trained, with the costs and priors that its config names."""
    if config.costs is None and config.priors is None:
        return trained
    classes, train = prepared.dataset.classes, prepared.images("train")
    weights = prepared.weights(train) if prepared.weighted else None
    return replace(
        trained,
        head=with_config_priors(
            trained.head, config=config, classes=classes, labels=prepared.labels(train), weights=weights
        ),
        costs=None if config.costs is None else read_costs(config.costs, classes),
        notes=(*trained.notes, *decision_notes(config)),
    )


def train_ridge(prepared: Prepared, *, config: FitConfig) -> Trained:
    """A ridge head on features of a network that is frozen whole, in closed form."""
    chosen, choice = _layers(prepared, config)
    fitted, rows = fit_ridge(
        prepared, prepared.images("train"), layers=chosen, class_weights=config.class_weights
    )
    facts: dict[str, Any] = {
        "penalty": fitted.penalty,
        "loo_accuracy": fitted.loo_accuracy if can_leave_out(_labels(prepared)) else None,
        "rows": rows,
        "dimensions": int(fitted.head.weight.shape[0]),
        "temperature": fitted.head.temperature,
    }
    if choice is not None:
        facts["layers"] = asdict(choice)
    classes = len(prepared.dataset.classes)
    notes = (
        () if choice is None else (_sentence(choice, read=chosen, classes=classes, told=prepared.task.told),)
    )
    if config.layers == "auto" and choice is None:
        notes = ("features: last layer; too few classes have two training images to compare others",)
    trained = Trained(config, fitted.head, layers=chosen, fit=facts, notes=notes)
    held_out = prepared.images("validation")
    found = partial(predict_images, prepared, trained, images=held_out)
    return replace(trained, head=prepared.task.decided(fitted.head, found, prepared.labels(held_out)))


def fit_ridge(
    prepared: Prepared,
    images: NDArray[np.int64],
    *,
    layers: tuple[str, ...] | None,
    class_weights: str | None,
) -> tuple[heads.RidgeFit, int]:
    """The ridge head on every view of these images, and how many rows that were.

    Leaving a row out says nothing while another view of the same image stays in, so with several views the
    penalty, the temperature and the leave-one-out accuracy come from the first view alone.
    """
    views = prepared.extraction.spec.views
    options: dict[str, Any] = {
        "classes": len(prepared.dataset.classes),
        "class_weights": class_weights,
        "block_widths": layer_widths(prepared.extraction, layers),
        "task": _head_task(prepared),
    }
    data, rows = _training_features(prepared, images, layers=layers, views=views[:1])
    fitted = heads.fit_ridge(data, **options)
    if len(views) == 1:
        return fitted, rows
    data, rows = _training_features(prepared, images, layers=layers, views=views)
    widened = heads.fit_ridge(data, penalties=[fitted.penalty], **options)
    return replace(fitted, head=prepared.task.widened(widened.head, fitted.head)), rows


def _layers(prepared: Prepared, config: FitConfig) -> tuple[tuple[str, ...] | None, heads.LayerChoice | None]:
    if not config.layers or isinstance(config.layers, tuple):  # decided already
        return config.layers or None, None
    return choose_layers(
        prepared.extraction,
        prepared.images("train"),
        _head_labels(prepared, prepared.images("train")),
        layers=config.layers,
        classes=len(prepared.dataset.classes),
        class_weights=config.class_weights,
        task=_head_task(prepared),
    )


def _head_task(prepared: Prepared) -> heads.Task:
    """What a ridge head is told to predict: with weights where images have such."""
    return heads.Weighted() if prepared.weighted else prepared.task


def _head_labels(prepared: Prepared, images: NDArray[np.int64]) -> NDArray[Any]:
    """Labels of some images as that task has them."""
    labels = prepared.labels(images)
    return heads.weighted_labels(labels, prepared.weights(images)) if prepared.weighted else labels


def _labels(prepared: Prepared) -> NDArray[Any]:
    """Of the training images."""
    return prepared.labels(prepared.images("train"))


def _sentence(
    choice: heads.LayerChoice,
    *,
    read: tuple[str, ...] | None,
    classes: int,
    told: Callable[[float], str] = percent,
) -> str:
    """The choice of layers and its margin, for people; ``read`` is None for the last layer alone."""
    last = told(choice.last_loo_accuracy)
    few = choice.classes < classes
    where = f"; compared on {choice.images} images of {choice.classes} classes" if few else ""
    if read is None:
        best = max(choice.table, key=lambda row: row.accuracy)
        rest = f"no other is better by more than noise, best {told(best.accuracy)}"
        return f"features: last layer; leave-one-out {last} ({rest}){where}"
    accuracy, count = told(choice.loo_accuracy), len(choice.layers)
    named = choice.layers[0] if count == 1 else f"{count} layers"
    return f"features: {named}; leave-one-out {accuracy} (last layer {last}){where}"


def _training_features(
    prepared: Prepared, train: NDArray[np.int64], *, layers: tuple[str, ...] | None, views: Sequence[View]
) -> "tuple[heads.Batches | heads.Parts | tuple[NDArray[np.float32], NDArray[Any]], int]":
    """These views of some images: arrays where they fit in memory, else a stream from the cache.

    Where others computed them and see them, they are walked there, in parts.
    """
    extraction = prepared.extraction
    own = _head_labels(prepared, train)
    rows = len(train) * len(views)
    width = sum(layer_widths(extraction, layers))
    if isinstance(extraction, ShardedExtraction) and extraction.seen_by_all and prepared.place.workers > 1:
        cut = extraction.parts(min(_MOST_PARTS, _PARTS_PER_WORKER * prepared.place.workers))
        return heads.Parts(
            tuple(_walks(cut, train, own, layers=layers, views=views)), prepared.place.map
        ), rows
    stream = partial(batches, extraction, train, own, layers=layers, views=views)
    if 4 * rows * width > _ARRAY_BYTES:
        return stream, rows
    features = np.empty((rows, width), np.float32)
    labels = np.empty((rows, *own.shape[1:]), own.dtype)
    start = 0
    for x, y in stream():
        features[start : start + len(y)], labels[start : start + len(y)] = x, y
        start += len(y)
    return (features, labels), rows


def _walks(
    parts: Sequence[tuple[int, ShardedExtraction]],
    train: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    layers: tuple[str, ...] | None,
    views: Sequence[View],
) -> Iterator[heads.Batches]:
    """Of each part that has images to train on, its place and features, a walk that can be sent away."""
    for first, extraction in parts:
        here = (train >= first) & (train < first + len(extraction.hashes))
        if here.any():
            yield partial(batches, extraction, train[here] - first, labels[here], layers=layers, views=views)


def _train_softmax(prepared: Prepared, *, config: FitConfig, watch: Callback) -> Trained:
    train, held_out = prepared.images("train"), prepared.images("validation")
    views = prepared.extraction.spec.views
    features = np.concatenate([prepared.extraction.features(train, view=view) for view in views])
    validation = (prepared.extraction.features(held_out, view=CENTRE), prepared.labels(held_out))
    watch.on_phase_begin("epochs")
    fitted = heads.fit_softmax(
        features,
        np.tile(prepared.labels(train), len(views)),
        classes=len(prepared.dataset.classes),
        epochs=config.epochs or 1,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate or 1e-3,
        seed=config.seed,
        validation=validation if len(held_out) else None,
        class_weights=config.class_weights,
        image_weights=np.tile(prepared.weights(train), len(views)) if prepared.weighted else None,
        progress=_by_epoch(watch, epochs=config.epochs or 1),
    )
    watch.on_phase_end("epochs", fitted)
    return Trained(config, fitted.head, history=tuple(fitted.history), fit={"rows": len(features)})


def _by_epoch(watch: Callback, *, epochs: int) -> Callable[[Mapping[str, Any]], bool]:
    """What the training loops call after an epoch: tells of it, and says whether that was enough."""

    def after(entry: Mapping[str, Any]) -> bool:
        watch.on_progress("epochs", int(entry["epoch"]), epochs)
        return watch.on_epoch_end(entry) is True

    return after


def starting_point(prepared: Prepared, backbone: Backbone, *, config: FitConfig) -> Start:
    """The fine-tuned stages with the backbone's weights, and the head they start from."""
    head = initial_head(prepared, backbone, config=config)
    return Start(backbone.module().after(config.depth), head)


def with_logits(start: Start, prepared: Prepared, *, config: FitConfig) -> Start:
    """The same start, which knows what it says of the validation images, for trainings that share it."""
    from headstart.training.finetune import start_logits

    if not config.pretrained or not len(prepared.images("validation")):
        return start  # not asked for
    logits = start_logits(
        start.trainable,
        start.head.head,
        CachedActivations(prepared, split="validation"),
        config=fine_tune_config(config, prepared),
        input_transform=_input_transform(prepared, config.depth),
    )
    return replace(start, logits=logits)


def _fine_tune(
    prepared: Prepared, start: Start, *, config: FitConfig, watch: Callback, resumable: bool
) -> Trained:
    """Train the stages behind the cut from what the frozen part computed for each image, once."""
    from headstart.training.finetune import fine_tune

    checkpoint = _checkpoint(prepared, config=config) if resumable else None
    watch.on_phase_begin("epochs")
    result = fine_tune(
        start.trainable,
        start.head.head,
        CachedActivations(prepared, split="train"),
        CachedActivations(prepared, split="validation") if len(prepared.images("validation")) else None,
        config=fine_tune_config(config, prepared),
        input_transform=_input_transform(prepared, config.depth),
        checkpoint=checkpoint,
        progress=_by_epoch(watch, epochs=config.epochs or 1),
        start_logits=start.logits,
    )
    watch.on_phase_end("epochs", result)
    if checkpoint is not None:
        with suppress(OSError):  # a cache that can only be read has none
            checkpoint.unlink()
    facts = {**start.head.fit, "best_epoch": result.best_epoch, "tail_precision": result.precision}
    return Trained(
        config,
        result.head,
        history=result.history,
        fit=facts,
        trainable=result.trainable,
        uses_rng=result.uses_rng,
        validation_outcomes=result.validation_outcomes,
    )


def _input_transform(prepared: Prepared, depth: int) -> "InputTransform | None":
    """At depth 0 what is cached are pixels, which the trainable part wants normalised."""
    if depth:
        return None
    from headstart.training.finetune import normalise_pixels

    preprocess = prepared.extraction.backbone.preprocess
    return normalise_pixels(preprocess.mean, preprocess.std)


def initial_head(prepared: Prepared, backbone: Backbone, *, config: FitConfig) -> Trained:
    """The ridge head of the frozen network, or zeros where the network knows nothing yet."""
    if config.pretrained:
        return train_ridge(prepared, config=replace(config, head="ridge", layers=None))
    shape = (backbone.dimensions, len(prepared.dataset.classes))
    zeros = heads.LinearHead("softmax", np.zeros(shape, np.float32), np.zeros(shape[1], np.float32), 1.0)
    return Trained(config, zeros)


def fine_tune_config(config: FitConfig, prepared: Prepared) -> "FineTuneConfig":
    """The training loop's settings for a run; what the run leaves open keeps the loop's default."""
    from headstart.training.finetune import FineTuneConfig

    weights = None
    if config.class_weights == "balanced":
        counts = np.bincount(
            prepared.labels(prepared.images("train")), minlength=len(prepared.dataset.classes)
        )
        weights = tuple(float(share) for share in counts.sum() / (len(counts) * counts))
    return FineTuneConfig(
        epochs=config.epochs or 1,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        class_weights=weights,
        scratch=not config.pretrained,
        seed=config.seed,
    )


def _checkpoint(prepared: Prepared, *, config: FitConfig) -> Path:
    """Where a killed training left off: named by everything that decides its course."""
    content = hashlib.blake2b(digest_size=12)
    content.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    content.update(prepared.extraction.backbone.weights_hash.encode())
    for found, split in zip(prepared.extraction.hashes, prepared.splits, strict=True):
        content.update((found or b"") + str(split).encode())
    return cache_folder() / "checkpoints" / content.hexdigest()


class CachedActivations:
    """What the frozen part computed for a split's images, read from the feature cache."""

    def __init__(self, prepared: Prepared, *, split: str) -> None:
        self._extraction = prepared.extraction
        self._images = prepared.images(split)
        self._views = prepared.extraction.spec.views if split == "train" else (CENTRE,)
        self.labels = prepared.labels(self._images)
        self.views = len(self._views)

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[Any]:
        """Activations of some of the split's images, each in the view of the same position in ``views``."""
        wanted = np.asarray(views)
        rows: NDArray[Any] | None = None
        for number in np.unique(wanted):
            at = np.flatnonzero(wanted == number)
            found = self._extraction.activations(self._images[indices[at]], view=self._views[number])
            if rows is None:
                rows = np.empty((len(indices), *found.shape[1:]), found.dtype)
            elif found.dtype.itemsize > rows.dtype.itemsize:  # a value of this view needs single precision
                rows = rows.astype(found.dtype)
            rows[at] = found
        return rows if rows is not None else np.zeros((0,), np.float32)


# ------------------------------------------------------------------------------------------ afterwards


def predict_images(prepared: Prepared, trained: Trained, *, images: NDArray[np.int64]) -> NDArray[np.float32]:
    """Probabilities [n, C] of some samples, from what is cached."""
    parts = [trained.head.probabilities(found) for found in _head_features(prepared, trained, images=images)]
    return np.concatenate(parts) if parts else np.zeros((0, len(prepared.dataset.classes)), np.float32)


def familiarity(prepared: Prepared, trained: Trained) -> "heads.Familiarity | None":
    """What the head's features tell of how familiar an image is; None where too few images are held out.

    Validation images are what is measured against. Where they are few, training images are, each by others,
    if the network has not been trained on them.
    """

    def features(images: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.concatenate(list(_head_features(prepared, trained, images=images)))

    held_out = prepared.images("validation")
    if len(held_out) < heads.FEWEST_KNOWN and trained.trainable is not None:
        return None
    train = prepared.images("train")
    labels = prepared.labels(train)
    if not prepared.task.one_of:  # no classes to be near: what counts is what lies outside of all images
        labels = np.zeros(len(train), np.int64)
    few = heads.even_sample(labels)
    train, labels = train[few], labels[few]
    widths = [len(trained.head.weight)]
    if trained.trainable is None and trained.layers:
        widths = layer_widths(prepared.extraction, trained.layers)
    enough = len(held_out) >= heads.FEWEST_KNOWN
    return heads.fit_familiarity(
        features(train),
        labels,
        widths=widths,
        held_out=features(heads.evenly(held_out)) if enough else None,
    )


def _head_features(
    prepared: Prepared, trained: Trained, *, images: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """What the head reads of some samples, [n, D], a bounded number at once."""
    size = _ROWS_PER_CHUNK if trained.trainable is None else _MAPS_PER_CHUNK  # a map may have a megabyte
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        if trained.trainable is None:
            yield prepared.extraction.features(chunk, layers=trained.layers, view=CENTRE)
        else:
            from headstart.training.finetune import run_fine_tuned

            yield run_fine_tuned(
                trained.trainable,
                prepared.extraction.activations(chunk, view=CENTRE),
                input_transform=_input_transform(prepared, prepared.extraction.spec.depth),
            )


def fine_tuned_graph(backbone: Backbone, trained: Trained, *, depth: int, path: Path) -> Path:
    """The staged ONNX file of a network whose stages behind the cut have new weights."""
    from headstart.backbones.tracing import export_staged

    module = backbone.module().joined(trained.trainable, depth=depth)
    export_staged(module, path, size=backbone.preprocess.size)
    return path
