"""The one seam for everything that watches a training: progress bars, pages, budgets, timings, trackers.

The phases of a fit, in order: ``choice`` (only with ``backbone="auto"``), ``features``, ``check``, ``train``
(with ``epochs`` inside it, where there are any), ``folds`` (only with those), ``evaluate`` and ``save``.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart.runs.formatting import human_seconds

Clock = Callable[[], float]


COVERAGE = 1.645
"""Standard deviations to either side that hold nine in ten of a normal distribution."""


@dataclass(frozen=True)
class Range:
    """Predicted seconds: nine in ten outcomes are meant to lie from ``low`` to ``high``."""

    low: float
    median: float
    high: float

    @classmethod
    def around(cls, seconds: float, *, spread: float, spent: float = 0.0) -> "Range":
        """Seconds still to come, plus those spent already, which are certain.

        Args:
            seconds: the median of what is to come.
            spread: the standard deviation of its logarithm: 0.1 means give or take a tenth.
            spent: seconds so far.
        """
        factor = math.exp(COVERAGE * spread)
        return cls(spent + seconds / factor, spent + seconds, spent + seconds * factor)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> "Range | None":
        """The range that a run stores; None where it has none."""
        if not {"low", "median", "high"} <= set(values):
            return None
        return cls(float(values["low"]), float(values["median"]), float(values["high"]))

    def to_dict(self) -> dict[str, Any]:
        """Rounded to milliseconds, for JSON."""
        return {"low": round(self.low, 3), "median": round(self.median, 3), "high": round(self.high, 3)}

    def holds(self, seconds: float) -> bool:
        """Whether an outcome lies inside, to the millisecond that is stored."""
        return self.low - 5e-4 <= seconds <= self.high + 5e-4

    def __str__(self) -> str:
        return f"{human_seconds(self.median)} ({human_seconds(self.low)} to {human_seconds(self.high)})"


class Callback:
    """Watches a training. Override what you need; what a method raises ends the training."""

    def on_estimate(self, seconds: Range, phases: Mapping[str, float]) -> None:
        """The job is predicted to take so long, and each phase that is to come; told before the work."""

    def on_phase_begin(self, phase: str) -> None:
        """A phase begins, perhaps once more."""

    def on_progress(self, phase: str, done: int, total: int) -> bool | None:
        """So many images, epochs or trainings are done; True ends reading images with those so far."""

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> bool | None:
        """An epoch has ended, with its number, losses and accuracies; True makes it the last one."""

    def on_phase_end(self, phase: str, result: Any) -> None:
        """A phase has ended; ``result`` is what it made, such as an `Extraction`, a `Trained` or a `Run`."""


class Callbacks(Callback):
    """Several callbacks, told in order.

    Attributes:
        stopped: whether one of them has ended reading or training before its end.
    """

    def __init__(self, members: Iterable[Callback]) -> None:
        self.members = tuple(members)
        self.stopped = False

    def on_estimate(self, seconds: Range, phases: Mapping[str, float]) -> None:
        """Told to all."""
        for each in self.members:
            each.on_estimate(seconds, phases)

    def on_phase_begin(self, phase: str) -> None:
        """Told to all."""
        for each in self.members:
            each.on_phase_begin(phase)

    def on_progress(self, phase: str, done: int, total: int) -> bool:
        """Told to all; True where any of them says so."""
        return self._ends([each.on_progress(phase, done, total) for each in self.members])

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> bool:
        """Told to all; True where any of them wants it to be the last."""
        return self._ends([each.on_epoch_end(epoch) for each in self.members])

    def _ends(self, answers: list[bool | None]) -> bool:
        ends = True in answers
        self.stopped |= ends
        return ends

    def on_phase_end(self, phase: str, result: Any) -> None:
        """Told to all."""
        for each in self.members:
            each.on_phase_end(phase, result)


@dataclass(frozen=True)
class ProgressFunction(Callback):
    """Tells a function of (phase, done, total) of all progress."""

    told: Callable[[str, int, int], object]

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Tells it."""
        self.told(phase, done, total)


@dataclass
class Phase:
    """When a phase began and ended, and when its first and its last piece of work was done."""

    begun: float
    ended: float | None = None
    first: tuple[float, int] | None = None  # when, and how much was done by then
    last: tuple[float, int] | None = None

    def pace(self) -> float | None:
        """Seconds of one piece of work by now; None before the first is done."""
        if self.first is None or self.last is None:
            return None
        (first, before), (last, done) = self.first, self.last
        return (last - first) / (done - before) if done > before else last - self.begun


@dataclass
class PhaseTimer(Callback):
    """Seconds of each phase.

    Attributes:
        seconds: by phase, summed where one came more than once.
        phases: the last of each name.
        epochs: when each epoch ended.
    """

    clock: Clock = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)
    epochs: list[float] = field(default_factory=list)
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since this timer was made."""
        return self.clock() - self.begun

    @property
    def resumed(self) -> bool:
        """Whether the epochs went on from where a killed process had left them."""
        epochs = self.phases.get("epochs")
        return epochs is not None and epochs.first is not None and epochs.first[1] > 1

    def on_phase_begin(self, phase: str) -> None:
        """Starts its clock."""
        self.phases[phase] = Phase(self.clock())

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Notes the first and the last piece of work."""
        known = self.phases.setdefault(phase, Phase(self.clock()))
        now = (self.clock(), done)
        known.first, known.last = known.first or now, now

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> None:
        """Notes when."""
        self.epochs.append(self.clock())

    def on_phase_end(self, phase: str, result: Any) -> None:
        """Stops its clock."""
        known = self.phases[phase]
        known.ended = self.clock()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + known.ended - known.begun

    def rounded(self, *names: str) -> dict[str, float]:
        """Seconds of these phases to the millisecond; those that did not come are left out."""
        return {name: round(self.seconds[name], 3) for name in names if name in self.seconds}
