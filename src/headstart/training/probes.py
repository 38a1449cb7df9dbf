"""Looks at some of the images: the features of a backbone, and the head on them, each image left out once."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from headstart import heads
from headstart.backbones.runtimes import Runtime
from headstart.costs import CostEstimate, ImageCounts, Timings, Workload
from headstart.costs.budgets import beginning, interleaved
from headstart.costs.observed import of_features
from headstart.costs.timings import remember
from headstart.data.dataset import Dataset, Sample, content_hash
from headstart.data.images import CENTRE
from headstart.data.splits import assign_splits
from headstart.errors import DatasetError, ImageError
from headstart.features import Extraction, FeatureCache, FeatureSpec, extract
from headstart.files import cache_folder
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Callbacks, Clock, PhaseTimer
from headstart.runs.store import Timing
from headstart.training.contenders import Contender
from headstart.training.expected_accuracy import Expectations, Probe, expectations
from headstart.training.layer_features import batches, choose_layers, layer_widths
from headstart.training.resolving import resolve

FIRST_IMAGES = (10, 72, 240)
"""Of the first look: so many a class, but at least and at most so many in all."""

_LEAST_PER_CLASS = 2
"""However many classes there are: of an image alone in its class nothing can be left out."""

_MOST_HITS = 0.1
"""Images that were cached already, over those computed, up to which a look says what computing takes."""

_ONCE_SPREAD = 0.25
"""How far seconds may be off that rest on one look: standard deviation of their logarithm."""

_HEAD = CostEstimate({"features": 0.2}, 0.5)
"""Fitting a head on what a look gave, its layers chosen."""


class TimeIsUp(Exception):
    """The time for looks is up in the middle of one, which is given up; the features so far stay cached."""


@dataclass
class Probing(Callback):
    """What looks at one data set share.

    Attributes:
        dataset: the labelled images.
        config: of the training that is to be chosen or planned.
        runtime: what executes the networks.
        watch: told of progress.
        clock: seconds; a test passes its own.
        allowance: seconds since this was made, after which a look is given up.
        timings: what this machine took before, and in the looks so far.
    """

    dataset: Dataset
    config: FitConfig
    runtime: Runtime
    watch: Callback = field(default_factory=Callback)
    clock: Clock = time.perf_counter
    allowance: float | None = None
    timings: Timings = field(default_factory=Timings.load)
    _begun: float = field(init=False)
    _seen: list[Timing] = field(default_factory=list)
    _parts: dict[int, Dataset] = field(default_factory=dict)  # by the number of images asked for

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return self.clock() - self._begun

    def leaves(self, seconds: float = 0.0) -> bool:
        """Whether so much more is allowed."""
        return self.allowance is None or self.elapsed + seconds <= self.allowance

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Gives a look up when the time is up."""
        if done < total and not self.leaves():
            raise TimeIsUp

    @cached_property
    def pool(self) -> Dataset:
        """The images that may be trained on, in an order of which any beginning is a fair sample."""
        held_out = ("validation", "test")
        kept = tuple(each for each in self.dataset.samples if each.split not in held_out)
        return interleaved(replace(self.dataset, samples=kept))

    @cached_property
    def _shares(self) -> dict[str, float]:
        """Of the pool's images, those that are held out from training."""
        given = {each.split for each in self.dataset.samples}
        validation = 0.0 if "validation" in given else self.config.validation
        return {"validation": validation, "test": 0.0 if given - {None} else self.config.test}

    @property
    def training_images(self) -> int:
        """How many the full training will have."""
        return ImageCounts.of(self.dataset, self.config).training

    @property
    def first_images(self) -> int:
        """Training images of the first look."""
        per_class, least, most = FIRST_IMAGES
        classes = len(self.dataset.classes)
        return min(max(per_class * classes, least), max(most, _LEAST_PER_CLASS * classes))

    def part(self, images: int) -> Dataset:
        """The first of what may be trained on: so many images that will be, or all."""
        if images not in self._parts:
            whole = round(images / (1 - sum(self._shares.values())))
            self._parts[images] = self._for_training(beginning(self.pool, whole), images)
        return self._parts[images]

    def _for_training(self, part: Dataset, images: int) -> Dataset:
        """The first of a part that fall to the training side, which depends on their content alone."""
        hashes = [_content(sample) for sample in part.samples]
        labels = part.labels
        present = np.unique(labels[[each is not None for each in hashes]])
        if not len(present):
            raise DatasetError(f"{part.name}: none of {len(part)} images could be read; see headstart check")
        kept = [index for index, label in enumerate(labels) if label in present]
        known = replace(
            part,
            classes=tuple(part.classes[label] for label in present),
            samples=tuple(
                replace(part.samples[i], label=int(np.searchsorted(present, labels[i]))) for i in kept
            ),
        )
        splits = assign_splits(known, [hashes[index] for index in kept], (), **self._shares)
        training = (i for i, side in zip(kept, splits, strict=True) if side == "train")
        return replace(part, samples=tuple(part.samples[index] for index in training)[:images])

    def learn(self, *seen: Timing) -> None:
        """What was timed counts from now on."""
        self._seen += seen
        self.timings = self.timings.plus(seen)
        remember(seen)

    def timed(self, step: str, key: str) -> bool:
        """Whether this very thing was timed here and now."""
        return any((each.step, each.key) == (step, key) for each in self._seen)

    # ------------------------------------------------------------------------------------ what it costs

    @property
    def layers(self) -> str:
        """What the head of a look reads: as in the training, of which a ridge head alone has a choice."""
        reads_layers = self.config.head != "softmax" and self.config.freeze in ("all", "auto")
        return str(self.config.layers or "last") if reads_layers else "last"

    def look_config(self, contender: Contender) -> FitConfig:
        """A ridge head on the frozen network, one view of each image: what a look trains."""
        views = (CENTRE.name,)
        asked = replace(self.config, freeze="all", head="ridge", layers=self.layers, views=views)
        return resolve(asked, self.dataset, contender.backbone, runtime=self.runtime)

    def look_cost(self, contender: Contender, *, images: int) -> CostEstimate:
        """Seconds of a look at so many training images; what is cached costs nothing."""
        config = self.look_config(contender)
        job = Workload.of(config, self.part(images), contender.backbone, runtime=self.runtime)
        return self.cost(contender, job, phases=("features",)) + _HEAD

    def fit_cost(self, contender: Contender) -> CostEstimate:
        """Seconds of the training itself with this backbone.

        Raises:
            UserError: it cannot be trained so.
        """
        asked = replace(self.config, backbone=contender.candidate.name)
        config = resolve(asked, self.dataset, contender.backbone, runtime=self.runtime)
        job = Workload.of(config, self.dataset, contender.backbone, runtime=self.runtime)
        return self.cost(contender, job)

    def cost(
        self, contender: Contender, job: Workload, *, phases: tuple[str, ...] | None = None
    ) -> CostEstimate:
        """Seconds of a job with this backbone, by what its looks took where no timing says better."""
        found = job.estimate(self.timings, phases=phases)
        pace, network = contender.seconds_per_image, job.network
        if pace is None or not job.counts.missing or self.timings.known("prefix", network):
            return found
        seconds = pace * len(job.config.views) * job.counts.missing
        return CostEstimate({**found.phases, "features": seconds}, max(found.spread, _ONCE_SPREAD))

    # ------------------------------------------------------------------------------------------- looks

    def look(self, contender: Contender, *, images: int) -> None:
        """Probe one backbone on the first so many images that are to be trained on.

        Raises:
            TimeIsUp: the allowance ended before the look did.
        """
        part = self.part(images)
        extraction = self._extract(contender, part)
        rows = np.array([i for i, each in enumerate(extraction.hashes) if each is not None], dtype=np.int64)
        if not len(rows):
            raise DatasetError(f"{part.name}: none of {len(part)} images could be read; see headstart check")
        contender.looks.append(Probe.of(self._fit_head(extraction, part.labels, rows)))

    def expect(self, contenders: Sequence[Contender]) -> Expectations:
        """What accuracy to expect of each after these looks; each is told its own."""
        found = expectations(
            [each.published for each in contenders],
            [each.probe for each in contenders],
            training_images=max(1, self.training_images),
            classes=len(self.dataset.classes),
        )
        for index, each in enumerate(contenders):
            each.expected = found.of(index)
        return found

    def _extract(self, contender: Contender, part: Dataset) -> Extraction:
        """The features of some images; what computing one takes is noted where that can be told."""
        config, backbone = self.look_config(contender), contender.backbone
        spec = FeatureSpec.of(config)
        timer = PhaseTimer(self.clock)
        watch = Callbacks([timer, self, self.watch])
        timer.on_phase_begin("features")
        found = extract(
            part.samples,
            backbone,
            spec=spec,
            runtime=self.runtime,
            cache=FeatureCache(cache_folder()),
            progress=watch.on_progress,
        )
        timer.on_phase_end("features", found)
        looked, use = timer.phases["features"], found.use
        self.learn(
            *of_features(
                looked,
                use,
                config=config,
                backbone=backbone,
                images=len(part),
                spec=spec,
                timings=self.timings,
            )
        )
        if use.misses and use.hits <= _MOST_HITS * use.misses and looked.first and looked.last:
            (first, before), (last, done) = looked.first, looked.last
            steady = 2 * before <= done  # else making the network ready cannot be told from running it
            seconds = (last - first) / (done - before) if steady else (last - looked.begun) / len(part)
            contender.seconds_per_image = seconds
        return found

    def _fit_head(
        self, extraction: Extraction, labels: NDArray[np.int64], train: NDArray[np.int64]
    ) -> heads.RidgeFit:
        """The head that a fit on these images would get, its layers chosen."""
        classes, own = len(self.dataset.classes), labels[train]
        weights = self.config.class_weights
        layers, _ = choose_layers(
            extraction, train, own, layers=self.layers, classes=classes, class_weights=weights
        )
        return heads.fit_ridge(
            partial(batches, extraction, train, own, layers=layers),
            classes=classes,
            block_widths=layer_widths(extraction, layers),
            class_weights=weights,
        )


def _content(sample: Sample) -> bytes | None:
    """The hash of an image's bytes; None where there are none to read."""
    with suppress(ImageError):
        return content_hash(sample.source.read())
    return None
