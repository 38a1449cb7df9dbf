"""Where comparisons lie: a folder with `comparison.json` each, and a pointer by id in the home folder."""

import json
import os
from dataclasses import replace
from pathlib import Path

from headstart.comparisons.values import Comparison
from headstart.errors import RunError, printable
from headstart.files import MEBI, Unreadable, home_folder, make, read_json, read_regular, write_whole
from headstart.runs import new_folder

COMPARISON_FILE = "comparison.json"

_LARGEST = 256 * MEBI
"""Bytes of a comparison: hundreds of trainings with what each said of thousands of images."""

_LONGEST_PATH = 65_536


def save_comparison(comparison: Comparison, *, path: Path) -> Comparison:
    """Write the folder, whole or not at all, and remember where it is.

    In ASCII, like a run's files: the name of a folder that is no UTF-8 comes back as it was.

    Returns:
        The comparison, with a note where it is saved but could not be remembered.

    Raises:
        RunError: the place is taken or cannot be written.
    """
    with new_folder(path) as folder:
        (folder / COMPARISON_FILE).write_text(json.dumps(comparison.to_dict(), default=str))
    pointer = _pointers() / comparison.id
    try:
        make(pointer.parent)
        write_whole(pointer, os.fsencode(path))  # a path need not be text
    except OSError as error:  # the folder is the truth and is complete; only its id is not known
        note = f"saved, but not found by its id: {pointer}: {error.strerror}"
        return replace(comparison, notes=(*comparison.notes, note))
    return comparison


def read_comparison(folder: Path) -> Comparison:
    """The comparison that lies in ``folder``.

    Raises:
        RunError: there is none, or it is damaged.
    """
    file = folder / COMPARISON_FILE
    try:
        return Comparison.from_dict(read_json(file, limit=_LARGEST, below=folder), path=folder)
    except Unreadable as error:
        if not file.is_symlink() and not file.exists():
            raise RunError(f"{printable(folder)} is no comparison: it has no {COMPARISON_FILE}") from None
        raise RunError(f"{printable(file)} cannot be read: {error}; restore the folder") from error
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{printable(file)} is damaged ({printable(repr(error))}); compare again or restore the folder"
        ) from error


def find_comparison(name: str | Path) -> Comparison:
    """A comparison by its folder, its id, or the beginning of an id that is unique.

    Raises:
        RunError: there is none, several begin so, or its folder is gone.
    """
    folder = Path(name)
    if folder.is_dir():
        return read_comparison(folder)
    pointers = sorted(_pointers().glob("*")) if _pointers().is_dir() else []
    matches = [pointer for pointer in pointers if pointer.name.startswith(str(name))]
    exact = [pointer for pointer in matches if pointer.name == str(name)]
    if len(exact or matches) > 1:
        raise RunError(f"{name} begins {len(matches)} comparisons; give more of the id")
    if not matches:
        raise RunError(f"no comparison {name}: neither a folder nor an id; headstart compare makes one")
    pointer = (exact or matches)[0]
    try:
        return read_comparison(Path(os.fsdecode(read_regular(pointer, limit=_LONGEST_PATH))))
    except (Unreadable, ValueError) as error:
        raise RunError(f"{printable(pointer)}: {error}; give the comparison's folder") from error


def _pointers() -> Path:
    return home_folder() / "comparisons"
