"""Shards of a pass that several processes share: each writes a file of its own, whole or not at all.

A shard is a run of neighbouring samples. Its features lie in a file beside the partition's own, written in a
folder of the worker, published by a rename, and never changed afterwards, so that it may lie on a network
file system whose locks nobody trusts. Where shards end depends on the names around, and the file is named
after the samples' names: another number of workers finds the same files, and so do most shards of a data set
that has grown. `extract` on one machine takes shards over into the partition itself.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.images import View
from headstart.errors import CacheError, reason_of
from headstart.features.cache import SHARD, CachePartition, FeatureCache, MissingEntriesError, read_rows
from headstart.features.database import FILE, DamagedError, Database, UnusableError
from headstart.features.extraction import Extraction, Images, record_key
from headstart.files import whole, write_whole

FEW_IMAGES, MANY_IMAGES = 64, 512
"""Images of a shard of a small data set, so that all workers have some, and of a large one, whose shards'
files and tasks shall not become too many."""

_SMALL = 8192
"""Images up to which a data set is small."""

_KEPT_OPEN = 64


@dataclass(frozen=True)
class Shard:
    """Samples ``start`` to ``stop`` of a data set; ``name`` is hex digits of all their names."""

    name: str
    start: int
    stop: int

    @property
    def range(self) -> slice:
        """Its place among the samples."""
        return slice(self.start, self.stop)


def cut_shards(names: Sequence[str], *, images: int | None = None) -> tuple[Shard, ...]:
    """Neighbouring samples, about so many together, from half of that to half as many again.

    Each ends before the name of the least hash within reach, so that a name more or less moves ends nearby
    and no others.
    """
    images = images or (FEW_IMAGES if len(names) <= _SMALL else MANY_IMAGES)
    hashes = np.array([zlib.crc32(name.encode("utf-8", "surrogateescape")) for name in names], np.uint32)
    shards, start = [], 0
    while start < len(names):
        first, last = start + max(1, images // 2), start + images + images // 2
        stop = len(names) if last >= len(names) else first + int(hashes[first:last].argmin())
        text = "\0".join(names[start:stop]).encode("utf-8", "surrogateescape")
        shards.append(Shard(hashlib.blake2b(text, digest_size=12).hexdigest(), start, stop))
        start = stop
    return tuple(shards)


# ---------------------------------------------------------------------------------------------- writing


class _ShardPartition(CachePartition):
    """A partition in a folder of a worker, which begins with what was published and knows what is beside."""

    def __init__(
        self, path: Path, description: Mapping[str, str | int], *, beside: CachePartition | None
    ) -> None:
        super().__init__(path, description)
        self._beside = beside
        self.changed = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Its own values, and those that lie beside, which become its own."""
        values = super().get_many(keys)
        lacking = [place for place, value in enumerate(values) if value is None]
        if self._beside is None or not lacking:
            return values
        found = self._beside.get_many([keys[place] for place in lacking])
        taken = {place: value for place, value in zip(lacking, found, strict=True) if value is not None}
        self.put_many([(keys[place], value) for place, value in taken.items()])
        return [taken.get(place, value) for place, value in enumerate(values)]

    def present(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those that are its own, or have become so."""
        wanted = list(set(keys))
        there = super().present(wanted)
        if self._beside is not None and len(there) < len(wanted):
            lacking = [key for key in wanted if key not in there]
            found = zip(lacking, self.get_many(lacking), strict=True)
            there |= {key for key, value in found if value is not None}
        return there

    def put_many(self, items: Iterable[tuple[bytes, bytes]], **options: Any) -> None:
        """As any partition; but what is published must be on the disk first."""
        ready = list(items)
        super().put_many(ready, **options)
        if ready and not self.stores:
            raise CacheError(f"{self.path}: no room for a shard's features; make some there, or set TMPDIR")
        self.changed |= bool(ready)


class ShardCache(FeatureCache):
    """The cache of a task that extracts one shard, in a temporary folder.

    Args:
        folder: the temporary one.
        shard: its name.
        published: the cache that all share; None where this machine does not see it.
        known: of a shard that was published before, the file of each partition, where ``published`` is None.
        beside: whether the partitions' own files have features worth looking for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shard: str,
        published: FeatureCache | None,
        known: Mapping[str, bytes],
        beside: bool,
    ) -> None:
        super().__init__(folder)
        self._shard, self._published, self._known, self._look = shard, published, known, beside
        self._made: list[_ShardPartition] = []

    def partition(self, description: Mapping[str, str | int]) -> CachePartition:
        """The shard's part of the partition."""
        path = self.path_of(description)
        path.mkdir(parents=True, exist_ok=True)
        beside = None
        if self._published is not None:
            with suppress(FileNotFoundError):
                shutil.copyfile(self._published.path_of(description) / f"{self._shard}{SHARD}", path / FILE)
            if self._look:
                beside = self._published.partition(description)
        elif path.name in self._known:
            (path / FILE).write_bytes(self._known[path.name])
        self._made.append(_ShardPartition(path, description, beside=beside))
        return self._made[-1]

    def publish(self) -> dict[str, bytes]:
        """Put what is new where all find it; return it, by partition, where this machine cannot.

        Raises:
            CacheError: the shared folder cannot be written.
        """
        unsent: dict[str, bytes] = {}
        for each in self._made:
            each.close()
            if each.changed and self._published is None:
                unsent[each.path.name] = (each.path / FILE).read_bytes()
            elif each.changed and self._published is not None:
                target = self._published.path_of(each.description) / f"{self._shard}{SHARD}"
                try:
                    with whole(target) as draft:
                        shutil.copyfile(each.path / FILE, draft)
                except OSError as error:
                    raise CacheError(f"{target}: {reason_of(error)}") from error
        return unsent


