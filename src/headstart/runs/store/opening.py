"""Opens the store, waits for others not too long, migrates its tables, and mends a damaged file."""

import logging
import os
import sqlite3
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from headstart.errors import printable
from headstart.files import home_folder, make, read_regular, write_new
from headstart.runs.store import postgresql, schema
from headstart.runs.store.schema import EARLIER, Database, EarlierFile, StoreError, code_of, is_damage

Address = Path | str
"""Where a store is: its file, or the URL of a PostgreSQL server."""

FILE = "headstart.db"

_IDENTITY = "home.id"

WAIT_SECONDS = 12.0
"""How long is waited for another process that writes, in all: a person wants a word within half a minute."""

_PAUSE = 0.05

T = TypeVar("T")

_log = logging.getLogger(__name__)


def address(home: Path | None = None) -> Address:
    """Where the store of a home folder is; ``HEADSTART_DATABASE`` may name a server for the user's own."""
    usual, chosen = home_folder(), os.environ.get("HEADSTART_DATABASE", "")
    return chosen if is_server(chosen) and home in (None, usual) else store_file(home)


def name_of(place: Address) -> str:
    """A store's file or server, for a message: a password is never part of it."""
    return printable(place) if isinstance(place, Path) else postgresql.shown(place)


def store_file(home: Path | None = None) -> Path:
    """The file of a home folder, ``headstart.db``; ``HEADSTART_DATABASE`` names that of the user's own."""
    usual, chosen = home_folder(), os.environ.get("HEADSTART_DATABASE", "")
    if chosen and not is_server(chosen) and home in (None, usual):
        return path_of(chosen)
    return (home or usual) / FILE


def is_server(target: str) -> bool:
    """Whether a target is the URL of anything but a file of SQLite."""
    return "://" in target and not target.startswith("sqlite")


def path_of(target: str) -> Path:
    """The file that a path or a SQLAlchemy URL of SQLite names."""
    return Path(target.rpartition(":///")[2]).expanduser().absolute()


def identity(home: Path) -> str:
    """What tells a home folder from those of all machines: a file in it, made when first asked for."""
    file = make(home) / _IDENTITY
    if not file.exists():
        write_new(file, uuid.uuid4().hex.encode())
    return read_regular(file, limit=64).decode("ascii", "replace")


def is_there(file: Address) -> bool:
    """Whether something was stored, be it in a file of an earlier version; True of a server."""
    if isinstance(file, str):
        return True
    return file.exists() or any(place.exists() for place, _ in _earlier(file))


def _earlier(file: Path) -> list[tuple[Path, EarlierFile]]:
    """What is brought into a new store; one that the user has named begins empty."""
    return [(file.parent / name, source) for name, source in EARLIER.items()] if file.name == FILE else []


class _Connection(sqlite3.Connection):
    """Known as long as it is open: a file is not moved away under it."""

    def close(self) -> None:
        super().close()
        _open.pop(self, None)


_open: weakref.WeakKeyDictionary[_Connection, Path] = weakref.WeakKeyDictionary()


def use(
    file: Address,
    work: Callable[[Database], T],
    *,
    writes: bool = False,
    wait: float | None = None,
    durable: bool = True,
) -> T:
    """Do something with a store in one transaction; a damaged file is mended first.

    Where the connection to a server breaks before anything was committed, it is done once more.

    Args:
        file: see `connect`, and so for ``wait`` and ``durable``.
        work: what to do; it may be done twice.
        writes: whether it changes anything, so that it waits for other writers before it reads.
        wait: see ``file``.
        durable: see ``file``.

    Raises:
        sqlite3.Error, OSError: see `reason`.
    """

    def once() -> T:
        opened = closing(connect(file, wait=wait, durable=durable))
        with opened as database, transaction(database, writes=writes):
            return work(database)

    try:
        return once()
    except postgresql.ConnectionLost:
        return once()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    mend(file)
    return once()


