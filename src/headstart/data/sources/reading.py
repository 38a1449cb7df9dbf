"""One image's content, wherever it lies."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, field
from typing import IO, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from headstart.errors import ImageError
from headstart.files import Roots, Unreadable, held_roots, read_regular, root_of

MAX_FILE_BYTES = 512 * 2**20
"""No photograph file is larger; reading stops there."""

MAX_EXPANSION = 500
"""A zip member of more than 16 MiB that expands further than this is a bomb, not an image."""


class Source(Protocol):
    """Where one image's content comes from."""

    def read(self) -> bytes | npt.NDArray[np.uint8]:
        """The file's bytes, or a uint8 array [H, W] or [H, W, C]; ImageError where that fails."""


@runtime_checkable
class MemberSource(Protocol):
    """An image inside an archive, which can be found there again."""

    @property
    def place(self) -> tuple[str, str]:
        """The archive's path, and the member's name as the archive itself has it."""

    def read(self) -> bytes:
        """The member's bytes."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """An image file on disk."""

    path: str
    roots: Roots | None = field(default_factory=held_roots, repr=False, compare=False)  # of `held_below`

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            return read_regular(self.path, limit=MAX_FILE_BYTES, below=root_of(self.path, self.roots))
        except Unreadable as error:
            raise ImageError(f"cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class ZipSource:
    """An image inside a zip; nothing is extracted, and any number of threads may read."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    @property
    def place(self) -> tuple[str, str]:
        """The zip's path and the member's name."""
        return self.archive.filename or "", self.member.filename

    def read(self) -> bytes:
        """The member's bytes."""
        size, packed = self.member.file_size, max(1, self.member.compress_size)
        if size > MAX_FILE_BYTES or (size > 16 * 2**20 and size / packed > MAX_EXPANSION):
            raise ImageError(f"the zip member expands to {size // 2**20} MiB; refused as a bomb")
        try:
            return self.archive.read(self.member)
        except Exception as error:  # zipfile raises zlib.error, EOFError, RuntimeError (encrypted), …
            raise ImageError(f"cannot be read from the zip: {error}") from error


class Stretches(Protocol):
    """What an archive's members are stretches of."""

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to so many bytes from a place, from any thread; OSError where they cannot be had."""


class OpenFile:
    """A handle of its own on an open file, closed when nobody refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def of(cls, file: IO[bytes]) -> OpenFile:
        """Another handle on the same file, which may then be closed."""
        return cls(os.dup(file.fileno()))

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to so many bytes from a place, from any thread."""
        return os.pread(self.descriptor, size, offset)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class TarSource:
    """An image inside a tar: a stretch of a file that is open once for all of them."""

    archive: str
    name: str
    file: Stretches  # the tar itself, or the spool of a compressed one
    offset: int
    size: int

    @property
    def place(self) -> tuple[str, str]:
        """The tar's path and the member's name."""
        return self.archive, self.name

    def read(self) -> bytes:
        """The member's bytes."""
        if self.size > MAX_FILE_BYTES:
            raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
        data = bytearray()
        try:
            while len(data) < self.size:
                piece = self.file.read_at(self.size - len(data), self.offset + len(data))
                if not piece:
                    raise ImageError("cannot be read from the tar: it breaks off")
                data += piece
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be read from the tar: {error}") from error
        return bytes(data)


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """An image that is already in memory."""

    array: npt.NDArray[np.uint8]

    def read(self) -> npt.NDArray[np.uint8]:
        """The array itself."""
        return self.array


@dataclass(frozen=True, slots=True)
class BytesSource:
    """An image file's bytes that are already in memory."""

    data: bytes = field(repr=False)

    def read(self) -> bytes:
        """The bytes themselves."""
        return self.data


@dataclass(frozen=True, slots=True)
class LostSource:
    """An image that is known and cannot be had: reading it says why."""

    reason: str

    def read(self) -> bytes:
        """Never: ImageError with the reason."""
        raise ImageError(self.reason)
