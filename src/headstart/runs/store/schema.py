"""The tables of the store, version by version, and what is brought over from the files of earlier versions.

To change the schema append a version; never edit a released one. A migration and the number that it leads to
are one transaction, so a killed one leaves the earlier version behind.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from headstart.files import MEBI, Unreadable, parse_json, read_regular


class StoreError(sqlite3.Error):
    """The store cannot be used; the message says why and what helps."""


class Database(Protocol):
    """A connection to a store: SQLite's own, or one to a server that takes the same statements."""

    @property
    def in_transaction(self) -> bool:
        """Whether there is something to roll back."""

    def execute(self, query: str, values: Sequence[Any] = ..., /) -> Any:
        """Run one statement with a ``?`` for each value; gives a cursor."""

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row."""

    def close(self) -> None:
        """Close it; what was not committed is gone."""


class Version(NamedTuple):
    """Statements that lead from one version to the next.

    Attributes:
        shared: of the file and of a server.
        file: of the file alone.
        server: of a server alone, where what the file had before came later.
    """

    shared: str = ""
    file: str = ""
    server: str = ""


_LESSON = """
create table log (
    id {identity} primary key, stream varchar(200) not null, sequence integer not null,
    learner varchar(64) not null, kind varchar(32) not null, at {time} not null, key varchar(128),
    body {json} not null,
    constraint one_entry_per_place unique (stream, sequence),
    constraint one_entry_per_key unique (stream, key)
);
create index ix_log_learner on log (learner);
create table badge (
    challenge varchar(64) primary key, learner varchar(64) not null, issued_at {time} not null,
    credential text not null
);
create index ix_badge_learner on badge (learner);
"""

_MACHINE = """
create table runs (
    {rowid} id {key} primary key, path {path} not null, created {key} not null, body text not null
);
create table timings (
    {rowid} machine text not null, step text not null, key text not null, ratio {real} not null,
    at {real} not null
);
create index timings_by_machine on timings (machine, at);
create table jobs (
    number {identity} primary key, queue text not null, id text unique not null, kind text not null,
    name text not null, learner text not null, body text not null, state text not null,
    message text not null default '', result text not null default '{{}}', starts integer not null default 0,
    stopping integer not null default 0, created {real} not null
);
create index jobs_by_owner on jobs (queue, learner, kind, name, number);
create index jobs_by_state on jobs (queue, state, number);
create table events (
    job text not null, number integer not null, kind text not null, data text not null,
    primary key (job, number)
);
create table results (
    number {identity} primary key, id text unique not null, name text not null, size text not null,
    varied integer not null, created text not null, seconds {real} not null, result text not null
);
create index results_by_name on results (name, number);
"""

_QUEUE = """
alter table jobs add column asker text not null default '';
alter table jobs add column urgent integer not null default 1;
"""

_SERVER = """
alter table log alter column body type text using body::text;
"""

_CLASSES = """
create table classes (
    id varchar(32) primary key, name varchar(80) not null, pack varchar(100) not null,
    code varchar(6) unique not null, token varchar(64) unique not null, created {time} not null,
    rules {json} not null
);
create table members (
    learner varchar(64) primary key, class varchar(32) not null, number integer not null,
    name varchar(80) not null, reference varchar(200) not null, code varchar(64) unique, factor {real},
    joined {time},
    constraint one_member_per_number unique (class, number)
);
"""

_LTI = """
create table lti_platforms (
    id varchar(16) primary key, issuer varchar(255) not null, client varchar(255) not null,
    facts {json} not null,
    constraint one_platform_per_client unique (issuer, client)
);
create table lti_links (
    place varchar(64) primary key, platform varchar(16) not null, class varchar(32) not null,
    facts {json} not null
);
"""

VERSIONS: tuple[Version, ...] = (
    Version(shared=_LESSON),
    Version(file=_MACHINE),
    Version(file=_QUEUE),
    Version(server=_SERVER + _MACHINE + _QUEUE),
    Version(shared=_CLASSES),
    Version(shared=_LTI),
)

TYPES = {
    "sqlite": {
        "identity": "integer",
        "json": "json",
        "time": "datetime",
        "real": "real",
        "key": "text",
        "path": "text",  # or bytes, as SQLite holds what it is given
        "rowid": "",
    },
    "postgresql": {
        "identity": "bigserial",
        "json": "text",  # json and jsonb refuse infinities and zero characters
        "time": "timestamp with time zone",
        "real": "double precision",
        "key": 'text collate "C"',
        "path": "bytea",
        "rowid": "rowid bigserial,",
    },
}
"""What the types in the statements are called in SQLite and PostgreSQL."""


def version_of(database: sqlite3.Connection) -> int:
    """The version of a file's tables; 0 where it has none."""
    named = "select 1 from sqlite_master where name = 'schema_version'"
    if database.execute(named).fetchone() is None:
        return 0
    return _newest(database.execute)


def migrate(execute: Callable[[str], Any], *, dialect: str = "sqlite") -> None:
    """Bring the tables to the newest version, inside the caller's transaction.

    Args:
        execute: runs one statement and gives a cursor.
        dialect: "sqlite" for the file, "postgresql" for a server.

    Raises:
        StoreError: they were written by a newer Headstart.
    """
    execute("create table if not exists schema_version (version integer not null)")
    found = _newest(execute)
    if found > len(VERSIONS):
        raise StoreError(
            f"its tables have version {found}, this Headstart knows {len(VERSIONS)}; upgrade Headstart or "
            "use another HEADSTART_HOME"
        )
    for number, version in enumerate(VERSIONS[found:], found + 1):
        script = version.shared + (version.file if dialect == "sqlite" else version.server)
        for statement in script.format(**TYPES[dialect]).split(";"):
            if statement.strip():
                execute(statement)
        execute(f"insert into schema_version (version) values ({number})")


