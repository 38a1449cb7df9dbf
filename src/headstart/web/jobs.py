"""A job queue on disk: one job at a time, with progress, stopping, and recovery after a crash.

    jobs = Jobs(home)
    jobs.serve("experiment", run_experiment)      # run_experiment(job, tell) -> what to keep as its result
    job = jobs.add("experiment", name="one-pass", learner="ada", body={"source": None})
    jobs.get(job.id).state                        # waiting, running, done, failed, stopped
    jobs.events(job.id, after=3)                  # what a page has not seen yet

A job is accepted when `add` returns: it waits on disk. One that ran while its server was killed runs again
from its beginning when a server is there; one that saw two servers die is given up. Several servers of one
home share the queue and take turns, so that what is measured is not measured side by side.

What somebody asked for goes before what a page began by itself. A job of `EVERYONE` is shared: who asks for
it again waits for the same one.

On a server of databases every home folder has a queue of its own, as jobs name files of its machine.

Where the store cannot be written for a while (a full disk, another process that holds it), what runs goes on,
`Jobs.trouble` says why, and how a job ended is written down as soon as that is possible, once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from headstart.errors import HeadstartError, OptionError, RunError
from headstart.runs import store
from headstart.runs.store import opening

KEPT_JOBS = 200
"""How many ended jobs are remembered; their results are kept elsewhere."""

WAITING_JOBS = 20
"""How many that one asker asked for may queue; on two cores the last would wait for twenty minutes."""

WAITING_IN_ALL = 2_000
"""A class of 400 with five each; each learner's last one waits for hours, and is told so."""

EVERYONE = ""
"""The learner of a shared job."""

MOST_STARTS = 2
"""How often a job is begun: what has seen two servers die is likely to be what killed them."""

TURN_SECONDS = 0.5
"""How often a worker asks whether another server's worker has let go."""

AGAIN_SECONDS = 1.0
"""How often is tried again what could not be written down."""

PROGRESS_SECONDS = 0.5
"""How long a sign of progress waits for another process: it is not worth more."""

_log = logging.getLogger(__name__)

OVER = ("done", "failed", "stopped")

_COLUMNS = "number, id, kind, name, learner, body, state, message, result, created, stopping, asker, urgent"

