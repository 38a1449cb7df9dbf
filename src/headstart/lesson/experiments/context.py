"""What an experiment's own function is given: parameters, images, a folder, clocks, the time left."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headstart.data.dataset import Dataset
from headstart.errors import UserError
from headstart.features import FeatureCache
from headstart.lesson.experiments.data import images_of
from headstart.lesson.experiments.declarations import BOUND, Told
from headstart.web.plots import Value

Part = TypeVar("Part")


@dataclass(frozen=True)
class Seconds:
    """How long something took.

    Attributes:
        processor: What this process computed, all its threads together: other work hardly changes it, so
            this is what experiments compare.
        clock: What a person waited.
    """

    processor: float = 0.0
    clock: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.processor + other.processor, self.clock + other.clock)

    @property
    def row(self) -> tuple[float, float]:
        """Both, rounded, for a table with the columns `SECONDS`."""
        return round(self.processor, 3), round(self.clock, 3)


_APART = 1009
"""Between the seeds of an experiment's draws, so that a neighbouring seed does not share one of them."""

SECONDS = ("processor seconds", "seconds on the clock")


class Stopwatch:
    """Seconds since it was made; processes that it started and waited for count too."""

    def __init__(self) -> None:
        self._begun = self._now()

    @staticmethod
    def _now() -> Seconds:
        times = os.times()
        children = times.children_user + times.children_system
        return Seconds(time.process_time() + children, time.perf_counter())

    def seconds(self) -> Seconds:
        """Of the processor and on the clock."""
        now = self._now()
        return Seconds(now.processor - self._begun.processor, now.clock - self._begun.clock)


@dataclass
class Work:
    """One experiment while it runs.

    Attributes:
        parameters: Every declared parameter with its value.
        source: The learner's images, or None for the experiment's own.
        seed: Random seed.
        folder: For features; it is gone afterwards, so that every experiment starts from an empty cache and
            its seconds are those of doing the thing for the first time.
        limit: Seconds on the clock after which it is ended without a result.
        progress: Called with phase, steps done, steps in all and, where there is a curve, its value.
        notes: What the learner must know to read the result.
    """

    parameters: Mapping[str, Value]
    source: Any
    seed: int
    folder: Path
    limit: float = BOUND
    progress: Told | None = None
    notes: list[str] = field(default_factory=list)
    data: str = "random pixels"
    watch: Stopwatch = field(default_factory=Stopwatch)
    _caches: list[FeatureCache] = field(default_factory=list)

    def number(self, name: str) -> int:
        """A parameter that is a whole number."""
        return int(self.parameters[name] or 0)

    def text(self, name: str) -> str:
        """A parameter that is a choice or a name."""
        return str(self.parameters[name])

    def left(self) -> float:
        """Seconds on the clock until the limit."""
        return self.limit - self.watch.seconds().clock

    def tell(self, phase: str, done: int, total: int, reached: float | None = None) -> None:
        """Report progress, and where a curve is drawn, the accuracy reached, in percent.

        Raises:
            UserError: the limit is reached. There is no half of a result: what was cut short would be
                compared with what was not.
        """
        if self.progress is not None:
            self.progress(phase, done, total, *(() if reached is None else (round(reached, 2),)))
        if self.left() <= 0:
            spent = self.watch.seconds()
            reason = (
                f"other work kept the machine busy: only {spent.processor:.0f} s of them were computed here; "
                "run it again in a quieter moment"
                if is_busy(spent)
                else "run it with smaller values, such as fewer epochs or images"
            )
            raise UserError(f"the experiment was ended after its limit of {self.limit:.0f} s; {reason}")

    def each(self, phase: str, parts: Collection[Part]) -> Iterator[Part]:
        """Goes through the parts of the work and reports progress after each."""
        for done, part in enumerate(parts, 1):
            yield part
            self.tell(phase, done, len(parts))

    def images(self, *, per_class: int, draw: int = 0, default: str | None = None) -> Dataset:
        """The data set, with at most so many images of each class in all splits together.

        Args:
            per_class: images.
            draw: which of several draws of images: another one takes others, or the same ones from a small
                pool split in another way.
            default: a name for where the learner brought no images; None is what most experiments use.
        """
        seed = self.seed_of(draw)
        dataset = images_of(self.source, per_class=per_class, seed=seed, default=default)
        self.data = dataset.name
        return dataset

    def seed_of(self, draw: int) -> int:
        """The random seed of one of several draws; the first is the experiment's own."""
        return self.seed + _APART * draw

    def new_cache(self) -> FeatureCache:
        """An empty feature cache for one look at the images."""
        self._caches.append(FeatureCache(self.folder / f"look-{len(self._caches) + 1}"))
        return self._caches[-1]

    def close(self) -> None:
        """Closes the caches, as their folder is about to go: a server that lives long would keep them all."""
        for cache in self._caches:
            cache.close()


_BUSY, _LOST = 1.5, 1.0
"""Busy is where the clock shows so many times what was computed, and so many seconds were lost."""


def is_busy(seconds: Seconds) -> bool:
    """Whether other work kept the processor from this one."""
    return seconds.clock > max(_BUSY * seconds.processor, seconds.processor + _LOST)
