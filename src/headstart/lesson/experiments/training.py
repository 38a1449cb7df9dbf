"""Trainings of experiments, timed: a fit's loop, on activations that are held or computed again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.building import build
from headstart.data.dataset import Dataset
from headstart.errors import BackboneError
from headstart.heads import LinearHead, fit_ridge
from headstart.lesson.experiments.context import Seconds, Stopwatch, Work
from headstart.lesson.experiments.networks import BUILTIN
from headstart.lesson.experiments.passes import Look, accuracy_of, look, total_per_class
from headstart.training.finetune import (
    Activations,
    FineTuneConfig,
    InputTransform,
    fine_tune,
    normalise_pixels,
    run_fine_tuned,
)

Images = NDArray[Any]

BATCH = 8
"""Images per step of runs that begin with random weights or a head of zeros: few images, yet many steps."""


@dataclass(frozen=True)
class Held:
    """Activations that are held in memory: what `fine_tune` reads."""

    rows: Images
    labels: NDArray[np.int64]
    views: int = 1

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> Images:
        """Rows of some images; there is one view."""
        del views
        found: Images = self.rows[indices]
        return found


@dataclass(frozen=True)
class Computed:
    """Activations that are computed again each time they are read: what keeping them saves."""

    pixels: Images
    labels: NDArray[np.int64]
    compute: Callable[[Images], Images]
    views: int = 1

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> Images:
        """The prefix's answer to some images."""
        del views
        return self.compute(self.pixels[indices])


@dataclass(frozen=True)
class Finished:
    """A training that ended.

    Attributes:
        accuracy: On the test images, percent.
        validation_accuracy: On the validation images, percent: what a choice between trainings may go by.
        seconds: Of training, without the look at the images.
        curve: (processor seconds, validation accuracy in percent) after each epoch.
        steps: How many were made.
    """

    accuracy: float
    validation_accuracy: float
    seconds: Seconds
    curve: tuple[tuple[float, float], ...]
    steps: int

    @property
    def epochs(self) -> int:
        """How many were trained, the last perhaps in part."""
        return len(self.curve)

    def seconds_to(self, target: float) -> float | None:
        """Processor seconds until the curve first reached an accuracy in percent, or None."""
        return next((seconds for seconds, reached in self.curve if reached >= target), None)

    @property
    def per_epoch(self) -> float:
        """Median processor seconds of an epoch."""
        return float(np.median(np.diff([0.0, *(seconds for seconds, _ in self.curve)])))


