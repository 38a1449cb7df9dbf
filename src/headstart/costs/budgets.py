"""Makes a training fit into the seconds that it may take, before it begins and while it runs."""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.costs.formulas import NOTHING, CostEstimate, ImageCounts, estimate, network_key, steps
from headstart.costs.timings import Timings
from headstart.data.dataset import Dataset
from headstart.errors import OptionError
from headstart.features import FeatureCache, FeatureSpec, missing_share
from headstart.files import cache_folder
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Clock
from headstart.runs.formatting import human_seconds

CAREFUL = 0.85
"""Share of the budget that the median prediction may fill; what it is off by is corrected on the way."""

IMAGES_PER_CLASS = 8
"""Below so many images of a class a cut could leave none to train on, or none to validate on."""

_TIMES_THE_HEAD, _LEAST_DEEPER = 10.0, 20.0


def deeper_seconds(head: float) -> float:
    """Seconds that a deeper training may take where no budget says so: ten times those of the head before it.

    At least twenty: starting PyTorch alone takes a few, whatever the head of a handful of photographs took.
    """
    return max(_LEAST_DEEPER, _TIMES_THE_HEAD * head)


FEWEST_EPOCHS = 3
"""A deeper training of fewer epochs says little."""

_RESERVE = 0.15
"""Share by which what is still to come may take longer than predicted without breaking the budget."""

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_AFTER_FEATURES = ("check", "train", "folds", "evaluate", "save")
_OF_DEEPER = ("features", "check", "train")
"""Phases that a deeper training goes through before it is known whether it is kept."""


def parse_budget(budget: str | float | None) -> float | None:
    """Seconds from ``30``, ``"30s"``, ``"2m"``, ``"1.5h"``; None stays None.

    Raises:
        OptionError: It is none of these, or not above zero.
    """
    if budget is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(budget).lower())
    if not match or match[2] not in _UNITS or float(match[1]) <= 0:
        raise OptionError(f"budget {budget!r}: expected a time above zero, like 30s, 2m or 1h")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Workload:
    """A resolved config, its network and how many images it meets: what the formulas need."""

    config: FitConfig
    backbone: Backbone
    counts: ImageCounts
    spec: FeatureSpec | None = None

    @classmethod
    def of(
        cls,
        config: FitConfig,
        dataset: Dataset,
        backbone: Backbone,
        *,
        runtime: Runtime,
        spec: FeatureSpec | None = None,
    ) -> "Workload":
        """With the share of the images that the cache lacks, from a sample."""
        missing = missing_share(
            dataset.samples,
            backbone,
            spec=spec or FeatureSpec.of(config),
            runtime=runtime,
            cache=FeatureCache(cache_folder()),
        )
        return cls(config, backbone, ImageCounts.of(dataset, config, missing=missing), spec)

    @property
    def network(self) -> str:
        """The key of its network's timings."""
        return network_key(self.config, self.backbone, self.spec or FeatureSpec.of(self.config))

    def estimate(self, timings: Timings, *, phases: tuple[str, ...] | None = None) -> CostEstimate:
        """Its seconds, of all phases or of some."""
        found = steps(self.config, self.backbone, self.counts, timings, spec=self.spec)
        return estimate(found, timings, phases=phases)

    def settings(self) -> dict[str, int]:
        """What a budget may cut; ``layers`` is 0 where the last one alone is read."""
        return {
            "epochs": self.config.epochs or 0,
            "views": len(self.config.views),
            "layers": int(self.config.layers is not None),
            "images": self.counts.images,
        }

    def cut(self, name: str, value: int) -> "Workload":
        """The same with one setting at that value."""
        if name == "images":
            return replace(self, counts=self.counts.cut(value))
        if name == "epochs":
            return replace(self, config=replace(self.config, epochs=value or None))
        if name == "views":
            return replace(self, config=replace(self.config, views=self.config.views[:value]))
        return self if value else replace(self, config=replace(self.config, layers=None))


