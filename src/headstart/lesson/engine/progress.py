"""The append-only log in the store: what learners did, and nothing that could be derived from it.

A URL may stand for the store's own file, so that a class can share a PostgreSQL server. An answer
is accepted when `record` returns: it is committed by then, and `kill -9` cannot take it back.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from headstart.errors import InternalError, LessonError, MissingExtra
from headstart.lesson.engine import attempts, logbook
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Challenge, Event, LogEntry, Started, Submitted
from headstart.lesson.engine.review import Reviewed
from headstart.runs import store
from headstart.runs.store import opening, postgresql

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
except ImportError as error:
    raise MissingExtra("keeping progress", extra="learn") from error

BUSY_SECONDS = 60
"""How long a writer waits for the others before it gives up."""

RETRIES = 20
"""How often a writer that lost a race for the next place in a log tries again (PostgreSQL; SQLite queues)."""

MOST_TOGETHER = 64
"""How many waiting writers share a transaction; more would make the first of them wait."""

KEPT_STATES = 4096
"""So many challenges are remembered with the length of their logs, so that only what is new is read."""

_READING = "reading:{}:"
_REVIEW = "review:{}:"
_GUESSES = "guess:{}:"
"""How the logs of a lesson's reading, reviews and guesses are called, before the learner's name."""

Result = TypeVar("Result")


class Utc(sa.TypeDecorator[datetime]):
    """An aware UTC datetime, also in SQLite, which forgets time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True
    """Statements with it may be kept: it has no state."""

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """As it is stored."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """As it was given."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Json(sa.TypeDecorator[Any]):
    """JSON as text, as Python writes it: PostgreSQL's types for it refuse infinities and zero characters."""

    impl = sa.Text
    cache_ok = True
    """Statements with it may be kept: it has no state."""

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        """As it is stored."""
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """As it was given."""
        return json.loads(value)


_metadata = sa.MetaData()
_log = sa.Table(
    "log",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("stream", sa.String(200)),
    sa.Column("sequence", sa.Integer),
    sa.Column("learner", sa.String(64)),
    sa.Column("kind", sa.String(32)),
    sa.Column("at", Utc),
    sa.Column("key", sa.String(128)),
    sa.Column("body", Json),
)
_badge = sa.Table(
    "badge",
    _metadata,
    sa.Column("challenge", sa.String(64), primary_key=True),
    sa.Column("learner", sa.String(64)),
    sa.Column("issued_at", Utc),
    sa.Column("credential", sa.Text),
)

# Built once: every click of every learner runs these.
_OF_LEARNER = sa.select(_log).where(_log.c.learner == sa.bindparam("of")).order_by(_log.c.id)
_BODIES = (
    sa.select(_log.c.body)
    .where(_log.c.stream == sa.bindparam("of"), _log.c.sequence >= sa.bindparam("since"))
    .order_by(_log.c.sequence)
)
_LENGTHS = (
    sa.select(_log.c.stream, sa.func.max(_log.c.sequence))
    .where(_log.c.learner.in_(sa.bindparam("of", expanding=True)), _log.c.stream.startswith("challenge:"))
    .group_by(_log.c.stream)
    .order_by(sa.func.min(_log.c.id))
)
_LATEST = sa.select(_log.c.learner, _log.c.stream, _log.c.at).where(
    _log.c.id.in_(
        sa.select(sa.func.max(_log.c.id))
        .where(_log.c.learner.in_(sa.bindparam("of", expanding=True)))
        .group_by(_log.c.learner)
    )
)
_INSERT = _log.insert()


@dataclass
class _Pending:
    """A piece of writing that waits for its transaction, and what became of it."""

    work: Callable[[sa.Connection], Any]
    result: Any = None
    error: BaseException | None = None
    done: bool = False


@dataclass(frozen=True)
class Line:
    """One stored line of any log."""

    stream: str
    learner: str
    kind: str
    at: datetime
    body: Mapping[str, Any]
    key: str | None = None


