"""The feature cache: bytes by key, addressed by content.

Storage is SQLite with a checksum for each record, one database, called a *partition*, per backbone,
preprocessing, runtime and precision. A transaction is there whole or not at all, so a process killed at any
moment leaves a cache that the next one uses; what a disk damaged is set aside and computed again.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, OptionError, reason_of
from headstart.features.database import FILE, IN_MEMORY, KEYS_AT_ONCE, DamagedError, Database, UnusableError
from headstart.features.writer_lock import writer_lock
from headstart.files import Unreadable, make, read_json, write_whole

FORMAT_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of stored values changes."""

SHARD = ".shard"
"""How a file ends that a pass of several processes left in a partition, see `headstart.features.shards`."""

_EARLIER_FILE = "data.mdb"
"""What a partition was before it became an SQLite database."""

_DTYPES: dict[bytes, np.dtype[Any]] = {b"e": np.dtype("<f2"), b"f": np.dtype("<f4"), b"B": np.dtype("u1")}

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_warned: set[Path] = set()
"""Folders of which it was said that nothing is stored there: once in a process is enough."""


class MissingEntriesError(CacheError):
    """Entries that were there vanished: pruned by another process, or damaged and set aside."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"feature cache {path}: an entry vanished while in use; run it again")


class CachePartition:
    """One partition of the cache: bytes by key, durable, safe for several threads and processes.

    What is damaged is set aside and counts as not there. Where nothing can be stored it says so once, and
    keeps what it is given until the process ends.
    """

    def __init__(self, path: Path, description: Mapping[str, str | int]) -> None:
        self.path = path
        self.description = dict(description)
        self._changing = threading.Lock()
        self._spare: Database | None = None
        self._storing = True
        self._stored = self._open()

    def _open(self) -> Database | None:
        """The file on the disk, a new one where it was damaged; None where there can be none."""
        try:
            make(self.path)
        except (FileExistsError, NotADirectoryError) as error:
            raise OptionError(
                f"feature cache {self.path}: {error.strerror}; set HEADSTART_CACHE to a folder"
            ) from error
        except OSError as error:
            self._stop_storing(reason_of(error))
            return None
        file = self.path / FILE
        if (self.path / _EARLIER_FILE).exists() and not file.exists():
            self._rename("outdated", "written by an earlier version")
        for last in (False, True):
            try:
                database = Database(file)
                self._about()
                return database
            except DamagedError as error:
                if last or not self._rename("damaged", f"damaged ({error})"):
                    break
            except UnusableError as error:
                self._stop_storing(str(error))
                return None
        self._stop_storing("it is damaged and cannot be set aside")
        return None

    def _about(self) -> None:
        about = self.path / "about.json"
        with suppress(OSError):  # a disk that is full or can only be read
            if about.exists():
                os.utime(about)  # the time of last use, which `cache prune` goes by
                return
            write_whole(about, json.dumps(self.description, indent=1))

    def _rename(self, kind: str, reason: str) -> bool:
        """Set the folder aside, with a sentence; whether there is an empty one in its place."""
        aside = self.path.with_name(f"{self.path.name}.{kind}-{time.time_ns()}")
        try:
            self.path.rename(aside)
            make(self.path)
        except OSError:
            return False
        _log.warning(
            "feature cache %s: %s; set aside as %s, its features are computed again",
            self.path, reason, aside.name,
        )  # fmt: skip
        return True

    def _set_aside(self, database: Database, reason: Exception) -> None:
        """Go on with a new file; also where another thread or process has noticed the damage before."""
        with self._changing:
            if self._stored is not database:
                return
            database.close()
            if database.is_at(self.path / FILE) and not self._rename("damaged", f"damaged ({reason})"):
                self._stored = None
                self._stop_storing("it is damaged and cannot be set aside")
                return
            self._stored = self._open()

    def _stop_storing(self, reason: str) -> None:
        """Say so, once for all partitions of a cache."""
        self._storing = False
        if self.path.parent not in _warned:
            _warned.add(self.path.parent)
            _log.warning(
                "feature cache %s: %s; going on without storing features (free some space: headstart cache "
                "prune, or set HEADSTART_CACHE to a folder on another disk)",
                self.path, reason,
            )  # fmt: skip

    def _ask(self, question: Callable[[Database], _T], *, otherwise: _T) -> _T:
        """What the file on the disk answers; ``otherwise`` where it cannot."""
        database = self._stored
        if database is None:
            return otherwise
        try:
            return question(database)
        except DamagedError as error:
            self._set_aside(database, error)
        except UnusableError as error:
            with self._changing:
                if self._stored is database:
                    self._stored = None
                    self._stop_storing(str(error))
        return otherwise

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is opened anew."""
        return _partition_at, (self.path.parent.parent, self.description)

    @property
    def stores(self) -> bool:
        """Whether what it is given outlasts the process."""
        return self._storing and self._stored is not None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values for ``keys`` in order, None where there is none."""
        values: list[bytes | None] = []
        for part in _parts(keys):
            nothing: dict[bytes, bytes] = {}
            found = self._ask(partial(Database.get, keys=part), otherwise=nothing)
            if self._spare is not None and len(found) < len(part):
                found |= self._spare.get([key for key in part if key not in found])
            values += [found.get(key) for key in part]
        return values

    def present(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of ``keys`` under which there is something."""
        there: set[bytes] = set()
        for part in _parts(list(set(keys))):
            there |= self._ask(partial(Database.present, keys=part), otherwise=there)
            if self._spare is not None:
                there |= self._spare.present(part)
        return there

    def contains(self, keys: Iterable[bytes]) -> bool:
        """Whether every one of ``keys`` is there."""
        wanted = set(keys)
        return self.present(wanted) == wanted

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, hurry: threading.Event | None = None) -> None:
        """Store all of ``items`` or, if the process dies, none of them.

        Whoever waits for another process's lock for seconds says so; once ``hurry`` is set that ends soon.

        Raises:
            CacheError: another process kept the lock, or what cannot be stored cannot be kept either.
        """
        ready = list(items)  # before the lock is taken: others wait for it
        if not ready:
            return
        for _ in range(3):
            database = self._stored
            if database is None or not self._storing:
                break
            try:
                with writer_lock(self.path, hurry=hurry):
                    database.put(ready)
                return
            except DamagedError as error:
                self._set_aside(database, error)
            except (UnusableError, OSError) as error:
                if self._stored is database:
                    self._stop_storing(reason_of(error))
        try:
            with self._changing:
                self._spare = self._spare or Database(None)
            self._spare.put(ready)
        except (UnusableError, DamagedError) as error:
            raise CacheError(
                f"features can neither be stored in {self.path} nor kept here: {error}"
            ) from error

    def absorb_shards(self) -> None:
        """Take what passes of several processes left beside the file over into it."""
        for path in sorted(self.path.glob(f"*{SHARD}")):
            try:
                shard = Database(path)
                for items in shard.items(at_once=KEYS_AT_ONCE):
                    self.put_many(items)
                shard.close()
            except DamagedError as error:
                _log.warning("feature cache %s: damaged (%s); its features are computed again", path, error)
            except UnusableError:
                continue
            if not self.stores:
                return
            path.unlink(missing_ok=True)

    def has_room(self, needed: int) -> bool:
        """Whether there is a place for so many bytes: the disk, or else what lasts as long as the process."""
        free = _free(self.path)
        if self._storing and needed > free:
            self._stop_storing(f"up to {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")
        return self._storing or needed <= max(IN_MEMORY, _free(Path(tempfile.gettempdir())))

    def read(self, keys: Sequence[bytes]) -> NDArray[Any]:
        """The arrays under ``keys``, which have one shape, as rows.

        Records are of the dtype that each was stored in; the rows have one that holds them all.

        Raises:
            MissingEntriesError: a key is missing: the cache was pruned meanwhile, or is damaged.
        """
        return read_rows(self.get_many, keys, path=self.path)

    def close(self) -> None:
        """Gives files back. Nobody may use the partition afterwards."""
        for database in (self._stored, self._spare):
            if database is not None:
                database.close()

    @property
    def empty(self) -> bool:
        """Whether it holds nothing."""
        return self._spare is None and self._ask(lambda database: database.empty, otherwise=True)