def published_files(
    cache: FeatureCache, shard: str, descriptions: Iterable[Mapping[str, str | int]]
) -> dict[str, bytes]:
    """The files of a shard that are here already, by partition, for a machine that does not see them."""
    found = {}
    for description in descriptions:
        folder = cache.path_of(description)
        with suppress(FileNotFoundError):
            found[folder.name] = (folder / f"{shard}{SHARD}").read_bytes()
    return found


def receive(cache: FeatureCache, shard: str, files: Mapping[str, bytes]) -> None:
    """Publish what a machine that does not see the cache has sent."""
    for partition, content in files.items():
        write_whole(cache.root / partition / f"{shard}{SHARD}", content)


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class ShardedExtraction(Extraction):
    """A pass whose features lie in the files of its shards, which follow one another without a gap."""

    shards: tuple[Shard, ...] = ()
    seen_by_all: bool = False  # whether whoever computed them sees the folder where they lie

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.array([shard.start for shard in self.shards], np.int64)

    def parts(self, count: int) -> "list[tuple[int, ShardedExtraction]]":
        """Runs of shards, to be sent elsewhere, at most so many; each with the place of its first image.

        A part's images are counted from its own first one, and it cannot be computed again there.
        """
        count = min(count, len(self.shards))
        edges = [position * len(self.shards) // count for position in range(count + 1)]
        found = []
        for start, stop in pairwise(edges):
            shards = self.shards[start:stop]
            first = shards[0].start
            moved = tuple(Shard(each.name, each.start - first, each.stop - first) for each in shards)
            hashes = self.hashes[first : shards[-1].stop]
            part = replace(self, hashes=hashes, facts=(), skipped=(), shards=moved, again=None)
            found.append((first, part))
        return found

    def _rows(self, images: Images, *, view: View, record: str) -> NDArray[Any]:
        keys = [record_key(self._hash(image), view, record) for image in images]
        places = np.searchsorted(self._starts, np.asarray(images, np.int64), side="right") - 1

        def values(wanted: Sequence[int]) -> list[bytes | None]:
            found: dict[int, bytes] = {}
            for place in np.unique(places[list(wanted)]):
                here = [index for index in wanted if places[index] == place]
                read = self._values(self.shards[place], [keys[index] for index in here])
                found |= {index: read[keys[index]] for index in here if keys[index] in read}
            return [found.get(index) for index in wanted]

        try:
            return read_rows(values, range(len(keys)), path=self.partition.path)
        except MissingEntriesError:
            if self.again is None:  # another pass may have taken the shards into the cache meanwhile
                return super()._rows(images, view=view, record=record)
            return self.again()._rows(images, view=view, record=record)

    def _values(self, shard: Shard, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        path = self.partition.path / f"{shard.name}{SHARD}"
        try:
            status = os.stat(path)
            return _database(path, status.st_ino, status.st_mtime_ns).get(keys)
        except FileNotFoundError:
            return {}
        except (DamagedError, UnusableError):
            path.unlink(missing_ok=True)
            return {}


@lru_cache(maxsize=_KEPT_OPEN)
def _database(path: Path, inode: int, changed: int) -> Database:
    """A shard's file; one that was published anew is another."""
    del inode, changed
    return Database(path)