def fit_into(
    job: Workload, *, seconds: Callable[[Workload], float], limit: float
) -> tuple[Workload, tuple[str, ...]]:
    """The job nearest to the one asked for that fits, and in words what was cut.

    In order: epochs to half, views down to one, epochs down to one, the last layer instead of a choice of
    layers, and only then fewer images.

    Args:
        job: what was asked for.
        seconds: the predicted ones of the whole command.
        limit: the seconds that they may fill.

    Raises:
        OptionError: not even the smallest job fits; says how much it needs.
    """

    def fits(candidate: Workload) -> bool:
        return seconds(candidate) <= limit

    asked, taken = job.settings(), job
    for name, least in (
        ("epochs", max(1, asked["epochs"] // 2) if asked["epochs"] else 0),
        ("views", 1),
        ("epochs", min(1, asked["epochs"])),
        ("layers", 0),
        ("images", min(asked["images"], IMAGES_PER_CLASS * job.counts.classes)),
    ):
        if fits(taken):
            break
        taken = _largest(taken, name, least, fits)
    if not fits(taken):
        needed = math.ceil(10 * seconds(taken) / CAREFUL) / 10
        raise OptionError(
            f"budget {human_seconds(limit / CAREFUL)}: the smallest job needs about {needed:.1f} s here; "
            "give it more, or take a smaller --size or a faster --backbone"
        )
    return taken, tuple(_cuts(asked, taken.settings()))


def _largest(job: Workload, name: str, least: int, fits: Callable[[Workload], bool]) -> Workload:
    """The largest value of one setting that fits, by halving the interval; its least where none does."""
    if not fits(job.cut(name, least)):
        return job.cut(name, least)
    low, high = least, job.settings()[name]  # low fits, high does not
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(job.cut(name, middle)) else (low, middle)
    return job.cut(name, low)


def _cuts(asked: Mapping[str, int], taken: Mapping[str, int]) -> Iterator[str]:
    for name in ("epochs", "views", "images"):
        if taken[name] != asked[name]:
            yield f"{taken[name]:,} of {asked[name]:,} {name}"
    if taken["layers"] != asked["layers"]:
        yield "features of the last layer without trying others"


class Budget(Callback):
    """The seconds that a training may take, from when this is made; without any it only predicts.

    Attributes:
        seconds: of the whole job; None for no limit.
        notes: what was cut, in one line.
        cut_short: less was done than had been predicted.
    """

    def __init__(self, seconds: float | str | None = None, *, clock: Clock = time.perf_counter) -> None:
        """Seconds, or text as `parse_budget` takes it."""
        self.seconds = parse_budget(seconds)
        self.notes: tuple[str, ...] = ()
        self.cut_short = False
        self._clock, self._begun = clock, clock()
        self._timings = Timings.load()
        self._job: Workload | None = None
        self._last_epoch: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return self._clock() - self._begun

    @property
    def left(self) -> float | None:
        """Seconds that are left; None without a limit."""
        return None if self.seconds is None else self.seconds - self.elapsed

    def fit_into(
        self,
        config: FitConfig,
        dataset: Dataset,
        backbone: Backbone,
        *,
        runtime: Runtime,
        deeper: FitConfig | None = None,
    ) -> tuple[FitConfig, Dataset, CostEstimate]:
        """Cut a training down to what is left of the seconds.

        Args:
            config: of the training, resolved.
            dataset: its images.
            backbone: its network.
            runtime: what executes the frozen part.
            deeper: what will be tried after it, which the prediction includes.

        Returns:
            The config and the images to train with, and what is predicted to come.

        Raises:
            OptionError: the smallest training does not fit.
        """
        timings = self._timings
        job = Workload.of(config, dataset, backbone, runtime=runtime)
        spent = self.elapsed
        if self.seconds is not None:
            job, cuts = self.cut(job)
            dataset, config = beginning(interleaved(dataset), job.counts.images), job.config
            for cut in cuts:
                self._say(cut)
        self._job = job
        expected = job.estimate(timings)
        if deeper is not None:
            expected += self._of_deeper(
                deeper, dataset, backbone, runtime=runtime, before=spent + expected.seconds
            )
        return config, dataset, expected

    def cut(self, job: Workload) -> tuple[Workload, tuple[str, ...]]:
        """What of a job fits into what is left, and in words what does not.

        Raises:
            OptionError: not even the smallest job fits.
        """
        if self.seconds is None:
            return job, ()
        spent, timings = self.elapsed, self._timings
        limit = CAREFUL * self.seconds
        return fit_into(job, seconds=lambda each: spent + each.estimate(timings).seconds, limit=limit)

    def _of_deeper(
        self, config: FitConfig, dataset: Dataset, backbone: Backbone, *, runtime: Runtime, before: float
    ) -> CostEstimate:
        """Of a training that will be tried too, as far as the seconds allow; nothing where it will not."""
        job = Workload.of(config, dataset, backbone, runtime=runtime)
        more = job.estimate(self._timings, phases=_OF_DEEPER)
        allowed = deeper_seconds(before) if self.seconds is None else max(0.0, self.seconds - before)
        least = job.cut("epochs", min(FEWEST_EPOCHS, config.epochs or 0)).estimate(
            self._timings, phases=_OF_DEEPER
        )
        if not more.seconds or (self.seconds is None and least.seconds > CAREFUL * allowed):
            return NOTHING
        return more.times(min(1.0, allowed / more.seconds))

    def on_progress(self, phase: str, done: int, total: int) -> bool:
        """Ends reading images when what must follow would no longer fit."""
        job = self._job
        if phase != "features" or self.seconds is None or job is None or done >= total:
            return False
        if done < IMAGES_PER_CLASS * job.counts.classes:
            return False
        least = job.cut("images", done).cut("epochs", min(1, job.config.epochs or 0))
        rest = least.estimate(self._timings, phases=_AFTER_FEATURES).seconds
        if self.elapsed + (1 + _RESERVE) * rest <= self.seconds:
            return False
        self.cut_short = True
        self._job = job.cut("images", done)
        self._say(f"reading took longer than predicted, {done:,} of {total:,} images used")
        return True

    def on_phase_begin(self, phase: str) -> None:
        """Epochs are counted from when everything is there that they need."""
        if phase == "epochs":
            self._last_epoch = self._clock()

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> bool:
        """Ends the training when another epoch would break the budget."""
        now, begun = self._clock(), self._last_epoch
        self._last_epoch = now
        job, done = self._job, int(epoch["epoch"])
        planned = (job.config.epochs or 0) if job else 0
        if self.seconds is None or job is None or begun is None or done >= planned:
            return False
        closing = job.estimate(self._timings, phases=("folds", "evaluate", "save")).seconds
        if self.elapsed + (1 + _RESERVE) * (now - begun + closing) <= self.seconds:
            return False
        self.cut_short = True
        self._say(f"stopped after {done:,} of {planned:,} epochs")
        return True

    def _say(self, cut: str) -> None:
        said = (
            f"{self.notes[0]}; {cut}" if self.notes else f"budget {human_seconds(self.seconds or 0)}: {cut}"
        )
        self.notes = (said,)


def interleaved(dataset: Dataset) -> Dataset:
    """The same images in an order of which every beginning has the classes in proportion.

    The first `IMAGES_PER_CLASS` of every class come before all others, one of each class in turn, so that a
    short beginning can be trained on too. The order depends on names and labels alone. Each keeps its place;
    they are trained on in that order, so a budget that cuts nothing changes nothing.
    """
    members: dict[tuple[int, str | None], list[int]] = defaultdict(list)
    for index, sample in enumerate(dataset.samples):
        members[sample.label, sample.split].append(index)
    keys = np.zeros(len(dataset.samples))
    for number, indices in enumerate(members.values()):
        order = np.random.default_rng(number).permutation(len(indices))
        for rank, position in enumerate(order):
            early = rank < IMAGES_PER_CLASS
            keys[indices[position]] = rank - IMAGES_PER_CLASS if early else rank / len(indices)
    placed = [
        sample if sample.place >= 0 else replace(sample, place=place)
        for place, sample in enumerate(dataset.samples)
    ]
    return replace(dataset, samples=tuple(placed[i] for i in np.argsort(keys, kind="stable")))


def beginning(dataset: Dataset, images: int) -> Dataset:
    """The first so many images."""
    return dataset if images >= len(dataset) else replace(dataset, samples=dataset.samples[:images])
