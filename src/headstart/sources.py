"""Where images come from: files, zip members and arrays, and the listing of folders and zips.

Nothing is extracted or opened while listing (but for files without an extension, whose first bytes decide);
`Source.read` may be called from many threads.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headstart.errors import DatasetError, ImageError, printable
from headstart.images import IMAGE_SUFFIXES, looks_like_an_image

TABLE_SUFFIXES = (".csv", ".parquet")

MAX_FILE_BYTES = 512 * 2**20
"""No photograph file is larger; reading stops there."""

MAX_EXPANSION = 500
"""A zip member of more than 16 MiB that expands further than this is a bomb, not an image."""

_ALWAYS_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r", "ehthumbs.db"})


class Source(Protocol):
    """Where one image's content comes from."""

    def read(self) -> bytes | npt.NDArray[np.uint8]:
        """The file's bytes, or a uint8 array [H, W] or [H, W, C]; ImageError where that fails."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """An image file on disk."""

    path: str

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            with open(self.path, "rb") as file:
                return _bounded(file.read(MAX_FILE_BYTES + 1))
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True, slots=True)
class ZipSource:
    """An image inside a zip; nothing is extracted, and any number of threads may read."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def read(self) -> bytes:
        """The member's bytes."""
        size, packed = self.member.file_size, max(1, self.member.compress_size)
        if size > MAX_FILE_BYTES or (size > 16 * 2**20 and size / packed > MAX_EXPANSION):
            raise ImageError(f"the zip member expands to {size // 2**20} MiB; refused as a bomb")
        try:
            return _bounded(self.archive.read(self.member))
        except Exception as error:  # zipfile raises zlib.error, EOFError, RuntimeError (encrypted), …
            raise ImageError(f"cannot be read from the zip: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """An image that is already in memory."""

    array: npt.NDArray[np.uint8]

    def read(self) -> npt.NDArray[np.uint8]:
        """The array itself."""
        return self.array


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    return data


@dataclass(frozen=True)
class Listing:
    """What a folder or zip holds, without hidden files and the litter of file managers."""

    files: list[tuple[str, Source]]  # path below the root, with slashes; sorted
    folders: list[str]  # every folder below the root, sorted


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _ALWAYS_IGNORED


def list_folder(root: Path) -> Listing:
    """List everything below a folder, following links; DatasetError where the system refuses."""
    files: list[tuple[str, Source]] = []
    folders: list[str] = []
    seen: set[tuple[int, int]] = set()  # folders by device and inode: a link back to a parent must end

    def walk(folder: str, prefix: str) -> None:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if _hidden(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(prefix + entry.name)
                    walk(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    files.append((prefix + entry.name, FileSource(entry.path)))

    try:
        walk(str(root), "")
    except (OSError, RecursionError) as error:
        raise DatasetError(f"{printable(root)}: cannot be listed: {printable(str(error))}") from error
    return Listing(files, folders)


def list_zip(path: Path) -> Listing:
    """List a zip; a single top folder around everything is taken off. DatasetError if it is no zip."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DatasetError(f"{printable(path)}: not a readable zip: {error}") from error
    members = [(info.filename.replace("\\", "/").strip("/"), info) for info in archive.infolist()]
    members = [(name, info) for name, info in members if name and not any(map(_hidden, name.split("/")))]
    top = _only_top_folder(name for name, info in members if not info.is_dir())
    files: list[tuple[str, Source]] = []
    folders: set[str] = set()
    for name, info in members:
        inner = name.removeprefix(top)
        if info.is_dir():
            folders.add(inner)
        else:
            files.append((inner, ZipSource(archive, info)))
            folders.update(_parents(inner))
    folders -= {"", top.rstrip("/")}
    return Listing(sorted(files, key=lambda file: file[0]), sorted(folders))


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _only_top_folder(names: Iterable[str]) -> str:
    """`photos/` where a zip holds nothing but the folder `photos`, itself with folders or a table inside."""
    tops: set[str] = set()
    deep = False
    for name in names:
        top, slash, rest = name.partition("/")
        tops.add(top + slash)
        deep = deep or "/" in rest or rest.lower().endswith(TABLE_SUFFIXES)
    only = tops.pop() if len(tops) == 1 else ""
    return only if only.endswith("/") and deep else ""


def why_not_an_image(name: str, source: Source) -> str | None:
    """The reason to skip a file by its name (or, without an extension, its first bytes); None to keep it."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    if suffix:
        return f"{suffix} is no image format that is read here"
    try:  # files without an extension may be anything
        head = source.read()[:64]
    except ImageError as error:
        return str(error)
    return None if looks_like_an_image(bytes(head)) else "not an image"
