"""Seconds that are not known yet: a median, how far off it may be, and sums of such."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headstart.formatting import human_seconds

COVERAGE = 1.645
"""Standard deviations to either side that hold nine in ten of a normal distribution."""

_SHARED = 0.5
"""Share of an error that the steps of one job have in common (a busy machine slows all of them)."""

_UNSTEADY = 0.1
"""The same whole command, minutes later on a quiet machine: the standard deviation of the logarithm of its
seconds. Processors change their clock and virtual machines have neighbours, which no step can know."""


@dataclass(frozen=True)
class Range:
    """Predicted seconds: nine in ten outcomes are meant to lie from ``low`` to ``high``."""

    low: float
    median: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Rounded to milliseconds, for JSON."""
        return {"low": round(self.low, 3), "median": round(self.median, 3), "high": round(self.high, 3)}

    def holds(self, seconds: float) -> bool:
        """Whether an outcome lies inside, to the millisecond that is stored."""
        return self.low - 5e-4 <= seconds <= self.high + 5e-4

    def __str__(self) -> str:
        return f"{human_seconds(self.median)} ({human_seconds(self.low)} to {human_seconds(self.high)})"


@dataclass(frozen=True)
class Estimate:
    """Seconds, and the standard deviation of their logarithm: 0.1 means give or take a tenth."""

    seconds: float
    spread: float

    def times(self, factor: float) -> "Estimate":
        """So many of it."""
        return Estimate(self.seconds * factor, self.spread)


def add(parts: Iterable[Estimate]) -> Estimate:
    """The sum; errors are neither independent nor all alike, so half their variance is taken as shared."""
    parts = list(parts)
    seconds = sum(part.seconds for part in parts)
    if seconds <= 0:
        return Estimate(0.0, 0.0)
    deviations = [part.seconds * part.spread for part in parts]
    apart = math.sqrt(sum(deviation**2 for deviation in deviations))
    together = sum(deviations)
    deviation = math.sqrt(_SHARED * together**2 + (1 - _SHARED) * apart**2)
    return Estimate(seconds, deviation / seconds)


def unsteady(estimate: Estimate) -> Estimate:
    """Of a whole command, with what the machine itself differs by from one time to the next."""
    return Estimate(estimate.seconds, math.hypot(estimate.spread, _UNSTEADY))


def to_range(estimate: Estimate, *, spent: float = 0.0) -> Range:
    """The range of what is still to come plus what has been spent already, which is certain."""
    factor = math.exp(COVERAGE * estimate.spread)
    return Range(
        low=spent + estimate.seconds / factor,
        median=spent + estimate.seconds,
        high=spent + estimate.seconds * factor,
    )


def from_dict(values: Mapping[str, float]) -> Range | None:
    """The range that a run stores; None where it has none (a run of an earlier version)."""
    if not {"low", "median", "high"} <= set(values):
        return None
    return Range(float(values["low"]), float(values["median"]), float(values["high"]))
