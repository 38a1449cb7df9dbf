"""`--freeze auto`: is training deeper than the head worth it? Only if validation says so beyond its noise."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.building import has_timm
from headstart.backbones.runtimes import Runtime
from headstart.costs.budgets import PATIENCE, Budget
from headstart.errors import DatasetError, OptionError
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.runs.formatting import human_seconds
from headstart.training.fitting import Trained, predict_images, train
from headstart.training.preparation import Prepared, prepare

DEEPER_STAGES = 2
"""Stages that are fine-tuned: the last ones are the least general, and most of the gain is theirs."""

_FEWEST_EPOCHS = 3
"""A deeper training of fewer epochs says little."""

FEWEST_IMAGES = 30
"""Validation images below which one image more or less is a difference of several points."""

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
    try:
        config = _affordable(prepared, trained, epochs=epochs, runtime=runtime, budget=budget)
    except OptionError as error:
        budget.cut_short = True
        return prepared, trained, (f"the head alone is trained: {error}",)
    backbone = prepared.extraction.backbone
    try:
        again = prepare(prepared.dataset, backbone, config=config, runtime=runtime, watch=watch)
        deeper = train(again, config=config, watch=watch)
    except (DatasetError, OptionError) as error:  # no room for maps, a rate too high: the head is there
        budget.cut_short = True
        return prepared, trained, (f"{HEAD_KEPT}{error}",)
    if len(again.dataset) != len(prepared.dataset):
        return prepared, trained, (f"{HEAD_KEPT}the deeper training did not get to all images in time",)
    stages = ", ".join(each.name for each in backbone.stages[config.depth :])
    verdict = judge(_right(prepared, trained), _right(again, deeper), name=f"fine-tuning {stages}")
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
        config, kept, cost = budget.fit_into(asked, dataset, backbone, runtime=runtime)
    except OptionError:
        raise OptionError("nothing deeper fits into the budget") from None
    if len(kept) < len(dataset) or (config.epochs or 0) < min(epochs, _FEWEST_EPOCHS):
        budget.notes = said  # what it would have cut of a training that will not be
        raise OptionError("too little of the budget is left for anything deeper")
    if budget.seconds is None and cost.seconds > PATIENCE:
        seconds = human_seconds(cost.seconds)
        raise OptionError(f"anything deeper would take about {seconds}; --budget allows it")
    return config


def _right(prepared: Prepared, trained: Trained) -> NDArray[np.bool_]:
    """Which validation images a training got right, in the order of their content.

    Of a training in epochs, without the luck of the one that did best on these images.
    """
    images = prepared.images("validation")
    order = np.argsort([prepared.extraction.hashes[i] or b"" for i in images], kind="stable")
    labels = prepared.labels(images)
    if trained.validation_outcomes is not None:
        return cross_validated_outcomes(trained.validation_outcomes[:, :, order], labels[order])
    probabilities = predict_images(prepared, trained, images=images[order])
    found: Any = probabilities.argmax(axis=1) == labels[order]
    return np.asarray(found, dtype=bool)


@dataclass(frozen=True)
class Judgement:
    """Whether the deeper training is kept, and why in plain words."""

    deeper: bool
    gain: float
    standard_error: float
    reason: str


def judge(head: NDArray[np.bool_], deeper: NDArray[np.bool_], *, name: str) -> Judgement:
    """Compare two classifiers on the same validation images.

    Args:
        head: which images the frozen network with a head got right, [N].
        deeper: which the one with fine-tuned stages got right, [N]; see `cross_validated_outcomes`.
        name: what was trained, for the reason.
    """
    difference = deeper.astype(np.float64) - head.astype(np.float64)
    gain = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.inf
    kept = gain > error
    points = f"{100 * gain:+.1f} points on {len(head)} validation images, standard error {100 * error:.1f}"
    reason = f"{name} is kept: {points}" if kept else f"{HEAD_KEPT}{name} gives {points}"
    return Judgement(kept, gain, error, reason)


def cross_validated_outcomes(outcomes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which validation images a training gets right whose epoch was chosen on other images, bool [N].

    A training keeps the epoch that does best on these very images, and of many noisy scores the highest is
    high by luck too. So the images are halved, class by class, and each half is judged at the epoch that is
    best on the other one (two-fold cross-validation: Stone, "Cross-validatory choice and assessment of
    statistical predictions", Journal of the Royal Statistical Society B 36, 1974).

    Args:
        outcomes: of each epoch, float32 [epochs, 2, N]: right (1) or wrong (0), and the loss.
        labels: class indices, [N]; images of a class alternate between the halves in this order.
    """
    rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    first = rank % 2 == 0
    found = np.zeros(len(labels), bool)
    for half in (first, ~first):
        accuracy, loss = outcomes[:, :, ~half].mean(axis=2).T
        best = np.lexsort((loss, -accuracy))[0]  # as the training chooses: ties go to the smaller loss
        found[half] = outcomes[best, 0, half] > 0
    return found
