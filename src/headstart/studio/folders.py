"""Browsing: folders, tables and zips below the allowed root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from headstart.data.sources import ARCHIVE_SUFFIXES, TABLE_SUFFIXES
from headstart.data.sources.names import is_image_name
from headstart.errors import OptionError, printable
from headstart.files import is_below

MOST_SHOWN = 400
"""Entries of one folder on a page; whoever has more types the path."""

_MOST_COUNTED = 2_000
"""Entries looked at to say how many pictures a folder holds."""

_OUR_FOLDERS = ("runs", "comparisons")
_CHOOSABLE = (*ARCHIVE_SUFFIXES, *TABLE_SUFFIXES)


@dataclass(frozen=True)
class Entry:
    """One thing in a folder that may be opened or chosen.

    Attributes:
        name: as shown.
        path: below the root, with slashes.
        kind: "folder" or "file" (a zip or a table).
        folders: folders inside it, which would be classes.
        pictures: image files directly inside it; as many as were counted.
    """

    name: str
    path: str
    kind: str
    folders: int = 0
    pictures: int = 0


def inside(root: Path, text: str) -> Path:
    """The place that ``text`` names, absolute or below the root.

    Raises:
        OptionError: it lies outside the root, links followed, or is not there.
    """
    shown = printable(text.strip())
    base = root.resolve()
    try:
        named = base / Path(text.strip()).expanduser()
        found = named.resolve() if is_below(named, base) else None
    except (OSError, RuntimeError, ValueError):
        found = None
    if found is None or not found.is_relative_to(base):
        raise OptionError(
            f"{shown}: no such folder or file below {printable(base)}; to choose what lies elsewhere, start "
            "the studio with --root on a folder that holds it"
        )
    return found


def below(root: Path, path: Path) -> str:
    """A path as addresses carry it: below the root, with slashes."""
    relative = path.resolve().relative_to(root.resolve()).as_posix()
    return "" if relative == "." else relative


def browse(root: Path, folder: Path, *, ours: Path | None = None) -> tuple[Entry, ...]:
    """What can be opened or chosen in a folder, by name; hidden things and ways out of the root are left out.

    Args:
        root: nothing outside is listed.
        folder: below it.
        ours: the folder in which runs and comparisons are kept; what holds them is no photographs.

    Raises:
        OptionError: the folder cannot be read.
    """
    base = root.resolve()
    found: list[Entry] = []
    try:
        with os.scandir(folder) as entries:
            names = sorted((each for each in entries if not each.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise OptionError(f"{printable(folder)}: {error.strerror or error}") from None
    for each in names:
        place = Path(each.path)
        if len(found) >= MOST_SHOWN:
            break
        if each.name in _OUR_FOLDERS and place.parent == ours:
            continue
        try:
            if not is_below(place, base):
                continue
            if each.is_dir():
                found.append(Entry(printable(each.name), below(root, place), "folder", *count(place)))
            elif each.name.lower().endswith(_CHOOSABLE):
                found.append(Entry(printable(each.name), below(root, place), "file"))
        except (OSError, RuntimeError, ValueError):
            continue  # vanished, unreadable, or a link that leads in circles
    return tuple(found)


def count(folder: Path, *, ours: Path | None = None) -> tuple[int, int]:
    """How many folders and image files lie directly in a folder, by a quick look; ``ours`` as in `browse`."""
    folders = pictures = 0
    try:
        with os.scandir(folder) as entries:
            for number, each in enumerate(entries):
                if number >= _MOST_COUNTED:
                    break
                if each.name.startswith(".") or (each.name in _OUR_FOLDERS and folder == ours):
                    continue
                if is_image_name(each.name):
                    pictures += 1
                elif each.is_dir():
                    folders += 1
    except OSError:
        return 0, 0
    return folders, pictures
