"""What a job of the queue waits for, and about how long."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from statistics import median

from headstart.runs.formatting import human_seconds
from headstart.web.jobs import Job

LOOK_SECONDS = 1.0
"""How long an answer is given again: every page that waits asks several times a second."""

REMEMBERED = 20
"""Jobs whose seconds are compared with what was predicted of them."""


class Waiting:
    """Adds up what stands before a job: predictions, corrected by how the last ones came out.

    A machine that a class uses does other things than the one on which nothing else ran, and each of the jobs
    of a lesson is late for the same reason. Safe to share between threads.

    Args:
        jobs: gives all that wait or run, in the order of their turns.
        predict: the seconds that a job will take; None where nobody can say.
        clock: the time.
    """

    def __init__(
        self,
        jobs: Callable[[], Sequence[Job]],
        predict: Callable[[Job], float | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._jobs, self._predict, self._clock = jobs, predict, clock
        self._turn = threading.Lock()
        self._ratios: deque[float] = deque(maxlen=REMEMBERED)
        self._predicted: dict[str, float | None] = {}
        self._begun: dict[str, datetime] = {}
        self._told: dict[str, tuple[int, float | None]] = {}
        self._looked: datetime | None = None

    @contextmanager
    def timed(self, job: Job) -> Iterator[None]:
        """Around the work of a job: when it begins, and whether it took as long as predicted."""
        began = self._clock()
        with self._turn:
            self._begun[job.id] = began
        try:
            yield
            seconds, predicted = (self._clock() - began).total_seconds(), self._seconds(job)
            if predicted and seconds > 0:
                self._ratios.append(seconds / predicted)
        finally:
            with self._turn:
                self._begun.pop(job.id, None)
                self._predicted.pop(job.id, None)

    def seconds(self, job: Job) -> tuple[int, float | None]:
        """How many are before a job, and the seconds until its turn; None where nobody can say."""
        now = self._clock()
        with self._turn:
            fresh = self._looked is not None and (now - self._looked).total_seconds() < LOOK_SECONDS
            if not fresh or job.id not in self._told:
                self._told, self._looked = self._look(now), now
            return self._told.get(job.id, (0, 0.0))

    def text(self, job: Job) -> str:
        """The same, in words."""
        ahead, seconds = self.seconds(job)
        if not ahead:
            return "Its turn is next"
        if seconds is None:
            return f"Waiting: {ahead} before it"
        known = f"{seconds:.0f} s" if seconds < 60 else human_seconds(seconds)
        return f"Waiting: {ahead} before it, about {known}"

    def _look(self, now: datetime) -> dict[str, tuple[int, float | None]]:
        scale = median(self._ratios) if self._ratios else 1.0
        told: dict[str, tuple[int, float | None]] = {}
        total: float | None = 0.0
        for ahead, job in enumerate(self._jobs()):
            told[job.id] = ahead, total
            predicted = self._seconds(job)
            if predicted is None or total is None:
                total = None
                continue
            done = (now - self._begun[job.id]).total_seconds() if job.id in self._begun else 0.0
            total += max(predicted * scale - done, 0.0)
        return told

    def _seconds(self, job: Job) -> float | None:
        if job.id not in self._predicted:
            self._predicted[job.id] = self._predict(job)
        return self._predicted[job.id]
