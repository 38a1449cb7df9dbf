"""Listing a zip."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from headstart.data.sources.listing import Listing, Member, arrange
from headstart.data.sources.reading import ZipSource
from headstart.data.sources.remote import Place
from headstart.errors import DatasetError, printable, reason_of

_UTF8, _ENCRYPTED = 0x800, 0x1
_UNICODE_PATH = 0x7075  # the extra field in which Info-ZIP keeps the UTF-8 name
_UNIX = 3


def open_zip(path: Place) -> zipfile.ZipFile:
    """One handle on a zip; DatasetError if it is none."""
    try:
        return zipfile.ZipFile(path if isinstance(path, Path) else path.open())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise DatasetError(f"{printable(path)}: not a readable zip: {reason_of(error)}") from error


def list_zip(path: Place) -> Listing:
    """List a zip; DatasetError if it is none, or encrypted as a whole."""
    archive = open_zip(path)
    infos = archive.infolist()
    files = [info for info in infos if not _is_folder(info)]
    if files and all(info.flag_bits & _ENCRYPTED for info in files):
        raise DatasetError(
            f"{printable(path)}: the zip is encrypted; unpack it with its password and give the folder"
        )
    return arrange(_members(archive, infos))


def _members(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Iterator[Member]:
    for info in infos:
        if _is_folder(info):
            yield Member(_name(info), None)
        else:
            yield Member(_name(info), ZipSource(archive, info), _problem(info))


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which is not followed in a zip"
    return None


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name; UTF-8 without the flag, as the macOS Finder writes it, is read as UTF-8.

    Other names without the flag are code page 437, as the format says (APPNOTE.TXT, appendix D).
    """
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename
    try:
        raw = info.orig_filename.encode("cp437")
        return _unicode_path(info.extra, raw) or raw.decode("utf-8")
    except UnicodeError:
        return info.filename


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _UNICODE_PATH and size > 5 and len(extra) >= 4 + size:
            version, check = struct.unpack_from("<BL", extra, 4)
            if version == 1 and check == zlib.crc32(raw):
                return extra[9 : 4 + size].decode("utf-8")
        extra = extra[4 + size :]
    return None
