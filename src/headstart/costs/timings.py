"""What earlier work on this machine took, over what the formulas say.

Every step of a training has a formula with fixed constants (`headstart.costs.formulas`). Kept is the ratio of
measured seconds to the formula's, so that a network timed at 128 px also says something of it at 160 px, and
of another network where nothing better is known.
"""

import hashlib
import math
import os
import platform
import statistics
from collections.abc import Iterable

from headstart.runs import store
from headstart.runs.store import Timing

_FORMULAS = 4
"""Raised when a formula changes: ratios to the old one say nothing of the new."""

_NEWEST = 3
"""Ratios of one key that count; older ones tell of an older machine."""

_OUTLIER = 100.0
"""A ratio beyond this, or below one over it, is a suspended laptop or a broken clock."""

_KNOWN_SPREAD = 0.14
"""The same step on a quiet machine, minutes later: standard deviation of the logarithm of its seconds."""

_ONCE_SPREAD = 0.25
"""The same of a step that was timed only once or twice."""


def machine() -> str:
    """Names this machine and the cores that are given to it; a home folder may be shared between several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()} {platform.machine()} {cores}"


def machine_digits() -> str:
    """The same in hex digits: a run may be given away, and need not say what a computer is called."""
    return hashlib.blake2b(machine().encode(), digest_size=8).hexdigest()


def _owner() -> str:
    return f"{machine()} formulas {_FORMULAS}"


class Timings:
    """Ratios of this machine, read once; asking takes no time."""

    def __init__(self, ratios: Iterable[Timing] = ()) -> None:
        """From ratios, the newest first."""
        self._ratios: dict[tuple[str, str], list[float]] = {}
        for each in ratios:
            if 1 / _OUTLIER <= each.ratio <= _OUTLIER:
                self._ratios.setdefault((each.step, each.key), []).append(each.ratio)

    @classmethod
    def load(cls) -> "Timings":
        """From the store; one that cannot be read is as good as an empty one: predictions get wider."""
        return cls(store.read_timings(_owner()))

    def plus(self, newer: Iterable[Timing]) -> "Timings":
        """With what was timed since, the newest last; whether or not the store could keep it."""
        known = [Timing(*key, ratio) for key, ratios in self._ratios.items() for ratio in ratios]
        return Timings((*reversed(list(newer)), *known))

    def known(self, step: str, key: str) -> bool:
        """Whether this very thing has been timed."""
        return (step, key) in self._ratios

    def scale(self, step: str, key: str, *, spread: float) -> tuple[float, float]:
        """The factor on a formula, and how far the result may be off, as a logarithm's standard deviation.

        The factor is the median of the last few ratios of this very thing; else of what other things of the
        kind took, else 1.

        Args:
            step: which kind of step.
            key: which one of the kind.
            spread: how far the formula may be off where nothing was timed.
        """
        own = self._ratios.get((step, key), [])[:_NEWEST]
        if own:
            least = _KNOWN_SPREAD if len(own) > 2 else _ONCE_SPREAD
            middle = statistics.median(own)
            around = statistics.median(abs(math.log(each / middle)) for each in own)
            # 1.4826 median deviations are a standard deviation of a normal distribution.
            return middle, min(max(least, 1.4826 * around), max(least, spread))
        others = [
            math.log(statistics.median(ratios[:_NEWEST]))
            for (kind, _), ratios in self._ratios.items()
            if kind == step
        ]
        return math.exp(statistics.median(others)) if others else 1.0, spread


def remember(ratios: Iterable[Timing]) -> None:
    """Keep what was timed; where that cannot be done, later predictions are wider and nothing else."""
    store.add_timings(_owner(), ratios)