_opened: "weakref.WeakValueDictionary[Path, CachePartition]" = weakref.WeakValueDictionary()
_opened_lock = threading.Lock()


def _partition_at(root: Path, description: Mapping[str, str | int]) -> CachePartition:
    return FeatureCache(root).partition(description)


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]


def _free(path: Path) -> int:
    """Bytes free where a folder is or would be."""
    while not path.is_dir():
        path = path.parent
    return shutil.disk_usage(path).free


@dataclass(frozen=True)
class PartitionInfo:
    """What `headstart cache` shows of one partition: sizes in bytes, times in seconds since the epoch."""

    id: str
    description: Mapping[str, str | int]
    bytes: int
    last_used: float


class FeatureCache:
    """All partitions below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root / "features"

    def partition(self, description: Mapping[str, str | int]) -> CachePartition:
        """The partition for ``description``, every part of which is part of its identity."""
        path = self.path_of(description)
        # All users of a path share it: what was set aside, and what is kept in memory, is then known to all.
        with _opened_lock:
            partition = _opened.get(path)
            if partition is None or not path.exists():
                partition = _opened[path] = CachePartition(path, description)
            return partition

    def path_of(self, description: Mapping[str, str | int]) -> Path:
        """The partition's folder."""
        canonical = json.dumps({**description, "format": FORMAT_VERSION}, sort_keys=True)
        return self.root / hashlib.blake2b(canonical.encode(), digest_size=12).hexdigest()

    def close(self) -> None:
        """Closes the partitions that this process has opened below this folder, which is about to be removed.

        Nobody may be using them. A folder that stays needs no closing: its partitions are shared, and go with
        their last user.
        """
        with _opened_lock:
            for path in [path for path in _opened if path.is_relative_to(self.root)]:
                partition = _opened.pop(path, None)
                if partition is not None:
                    partition.close()

    def partitions(self) -> list[PartitionInfo]:
        """Every partition, the most recently used first."""
        found = []
        for about in self.root.glob("*/about.json"):
            try:
                description = read_json(about)
                size = sum(file.stat().st_blocks * 512 for file in about.parent.iterdir())
                found.append(PartitionInfo(about.parent.name, description, size, about.stat().st_mtime))
            except (OSError, Unreadable):
                continue  # another process is pruning it
        return sorted(found, key=lambda info: -info.last_used)

    def prune(self, *, keep_bytes: int = 0, older_than: float = 0.0) -> list[PartitionInfo]:
        """Drop least recently used partitions until at most ``keep_bytes`` are left.

        Args:
            keep_bytes: what may stay; 0 drops everything that ``older_than`` allows.
            older_than: only partitions last used this many seconds ago or more.

        Returns:
            What was dropped. A process that is reading a dropped partition keeps its mapping until it ends.
        """
        now, dropped = time.time(), []
        # what was set aside has a dot in its name, and goes first
        partitions = sorted(self.partitions(), key=lambda info: "." not in info.id)
        total = sum(info.bytes for info in partitions)
        for info in reversed(partitions):
            if total <= keep_bytes:
                break
            if now - info.last_used < older_than:
                continue
            doomed = self.root / f"{info.id}.pruned-{time.time_ns()}"
            (self.root / info.id).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            total -= info.bytes
            dropped.append(info)
        for leftover in self.root.glob("*.*-*"):  # pruned, damaged, outdated
            shutil.rmtree(leftover, ignore_errors=True)
        return dropped