@dataclass(frozen=True)
class History:
    """Lines in the order of writing, and what derives from them.

    Attributes:
        lines: of any logs; of one learner, where reading and reviews are asked for.
    """

    lines: Sequence[Line]

    def challenges(self, *, pack: str | None = None) -> list[Challenge]:
        """Every challenge, oldest first, of one lesson or all."""
        logs: dict[str, list[LogEntry]] = {}
        for line in self._of("challenge:"):
            logs.setdefault(line.stream, []).append(logbook.from_dict(line.body))
        states = [attempts.replay(entries) for entries in logs.values()]
        return [state for state in states if pack in (None, state.pack)]

    def read_sections(self, pack: str) -> dict[str, set[str]]:
        """Per mode, the sections that were read."""
        read: dict[str, set[str]] = {}
        for line in self._of(_READING.format(pack)):
            read.setdefault(line.body["mode"], set()).add(line.body["section"])
        return read

    def reviews(self, pack: str) -> list[Reviewed]:
        """The cards that were reviewed, oldest first; `review.replay` makes the schedule of it."""
        return [Reviewed.from_dict(line.body) for line in self._of(_REVIEW.format(pack))]

    def _of(self, prefix: str) -> Iterator[Line]:
        return (line for line in self.lines if line.stream.startswith(prefix))


