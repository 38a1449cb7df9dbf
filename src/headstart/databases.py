"""SQLite files in the home folder: opened in one way, set aside where damaged, waited for not too long."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from headstart.errors import printable
from headstart.files import make

WAIT_SECONDS = 12.0
"""How long is waited for another process that writes, in all: a person wants a word within half a minute."""

_SWITCH_PAUSE = 0.05

T = TypeVar("T")
U = TypeVar("U")

_log = logging.getLogger(__name__)


def use(
    path: Path,
    work: Callable[[sqlite3.Connection], T],
    *,
    schema: str,
    lost: str,
    writes: bool = False,
    wait: float | None = None,
    durable: bool = True,
    refill: Callable[[sqlite3.Connection, Path], object] | None = None,
) -> T:
    """Do something with a store in one transaction; a damaged one is set aside, and a new one is used.

    Args:
        path: the file.
        work: what to do; it may be done twice.
        schema: see `connect`, and so for ``wait`` and ``durable``.
        lost: see `set_aside`.
        writes: whether it changes anything, so that it waits for other writers before it reads.
        wait: see ``schema``.
        durable: see ``schema``.
        refill: fills the new store from the damaged one, whose place it is told.

    Raises:
        sqlite3.Error, OSError: see `reason`.
    """

    def once(do: Callable[[sqlite3.Connection], U], *, writes: bool) -> U:
        opened = closing(connect(path, schema=schema, wait=wait, durable=durable))
        with opened as database, transaction(database, writes=writes):
            return do(database)

    try:
        return once(work, writes=writes)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        aside = set_aside(path, lost=lost)
        if aside is not None and refill is not None:
            filling = refill
            once(lambda database: filling(database, aside), writes=True)
        return once(work, writes=writes)


@contextmanager
def transaction(database: sqlite3.Connection, *, writes: bool) -> Iterator[None]:
    """All of it or, if anything is raised, nothing."""
    database.execute("begin immediate" if writes else "begin")
    try:
        yield
        database.execute("commit")
    except BaseException:
        if database.in_transaction:
            with suppress(sqlite3.Error):
                database.execute("rollback")
        raise


def connect(
    path: Path, *, schema: str, wait: float | None = None, durable: bool = True, threads: bool = False
) -> sqlite3.Connection:
    """Open a store, and make it where it is missing. Transactions are begun and ended by the caller.

    Args:
        path: the file; its folder is made too.
        schema: statements that make what is missing.
        wait: seconds for which a statement waits for another process; None for the usual.
        durable: whether what is committed survives a power cut.
        threads: whether several threads share the connection, one at a time.

    Raises:
        sqlite3.Error, OSError: see `reason`.
    """
    make(path.parent)
    seconds = WAIT_SECONDS if wait is None else wait
    database = sqlite3.connect(path, timeout=seconds, isolation_level=None, check_same_thread=not threads)
    try:
        # A damaged text is one damaged row, and no failure of all others.
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        use_wal(database, until=time.monotonic() + seconds)
        database.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
        for statement in schema.split(";"):
            database.execute(statement)
    except BaseException:
        database.close()
        raise
    return database


def use_wal(database: sqlite3.Connection, *, until: float) -> None:
    """Readers need not wait for writers then. Switching itself does not wait for others that switch too."""
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= until:
                raise
            time.sleep(_SWITCH_PAUSE)


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file is no sound database."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: BaseException) -> bool:
    """Whether another process was waited for in vain; a disk without locks looks the same."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the number is detail


def reason(error: Exception) -> str:
    """What went wrong and what helps, for a line of text."""
    if is_busy(error):
        return (
            "another process keeps it locked, or its disk knows no locks; end that process, or set "
            "HEADSTART_HOME to a folder on a local disk"
        )
    if _code(error) == sqlite3.SQLITE_FULL:
        return "the disk is full; make room"
    if _code(error) == sqlite3.SQLITE_ERROR:
        return f"{error}, so it is of another version; move the file away"
    if is_damage(error):
        return f"{error}; move the file away"
    return f"{getattr(error, 'strerror', None) or error}; set HEADSTART_HOME to a folder of yours"


def is_sound(path: Path) -> bool:
    """Whether a file that is there can be read from beginning to end; True while somebody writes it."""
    database = None
    try:
        database = sqlite3.connect(path, timeout=1.0)
        return bool(database.execute("pragma quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error as error:
        return not is_damage(error)
    finally:
        if database is not None:
            database.close()


def set_aside(path: Path, *, lost: str) -> Path | None:
    """Give a damaged store another name, so that a new one can be made, and say so in the log.

    Args:
        path: the file.
        lost: what follows of it, as the end of a sentence.

    Returns:
        Its new name; None where another process has done it already.

    Raises:
        OSError: it cannot be renamed.
    """
    if not path.exists() or is_sound(path):
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    path.rename(aside)
    for ending in ("-wal", "-shm"):  # they belong to it; left behind they would damage the new one
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    _log.warning("%s is damaged and was set aside as %s; %s", printable(path), printable(aside.name), lost)
    return aside
