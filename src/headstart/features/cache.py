"""The feature cache: bytes by key, addressed by content.

Storage is LMDB (memory-mapped, copy-on-write, one writer at a time, readers never wait), one environment,
called a *shelf*, per backbone, preprocessing, runtime and precision. A transaction is there whole or not at
all, so a process killed at any moment leaves a cache that the next one uses.
"""

import hashlib
import json
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from headstart.errors import CacheError, OptionError
from headstart.features.turns import writing
from headstart.files import write_whole
from headstart.places import make

FORMAT_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of stored values changes."""

_MAP_SIZES = (1 << 40, 1 << 36, 1 << 32)
"""Address space asked of LMDB, in bytes: the largest that the platform grants. Not disk space."""

_CLOSING = 2.0
"""Seconds to wait for another thread that is just closing the environment that this one wants to open."""

_DTYPES: dict[bytes, np.dtype[Any]] = {b"e": np.dtype("<f2"), b"f": np.dtype("<f4"), b"B": np.dtype("u1")}


class Shelf:
    """One LMDB environment: bytes by key, durable, safe for several threads and processes."""

    def __init__(self, path: Path, description: Mapping[str, str | int]) -> None:
        self.path = path
        self.description = dict(description)
        self._environment = _open_environment(path)
        self._about()

    def _about(self) -> None:
        about = self.path / "about.json"
        if about.exists():
            os.utime(about)  # the time of last use, which `cache prune` goes by
            return
        write_whole(about, json.dumps(self.description, indent=1))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values for ``keys`` in order, None where there is none."""
        with self._environment.begin() as transaction:
            return [transaction.get(key) for key in keys]

    def contains(self, keys: Iterable[bytes]) -> bool:
        """Whether every one of ``keys`` is there."""
        with self._environment.begin(buffers=True) as transaction:
            return all(transaction.get(key) is not None for key in keys)

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, hurry: threading.Event | None = None) -> None:
        """Store all of ``items`` or, if the process dies, none of them.

        Whoever waits for another process's turn for seconds says so; once ``hurry`` is set that ends soon.

        Raises:
            CacheError: the disk is full, the folder cannot be written, or another process kept the turn.
        """
        ready = list(items)  # before the turn begins: others wait for its end
        if not ready:
            return
        try:
            with writing(self.path, hurry=hurry), self._environment.begin(write=True) as transaction:
                for key, value in ready:
                    transaction.put(key, value)
        except (lmdb.Error, OSError) as error:
            raise CacheError(
                f"feature cache {self.path}: {error}; free some space (headstart cache prune) "
                "or set HEADSTART_CACHE to a folder on another disk"
            ) from error

    def read_into(self, keys: Sequence[bytes], out: NDArray[Any]) -> None:
        """Decode the arrays under ``keys`` into the rows of ``out`` without an intermediate copy.

        Raises:
            CacheError: a key is missing (somebody pruned the cache meanwhile).
        """
        with self._environment.begin(buffers=True) as transaction:
            for row, key in enumerate(keys):
                value = transaction.get(key)
                if value is None:
                    raise CacheError(
                        f"feature cache {self.path}: an entry vanished while in use; run it again"
                    )
                out[row] = unpack(value)

    def shape_of(self, key: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the array under ``key``."""
        with self._environment.begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is None:
                raise CacheError(f"feature cache {self.path}: an entry vanished while in use; run it again")
            array = unpack(value)
            return array.shape, array.dtype

    def close(self) -> None:
        """Gives files and address space back. Nobody may use the shelf afterwards."""
        self._environment.close()

    @property
    def entries(self) -> int:
        """How many values the shelf holds."""
        return int(self._environment.stat()["entries"])


_open_shelves: "weakref.WeakValueDictionary[Path, Shelf]" = weakref.WeakValueDictionary()
_open_shelves_lock = threading.Lock()


def _open_environment(path: Path) -> lmdb.Environment:
    """Open, and set a damaged environment aside rather than fail (a cache may always be refilled)."""
    try:
        make(path)
    except OSError as error:
        raise OptionError(
            f"feature cache {path}: {error.strerror}; set HEADSTART_CACHE to a folder that can be written"
        ) from error
    problem: Exception | None = None
    for map_size in (_MAP_SIZES[0], *_MAP_SIZES):  # the first twice, for after damage was set aside
        try:
            environment = _open(path, map_size=map_size)
            environment.reader_check()  # readers that were killed keep their places, of which there are 512
            return environment
        except lmdb.MemoryError as error:  # the platform limits address space
            problem = error
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError):
            path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
            make(path)
        except lmdb.Error as error:
            problem = error
            break
    raise CacheError(
        f"feature cache {path}: {problem}; set HEADSTART_CACHE to a folder that can be written"
    ) from problem


def _open(path: Path, *, map_size: int) -> lmdb.Environment:
    """LMDB's, once no other thread is still closing the same one: a process may have it open only once."""
    until = time.monotonic() + _CLOSING
    while True:
        try:
            return lmdb.open(str(path), map_size=map_size, metasync=False, max_readers=512)
        except lmdb.Error as error:
            if "already open" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.001)