def fit_stages(
    found: Look,
    trainable: nn.Module,
    *,
    config: FineTuneConfig,
    head: LinearHead | None = None,
    steps: int | None = None,
    validate: bool = True,
    progress: Callable[[int, int, float], None] | None = None,
) -> Finished:
    """Train a trainable part from what the look holds at its depth, and time it.

    Args:
        found: a look at the trainable part's depth.
        trainable: the fine-tuned stages; left as it is.
        config: of the training loop.
        head: where the head starts; None for zeros.
        steps: so many are made, whatever the epochs say: trainings on more and on fewer images are equals.
        validate: False leaves validation out, so that the seconds are those of training alone.
        progress: called with (epochs done, epochs planned, accuracy reached in percent).
    """
    transform = pixels_to_numbers(found) if found.prepared.extraction.spec.depth == 0 else None
    train, held_out = found.cached("train"), found.cached("validation")
    one = train.read(np.zeros(1, np.int64), views=[0])
    start = head or no_head(width_of(trainable, one, transform), found.classes)
    per_epoch = -(-len(train.labels) // config.batch_size)
    if steps is not None:
        config = replace(config, epochs=-(-steps // per_epoch))
    wanted = steps or per_epoch * config.epochs
    _warm_up(trainable, train, transform, batch=min(config.batch_size, len(train.labels)))
    curve: list[tuple[float, float]] = []
    watch, made = Stopwatch(), 0

    def after_step() -> bool:
        nonlocal made
        made += 1  # not asked after an epoch's last step
        return made >= wanted

    def after_epoch(row: dict[str, float]) -> bool:
        nonlocal made
        made = min(wanted, per_epoch * (len(curve) + 1))
        reached = 100 * row.get("validation_accuracy", row["accuracy"])
        curve.append((watch.seconds().processor, round(reached, 2)))
        if progress is not None:
            progress(len(curve), config.epochs, reached)
        return made >= wanted

    result = fine_tune(
        trainable,
        start,
        train,
        held_out if validate else None,
        config=config,
        input_transform=transform,
        progress=after_epoch,
        stop=after_step,
    )
    seconds = watch.seconds()
    test, validation = (
        accuracy_of(
            result.head.logits(
                run_fine_tuned(result.trainable, found.activations(split), input_transform=transform)
            ),
            found.labels(split),
        )
        for split in ("test", "validation")
    )
    rounded = tuple((round(at, 3), reached) for at, reached in curve)
    return Finished(test, validation, seconds, rounded, made)


def _warm_up(
    trainable: nn.Module, images: Activations, transform: InputTransform | None, *, batch: int
) -> None:
    """Two steps of a copy: what is paid once per process is not charged to whoever is timed first."""
    rows = torch.from_numpy(np.ascontiguousarray(images.read(np.arange(batch), views=[0] * batch)))
    inputs = rows.float() if transform is None else transform(rows)
    trained = copy.deepcopy(trainable).train()
    for _ in range(2):
        outputs = trained(inputs.to(memory_format=torch.channels_last) if rows.ndim == 4 else inputs)
        if outputs.requires_grad:
            outputs.sum().backward()


def pixels_of(work: Work, dataset: Dataset | None = None, *, seed: int = 0) -> Look:
    """A look at pixels, for the built-in network at the size and with the images that the parameters say."""
    per_class = work.number("images_per_class")
    network = load_backbone(BUILTIN, size=work.number("size"))
    dataset = dataset or work.images(per_class=total_per_class(per_class))
    return look(work, dataset, network, depths=(0,), pooled=False).limited(per_class, seed=seed)


def pixels_to_numbers(found: Look) -> InputTransform:
    """What turns pixels into what the look's network wants to see."""
    preprocess = found.network.preprocess
    return normalise_pixels(preprocess.mean, preprocess.std)


def no_head(width: int, classes: int) -> LinearHead:
    """A head that knows nothing."""
    return LinearHead("softmax", np.zeros((width, classes), np.float32), np.zeros(classes, np.float32), 1.0)


def width_of(trainable: nn.Module, rows: Images, transform: InputTransform | None) -> int:
    """How many numbers the trainable part makes of an image."""
    return int(run_fine_tuned(copy.deepcopy(trainable), rows, input_transform=transform).shape[1])


def train_ridge(found: Look) -> LinearHead:
    """The closed-form head of the frozen network, from which fine-tuning starts."""
    return fit_ridge((found.features("train"), found.labels("train")), classes=found.classes).head


def first_stages(trainable: nn.Module, count: int) -> nn.Module:
    """The first stages of a network, pooled: a shallower one."""
    parts = OrderedDict(list(copy.deepcopy(trainable).named_children())[:count])
    parts["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(parts)


def random_twin(network: Backbone, *, seed: int) -> nn.Module:
    """All stages of the same network with random weights, ready to train; its graph is never written.

    Raises:
        BackboneError: nobody knows how to make the network.
    """
    if network.recipe is None:
        raise BackboneError(
            f"backbone {network.name}: only its graph is left, so it cannot start from scratch"
        )
    recipe = replace(network.recipe, weights=None, seed=seed)
    return build(recipe, size=network.preprocess.size, name=network.name).split(0)[1]


def scratch(epochs: int, *, seed: int) -> FineTuneConfig:
    """Settings for training from random weights as `fit` would."""
    return FineTuneConfig(epochs=epochs, batch_size=BATCH, scratch=True, patience=None, seed=seed)
