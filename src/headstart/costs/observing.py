"""Watches a fit and keeps what its steps took, so that the next prediction is better."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from headstart.costs.estimates import Range
from headstart.costs.formulas import (
    Job,
    Step,
    decode_base,
    hit_base,
    made_key,
    open_step,
    pass_base,
    pass_key,
    prefix_base,
    steps,
    tail_key,
)
from headstart.costs.timings import Observation, Rates

Clock = Callable[[], float]
Progress = Callable[[str, int, int], None]

_FEWEST_IMAGES = 64
"""A pass over fewer images says more about filling the pipeline than about its speed."""

_LEAST_SHARE = 0.1
"""What is left for the network once decoding is taken off must be at least this share of the pass."""


@runtime_checkable
class Audience(Protocol):
    """A progress callback that also wants to know what was predicted and how each epoch went."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        """So much of the phase is done."""

    def expect(self, seconds: Range) -> None:
        """What the whole job is predicted to take; said before the work, and again if more is added to it."""

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """What one epoch measured: its number, losses and accuracies."""


@dataclass
class Marks:
    """When a phase began, when its first piece of work was done, and its last.

    ``ready`` is when all was there that a piece of work needs, where somebody said so.
    """

    begun: float
    ready: float | None = None
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    total: int = 0


@dataclass
class Watch:
    """A progress callback that notes the time and passes the call on."""

    inner: Progress | None = None
    clock: Clock = time.perf_counter
    marks: dict[str, Marks] = field(default_factory=dict)
    alarm: Callable[[str, int, int], None] | None = None
    epochs: list[float] = field(default_factory=list)  # when each ended

    def begin(self, phase: str) -> None:
        """A phase begins, perhaps once more; what was noted of it before is forgotten."""
        self.marks[phase] = Marks(self.clock())

    def ready(self, phase: str) -> None:
        """All is there that the phase's pieces of work need: what follows is their own time."""
        self.marks.setdefault(phase, Marks(self.clock())).ready = self.clock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """So much of the phase is done."""
        mark = self.marks.setdefault(phase, Marks(self.clock()))
        now = (self.clock(), done)
        mark.first, mark.last, mark.total = mark.first or now, now, total
        if self.inner is not None:
            self.inner(phase, done, total)
        if self.alarm is not None:
            self.alarm(phase, done, total)

    def pace(self, phase: str) -> float | None:
        """Seconds that one piece of work takes by now; those of the first count from when all was ready."""
        mark = self.marks.get(phase)
        if mark is None or mark.first is None or mark.last is None:
            return None
        (first, first_done), (last, done) = mark.first, mark.last
        begun = mark.begun if mark.ready is None else mark.ready
        return (last - first) / (done - first_done) if done > first_done else last - begun

    @property
    def resumed(self) -> bool:
        """Whether the epochs went on from where another process had left them."""
        mark = self.marks.get("epochs")
        return mark is not None and mark.first is not None and mark.first[1] > 1

    def expect(self, seconds: Range) -> None:
        """Passed on to an audience."""
        if isinstance(self.inner, Audience):
            self.inner.expect(seconds)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """An epoch ended; passed on to an audience."""
        self.epochs.append(self.clock())
        if isinstance(self.inner, Audience):
            self.inner.epoch(entry)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: seconds by phase, and how the cache was used (in views of images)."""

    seconds: Mapping[str, float]
    hits: int
    misses: int


def observations(job: Job, outcome: Outcome, watch: Watch, *, rates: Rates) -> list[Observation]:
    """What a finished job teaches, as ratios to the formulas; a phase without seconds teaches nothing."""
    found = _of_features(job, outcome, watch, rates) if "features" in outcome.seconds else []
    planned = {step.phase: step for step in steps(job, rates)}
    for phase in ("check", "evaluate", "save"):
        if phase in outcome.seconds:
            found.append(_ratio(planned[phase], outcome.seconds[phase]))
    if "save" in outcome.seconds:
        found.append(Observation("made", made_key(job), 1.0))
    return found + (_of_training(job, outcome, watch, rates) if "train" in outcome.seconds else [])


def _ratio(step: Step, seconds: float) -> Observation:
    return Observation(step.quantity, step.key, seconds / step.base if step.base > 0 else 0.0)


def _of_features(job: Job, outcome: Outcome, watch: Watch, rates: Rates) -> list[Observation]:
    seconds, images = outcome.seconds["features"], job.images
    if not outcome.misses:
        return [Observation("hit", job.data, seconds / (0.01 + hit_base(job) * images))]
    mark = watch.marks.get("features")
    computed = images - outcome.hits / job.views
    if mark is None or mark.first is None or outcome.hits > outcome.misses / 10 or computed < _FEWEST_IMAGES:
        return []  # hits and misses at once cannot be told apart
    opened = mark.first[0] - mark.begun
    each = (seconds - opened) / max(1, images - mark.first[1])
    found = [Observation("pass", pass_key(job), each / pass_base(job))]
    if job.prefix_macs:
        found.append(_ratio(open_step(job), opened))
        # The network's own share, for other images: what decoding takes is taken off.
        decoding = rates.estimate("decode", job.data, base=decode_base(job), spread=0.5).seconds
        network = max(each - decoding, _LEAST_SHARE * each)
        found.append(Observation("prefix", job.network, network / prefix_base(job)))
    else:
        found.append(Observation("decode", job.data, each / decode_base(job)))
    return found


def _of_training(job: Job, outcome: Outcome, watch: Watch, rates: Rates) -> list[Observation]:
    seconds = outcome.seconds["train"]
    parts = {step.quantity: step for step in steps(job, rates) if step.phase == "train"}
    if not job.thawed:
        return [_ratio(step, seconds) for step in parts.values()]
    mark = watch.marks.get("epochs")
    if mark is None or mark.first is None or mark.last is None:
        return []
    (first, first_epoch), (last, last_epoch) = mark.first, mark.last
    each = (last - first) / (last_epoch - first_epoch) if last_epoch > first_epoch else 0.0
    found = []
    if each > 0:
        found.append(Observation("epoch", tail_key(job), each * job.epochs / parts["epoch"].base))
        # An early stop is no slowness: what came before the first epoch is the rest. Epochs that another
        # process had done took nothing here.
        before = seconds - each * (last_epoch - first_epoch + 1)
        found.append(_ratio(parts["torch"], max(before, 0.05)))
    return found
