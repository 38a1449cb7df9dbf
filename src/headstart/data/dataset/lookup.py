"""Finds the image files that a table names, in all the ways in which people write a path.

As it stands; with backslashes; with `~`, `file://` or `%20`; in other case or Unicode form; with the folders
of another machine before it; without its folder or its extension. Anything but the first is taken only where
one file alone can be meant.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from headstart.data.dataset.columns import without_host
from headstart.data.dataset.delimited import NotCertain, is_utf8, western
from headstart.data.sources import FileSource, Place, RemotePlace, Source, is_address, remote
from headstart.data.sources.names import is_image_name
from headstart.data.sources.remote import shown
from headstart.errors import DatasetError, printable
from headstart.files import is_there

MOST_SEARCHED = 200_000
"""Files below a table's folder; beyond, rows whose path is not exact are not searched for."""


@dataclass(frozen=True)
class Found:
    """A file that a row names: its path below the table's folder, if it lies there."""

    path: str
    source: Source
    exact: bool = True


@dataclass(frozen=True)
class Files:
    """Finds files for rows; what is around the table is listed only if some path is not exact."""

    open: Callable[[str], Source | None]  # the file of exactly this path
    everything: Callable[[], Iterable[tuple[str, Source]]]  # every file, by its path with slashes
    pages: set[str] = field(default_factory=set)  # the code page by which names of files were found, if any

    @classmethod
    def listed(cls, files: Mapping[str, Source]) -> Files:
        """Those of an archive or a folder that was listed, by their paths."""
        return cls(lambda path: files.get(posixpath.normpath(path)), files.items)

    @classmethod
    def below(cls, root: Path) -> Files:
        """Those on disk, relative to a table's folder or absolute."""

        def opened(path: str) -> Source | None:
            full = os.fspath(Path(root, path))  # without ./ and //, so that one file has one path
            return FileSource(full) if is_there(full, regular=True) else None

        return cls(opened, lambda: _walk(root))

    def find(self, path: str) -> Found | None:
        """The file that a row names; None where there is none, or more than one could be meant."""
        for spelling in _spellings(path):
            if source := self.open(spelling):
                return Found(spelling if is_address(spelling) else posixpath.normpath(spelling), source)
        if not is_utf8(path):
            return self._western(path)
        return self._searched(path)

    def _western(self, path: str) -> Found | None:
        """A name that is no UTF-8 in the table and is one on disk."""
        try:
            text = path.encode("utf-8", "surrogateescape").decode("cp1252")
        except UnicodeError:
            return None
        source = self.open(text)
        if source is not None:
            self.pages.add("cp1252")
            return Found(text, source)
        try:
            return self._searched(western(path))
        except NotCertain:
            return None

    def why_not(self, path: str) -> str:
        """The reason why a row has no file."""
        if "://" in path and not path.startswith("file:"):
            return "is an address and no file here has its name; nothing is downloaded"
        if len(fits := self._fits(path)) > 1:
            both = " and ".join(printable(each.path) for each in fits[:2])
            return f"{len(fits)} files could be meant ({both}); write the folder before the name"
        return "no such file"

    def _searched(self, path: str) -> Found | None:
        fits = self._fits(path)
        return fits[0] if len(fits) == 1 else None

    def _fits(self, path: str) -> list[Found]:
        """The images that a path without its folders or its extension, or with others, may mean."""
        parts = _parts(unquote(without_host(path)) if "://" in path else path)
        if not parts:
            return []
        stem = parts[-1] if is_image_name(parts[-1]) else f"{parts[-1]}.*"
        return [
            each
            for other, each in self._by_name.get(stem, ())
            if _is_tail(other[:-1], parts[:-1]) or _is_tail(parts[:-1], other[:-1])
        ]

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[list[str], Found]]]:
        """Every image by the last part of its path, with and without its extension."""
        found: dict[str, list[tuple[list[str], Found]]] = {}
        for path, source in self.everything():
            if is_image_name(path):
                parts = _parts(path)
                each = (parts, Found(path, source, exact=False))
                found.setdefault(parts[-1], []).append(each)
                found.setdefault(f"{os.path.splitext(parts[-1])[0]}.*", []).append(each)
        return found


def _walk(root: Path) -> list[tuple[str, Source]]:
    """The files below a folder; none where they are too many to look through."""
    found: list[tuple[str, Source]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            path = name if inner == "." else f"{inner}/{name}"
            found.append((path, FileSource(os.fspath(Path(folder, name)))))
        if len(found) > MOST_SEARCHED:
            return []
    return found


def given(source: str | Path | RemotePlace) -> Place:
    """What the user gave for a data set or an image: a path or address; `~` in quotes is the home folder."""
    if isinstance(source, RemotePlace):
        return source
    text = os.fspath(source)
    if not text.strip():
        raise DatasetError("the path is empty; name a folder, a table, an archive or an image")
    path = Path(text)
    if is_there(path):
        return path
    if text.startswith("~") and is_there(home := Path(os.path.expanduser(text))):
        return home
    if place := remote(text):
        return place
    if is_address(text):
        told = shown(re.sub(r":/+", "://", text, count=1))
        raise DatasetError(f"{told}: is an address; give it as text, as a Path loses one of its slashes")
    raise DatasetError(f"{printable(path)}: no such folder or file")


def _spellings(path: str) -> Iterator[str]:
    yield path
    if "\\" in path:
        yield path.replace("\\", "/")
    if path.startswith("~"):
        yield os.path.expanduser(path)
    if path.startswith("file:"):
        yield "/" + unquote(path.removeprefix("file:")).lstrip("/").removeprefix("localhost/")
    elif "%" in path:
        yield unquote(path)


def _parts(path: str) -> list[str]:
    plain = unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def _is_tail(short: list[str], long: list[str]) -> bool:
    return not short or long[-len(short) :] == short
