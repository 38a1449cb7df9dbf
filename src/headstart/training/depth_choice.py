"""`--freeze auto`: is training deeper than the head worth it? Only if validation says so beyond its noise.

Without a budget it may take ten times the seconds that the head took, or twenty.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.building import has_timm
from headstart.backbones.runtimes import Runtime
from headstart.costs.budgets import FEWEST_EPOCHS, Budget, deeper_seconds
from headstart.errors import DatasetError, OptionError
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Callbacks
from headstart.runs.formatting import human_seconds
from headstart.training.fitting import Trained, predict_images, train
from headstart.training.preparation import Prepared, prepare

DEEPER_STAGES = 2
"""Stages that are fine-tuned: the last ones are the least general, and most of the gain is theirs."""

FEWEST_IMAGES = 30
"""Validation images below which one image more or less is a difference of several points."""

_LEAST = 1e-30
"""Stands for a probability of nothing, whose logarithm nobody could compare."""

HEAD_KEPT = "the head alone is kept: "
"""How a run's note begins whose deeper training took its time and was not kept."""


def deeper_config(config: FitConfig, backbone: Backbone, *, epochs: int, validation_images: int) -> FitConfig:
    """The same training with the last stages fine-tuned.

    Args:
        config: of the training of a head, settled.
        backbone: the network.
        epochs: of the deeper training.
        validation_images: to judge it by.

    Raises:
        OptionError: it cannot be made or judged; says why.
    """
    if backbone.recipe is None:
        raise OptionError(
            f"the stages of {backbone.name}, a finished graph, stay frozen; fine-tuned are timm's names, and "
            "Keras models by headstart.keras.fit"
        )
    if not has_timm():
        raise OptionError("training deeper needs PyTorch (pip install 'headstart[torch]')")
    if validation_images < FEWEST_IMAGES:
        raise OptionError(f"{validation_images} validation images are too few to tell whether more is better")
    depth = max(0, len(backbone.stages) - DEEPER_STAGES)
    return replace(config, depth=depth, epochs=epochs, layers=None)


def try_deeper(
    prepared: Prepared, trained: Trained, *, epochs: int, runtime: Runtime, budget: Budget, watch: Callback
) -> tuple[Prepared, Trained, tuple[str, ...]]:
    """Fine-tune the last stages too, and keep whichever training validation says is better.

    Returns:
        What is kept, and a note that says why.
    """
    limit, begun = budget, budget.elapsed
    if budget.seconds is None:
        limit = Budget(deeper_seconds(begun))
        watch = Callbacks([limit, watch])
    try:
        config = _affordable(prepared, trained, epochs=epochs, runtime=runtime, budget=limit)
    except OptionError as error:
        budget.cut_short = True
        return prepared, trained, (f"the head alone is trained: {error}",)
    backbone = prepared.extraction.backbone
    try:
        again = prepare(
            prepared.dataset, backbone, config=config, runtime=runtime, watch=watch, place=prepared.place
        )
        deeper = train(again, config=config, watch=watch)
    except (DatasetError, OptionError) as error:  # no room for maps, a rate too high: the head is there
        budget.cut_short = True
        return prepared, trained, (f"{HEAD_KEPT}{error}",)
    if len(again.dataset) != len(prepared.dataset):
        return prepared, trained, (f"{HEAD_KEPT}the deeper training did not get to all images in time",)
    stages = ", ".join(each.name for each in backbone.stages[config.depth :])
    name = f"fine-tuning {stages} ({len(deeper.history)} epochs, {human_seconds(budget.elapsed - begun)})"
    verdict = judge(_outcomes(prepared, trained), _outcomes(again, deeper), name=name)
    kept = (again, deeper) if verdict.deeper else (prepared, trained)
    return *kept, (verdict.reason,)


