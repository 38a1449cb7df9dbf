"""One partition's file: checksummed records in an SQLite database.

SQLite reads through the system's calls and never through a mapping, checks every page that it descends, and
rolls an unfinished transaction back: whatever happened to the file is an error and no crash. Its pages carry
no checksums, so each record has one of its own, over key and value: what is not what was written is noticed
when it is read.
"""

import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from headstart.runs.store import transaction

FILE = "records.sqlite"

BUSY = 10.0
"""Seconds to wait for the lock of another process, which holds it while it commits: for milliseconds."""

KEYS_AT_ONCE = 64
"""Keys asked for in one query; it bounds the memory that their values take beside the caller's."""

_PAGE = 16_384
"""Bytes; larger than SQLite's own 4,096, as maps have hundreds of kilobytes."""

IN_MEMORY = 256 << 20
"""Bytes of a temporary database that stay in memory before temporary files take them."""

_SCHEMA = "CREATE TABLE records (key BLOB NOT NULL UNIQUE, checksum INTEGER NOT NULL, value BLOB NOT NULL)"
_EXPECTED = [(b"table", b"records", _SCHEMA.encode()), (b"index", b"sqlite_autoindex_records_1", None)]

_NOT_DAMAGE = {
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_BUSY: "it is locked, or its file system has no locks",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or written",
    sqlite3.SQLITE_NOLFS: "its file system has no large files",
    sqlite3.SQLITE_PROTOCOL: "its file system has no locks",
    sqlite3.SQLITE_AUTH: "no permission",
}


class DamagedError(Exception):
    """The file is not what was written to it."""


class UnusableError(Exception):
    """The file cannot be read or written now; it may be whole."""


class Database:
    """Bytes by key; for several threads and processes.

    Args:
        path: The file, made where there is none; None is a temporary one that ends with this object, in
            memory while it is small.

    Raises:
        DamagedError: It is no such database.
        UnusableError: It can be neither opened nor made.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        self._writer: sqlite3.Connection | None = None
        with _meant():
            self._reader = _connect(path)
            if path is None:
                self._writer = self._reader
            try:
                found = self._reader.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
                if not found:
                    self._create()
                elif found != _EXPECTED:
                    raise DamagedError("another schema")
                self._identity = None if path is None else _identity(path)
            except BaseException:
                self.close()
                raise

    def _create(self) -> None:
        with transaction(self._reader, writes=True):
            self._reader.execute(_SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS", 1))

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those of ``keys`` that are there."""
        rows = self._query("SELECT key, checksum, value", keys)
        found = {key: value for key, checksum, value in rows if _checksum(key, value) == checksum}
        if len(found) < len(rows):
            raise DamagedError("a record does not have its checksum")
        return found

    def present(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of ``keys`` that are there; answered from the index, no value is read."""
        return {key for key, *_ in self._query("SELECT key", keys)}

    def _query(self, select: str, keys: Sequence[bytes]) -> list[tuple[bytes, int, bytes]]:
        query = f"{select} FROM records WHERE key IN ({','.join('?' * len(keys))})"
        with self._lock, _meant():
            return self._reader.execute(query, keys).fetchall()

    def items(self, *, at_once: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """All keys and values that are what was written, so many at a time."""
        last = -1
        while True:
            with self._lock, _meant():
                rows = self._reader.execute(
                    "SELECT rowid, key, checksum, value FROM records WHERE rowid > ? ORDER BY rowid LIMIT ?",
                    (last, at_once),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [(key, value) for _, key, checksum, value in rows if _checksum(key, value) == checksum]

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store all or, if anything fails or the process dies, none."""
        rows = ((key, _checksum(key, value), value) for key, value in items)
        with self._write_lock, _meant():
            if self._writer is None:  # of its own: readers shall not wait while it writes
                self._writer = _connect(self._path)
            alone = self._lock if self._writer is self._reader else nullcontext()
            with alone, transaction(self._writer, writes=True):
                self._writer.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)

    def is_at(self, path: Path) -> bool:
        """Whether the file that is open is still the one that lies there."""
        return self._identity is not None and self._identity == _identity(path)

    @property
    def empty(self) -> bool:
        """Whether there is no value."""
        with self._lock, _meant():
            return self._reader.execute("SELECT 1 FROM records LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Gives the file back; whoever is using it meanwhile gets an `UnusableError`."""
        with self._lock, self._write_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self.close()


def _connect(path: Path | None) -> sqlite3.Connection:
    """SQLite's, in autocommit; text is never decoded, as a damaged byte may have made a value one."""
    place = "" if path is None else str(path)
    connection = sqlite3.connect(place, timeout=BUSY, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes
    for setting in (
        f"page_size={_PAGE}",
        "mmap_size=0",  # a mapped file that shrinks ends the process (SIGBUS)
        "trusted_schema=0",
        "cell_size_check=1",
        "synchronous=NORMAL",
        "journal_mode=TRUNCATE",
        "cache_spill=0" if path else "cache_spill=1",  # else readers wait for all of a transaction
        f"cache_size=-{(IN_MEMORY if path is None else 32 << 20) >> 10}",
    ):
        connection.execute(f"PRAGMA {setting}").close()
    return connection


@contextmanager
def _meant() -> Iterator[None]:
    """SQLite's errors as what they mean for a cache."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # closed
            raise UnusableError(str(error)) from error
        if code & 0xFF in _NOT_DAMAGE and code not in (
            sqlite3.SQLITE_IOERR_SHORT_READ,
            sqlite3.SQLITE_IOERR_CORRUPTFS,
        ):
            raise UnusableError(_NOT_DAMAGE[code & 0xFF]) from error
        raise DamagedError(str(error)) from error
    except (TypeError, ValueError, OverflowError) as error:  # a value that is no bytes
        raise DamagedError(str(error)) from error


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
