"""The queue behind the laboratory: experiments run one at a time; pages may watch, leave and come back."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from headstart.errors import HeadstartError, OptionError

KEPT_JOBS = 50
"""How many past jobs may still be watched."""

WAITING_JOBS = 20
"""How many may queue; on two cores the last of them would wait for twenty minutes."""

FRESH_SECONDS = 2.0
"""How long results are taken from memory before the store is asked again."""

Fields = Mapping[str, object]


class Experiments(Protocol):
    """What the pages need of `headstart.lessons.experiments`."""

    def registry(self) -> tuple[str, ...]:
        """The names of the experiments."""

    def describe(self, name: str) -> Any:
        """Parameters, predicted seconds and bound of one."""

    def run(
        self,
        name: str,
        *,
        parameters: Mapping[str, object] | None = None,
        source: str | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Any:
        """Runs one and stores its result."""

    def latest(self, name: str, *, as_declared: bool = False) -> Any | None:
        """The newest stored result, or None where it never ran on this machine."""

    def results(self) -> Mapping[str, Fields]:
        """Per experiment that has run, the fields that prose quotes."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job; `number` counts from 1 and is the id of the stream's event."""

    number: int
    kind: str
    data: dict[str, Any]


@dataclass
class Job:
    """One run of an experiment, from the queue to its end."""

    id: str
    experiment: str
    parameters: Mapping[str, object]
    learner: str
    source: str | None = None
    purpose: str = ""
    events: list[Event] = field(default_factory=list)
    state: str = "waiting"
    result: Any = None
    message: str = ""

    def tell(self, kind: str, **data: Any) -> None:
        """Adds an event. Only the worker and the queue write, so a plain list is enough."""
        self.events.append(Event(len(self.events) + 1, kind, data))

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed")


class Jobs:
    """Runs experiments one after the other in a thread of its own.

    Args:
        experiments: the room that knows them, or None where it is not installed.
    """

    def __init__(self, experiments: Experiments | None = None) -> None:
        self.experiments = experiments
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: deque[tuple[Job, Callable[[Job], None] | None]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._results: tuple[float, Mapping[str, Fields]] = (float("-inf"), {})

    def known(self) -> tuple[str, ...]:
        """The names of the experiments."""
        return self.experiments.registry() if self.experiments else ()

    def latest(self, name: str, *, as_declared: bool = False) -> Any | None:
        """The newest result on this machine; where asked, only of a run in which nothing was varied."""
        if self.experiments is None or name not in self.known():
            return None
        return self.experiments.latest(name, as_declared=as_declared)

    def about(self, name: str) -> Any | None:
        """What the experiments' room says of one: parameters, predicted seconds, bound."""
        return self.experiments.describe(name) if self.experiments and name in self.known() else None

    def results(self) -> Mapping[str, Fields]:
        """The fields of every experiment that has run, for the numbers in prose."""
        at, results = self._results
        if time.monotonic() - at > FRESH_SECONDS:
            results = self.experiments.results() if self.experiments else {}
            self._results = (time.monotonic(), results)
        return results

    def start(
        self,
        name: str,
        *,
        learner: str,
        parameters: Mapping[str, object] | None = None,
        source: str | None = None,
        done: Callable[[Job], None] | None = None,
        purpose: str = "",
    ) -> Job:
        """Queues a run; the same run that is already waiting or running is given instead of a second one.

        Args:
            name: the experiment.
            learner: who asked.
            parameters: what differs from the experiment's own values.
            source: the learner's own images, or None for the experiment's.
            done: called in the worker when the run has ended well.
            purpose: the task that it is for, or empty.

        Raises OptionError for an unknown experiment and where too many wait.
        """
        if name not in self.known():
            raise OptionError(f"experiment {name!r} cannot run here: it is not part of this installation")
        wanted = dict(parameters or {})
        with self._changed:
            asked = (name, wanted, learner, source, purpose)
            for job in self._jobs.values():
                if not job.over and asked == (
                    job.experiment,
                    job.parameters,
                    job.learner,
                    job.source,
                    job.purpose,
                ):
                    return job
            if len(self._queue) >= WAITING_JOBS:
                raise OptionError(f"{WAITING_JOBS} experiments are waiting already; try again in a while")
            job = Job(uuid.uuid4().hex, name, wanted, learner, source, purpose)
            job.tell("waiting", ahead=sum(not other.over for other in self._jobs.values()))
            self._jobs[job.id] = job
            self._forget()
            self._queue.append((job, done))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="experiments", daemon=True)
                self._worker.start()
            self._changed.notify()
        return job

    def get(self, identity: str) -> Job | None:
        """A job by its id, while it is remembered."""
        return self._jobs.get(identity)

    def last(self, name: str, *, learner: str, purpose: str = "") -> Job | None:
        """The learner's newest job of this experiment and purpose, while it is remembered."""
        wanted = (name, learner, purpose)
        jobs = [j for j in list(self._jobs.values()) if (j.experiment, j.learner, j.purpose) == wanted]
        return jobs[-1] if jobs else None

    def running(self, name: str, *, learner: str, purpose: str = "") -> Job | None:
        """The same, where it has not ended."""
        job = self.last(name, learner=learner, purpose=purpose)
        return None if job is None or job.over else job

    def _forget(self) -> None:
        for identity in [job.id for job in self._jobs.values() if job.over]:
            if len(self._jobs) <= KEPT_JOBS:
                return
            del self._jobs[identity]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                job, done = self._queue.popleft()
            self._run(job, done)

    def _run(self, job: Job, done: Callable[[Job], None] | None) -> None:
        job.state = "running"
        job.tell("running")
        try:
            if self.experiments is None:
                raise OptionError("experiments are not part of this installation")
            job.result = self.experiments.run(
                job.experiment,
                parameters=job.parameters,
                source=job.source,
                progress=lambda *told: _tell(job, *told),
            )
            if done:
                done(job)
            self._results = (float("-inf"), {})
            job.state = "done"
            job.tell("done")
        except HeadstartError as error:
            job.state, job.message = "failed", str(error)
            job.tell("failed", message=str(error))
        except Exception as error:
            # A thread has nobody above it: unless it is told here, the page would wait for ever.
            job.state, job.message = "failed", f"our failure: {type(error).__name__}: {error}"
            job.tell("failed", message=job.message)


def _tell(job: Job, phase: str, done: int, total: int) -> None:
    job.tell("progress", text=phase.replace("-", " "), done=done, of=total)