def _affordable(
    prepared: Prepared, trained: Trained, *, epochs: int, runtime: Runtime, budget: Budget
) -> FitConfig:
    """The deeper training's config, as far as there is time for it."""
    backbone, dataset = prepared.extraction.backbone, prepared.dataset
    validation = len(prepared.images("validation"))
    asked = deeper_config(trained.config, backbone, epochs=epochs, validation_images=validation)
    said = budget.notes
    try:
        config, kept, _ = budget.fit_into(asked, dataset, backbone, runtime=runtime)
    except OptionError:
        config, kept = replace(asked, epochs=0), dataset
    if len(kept) < len(dataset) or (config.epochs or 0) < min(epochs, FEWEST_EPOCHS):
        budget.notes = said  # what it would have cut of a training that will not be
        given = human_seconds(budget.seconds or 0)
        raise OptionError(
            f"{FEWEST_EPOCHS} epochs of anything deeper take longer than {given}; give --budget more"
        )
    return config


def _outcomes(prepared: Prepared, trained: Trained) -> NDArray[np.float32]:
    """What a training says of the validation images, in the order of their content; see `judge`.

    Of a training in epochs, without the luck of the one that did best on these images.
    """
    images = prepared.images("validation")
    order = np.argsort([prepared.extraction.hashes[i] or b"" for i in images], kind="stable")
    labels = prepared.labels(images)
    if trained.validation_outcomes is not None:
        return cross_validated_outcomes(trained.validation_outcomes[:, :, order], labels[order])
    import torch

    from headstart.training.finetune import outcomes

    probabilities = predict_images(prepared, trained, images=images[order])
    found: NDArray[np.float32] = outcomes(
        torch.from_numpy(probabilities).clamp_min(_LEAST).log(), labels[order]
    ).numpy()
    return found


@dataclass(frozen=True)
class Judgement:
    """Whether the deeper training is kept, and why in plain words."""

    deeper: bool
    gain: float  # in accuracy
    reason: str


def judge(head: NDArray[np.float32], deeper: NDArray[np.float32], *, name: str) -> Judgement:
    """Compare two classifiers on the same validation images, by their calibrated losses.

    A loss tells more of each image than right or wrong: of two points of accuracy on a hundred images nobody
    can say that they are not chance. So the loss must be lower by more than one standard error of the paired
    difference, and the accuracy not lower.

    Args:
        head: of the frozen network with a head, float32 [2, N]: right (1) or wrong (0), and the loss.
        deeper: of the one with fine-tuned stages; see `cross_validated_outcomes`.
        name: what was trained, for the reason.
    """
    gain = float(deeper[0].mean() - head[0].mean())
    saved = head[1].astype(np.float64) - deeper[1]
    error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else np.inf
    kept = bool(saved.mean() > error and gain >= 0)
    numbers = (
        f"{100 * gain:+.1f} points on {len(saved)} validation images, "
        f"loss {head[1].mean():.3f} to {deeper[1].mean():.3f} (standard error {error:.3f})"
    )
    return Judgement(
        kept, gain, f"{name} is kept: {numbers}" if kept else f"{HEAD_KEPT}{name} gives {numbers}"
    )


def cross_validated_outcomes(outcomes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a training says of validation images whose epoch was chosen on other images, float32 [2, N].

    A training keeps the epoch that does best on these very images, and of many noisy scores the best is good
    by luck too. So the images are halved, class by class, and each half is judged at the epoch that is best
    on the other one (two-fold cross-validation: Stone, "Cross-validatory choice and assessment of statistical
    predictions", Journal of the Royal Statistical Society B 36, 1974).

    Args:
        outcomes: of each epoch, float32 [epochs, 2, N]: right (1) or wrong (0), and the loss.
        labels: class indices, [N]; images of a class alternate between the halves in this order.
    """
    rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    first = rank % 2 == 0
    found: NDArray[np.float32] = np.zeros_like(outcomes[0])
    for half in (first, ~first):
        best = outcomes[:, 1, ~half].mean(axis=1).argmin()  # as the training chooses
        found[:, half] = outcomes[best][:, half]
    return found