@contextmanager
def transaction(database: Database, *, writes: bool, wait: float | None = None) -> Iterator[None]:
    """All of it or, if anything is raised, nothing; ``wait`` as in `connect`."""
    try:
        if isinstance(database, postgresql.Connection):
            database.begin(writes=writes, wait=wait)
        else:
            if wait is not None:
                database.execute(f"pragma busy_timeout = {round(1000 * wait)}")
            database.execute("begin immediate" if writes else "begin")
        yield
        database.execute("commit")
    except BaseException:
        if database.in_transaction:
            with suppress(sqlite3.Error):
                database.execute("rollback")
        raise


def connect(
    file: Address, *, wait: float | None = None, durable: bool = True, threads: bool = False
) -> Database:
    """Open a store, and make it where it is missing. Transactions are begun and ended by the caller.

    Args:
        file: its folder is made too; or a server's URL.
        wait: seconds for which a statement waits for another process; None for the usual.
        durable: whether what is committed survives a power cut.
        threads: whether several threads share the connection, one at a time.

    Raises:
        sqlite3.Error, OSError: see `reason`.
    """
    seconds = WAIT_SECONDS if wait is None else wait
    if isinstance(file, str):
        return postgresql.connect(file, wait=seconds, durable=durable)
    return connect_file(file, wait=seconds, durable=durable, threads=threads)


def connect_file(
    file: Path, *, wait: float = WAIT_SECONDS, durable: bool = True, threads: bool = False
) -> sqlite3.Connection:
    """The same for a file, with all that SQLite's connection has."""
    make(file.parent)
    database = sqlite3.connect(
        file, timeout=wait, isolation_level=None, check_same_thread=not threads, factory=_Connection
    )
    try:
        _open[database] = file
        # A damaged text is one damaged row, and no failure of all others.
        database.text_factory = _text
        _use_wal(database, until=time.monotonic() + wait)
        database.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
        if schema.version_of(database) != len(schema.VERSIONS):
            _migrate(database, file)
    except BaseException:
        database.close()
        raise
    return database


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _use_wal(database: sqlite3.Connection, *, until: float) -> None:
    """Readers need not wait for writers then. Switching itself does not wait for others that switch too."""
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= until:
                raise
            time.sleep(_PAUSE)


def _migrate(database: sqlite3.Connection, file: Path) -> None:
    moved: list[tuple[Path, bool]] = []
    with transaction(database, writes=True):
        before = schema.version_of(database)
        schema.migrate(database.execute)
        if before == 0:
            moved = [
                (earlier, _bring(earlier, source, database))
                for earlier, source in _earlier(file)
                if earlier.exists()
            ]
    for earlier, whole in moved:
        with suppress(OSError):  # nothing of it is read again, whatever it is called
            if whole:
                earlier.rename(earlier.with_name(f"{earlier.name}.earlier"))
            else:
                _set_aside(earlier)


def _bring(earlier: Path, source: EarlierFile, database: sqlite3.Connection) -> bool:
    """Copy the rows of an earlier version's file; whether that was all."""
    with closing(sqlite3.connect(earlier, timeout=_PAUSE, isolation_level=None)) as old:
        old.text_factory = _text
        try:
            # It needs the file for itself, and leaves all of it in the one file that is renamed afterwards.
            old.execute("pragma journal_mode = delete")
        except sqlite3.DatabaseError as error:
            if is_busy(error):
                raise StoreError(
                    f"an earlier Headstart still uses {printable(earlier)}; end it first"
                ) from None
            if not is_damage(error):
                raise
        whole = schema.copy(source, old=old, new=database)
    if not whole and "runs" in source.tables:
        schema.enter_places(earlier, database)
    return whole


