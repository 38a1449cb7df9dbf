"""Lists archives, and finds single members again by their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from headstart.data.sources.listing import Listing
from headstart.data.sources.names import ARCHIVE_SUFFIXES, OTHER_ARCHIVES, archive_suffix
from headstart.data.sources.parquet import ParquetFile, image_at
from headstart.data.sources.reading import FileSource, LostSource, Source, ZipSource
from headstart.data.sources.remote import Place, is_address, remote
from headstart.data.sources.tars import list_tar, tar_members
from headstart.data.sources.zips import list_zip, open_zip
from headstart.errors import DatasetError, ImageError, MissingExtra, printable, reason_of
from headstart.files import Unreadable, held_roots, is_there, open_regular, root_of

_KEPT_OPEN = 4
"""Archives that `source_at` keeps open."""

_MAGIC = {b"Rar!": ".rar", b"7z\xbc\xaf": ".7z"}


def is_archive(path: Place) -> bool:
    """Whether a file's name is that of an archive, readable here or not."""
    return archive_suffix(path.name) is not None


def list_archive(path: Place) -> Listing:
    """List a zip or tar.

    Raises:
        DatasetError: It is damaged, encrypted, a bomb, or an archive that has to be unpacked first.
    """
    suffix = archive_suffix(path.name)
    try:
        found = _MAGIC.get(_head(path))
    except (OSError, Unreadable) as error:
        raise DatasetError(f"{printable(path)}: cannot be read: {reason_of(error)}") from error
    if found or suffix in OTHER_ARCHIVES:
        raise DatasetError(
            f"{printable(path)}: {found or suffix} archives are not read here; unpack it and give the folder"
        )
    return list_zip(path) if suffix == ".zip" else list_tar(path)


def _head(path: Place) -> bytes:
    if not isinstance(path, Path):
        return path.head(4)
    with os.fdopen(open_regular(path, below=root_of(path, held_roots())), "rb") as file:
        return file.read(4)


def source_at(file: str, member: str | None) -> Source:
    """A file, or a member of an archive; reading one that is not there says so.

    An archive is open once for all of its members, for as long as it is one of the last few asked for.
    """
    if is_address(file):  # who opens somebody else's run is not made to send requests
        return LostSource("lies at an address, which is asked only for what a command names")
    if member is None:
        return FileSource(file)
    try:
        if not is_there(file):
            raise DatasetError("not in its folder, or not there")
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError("not a regular file")
        find = _members(file, status.st_size, status.st_mtime_ns)
    except (DatasetError, MissingExtra) as error:
        return LostSource(str(error).removeprefix(f"{printable(file)}: "))
    except (OSError, ValueError) as error:  # a name may hold what no name can
        return LostSource(f"cannot be read: {reason_of(error)}")
    return find(member) or LostSource(f"is no longer in {printable(Path(file).name)}")


@dataclass(frozen=True, slots=True)
class MemberAt:
    """A member of an archive by its name: unlike one that is read from an open file, it can be pickled.

    Unlike `source_at` it asks addresses too, so it is for what a command names.
    """

    file: str
    member: str

    @property
    def place(self) -> tuple[str, str]:
        """The archive's path or address, and the member's name."""
        return self.file, self.member

    def read(self) -> Any:
        """The member's bytes."""
        if not is_address(self.file):
            return source_at(self.file, self.member).read()
        try:
            source = _members_far(self.file)(self.member)
        except (DatasetError, MissingExtra) as error:
            raise ImageError(str(error)) from error
        if source is None:
            raise ImageError(f"is no longer in {printable(self.file)}")
        return source.read()


@lru_cache(maxsize=_KEPT_OPEN)
def _members_far(address: str) -> Callable[[str], Source | None]:
    place = remote(address)
    if place is None:
        raise DatasetError(f"{printable(address)}: no address")
    return _by_name(place)


@lru_cache(maxsize=_KEPT_OPEN)
def _members(file: str, size: int, changed: int) -> Callable[[str], Source | None]:
    """Finds an archive's members by their own names, or a Parquet file's images by their places.

    Args:
        file: its path.
        size: its bytes, and
        changed: when it was changed last: with them a new file of the same name is another one.
    """
    del size, changed
    path = Path(file)
    if path.suffix.lower() == ".parquet":
        table = ParquetFile(file, path=file)
        _ = table.reader  # a damaged one is said here
        return partial(image_at, table)
    return _by_name(path)


def _by_name(path: Place) -> Callable[[str], Source | None]:
    """Finds the members of a zip or tar."""
    if archive_suffix(path.name) in ARCHIVE_SUFFIXES[1:]:
        return {each.name: each.source for each in tar_members(path) if each.source and not each.problem}.get
    archive = open_zip(path)
    return lambda name: ZipSource(archive, archive.NameToInfo[name]) if name in archive.NameToInfo else None
