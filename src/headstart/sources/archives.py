"""Archives: which kind a file is, what it holds, and a member found again by its name."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

from headstart.errors import DatasetError, MissingExtra, printable
from headstart.files import Unreadable, held_roots, is_there, open_regular, root_of
from headstart.sources.listing import Listing
from headstart.sources.names import ARCHIVE_SUFFIXES, OTHER_ARCHIVES, archive_suffix
from headstart.sources.parquet import ParquetFile, image_at
from headstart.sources.reading import FileSource, LostSource, Source, ZipSource
from headstart.sources.tars import list_tar, tar_members
from headstart.sources.zips import list_zip, open_zip

_KEPT_OPEN = 4
"""Archives that `source_at` keeps open."""

_MAGIC = {b"Rar!": ".rar", b"7z\xbc\xaf": ".7z"}


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive, readable here or not."""
    return archive_suffix(path.name) is not None


def list_archive(path: Path) -> Listing:
    """List a zip or tar.

    Raises:
        DatasetError: It is damaged, encrypted, a bomb, or an archive that has to be unpacked first.
    """
    suffix = archive_suffix(path.name)
    try:
        with os.fdopen(open_regular(path, below=root_of(path, held_roots())), "rb") as file:
            found = _MAGIC.get(file.read(4))
    except (OSError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{printable(path)}: cannot be read: {reason}") from error
    if found or suffix in OTHER_ARCHIVES:
        raise DatasetError(
            f"{printable(path)}: {found or suffix} archives are not read here; unpack it and give the folder"
        )
    return list_zip(path) if suffix == ".zip" else list_tar(path)


def source_at(file: str, member: str | None) -> Source:
    """A file, or a member of an archive; reading one that is not there says so.

    An archive is open once for all of its members, for as long as it is one of the last few asked for.
    """
    if member is None:
        return FileSource(file)
    try:
        members = _OPEN.of(file)
    except (DatasetError, MissingExtra) as error:
        return LostSource(str(error).removeprefix(f"{printable(file)}: "))
    except (OSError, ValueError) as error:  # a name may hold what no name can
        return LostSource(f"cannot be read: {getattr(error, 'strerror', None) or error}")
    return members.find(member) or LostSource(f"is no longer in {printable(Path(file).name)}")


class _Members:
    """One archive's members by their own names, or a Parquet file's images by their places."""

    def __init__(self, path: Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._tar: dict[str, Source] = {}
        self._table: ParquetFile | None = None
        if path.suffix.lower() == ".parquet":
            self._table = ParquetFile(str(path), path=str(path))
            _ = self._table.reader  # a damaged one is said here
        elif archive_suffix(path.name) in ARCHIVE_SUFFIXES[1:]:
            self._tar = {
                each.name: each.source for each in tar_members(path) if each.source and not each.problem
            }
        else:
            self._zip = open_zip(path)

    def find(self, name: str) -> Source | None:
        if self._table is not None:
            return image_at(self._table, name)
        if self._zip is None:
            return self._tar.get(name)
        try:
            return ZipSource(self._zip, self._zip.getinfo(name))
        except KeyError:
            return None


class _Open:
    """The archives that were asked for last."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int], _Members] = OrderedDict()

    def of(self, file: str) -> _Members:
        if not is_there(file):
            raise DatasetError("not in its folder, or not there")
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError("not a regular file")
        key = (file, status.st_size, status.st_mtime_ns)
        with self._turn:
            members = self._kept.pop(key, None) or _Members(Path(file))
            self._kept[key] = members
            while len(self._kept) > _KEPT_OPEN:
                self._kept.popitem(last=False)
        return members


_OPEN = _Open()