def mend(file: Address) -> None:
    """Set a damaged file aside, make a new one of what can be read of it, and say so in the log.

    Whoever keeps a connection calls it before, as reading comes upon damage late.

    Raises:
        sqlite3.Error, OSError: it cannot be moved, or somebody has it open; see `reason`.
    """
    if isinstance(file, str) or not file.exists() or is_sound(file) or not _is_ours(file):
        return
    with alone(file.with_name(f"{file.name}.lock"), wait=WAIT_SECONDS) as mine:
        if not mine or is_sound(file):
            return  # another process has done it
        if file in set(_open.values()) or _is_used(file):
            raise StoreError("it is damaged, and another program has it open; end that, and it is mended")
        draft = file.with_name(f"{file.name}.draft")
        draft.unlink(missing_ok=True)
        with closing(connect_file(draft)) as new, transaction(new, writes=True):
            with closing(sqlite3.connect(file, isolation_level=None)) as old:
                old.text_factory = _text
                schema.copy(schema.WHOLE, old=old, new=new)
            schema.enter_places(file, new)
        _set_aside(file)
        draft.rename(file)


def _set_aside(file: Path) -> None:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = file.with_name(f"{file.name}.damaged-{stamp}")
    file.rename(aside)
    for ending in ("-wal", "-shm"):  # they belong to it; left behind they would damage the new one
        with suppress(FileNotFoundError):
            file.with_name(file.name + ending).rename(aside.with_name(aside.name + ending))
    _log.warning(
        "%s is damaged and was set aside as %s; what could be read of it was kept, and headstart runs "
        "--rebuild FOLDER… adds runs that lie elsewhere",
        printable(file),
        printable(aside.name),
    )


def _is_ours(file: Path) -> bool:
    """Whether a file was a store once; what is anything else was named by mistake."""
    with file.open("rb") as opened:
        head = opened.read(16)
    return file.name == FILE or head == b"SQLite format 3\0" or not any(head)


def _is_used(file: Path) -> bool:
    """Whether another process has a store open: in WAL mode it holds a lock for as long."""
    if os.name != "posix":
        return False  # where a file that is open cannot be renamed
    import fcntl

    with file.open("rb+") as opened:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, *_SHARED_LOCK)
        except OSError:
            return True
    return False


_SHARED_LOCK = (510, 0x40000002)
"""Bytes, and the first of them, on which SQLite has its shared locks (sqlite.org/fileformat2.html)."""


@contextmanager
def alone(file: Path, *, wait: float = 0.0) -> Iterator[bool]:
    """Whether this process alone holds a lock, which the system takes back from whoever dies.

    SQLite's own lock on a file of its own does it on every system, and needs no package.
    """
    with closing(sqlite3.connect(file, timeout=wait, isolation_level=None)) as database:
        held = False
        try:
            database.execute("begin exclusive")
            held = True
        except sqlite3.DatabaseError as error:
            if is_damage(error):  # it holds nothing but the lock
                file.unlink(missing_ok=True)
            elif not is_busy(error):
                raise
        yield held


def is_sound(file: Path) -> bool:
    """Whether a file that is there can be read from beginning to end; True while somebody writes it."""
    with closing(sqlite3.connect(file, timeout=1.0)) as database:
        try:
            return bool(database.execute("pragma quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error as error:
            return not is_damage(error)


def is_busy(error: BaseException) -> bool:
    """Whether another process was waited for in vain; a disk without locks looks the same."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def reason(error: Exception) -> str:
    """What went wrong and what helps, for a line of text."""
    if isinstance(error, StoreError):
        return str(error)
    if is_busy(error):
        return (
            "another process keeps it locked, or its disk knows no locks; end that process, or set "
            "HEADSTART_HOME to a folder on a local disk"
        )
    if code_of(error) == sqlite3.SQLITE_FULL:
        return "the disk is full; make room"
    if code_of(error) == sqlite3.SQLITE_ERROR:
        return f"{error}, so it is of another version; move the file away"
    if is_damage(error):
        return f"{error}; move the file away"
    return f"{getattr(error, 'strerror', None) or error}; set HEADSTART_HOME to a folder of yours"