class Progress:
    """The store. Safe to share between threads; open one per process (not across a fork)."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # SQLite lets writers wait by polling; threads of one process rather queue here, in order and at once.
        self._turn = threading.Lock()
        self._waiting: deque[_Pending] = deque()
        self._states: dict[str, tuple[int, Challenge]] = {}

    @classmethod
    def open(cls, target: str | Path | None = None) -> Progress:
        """Opens or creates a store.

        Args:
            target: a file, or a URL such as `postgresql+psycopg://…`; None for `store.address`.

        Raises LessonError where it cannot be opened or was written by a newer Headstart.
        """
        target = target or store.address()
        try:
            opened = cls(_engine(str(target)))
            with opened._writing():
                pass
        except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
            name = store.name_of(str(target)) if store.is_server(str(target)) else target
            raise LessonError(f"cannot open the progress database {name}: {_cause(error)}") from None
        return opened

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def forget_what_was_overwritten(self) -> None:
        """Empties SQLite's journal, where pages of before are; it empties itself later where others read."""
        if self._engine.dialect.name == "sqlite":
            with self.reading() as connection:
                connection.exec_driver_sql("pragma wal_checkpoint(truncate)")

    # Challenges

    def start(self, event: Started, now: datetime) -> Challenge:
        """Begins a challenge (see `attempts.begin`). Starting the same one twice gives the first."""

        def write(connection: sa.Connection) -> Challenge:
            entries = _entries(connection, event.challenge)
            if entries:
                return attempts.replay(entries)
            state, entry = attempts.step(None, event, now)
            _append(connection, state, 0, [entry] if entry else [])
            return state

        return self.write(write)

    def record(
        self, challenge: str, event: Event, now: datetime, *, until: datetime | None = None
    ) -> tuple[Challenge, LogEntry | None]:
        """Applies an event to the challenge as it is now in the database, and stores the outcome.

        Problems whose time is over are logged as expired first, and at the bell (`until`) the challenge as
        ended. The entry is None where nothing changed.
        Raises AnswerRefused where the event is not possible, and LessonError for an unknown challenge.
        """

        def write(connection: sa.Connection) -> tuple[int, Challenge, LogEntry | None]:
            length, state = self._read(connection, challenge)
            state, entries = _expire(state, now, until)
            state, entry = attempts.step(state, event, now)
            entries += [entry] if entry else []
            _append(connection, state, length, entries)
            return length + len(entries), state, entry

        length, state, entry = self.write(write)
        self._remember(length, state)
        return state, entry

    def intervene(self, challenge: str, events: Iterable[Event], now: datetime) -> Challenge:
        """Applies a teacher's events in one transaction; those that are not possible change nothing."""
        wanted = list(events)

        def write(connection: sa.Connection) -> Challenge:
            length, state = self._read(connection, challenge)
            entries = []
            for event in wanted:
                with suppress(AnswerRefused):
                    state, entry = attempts.step(state, event, now)
                    entries += [entry] if entry else []
            _append(connection, state, length, entries)
            return state

        return self.write(write)

    def settle(self, challenge: str, now: datetime, *, until: datetime | None = None) -> Challenge:
        """The challenge as it is now, for a page to show; logs which problems' time is over, and the bell."""
        state = self.challenge(challenge)
        if not attempts.overdue(state, now) and not attempts.rings(state, until, now):
            return state

        def write(connection: sa.Connection) -> Challenge:
            length, state = self._read(connection, challenge)
            state, expired = _expire(state, now, until)
            _append(connection, state, length, expired)
            return state

        return self.write(write)

    def challenge(self, challenge: str) -> Challenge:
        """A challenge, rebuilt from its log. Raises LessonError for an unknown one."""
        with self.reading() as connection:
            length, state = self._read(connection, challenge)
        self._remember(length, state)
        return state

    def entries(self, challenge: str) -> list[LogEntry]:
        """A challenge's log, oldest first; empty for an unknown one."""
        with self.reading() as connection:
            return _entries(connection, challenge)

    def challenges(self, *, learner: str | None = None, pack: str | None = None) -> list[Challenge]:
        """Every challenge, oldest first, of one learner or all, of one lesson or all."""
        return History(self.lines("challenge:", learner=learner)).challenges(pack=pack)

    def taken_by(self, learners: Collection[str], *, pack: str, mode: str) -> list[Challenge]:
        """The challenges of a mode that some learners began, oldest first; only what is new is replayed."""
        found = []
        with self.reading() as connection:
            for stream, last in connection.execute(_LENGTHS, {"of": list(learners)}):
                identity = stream.partition(":")[2]
                length, state = self._states.get(identity, (0, None))
                if state is None or length <= last:
                    length, state = self._read(connection, identity)
                    self._remember(length, state)
                found.append(state)
        return [state for state in found if (state.pack, state.mode) == (pack, mode)]

    def last_seen(self, learners: Collection[str]) -> dict[str, tuple[str, datetime]]:
        """Per learner, the log that they last wrote to, and when."""
        with self.reading() as connection:
            rows = connection.execute(_LATEST, {"of": list(learners)})
            return {row.learner: (row.stream, row.at) for row in rows}

    def _read(self, connection: sa.Connection, challenge: str) -> tuple[int, Challenge]:
        """The length of a challenge's log, and the state that it leads to."""
        length, state = self._states.get(challenge, (0, None))
        entries = _entries(connection, challenge, since=length)
        return length + len(entries), attempts.replay(entries, state)

    def _remember(self, length: int, state: Challenge) -> None:
        """Keeps what a committed log led to. A log only grows, so this stays true of its beginning."""
        if len(self._states) >= KEPT_STATES:
            self._states.clear()
        self._states[state.id] = length, state

    # Any other log: reading, reviews

    def append(self, line: Line) -> bool:
        """Adds a line at the end of its log. False where a line with this key is there already."""

        def write(connection: sa.Connection) -> bool:
            here = _log.c.stream == line.stream
            if line.key is not None:
                taken = sa.select(_log.c.id).where(here, _log.c.key == line.key)
                if connection.execute(taken).first():
                    return False
            last = connection.execute(sa.select(sa.func.max(_log.c.sequence)).where(here)).scalar()
            _insert(connection, line, 0 if last is None else last + 1)
            return True

        return self.write(write)

    def history(self, learner: str) -> History:
        """All that a learner did, read once."""
        with self.reading() as connection:
            return History(_lines(connection.execute(_OF_LEARNER, {"of": learner})))

    def lines(self, prefix: str, *, learner: str | None = None) -> list[Line]:
        """Every line of the logs whose name begins with `prefix`, in the order of writing."""
        query = sa.select(_log).where(_log.c.stream.startswith(prefix, autoescape=True)).order_by(_log.c.id)
        if learner is not None:
            query = query.where(_log.c.learner == learner)
        with self.reading() as connection:
            return _lines(connection.execute(query))

    def mark_read(self, learner: str, pack: str, *, mode: str, section: str, now: datetime) -> bool:
        """Notes that a section of a mode was read. False where it had been noted before."""
        body = {"mode": mode, "section": section}
        key = f"{mode}/{section}"[:128]
        return self.append(Line(_READING.format(pack) + learner, learner, "read", now, body, key))

    def read_sections(self, learner: str, pack: str) -> dict[str, set[str]]:
        """Per mode, the sections a learner has read."""
        return History(self.lines(_READING.format(pack), learner=learner)).read_sections(pack)

    def log_review(self, learner: str, pack: str, reviewed: Reviewed) -> None:
        """Adds a reviewed card to the learner's log (see `review.review`)."""
        stream = _REVIEW.format(pack) + learner
        self.append(Line(stream, learner, "reviewed", reviewed.at, reviewed.to_dict()))

    def reviews(self, learner: str, pack: str) -> list[Reviewed]:
        """What a learner reviewed, oldest first; `review.replay` makes the schedule of it."""
        return History(self.lines(_REVIEW.format(pack), learner=learner)).reviews(pack)

    def log_guess(self, learner: str, pack: str, *, experiment: str, guess: str, now: datetime) -> None:
        """Notes what a learner expects of an experiment."""
        body = {"experiment": experiment, "guess": guess}
        self.append(Line(_GUESSES.format(pack) + learner, learner, "guessed", now, body))

    def guess(self, learner: str, pack: str, *, experiment: str) -> str:
        """What a learner last expected of an experiment; empty where nothing was said."""
        lines = self.lines(_GUESSES.format(pack), learner=learner)
        said = [str(line.body["guess"]) for line in lines if line.body["experiment"] == experiment]
        return said[-1] if said else ""

    # Badges

    def keep_badge(self, challenge: Challenge, credential: str, now: datetime) -> str:
        """Stores a challenge's badge and returns it; a challenge has one, so the first one stays."""

        def write(connection: sa.Connection) -> str:
            query = sa.select(_badge.c.credential).where(_badge.c.challenge == challenge.id)
            kept = connection.execute(query).scalar()
            if kept is not None:
                return str(kept)
            row = {
                "challenge": challenge.id,
                "learner": challenge.learner,
                "issued_at": now,
                "credential": credential,
            }
            connection.execute(_badge.insert().values(**row))
            return credential

        return self.write(write)

    def badge(self, challenge: str) -> str | None:
        """A challenge's credential, or None where no badge has been issued for it."""
        query = sa.select(_badge.c.credential).where(_badge.c.challenge == challenge)
        with self.reading() as connection:
            kept = connection.execute(query).scalar()
        return None if kept is None else str(kept)

    def badges(self, learner: str) -> list[str]:
        """A learner's credentials, oldest first."""
        query = sa.select(_badge.c.credential).where(_badge.c.learner == learner).order_by(_badge.c.issued_at)
        with self.reading() as connection:
            return [str(credential) for credential in connection.execute(query).scalars()]

    # Transactions

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Does a piece of work in a transaction; what it raises leaves no trace."""
        together = self._engine.dialect.name == "sqlite"
        for _ in range(RETRIES):
            try:
                if together:
                    return cast(Result, self._write_together(work))
                with self._writing() as connection:
                    return work(connection)
            except exc.IntegrityError as error:  # another writer took this place in the log: look again
                lost = error
            except (exc.DatabaseError, store.StoreError) as error:
                if store.is_damage(getattr(error, "orig", None) or error):
                    self._engine.dispose()  # it is mended where nobody has it open
                raise InternalError(f"the progress database could not be written: {_cause(error)}") from error
        raise InternalError(
            f"the progress database is too busy, {RETRIES} tries failed: {_cause(lost)}"
        ) from lost

    def _write_together(self, work: Callable[[sa.Connection], Any]) -> Any:
        """Writes in one transaction with whoever else waits: the disk keeps many at the price of one.

        A class that answers at the same moment would otherwise queue for milliseconds each.
        """
        mine = _Pending(work)
        self._waiting.append(mine)
        with self._turn:
            while not mine.done:  # unless another thread wrote it with its own
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
                self._commit(batch)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _commit(self, batch: Sequence[_Pending]) -> None:
        """Does every piece of work in one transaction; one that is refused leaves no trace and hinders none.

        An error of the database itself undoes all of them, and each is told.
        """
        failure: BaseException = InternalError("the progress database was closed while it was written")
        committed = False
        try:
            with self._writing() as connection:
                for each in batch:
                    each.error = None
                    try:
                        with connection.begin_nested():
                            each.result = each.work(connection)
                    except exc.OperationalError:
                        raise
                    except Exception as error:
                        each.error = error
            committed = True
        except Exception as error:
            failure = error
        finally:
            for each in batch:
                each.done = True
                if not committed:
                    each.error = failure

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        engine = self._engine.execution_options(headstart_write=True)
        with engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that asks."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except (exc.OperationalError, store.StoreError) as error:
            raise InternalError(f"the progress database could not be read: {_cause(error)}") from error


def _engine(target: str) -> sa.Engine:
    pool = {"pool_size": 8, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
    if store.is_server(target):
        store.connect(target).close()  # its tables

        def connect_server() -> Any:
            raw = postgresql.open_raw(target, wait=opening.WAIT_SECONDS)
            raw.autocommit = False  # SQLAlchemy begins no transaction by itself
            return raw

        return sa.create_engine(
            "postgresql+psycopg://",
            creator=connect_server,
            pool_pre_ping=True,  # one that broke meanwhile is made anew, and nobody is told
            **pool,
        )
    file = store.path_of(target)
    store.mend(file)
    store.use(file, lambda _: None, writes=True)  # whether it can be written is known within seconds

    def connect() -> sqlite3.Connection:
        connection = opening.connect_file(file, wait=BUSY_SECONDS, threads=True)
        connection.text_factory = str  # decoded by SQLite's module: a learner's history is read for each page
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, **pool)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock before it reads, so that what it rules on cannot change under it. Who only reads
    # asks one question at a time, and needs no transaction.
    if connection.get_execution_options().get("headstart_write", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _lines(rows: Iterable[Any]) -> list[Line]:
    return [Line(row.stream, row.learner, row.kind, row.at, row.body, row.key) for row in rows]


def _entries(connection: sa.Connection, challenge: str, *, since: int = 0) -> list[LogEntry]:
    bodies = connection.execute(_BODIES, {"of": f"challenge:{challenge}", "since": since}).scalars()
    return [logbook.from_dict(body) for body in bodies]


def _expire(
    state: Challenge, now: datetime, until: datetime | None = None
) -> tuple[Challenge, list[LogEntry]]:
    entries = []
    due: list[Event] = [*attempts.overdue(state, now), *attempts.rings(state, until, now)]
    for event in due:
        state, entry = attempts.step(state, event, now)
        if entry is not None:
            entries.append(entry)
    return state, entries


def _append(connection: sa.Connection, state: Challenge, sequence: int, entries: Sequence[LogEntry]) -> None:
    for place, entry in enumerate(entries, sequence):
        key = entry.event.key if isinstance(entry.event, Submitted) else None
        body = logbook.to_dict(entry)
        line = Line(f"challenge:{state.id}", state.learner, body["kind"], entry.at, body, key)
        _insert(connection, line, place)


def _insert(connection: sa.Connection, line: Line, sequence: int) -> None:
    row = {"stream": line.stream, "learner": line.learner, "kind": line.kind, "at": line.at, "key": line.key}
    connection.execute(_INSERT, {**row, "sequence": sequence, "body": dict(line.body)})


def _cause(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error | OSError):
        return store.reason(cause)
    return postgresql.reason(cause)