@dataclass(frozen=True)
class ShelfInfo:
    """What `headstart cache` shows of one shelf: sizes in bytes, times in seconds since the epoch."""

    id: str
    description: Mapping[str, str | int]
    bytes: int
    last_used: float


class FeatureCache:
    """All shelves below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root / "features"

    def shelf(self, description: Mapping[str, str | int]) -> Shelf:
        """The shelf for ``description``, every part of which is part of its identity."""
        canonical = json.dumps({**description, "format": FORMAT_VERSION}, sort_keys=True)
        path = self.root / hashlib.blake2b(canonical.encode(), digest_size=12).hexdigest()
        # LMDB forbids opening one environment twice in a process, so all users of a path share it.
        with _open_shelves_lock:
            shelf = _open_shelves.get(path)
            if shelf is None or not path.exists():
                shelf = _open_shelves[path] = Shelf(path, description)
            return shelf

    def close(self) -> None:
        """Closes the shelves that this process has opened below this folder, which is about to be removed.

        Nobody may be using them. A folder that stays needs no closing: its shelves are shared, and go with
        their last user.
        """
        with _open_shelves_lock:
            for path in [path for path in _open_shelves if path.is_relative_to(self.root)]:
                shelf = _open_shelves.pop(path, None)
                if shelf is not None:
                    shelf.close()

    def shelves(self) -> list[ShelfInfo]:
        """Every shelf, the most recently used first."""
        found = []
        for about in self.root.glob("*/about.json"):
            try:
                description = json.loads(about.read_text())
                size = sum(file.stat().st_blocks * 512 for file in about.parent.iterdir())
                found.append(ShelfInfo(about.parent.name, description, size, about.stat().st_mtime))
            except (OSError, ValueError):
                continue  # another process is pruning it
        return sorted(found, key=lambda info: -info.last_used)

    def prune(self, *, keep_bytes: int = 0, older_than: float = 0.0) -> list[ShelfInfo]:
        """Drop least recently used shelves until at most ``keep_bytes`` are left.

        Args:
            keep_bytes: what may stay; 0 drops everything that ``older_than`` allows.
            older_than: only shelves last used this many seconds ago or more.

        Returns:
            What was dropped. A process that is reading a dropped shelf keeps its mapping until it ends.
        """
        shelves, now = self.shelves(), time.time()
        total, dropped = sum(info.bytes for info in shelves), []
        for info in reversed(shelves):
            if total <= keep_bytes:
                break
            if now - info.last_used < older_than:
                continue
            doomed = self.root / f"{info.id}.pruned-{time.time_ns()}"
            (self.root / info.id).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            total -= info.bytes
            dropped.append(info)
        for leftover in [*self.root.glob("*.pruned-*"), *self.root.glob("*.damaged-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        return dropped


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
