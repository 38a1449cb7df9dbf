"""What an experiment's own function is given: parameters, images, a scratch folder and the time left."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headstart.data.dataset import Dataset
from headstart.features import FeatureCache
from headstart.lesson.experiments.data import images_of
from headstart.lesson.experiments.declarations import Told
from headstart.web.plots import Value

Part = TypeVar("Part")


@dataclass
class Work:
    """One experiment while it runs.

    Attributes:
        parameters: Every declared parameter with its value.
        source: The learner's images, or None for the experiment's own.
        seed: Of whatever is random.
        folder: For features; it is gone afterwards, so that every experiment starts from an empty cache and
            its seconds are those of doing the thing for the first time.
        ends: When it must be done, on `time.perf_counter`'s clock.
        progress: Called as the work goes on.
        notes: What the learner must know to read the result.
    """

    parameters: Mapping[str, Value]
    source: Any
    seed: int
    folder: Path
    ends: float
    progress: Told | None = None
    notes: list[str] = field(default_factory=list)
    data: str = "random pixels"
    _caches: list[FeatureCache] = field(default_factory=list)

    def number(self, name: str) -> int:
        """A parameter that is a whole number."""
        return int(self.parameters[name] or 0)

    def text(self, name: str) -> str:
        """A parameter that is a choice or a name."""
        return str(self.parameters[name])

    def left(self) -> float:
        """Seconds until the bound."""
        return self.ends - time.perf_counter()

    def part(self, share: float) -> float:
        """The moment at which this share of the time that is left will be over."""
        return time.perf_counter() + share * max(0.0, self.left())

    def tell(self, phase: str, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(phase, done, total)

    def each(self, phase: str, parts: Collection[Part]) -> Iterator[Part]:
        """Goes through the parts of the work and reports progress after each."""
        for done, part in enumerate(parts, 1):
            yield part
            self.tell(phase, done, len(parts))

    def images(self, *, per_class: int) -> Dataset:
        """The data set, with at most so many images of each class in all splits together."""
        dataset = images_of(self.source, per_class=per_class, seed=self.seed)
        self.data = dataset.name
        return dataset

    def new_cache(self) -> FeatureCache:
        """An empty feature cache for one look at the images."""
        self._caches.append(FeatureCache(self.folder / f"look-{len(self._caches) + 1}"))
        return self._caches[-1]

    def close(self) -> None:
        """Closes the caches, as their folder is about to go: a server that lives long would keep them all."""
        for cache in self._caches:
            cache.close()