_ORDER = "state = 'running' desc, urgent desc, number"
"""In which unfinished jobs are done."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job; `number` counts from 1 and is the id of the stream's event."""

    number: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One piece of work as it stands.

    Attributes:
        number: its place in the queue's whole history.
        id: unguessable, for addresses.
        kind: who does it, see `Jobs.serve`.
        name: what it is about: an experiment, a task, a data set.
        learner: whose it is; `EVERYONE` for a shared one.
        body: what the worker must know, JSON.
        state: "waiting", "running", "done", "failed" or "stopped".
        message: why it failed, for people.
        result: what the worker gave, JSON.
        created: seconds since the epoch.
        stopping: whether somebody has asked for its end.
        asker: who alone asked for it, or empty.
        urgent: whether somebody asked for it; what began by itself waits for all that are.
    """

    number: int
    id: str
    kind: str
    name: str
    learner: str
    body: Mapping[str, Any]
    state: str
    message: str
    result: Mapping[str, Any]
    created: float
    stopping: bool = False
    asker: str = ""
    urgent: bool = True

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in OVER


class Tell(Protocol):
    """Reports how the work goes on; raises `Stopped` once the job is to be stopped."""

    def __call__(self, phase: str, done: int, total: int, reached: float | None = None, /) -> None:
        """Phase, steps done, steps in all, and where there is a curve its value at this step."""


Worker = Callable[[Job, Tell], Mapping[str, Any] | None]


class Stopped(Exception):
    """Raised in the work of a job that is to be stopped."""


@dataclass(frozen=True)
class _Ending:
    """How a job ended; ``result`` is JSON."""

    state: str
    message: str = ""
    result: str = "{}"


class Jobs:
    """A queue in the store, and the thread that works it off. Safe to share between threads; one per process.

    Args:
        home: the home folder, made where it is missing.
        queue: its name; the work of two queues is done side by side.

    Raises RunError where the store cannot be used.
    """

    def __init__(self, home: Path, queue: str = "work") -> None:
        self.address, self._lock = store.address(home), store.store_file(home).with_name(f"{queue}.lock")
        self.queue = queue
        self._workers: dict[str, Worker] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._turn, self._reading_turn = threading.Lock(), threading.Lock()
        self._trouble, self._quiet_until = "", 0.0
        self._stopping: set[str] = set()
        self._database, self._reader = self._open()
        if isinstance(self.address, str):
            self.queue = f"{queue} {store.identity(home)}"

    def _open(self) -> tuple[store.Database, store.Database]:
        # One connection behind one lock: every statement here takes less than a millisecond. Who only
        # asks has another: a writer may wait for the disk or another process, and pages must not.
        try:
            store.mend(self.address)
            return store.connect(self.address, threads=True), store.connect(self.address, threads=True)
        except (OSError, sqlite3.Error) as error:
            raise RunError(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        return f"waiting work cannot be kept in {store.name_of(self.address)}: {store.reason(error)}"

    @property
    def trouble(self) -> str:
        """Why something could not be written down lately, for a page; empty where all is well."""
        return self._trouble

    def serve(self, kind: str, worker: Worker) -> None:
        """Names who does a kind of work, and begins with what waits for it on disk."""
        with self._changed:
            self._workers[kind] = worker
        self._wake()

    def add(
        self,
        kind: str,
        *,
        name: str,
        learner: str,
        body: Mapping[str, Any] | None = None,
        asker: str | None = None,
        urgent: bool = True,
        most: int = WAITING_JOBS,
    ) -> Job:
        """Queues work; the same work that is already waiting or running is given instead of a second one.

        Args:
            kind: who does it, see `serve`.
            name: what it is about.
            learner: whose it is; `EVERYONE` shares it.
            body: what the worker must know.
            asker: who asks, where that is not the learner.
            urgent: False for what begins by itself: it goes last, and no number of it is too large.
            most: so many of one asker's jobs may wait.

        Raises OptionError where too many wait.
        """
        text = json.dumps(dict(body or {}), sort_keys=True)
        asker = learner if asker is None else asker
        with self._asked() as database:
            same = database.execute(
                f"select {_COLUMNS} from jobs where queue = ? and learner = ? and kind = ? and name = ? "
                "and body = ? and state in ('waiting', 'running') and stopping = 0",
                (self.queue, learner, kind, name, text),
            ).fetchone()
            if same:
                return self._joined(database, _job(same), asker=asker, urgent=urgent)
            ahead, waiting, own = database.execute(
                "select count(*), count(*) filter (where state = 'waiting' and urgent = 1), "
                "count(*) filter (where state = 'waiting' and urgent = 1 and asker = ?) from jobs "
                "where queue = ? and state in ('waiting', 'running') and urgent >= ?",
                (asker, self.queue, int(urgent)),
            ).fetchone()
            if urgent and own >= most:
                raise OptionError(f"{own} jobs that you asked for are waiting; ask again when one has run")
            if urgent and waiting >= WAITING_IN_ALL:
                raise OptionError(f"the queue is full: {waiting} jobs are waiting; try again in a while")
            identity = uuid.uuid4().hex
            database.execute(
                "insert into jobs (id, queue, kind, name, learner, body, state, created, asker, urgent) "
                "values (?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?)",
                (identity, self.queue, kind, name, learner, text, time.time(), asker, int(urgent)),
            )
            _note(database, identity, "waiting", {"ahead": ahead})
            _forget(database, self.queue)
            new = database.execute(f"select {_COLUMNS} from jobs where id = ?", (identity,)).fetchone()
        self._wake()
        return _job(new)

    def _joined(self, database: store.Database, job: Job, *, asker: str, urgent: bool) -> Job:
        """A job that is asked for once more: as urgent as the most urgent, and of nobody alone."""
        alone, both = job.asker, urgent or job.urgent
        if urgent and alone != asker:
            alone = EVERYONE if job.urgent else asker
        database.execute("update jobs set asker = ?, urgent = ? where id = ?", (alone, int(both), job.id))
        return replace(job, asker=alone, urgent=both)

    def get(self, identity: str) -> Job | None:
        """A job by its id, while it is remembered."""
        return self._one("id = ?", identity)

    def last(self, kind: str, *, name: str, learner: str) -> Job | None:
        """The newest job of this kind and name, the learner's or shared, while it is remembered."""
        where = "learner in (?, ?) and kind = ? and name = ? order by number desc limit 1"
        return self._one(where, learner, EVERYONE, kind, name)

    def running(self, kind: str, *, name: str, learner: str) -> Job | None:
        """The same, where it has not ended."""
        job = self.last(kind, name=name, learner=learner)
        return None if job is None or job.over else job

    def history(self, kind: str, *, learner: str, limit: int = 50) -> list[Job]:
        """The jobs of a kind that are the learner's or shared, the newest first."""
        where = "learner in (?, ?) and kind = ? order by number desc limit ?"
        return self._all(where, learner, EVERYONE, kind, limit)

    def unfinished(self) -> list[Job]:
        """Everything that waits or runs, whoever asked, in the order in which it will be done."""
        return self._all(f"state in ('waiting', 'running') order by {_ORDER}")

    def events(self, identity: str, *, after: int = 0) -> list[Event]:
        """What happened to a job, but for the first `after` events."""
        rows = self._read(
            "select number, kind, data from events where job = ? and number > ? order by number",
            (identity, after),
        )
        return [Event(number, kind, _plain(data)) for number, kind, data in rows]

    def stop(self, identity: str) -> None:
        """Asks for the end of a job: at once where it waits, at its next sign of progress where it runs."""
        self._stopping.add(identity)  # the disk may be full, and what runs here is stopped all the same
        with self._asked() as database:
            database.execute("update jobs set stopping = 1 where id = ? and state = 'running'", (identity,))
            ended = database.execute(
                "update jobs set state = 'stopped' where id = ? and state = 'waiting'", (identity,)
            )
            if ended.rowcount:
                _note(database, identity, "stopped", {})

    def close(self) -> None:
        """Lets the worker end after the job that it is at, and closes the file. What waits stays on disk."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._turn:
            self._database.close()
        with self._reading_turn:
            self._reader.close()

    # The worker

    def _wake(self) -> None:
        with self._changed:
            alive = self._thread is not None and self._thread.is_alive()
            if not alive and self._workers and not self._closed:
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _has_work(self) -> bool:
        kinds = tuple(self._workers)
        marks = ",".join("?" * len(kinds))
        query = "select 1 from jobs where queue = ? and state in ('waiting', 'running') and kind in "
        return bool(self._read(f"{query} ({marks}) limit 1", (self.queue, *kinds)))

    def _work(self) -> None:
        while not self._closed:
            try:
                self._work_off()
            except Exception as error:  # a thread has nobody above it: it goes on, and says what happened
                self._troubled(error)
                self._wait(AGAIN_SECONDS)

    def _work_off(self) -> None:
        with self._changed:
            while not self._closed and not self._has_work():
                self._changed.wait()
        with store.alone(self._lock) as alone:
            if alone:
                self._recover()
                while not self._closed and (job := self._claim()):
                    self._trouble = ""
                    self._write_down(job, self._do(job))
        self._trouble = ""
        if not alone:
            self._wait(TURN_SECONDS)

    def _wait(self, seconds: float) -> None:
        with self._changed:
            if not self._closed:
                self._changed.wait(seconds)

    def _troubled(self, error: Exception) -> None:
        """Tells pages and the log, once for each trouble; a damaged file is set aside."""
        said = str(error) if isinstance(error, HeadstartError) else self._why(error)
        if said != self._trouble:
            _log.warning("%s", said)
        self._trouble = said
        if store.is_damage(error) or isinstance(error, sqlite3.ProgrammingError):  # or closed for that
            with self._turn, self._reading_turn, contextlib.suppress(RunError):
                self._database.close()
                self._reader.close()
                self._database, self._reader = self._open()

    def _recover(self) -> None:
        """Takes back what ran while its server died: nobody else works now, so nothing can be running."""
        with self._writing() as database:
            for identity, starts in database.execute(
                "select id, starts from jobs where queue = ? and state = 'running'", (self.queue,)
            ).fetchall():
                if starts < MOST_STARTS:
                    database.execute("update jobs set state = 'waiting' where id = ?", (identity,))
                    _note(database, identity, "waiting", {"ahead": 0})
                else:
                    message = f"the server ended {starts} times while it ran"
                    _end(database, identity, _Ending("failed", message))

    def _claim(self) -> Job | None:
        kinds = tuple(self._workers)
        marks = ",".join("?" * len(kinds))
        with self._writing() as database:
            row = database.execute(
                f"select {_COLUMNS} from jobs where queue = ? and state = 'waiting' and kind in ({marks}) "
                f"order by {_ORDER} limit 1",
                (self.queue, *kinds),
            ).fetchone()
            if row is None:
                return None
            job = _job(row)
            database.execute("update jobs set state = 'running', starts = starts + 1 where id = ?", (job.id,))
            _note(database, job.id, "running", {})
        return job

    def _do(self, job: Job) -> _Ending:
        try:
            result = self._workers[job.kind](job, lambda *told: self._tell(job, *told))
            return _Ending("done", result=json.dumps(dict(result or {})))
        except Stopped:
            return _Ending("stopped")
        except HeadstartError as error:
            return _Ending("failed", str(error))
        except (Exception, SystemExit) as error:
            # A thread has nobody above it: unless it is told here, the page would wait for ever.
            _log.error("job %s failed", job.kind, exc_info=True)
            return _Ending("failed", f"internal error; see the server log ({type(error).__name__}: {error})")

    def _write_down(self, job: Job, ending: _Ending) -> None:
        """Ends a job, once; tries until that is on the disk, or until the server ends."""
        while True:
            try:
                with self._writing() as database:
                    _remember(database, job, self.queue)
                    _end(database, job.id, ending)
                self._trouble = ""
                self._stopping.discard(job.id)
                return
            except sqlite3.Error as error:
                self._troubled(error)
            if self._closed:
                return
            self._wait(AGAIN_SECONDS)

    def _tell(self, job: Job, phase: str, done: int, total: int, reached: float | None = None) -> None:
        stopping = job.id in self._stopping
        if not stopping and time.monotonic() >= self._quiet_until:
            try:
                told = {"text": phase.replace("-", " "), "done": done, "of": total}
                curve = {} if reached is None else {"reached": reached}
                stopping = self._note_progress(job, told | curve)
            except sqlite3.Error as error:  # no reason to give up the work, nor to slow it down
                self._troubled(error)
                self._quiet_until = time.monotonic() + AGAIN_SECONDS
        if stopping:
            raise Stopped

    def _note_progress(self, job: Job, told: Mapping[str, Any]) -> bool:
        """Writes a sign of progress; whether somebody has asked for the end."""
        with self._writing(wait=PROGRESS_SECONDS) as database:
            row = database.execute("select stopping from jobs where id = ?", (job.id,)).fetchone()
            stopping = row is not None and bool(row[0])
            if not stopping:
                _note(database, job.id, "progress", told)
        return stopping

    # The store

    @contextlib.contextmanager
    def _writing(self, *, wait: float | None = None) -> Iterator[store.Database]:
        seconds = opening.WAIT_SECONDS if wait is None else wait
        with self._turn, store.transaction(self._database, writes=True, wait=seconds):
            yield self._database

    @contextlib.contextmanager
    def _asked(self) -> Iterator[store.Database]:
        """The same for somebody who waits for an answer: RunError where the file cannot be written."""
        try:
            with self._writing() as database:
                yield database
        except sqlite3.Error as error:
            self._troubled(error)
            raise RunError(self._why(error)) from error

    def _read(self, query: str, values: Sequence[str | int]) -> list[tuple[Any, ...]]:
        failure: sqlite3.Error | None = None
        for _ in range(2):  # a damaged file is replaced after the first
            try:
                with self._reading_turn:
                    found: list[tuple[Any, ...]] = self._reader.execute(query, values).fetchall()
                    return found
            except sqlite3.Error as error:
                self._troubled(error)
                failure = error
                if not (store.is_damage(error) or isinstance(error, sqlite3.ProgrammingError)):
                    break
        raise RunError(self._why(failure or sqlite3.Error())) from failure

    def _one(self, where: str, *values: str) -> Job | None:
        found = self._all(where, *values)
        return found[0] if found else None

    def _all(self, where: str, *values: str | int) -> list[Job]:
        query = f"select {_COLUMNS} from jobs where queue = ? and {where}"
        return [_job(row) for row in self._read(query, (self.queue, *values))]


def _note(database: store.Database, job: str, kind: str, data: Mapping[str, Any]) -> None:
    database.execute(
        "insert into events (job, number, kind, data) "
        "select ?, coalesce(max(number), 0) + 1, ?, ? from events where job = ?",
        (job, kind, json.dumps(data), job),
    )


def _end(database: store.Database, identity: str, ending: _Ending) -> None:
    """Ends what runs; what has ended stays as it is."""
    ended = database.execute(
        "update jobs set state = ?, message = ?, result = ? where id = ? and state = 'running'",
        (ending.state, ending.message, ending.result, identity),
    )
    if ended.rowcount:
        _note(database, identity, ending.state, {"message": ending.message} if ending.message else {})


def _remember(database: store.Database, job: Job, queue: str) -> None:
    """Enters a job that ran while the file was damaged and set aside."""
    database.execute(
        "insert into jobs (id, queue, kind, name, learner, body, state, created) "
        "values (?, ?, ?, ?, ?, ?, 'running', ?) on conflict do nothing",
        (job.id, queue, job.kind, job.name, job.learner, json.dumps(job.body, sort_keys=True), job.created),
    )


def _forget(database: store.Database, queue: str) -> None:
    old = database.execute(
        "select id from jobs where queue = ? and state not in ('waiting', 'running') order by number desc "
        f"limit {2**62} offset ?",
        (queue, KEPT_JOBS),
    ).fetchall()
    database.executemany("delete from events where job = ?", old)
    database.executemany("delete from jobs where id = ?", old)


def _job(row: tuple[Any, ...]) -> Job:
    number, identity, kind, name, learner, body, state, message, result, created, stopping, asker, urgent = (
        row
    )
    return Job(
        number,
        identity,
        kind,
        name,
        learner,
        _plain(body),
        state,
        message,
        _plain(result),
        created,
        bool(stopping),
        asker,
        bool(urgent),
    )


def _plain(text: str) -> dict[str, Any]:
    """What a row holds; nothing where it is damaged."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
