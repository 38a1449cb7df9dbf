"""One look at the images by one network, from an empty cache, so that its seconds are worth something."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime, select
from headstart.comparisons.subsets import limit_images
from headstart.data.dataset import Dataset
from headstart.data.images import CENTRE, parse_views
from headstart.errors import DatasetError
from headstart.features import FeatureSpec, extract
from headstart.heads import metrics
from headstart.lesson.experiments.context import Seconds, Work
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callbacks, PhaseTimer, ProgressFunction
from headstart.training import Prepared, prepare
from headstart.training.fitting import CachedActivations

if TYPE_CHECKING:
    from headstart.training.finetune import Activations

VALIDATION, TEST = 0.2, 0.3
"""Shares held out: more than a fit takes, because an experiment's images are few."""

TRAIN = 1 - VALIDATION - TEST

_WARM_UP = 2
"""Images that compile the network before the clock starts, as that is done once per machine."""


@dataclass(frozen=True)
class Look:
    """What one network made of the images.

    Attributes:
        network: The backbone.
        prepared: Features cached, splits drawn.
        runtime: What computed them.
        seconds: Of decoding and computing, for all images, from an empty cache.
    """

    network: Backbone
    prepared: Prepared
    runtime: Runtime
    seconds: Seconds

    @property
    def stages(self) -> int:
        """How many stages the network has."""
        return len(self.network.stages)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.prepared.dataset.classes)

    def at(self, depth: int) -> Look:
        """The same look for a job that freezes so many stages; the depth must have been among the cuts."""
        return replace(self, prepared=replace(self.prepared, extraction=self.prepared.extraction.at(depth)))

    def limited(self, per_class: int, *, seed: int = 0) -> Look:
        """With at most so many training images of each class; the seed says which."""
        return replace(self, prepared=limit_images(self.prepared, per_class=per_class, seed=seed))

    def labels(self, split: str) -> NDArray[np.int64]:
        """Labels [n] of a split."""
        return self.prepared.labels(self.prepared.images(split))

    def features(self, split: str, *, layers: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Features [n, D] of a split, in the centre view."""
        return self.prepared.extraction.features(self.prepared.images(split), layers=layers, view=CENTRE)

    def activations(self, split: str) -> NDArray[Any]:
        """Maps at the cut [n, ...] of a split, in the centre view; pixels at depth 0."""
        return self.prepared.extraction.activations(self.prepared.images(split), view=CENTRE)

    def cached(self, split: str) -> Activations:
        """What the training loop reads: maps at the cut, from the feature cache, in all views."""
        return CachedActivations(self.prepared, split=split)

    def count(self, split: str) -> int:
        """Images of a split."""
        return len(self.prepared.images(split))


def total_per_class(training: int) -> int:
    """Images of a class, all splits together, of which so many are for training."""
    return int(np.ceil(training / TRAIN))


def look(
    work: Work,
    dataset: Dataset,
    network: Backbone,
    *,
    depths: Sequence[int] = (),
    pooled: bool = True,
    layers: bool = False,
    views: int | str = 1,
) -> Look:
    """Look at every image once.

    Args:
        work: the experiment.
        dataset: its images.
        network: the backbone.
        depths: below all, the cuts whose maps are wanted; 0 for pixels.
        pooled: the last vector is wanted; False where nothing is pre-trained.
        layers: the pooled maps of all stages are wanted too.
        views: renderings of each image.

    Raises:
        DatasetError: too few images for a training, a validation and a test split.
    """
    runtime = select()
    cuts = sorted(set(depths), reverse=True)
    spec = FeatureSpec(
        depth=cuts[0] if cuts else len(network.stages),
        views=parse_views(views),
        pooled=pooled,
        layers=layers,
        also=tuple(cuts[1:]),
    )
    extract(dataset.samples[:_WARM_UP], network, spec=spec, runtime=runtime, cache=work.new_cache())
    processor, clock = PhaseTimer(clock=time.process_time), PhaseTimer()
    watch = Callbacks([processor, clock, ProgressFunction(work.tell)])
    prepared = prepare(
        dataset,
        network,
        config=FitConfig(validation=VALIDATION, test=TEST),
        spec=spec,
        runtime=runtime,
        cache=work.new_cache(),
        watch=watch,
    )
    for side in ("train", "validation", "test"):
        if not len(prepared.images(side)):
            raise DatasetError(
                f"{dataset.name}: no {side} images in {len(dataset.samples)}; an experiment needs at least "
                "ten images of each class"
            )
    seconds = Seconds(processor.seconds["features"], clock.seconds["features"])
    return Look(network, prepared, runtime, seconds)


def accuracy_of(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of right answers, percent."""
    return round(100 * float((scores.argmax(axis=1) == labels).mean()), 2)


def spread_of(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy in percent."""
    low, high = metrics.wilson_interval(round(accuracy * images / 100), images)
    return round(100 * low, 1), round(100 * high, 1)