def read_rows(
    get: Callable[[Sequence[_T]], Sequence[bytes | None]], keys: Sequence[_T], *, path: Path
) -> NDArray[Any]:
    """The arrays under ``keys``, see `CachePartition.read`; ``get`` gives the value of each."""
    rows: NDArray[Any] | None = None
    for start in range(0, len(keys), KEYS_AT_ONCE):
        for row, value in enumerate(get(keys[start : start + KEYS_AT_ONCE]), start):
            if value is None:
                raise MissingEntriesError(path)
            array = unpack(value)
            if rows is None:
                rows = np.empty((len(keys), *array.shape), array.dtype)
            elif array.dtype.itemsize > rows.dtype.itemsize:
                rows = rows.astype(array.dtype)
            rows[row] = array
    return np.zeros((0, 0), np.float32) if rows is None else rows


def pack(array: NDArray[Any]) -> bytes:
    """An array as bytes: dtype, number of dimensions, dimensions, values."""
    dtype = array.dtype.char.encode()
    shape = np.array([array.ndim, *array.shape], "<u4").tobytes()
    return b"".join([dtype, b"\0\0\0", shape, np.ascontiguousarray(array).tobytes()])


def unpack(value: "bytes | memoryview") -> NDArray[Any]:
    """The array that `pack` made ``value`` from; a view of its memory."""
    data = memoryview(value)
    dtype = _DTYPES[bytes(data[:1])]
    dimensions = int.from_bytes(data[4:8], "little")
    end = 8 + 4 * dimensions
    shape = tuple(np.frombuffer(data[8:end], "<u4").tolist())
    array: NDArray[Any] = np.frombuffer(data[end:], dtype)
    return array.reshape(shape)
