"""What work took on this machine, for predictions: the store's table ``timings``.

add_timings("desk 8 cores", [Timing("extraction", "mobilenet 96 px", 1.25)])
read_timings("desk 8 cores")    # [Timing(step="extraction", key="mobilenet 96 px", ratio=1.25)]
"""

import sqlite3
import time
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TypeVar

from headstart.runs.store.opening import address, is_there, use
from headstart.runs.store.schema import Database

_WAIT_SECONDS = 5.0
"""Seconds for which a timing waits for other processes: it is not worth more."""

T = TypeVar("T")


class Timing(NamedTuple):
    """One measured step: ``ratio`` is its seconds over those that a formula gives for it."""

    step: str
    key: str
    ratio: float


def add_timings(machine: str, timings: Iterable[Timing], *, home: Path | None = None) -> None:
    """Remember timings; where that cannot be done (a full disk, a read-only home), they are forgotten."""
    now = time.time()
    rows = [(machine, *each, now) for each in timings if isfinite(each.ratio) and each.ratio > 0]
    if rows:
        _softly(
            lambda database: database.executemany(
                "insert into timings (machine, step, key, ratio, at) values (?, ?, ?, ?, ?)", rows
            ),
            home=home,
            writes=True,
        )


def read_timings(machine: str, *, newest: int = 4000, home: Path | None = None) -> list[Timing]:
    """The newest timings of a machine, the newest first; none where the store cannot be read."""
    if not is_there(address(home)):
        return []
    query = "select step, key, ratio from timings where machine = ? order by at desc, rowid desc limit ?"
    rows = _softly(lambda database: database.execute(query, (machine, newest)).fetchall(), home=home)
    return [Timing(*row) for row in rows or () if isinstance(row[2], float)]


def _softly(work: Callable[[Database], T], *, home: Path | None, writes: bool = False) -> T | None:
    """Do something with the store; None where that cannot be done."""
    try:
        return use(address(home), work, writes=writes, wait=_WAIT_SECONDS, durable=False)
    except (OSError, sqlite3.Error):
        return None