def _newest(execute: Callable[[str], Any]) -> int:
    return int(execute("select max(version) from schema_version").fetchone()[0] or 0)


# ------------------------------------------------------------------------------------- rows from other files


class EarlierFile(NamedTuple):
    """Tables of another file whose rows are copied, and what its rows lack."""

    tables: tuple[str, ...]
    constants: Mapping[str, str] = {}


EARLIER = {
    "progress.db": EarlierFile(("log", "badge")),
    "runs.sqlite": EarlierFile(("runs",)),
    "jobs.db": EarlierFile(("jobs", "events"), {"queue": "work"}),
    "studio/looks.db": EarlierFile(("jobs", "events"), {"queue": "looks"}),
    "experiments.db": EarlierFile(("results",)),
    "rates.sqlite": EarlierFile(()),  # ratios to formulas that are no more
}
"""The files of a home folder before there was one store."""

WHOLE = EarlierFile(
    (
        "log",
        "badge",
        "classes",
        "members",
        "lti_platforms",
        "lti_links",
        "runs",
        "timings",
        "jobs",
        "events",
        "results",
    )
)
"""A store itself."""

_ORDERED = ("jobs", "results")
"""Their numbers say what came first and nothing else: rows of several files are numbered anew."""


def copy(source: EarlierFile, *, old: sqlite3.Connection, new: sqlite3.Connection) -> bool:
    """Copy every row that can be read; of a damaged file those before and behind what is damaged.

    Returns:
        Whether that was all.
    """
    lost: list[sqlite3.Error] = []
    for table in source.tables:
        there, here = (_columns(each, table, lost) for each in (old, new))
        columns = [name for name in here if name in there and not (name == "number" and table in _ORDERED)]
        if columns:
            names = [*columns, *(name for name in source.constants if name in here)]
            new.executemany(
                f"insert or ignore into {table} ({', '.join(names)}) values ({', '.join('?' * len(names))})",
                (
                    (*row, *(source.constants[name] for name in names[len(columns) :]))
                    for row in _rows(old, table, columns, lost=lost)
                ),
            )
    if "log" in source.tables and lost:  # what comes after a lost line cannot be understood
        new.execute(
            "delete from log where id in (select id from log as line where sequence > (select count(*) "
            "from log as earlier where earlier.stream = line.stream and earlier.sequence < line.sequence))"
        )
    return not lost


def _columns(database: sqlite3.Connection, table: str, lost: list[sqlite3.Error]) -> list[str]:
    try:
        return [row[1] for row in database.execute(f"pragma table_info({table})")]
    except sqlite3.DatabaseError as error:
        _note_damage(error, lost)
        return []


def _rows(
    database: sqlite3.Connection, table: str, columns: list[str], *, lost: list[sqlite3.Error]
) -> Iterator[tuple[Any, ...]]:
    """Rows from the first one on, and where that ends early from the last one back to there."""
    keyed = database.execute(f"select sql from sqlite_master where name = '{table}'").fetchone()
    key = "number" if "without rowid" in str(keyed).lower() else "rowid"
    select, last = f"select {key}, {', '.join(columns)} from {table}", None
    try:
        for at, *row in database.execute(f"{select} order by {key}"):
            last = at
            yield tuple(row)
        return
    except sqlite3.DatabaseError as error:
        _note_damage(error, lost)
    with suppress(sqlite3.DatabaseError):
        for at, *row in database.execute(f"{select} order by {key} desc"):
            if at == last:
                return
            yield tuple(row)


def _note_damage(error: sqlite3.Error, lost: list[sqlite3.Error]) -> None:
    """Raise what is no damage: a busy or full disk must not cost a row."""
    if not is_damage(error):
        raise error
    lost.append(error)


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file is no sound database."""
    return code_of(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def code_of(error: BaseException) -> int:
    """SQLite's number of an error; 0 of others."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the number is detail


_LARGEST = 1024 * MEBI
"""Bytes of a damaged file that are searched for runs."""

_PLACE = re.compile(rb'"path": ("(?:[^"\\]|\\.){1,8192}")')
"""Where a record says that its run lies."""


def enter_places(file: Path, new: sqlite3.Connection) -> None:
    """Enter the runs that a damaged file names anywhere; one without a record is read from its folder."""
    for each in (file, file.with_name(f"{file.name}-wal")):
        with suppress(Unreadable):
            for place in places_in(read_regular(each, limit=_LARGEST)):
                if (place / "run.json").is_file():
                    new.execute(
                        "insert or ignore into runs select ?1, ?1, '', '' "
                        "where not exists (select 1 from runs where path = ?1)",
                        (os.fsencode(place),),
                    )


def places_in(data: bytes) -> Iterator[Path]:
    """The folders that records of runs name, wherever in some bytes."""
    for text in set(_PLACE.findall(data)):
        with suppress(Unreadable):
            place = parse_json(text)
            if isinstance(place, str) and os.path.isabs(place) and "\0" not in place:
                yield Path(place)
