"""Listing a tar, compressed or not.

An uncompressed one is read where it lies: listing notes where each member begins. A compressed one is read
through once, and the members that may be images, labels or tables are kept in a file without a name, which
is gone with the process.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from headstart.data.images import IMAGE_SUFFIXES
from headstart.data.sources.listing import Listing, Member, arrange
from headstart.data.sources.names import LABEL_SUFFIXES, TABLE_SUFFIXES
from headstart.data.sources.reading import MAX_FILE_BYTES, LostSource, OpenFile, Source, Stretches, TarSource
from headstart.data.sources.remote import Place
from headstart.errors import DatasetError, printable, reason_of
from headstart.files import cache_folder, make

MAX_TAR_EXPANSION = 100
"""A compressed tar that grows further than this is a bomb: photographs hardly shrink."""

SMALLEST_EXPANSION = 32 * 2**20
"""Bytes to which any compressed tar may grow."""

_LARGEST_HEADER = 2**18
"""Bytes of one header; names and attributes of photographs take a few hundred."""

_PIECE = 2**20

_DECOMPRESS: dict[bytes, Callable[[IO[bytes]], object]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}

_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError)


def list_tar(path: Place) -> Listing:
    """List a tar; DatasetError if it is none, damaged, or expands absurdly."""
    return arrange(tar_members(path))


def tar_members(path: Place) -> Iterator[Member]:
    """Every member in the tar's order, links that lead to later ones at the end; DatasetError as above."""
    try:
        with path.open("rb") if isinstance(path, Path) else path.open() as file:
            decompress = _DECOMPRESS.get(file.read(2))
            file.seek(0)
            if decompress is None:
                held = OpenFile.of(file) if isinstance(path, Path) else cast("Stretches", file.raw)
                yield from _Tar(str(path), _Stream(file, seekable=True), held).members()
                return
            most = max(SMALLEST_EXPANSION, MAX_TAR_EXPANSION * file.seek(0, os.SEEK_END))
            file.seek(0)
            spool = cache_folder() / "spool"
            most = min(most, shutil.disk_usage(make(spool)).free // 2)
            content = cast("IO[bytes]", decompress(file))
            with content, tempfile.TemporaryFile(dir=spool, buffering=0) as kept:
                stream = _Stream(content, most=most)
                yield from _Tar(str(path), stream, OpenFile.of(kept), kept).members()
    except _DAMAGED as error:
        raise DatasetError(f"{printable(path)}: not a readable tar: {reason_of(error)}") from error


@dataclass
class _Stream:
    """What `tarfile` reads headers from: bounded, and back by one byte at most."""

    file: IO[bytes]
    most: int = 2**63  # bytes
    seekable: bool = False
    wanted: int = 0  # where the next read begins
    at: int = 0  # where the file is
    last: bytes = b""  # what was read last

    def tell(self) -> int:
        return self.wanted

    def seek(self, position: int) -> int:
        self.wanted = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        if self.wanted == self.at - 1 and size == 1 and self.last:
            self.wanted += 1
            return self.last[-1:]
        self._go()
        self.last = self._take(size)
        return self.last

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """A member's content; ReadError where the file ends before it does."""
        self.wanted = offset
        self._go()
        while size:
            self.last = self._take(min(size, _PIECE))
            if not self.last:
                raise tarfile.ReadError("it breaks off")
            size -= len(self.last)
            yield self.last

    def _go(self) -> None:
        if self.seekable:
            self.file.seek(self.wanted)
            self.at = self.wanted
        while self.at < self.wanted and self._take(min(_PIECE, self.wanted - self.at), skipping=True):
            pass

    def _take(self, size: int, *, skipping: bool = False) -> bytes:
        data = self.file.read(size)
        self.at += len(data)
        if self.at > self.most:
            raise tarfile.ReadError(f"it expands to more than {self.most // 2**20:,} MiB; refused as a bomb")
        if not skipping:
            self.wanted = self.at
        elif data:
            self.last = data
        return data


@dataclass
class _Tar:
    path: str
    stream: _Stream
    file: Stretches  # where members are read from
    spool: IO[bytes] | None = None  # where they are copied to, unless they are read where they lie
    regular: dict[str, Source] = field(default_factory=dict)  # by name without ./

    def members(self) -> Iterator[Member]:
        links: list[tarfile.TarInfo] = []
        number = 0
        with tarfile.open(fileobj=cast("IO[bytes]", self.stream), mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                cast("dict[str, str]", archive.pax_headers).clear()
                number += 1
                if info.issym() or info.islnk():
                    links.append(info)
                elif info.isdir():
                    yield Member(info.name, None)
                else:
                    yield self._file(info)
            if self.stream.last.strip(b"\0"):  # `tarfile` ends at a damaged header as it does at the end
                raise tarfile.ReadError(f"damaged after {number:,} members")
        for info in links:
            yield self._link(info)

    def _file(self, info: tarfile.TarInfo) -> Member:
        if not info.isreg() or info.issparse():
            return Member(info.name, LostSource(""), "no regular file")
        if self.spool is None:
            source: Source = TarSource(self.path, info.name, self.file, info.offset_data, info.size)
        elif info.size <= MAX_FILE_BYTES and _may_be_wanted(info.name):
            offset = self.spool.tell()
            for piece in self.stream.pieces(info.offset_data, info.size):
                self.spool.write(piece)
            source = TarSource(self.path, info.name, self.file, offset, info.size)
        else:
            source = LostSource(f"cannot be read: {info.size:,} bytes in a compressed tar")
        self.regular[posixpath.normpath(info.name)] = source
        return Member(info.name, source)

    def _link(self, info: tarfile.TarInfo) -> Member:
        beside = posixpath.dirname(info.name) if info.issym() else ""
        target = self.regular.get(posixpath.normpath(posixpath.join(beside, info.linkname)))
        if not isinstance(target, TarSource):
            return Member(info.name, LostSource(""), "a link to what is no file of the archive")
        return Member(info.name, TarSource(self.path, info.name, self.file, target.offset, target.size))


def _may_be_wanted(name: str) -> bool:
    suffix = posixpath.splitext(name)[1].lower()
    return not suffix or suffix in IMAGE_SUFFIXES or suffix in (*TABLE_SUFFIXES, *LABEL_SUFFIXES)
