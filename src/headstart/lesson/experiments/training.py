"""Fine-tuning against a clock for experiments, and the records of the models that come of it."""

from __future__ import annotations

import copy
import time
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
from headstart.heads import LinearHead
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.networks import BUILTIN
from headstart.lesson.experiments.passes import Look, accuracy_of, look, total_per_class
from headstart.runs import FitConfig
from headstart.training import predict_images, train
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

_FORWARD_SHARE = 1 / 3
"""Of a training step: the backward pass takes twice as long."""


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
        curve: (seconds, validation accuracy in percent) after each epoch.
        epochs: How many were trained, the last of them perhaps in part.
        stopped: Whether it was ended before all its epochs.
        whole: How much of the last epoch was trained, 1 for all of it.
    """

    accuracy: float
    validation_accuracy: float
    seconds: float
    curve: tuple[tuple[float, float], ...]
    epochs: int
    stopped: bool
    whole: float = 1.0

    def seconds_to(self, target: float) -> float | None:
        """Seconds until the curve first reached an accuracy in percent, or None."""
        return next((seconds for seconds, reached in self.curve if reached >= target), None)

    @property
    def per_epoch(self) -> float:
        """Median seconds of an epoch; one that was cut short counts in proportion."""
        epochs = np.diff([0.0, *(seconds for seconds, _ in self.curve)])
        epochs[-1] /= self.whole
        return float(np.median(epochs if len(epochs) == 1 or self.whole == 1.0 else epochs[:-1]))


def fit_stages(
    found: Look,
    trainable: nn.Module,
    *,
    config: FineTuneConfig,
    ends: float,
    target: float | None = None,
    head: LinearHead | None = None,
    validate: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Finished:
    """Train a trainable part from what the look holds at its depth, against a clock.

    Args:
        found: a look at the trainable part's depth.
        trainable: the fine-tuned stages; left as it is.
        config: of the training loop.
        ends: on `time.perf_counter`'s clock. An epoch that would end later is not begun, and one that does
            is left in the middle, so that the bound holds on a machine that is busy too.
        target: stop where the validation accuracy, in percent, reaches it.
        head: where the head starts; None for zeros.
        validate: False leaves validation out, so that the seconds are those of training alone.
        progress: called with (epochs done, epochs planned).
    """
    transform = pixels_to_numbers(found) if found.prepared.extraction.spec.depth == 0 else None
    train, held_out = found.cached("train"), found.cached("validation")
    one = train.read(np.zeros(1, np.int64), views=[0])
    start = head or no_head(width_of(trainable, one, transform), found.classes)
    curve: list[tuple[float, float]] = []
    batch = min(config.batch_size, len(train.labels))
    step = _warm_up(trainable, train, transform, batch=batch)
    judged = found.count("test") + found.count("validation") * (2 if validate else 1)
    clock = _Clock(ends - _FORWARD_SHARE * step * judged / batch, steps=max(1, len(train.labels) // batch))
    begun = time.perf_counter()

    def after(row: dict[str, float]) -> bool:
        reached = 100 * row.get("validation_accuracy", row["accuracy"])
        curve.append((time.perf_counter() - begun, round(reached, 2)))
        if progress is not None:
            progress(len(curve), config.epochs)
        another = curve[-1][0] - (curve[-2][0] if len(curve) > 1 else 0.0)
        return clock.after_epoch(another) or (target is not None and reached >= target)

    result = fine_tune(
        trainable,
        start,
        train,
        held_out if validate else None,
        config=config,
        input_transform=transform,
        progress=after,
        stop=clock.after_step,
    )
    test, validation = (
        accuracy_of(
            result.head.logits(
                run_fine_tuned(result.trainable, found.activations(split), input_transform=transform)
            ),
            found.labels(split),
        )
        for split in ("test", "validation")
    )
    return Finished(
        accuracy=test,
        validation_accuracy=validation,
        seconds=curve[-1][0],
        curve=tuple((round(seconds, 3), reached) for seconds, reached in curve),
        epochs=len(curve),
        stopped=len(curve) < config.epochs or clock.whole < 1,
        whole=clock.whole,
    )


class _Clock:
    """Ends a training in time: between epochs where another would be too long, else in the middle of one."""

    def __init__(self, ends: float, *, steps: int) -> None:
        self.ends, self.steps, self.taken, self.whole = ends, steps, 0, 1.0

    def after_step(self) -> bool:
        """Whether to leave the epoch here; notes how much of it was trained."""
        self.taken += 1
        if time.perf_counter() < self.ends:
            return False
        self.whole = min(1.0, self.taken / self.steps)
        return True

    def after_epoch(self, seconds: float) -> bool:
        """Whether another epoch of so many seconds would be too long."""
        self.taken = 0
        return time.perf_counter() + seconds >= self.ends


def _warm_up(
    trainable: nn.Module, images: Activations, transform: InputTransform | None, *, batch: int
) -> float:
    """Two steps of a copy: what is paid once per process is not charged to whoever is timed first.

    Returns:
        Seconds of the second.
    """
    rows = torch.from_numpy(np.ascontiguousarray(images.read(np.arange(batch), views=[0] * batch)))
    inputs = rows.float() if transform is None else transform(rows)
    trained, seconds = copy.deepcopy(trainable).train(), 0.0
    for _ in range(2):
        started = time.perf_counter()
        outputs = trained(inputs.to(memory_format=torch.channels_last) if rows.ndim == 4 else inputs)
        if outputs.requires_grad:
            outputs.sum().backward()
        seconds = time.perf_counter() - started
    return seconds


def pixels_of(work: Work, dataset: Dataset | None = None) -> Look:
    """A look at pixels, for the built-in network at the size and with the images that the parameters say."""
    per_class = work.number("images_per_class")
    network = load_backbone(BUILTIN, size=work.number("size"))
    dataset = dataset or work.images(per_class=total_per_class(per_class))
    return look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)


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


@dataclass(frozen=True)
class Model:
    """A finished model.

    Attributes:
        name: What to call it.
        accuracy: On the test images, percent.
        validation_accuracy: On the validation images, percent.
        seconds: From the images to the end of its training.
        weights: How many it has, without the head's.
    """

    name: str
    accuracy: float
    validation_accuracy: float
    seconds: float
    weights: int


def frozen_model(found: Look, name: str, *, layers: str = "last", seed: int) -> Model:
    """The look's network, frozen whole, with a ridge head on its last vector or on more (`fit --layers`)."""
    started = time.perf_counter()
    config = FitConfig(depth=found.stages, stages=found.stages, layers=layers, seed=seed).settled()
    trained = train(found.prepared, config=config)
    seconds = found.seconds + time.perf_counter() - started
    test, validation = (
        accuracy_of(
            predict_images(found.prepared, trained, images=found.prepared.images(split)), found.labels(split)
        )
        for split in ("test", "validation")
    )
    weights = sum(stage.parameters for stage in found.network.stages)
    return Model(name, test, validation, round(seconds, 3), weights)


def trained_model(work: Work, name: str, run: Finished, *, before: float, trainable: nn.Module) -> Model:
    """A model that was trained, with the seconds that passed before its training."""
    if run.stopped:
        work.notes.append(f"{name}: stopped after {run.epochs} epochs to stay within the time limit")
    weights = sum(weight.numel() for weight in trainable.parameters())
    return Model(name, run.accuracy, run.validation_accuracy, round(before + run.seconds, 3), weights)
