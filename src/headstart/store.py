"""The one store of a home folder, ``headstart.db``: timings of work on this machine, so far.

add_timings("desk 8 cores", [Timing("extraction", "mobilenet 96 px", 1.25)])
read_timings("desk 8 cores")    # [Timing(step="extraction", key="mobilenet 96 px", ratio=1.25)]
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TypeVar

from headstart import databases
from headstart.places import home_folder

FILE = "headstart.db"

_SCHEMA = """
create table if not exists timings (
    machine text not null, step text not null, key text not null, ratio real not null, at real not null
);
create index if not exists timings_by_machine on timings (machine, at);
"""

_TIMING_WAIT = 5.0
"""Seconds for which a timing waits for other processes: it is not worth more."""

T = TypeVar("T")


class Timing(NamedTuple):
    """One measured step: ``ratio`` is its seconds over those that a formula gives for it."""

    step: str
    key: str
    ratio: float


def database_file(home: Path | None = None) -> Path:
    """Where the store is; ``HEADSTART_DATABASE`` names another file."""
    chosen = os.environ.get("HEADSTART_DATABASE")
    return Path(chosen).expanduser().absolute() if chosen else (home or home_folder()) / FILE


def add_timings(machine: str, timings: Iterable[Timing], *, home: Path | None = None) -> None:
    """Remember timings; where that cannot be done (a full disk, a read-only home), they are forgotten."""
    now = time.time()
    rows = [(machine, *each, now) for each in timings if isfinite(each.ratio) and each.ratio > 0]
    if rows:
        _softly(
            lambda database: database.executemany("insert into timings values (?, ?, ?, ?, ?)", rows),
            home=home,
            writes=True,
        )


def read_timings(machine: str, *, newest: int = 4000, home: Path | None = None) -> list[Timing]:
    """The newest timings of a machine, the newest first; none where the store cannot be read."""
    if not database_file(home).exists():
        return []
    query = "select step, key, ratio from timings where machine = ? order by at desc, rowid desc limit ?"
    rows = _softly(lambda database: database.execute(query, (machine, newest)).fetchall(), home=home)
    return [Timing(*row) for row in rows or () if isinstance(row[2], float)]


def _softly(work: Callable[[sqlite3.Connection], T], *, home: Path | None, writes: bool = False) -> T | None:
    """Do something with the store; None where that cannot be done."""
    lost = "seconds are predicted from formulas until this machine has done some work again"
    try:
        return databases.use(
            database_file(home),
            work,
            schema=_SCHEMA,
            lost=lost,
            writes=writes,
            wait=_TIMING_WAIT,
            durable=False,
        )
    except (OSError, sqlite3.Error):
        return None
