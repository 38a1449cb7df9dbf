"""Which columns of a table hold the images, the labels and the splits."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headstart.data.sources.names import is_image_name
from headstart.errors import DatasetError, printable

IMAGE_NAMES = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "fname"),
    *("image", "image_path", "imagepath", "image_file", "image_name", "imagename", "image_filename"),
    *("img", "img_path", "img_name", "photo", "picture", "image_id", "imageid", "img_id", "id", "name"),
)
LABEL_NAMES = (
    *("label", "class", "category", "target", "species", "labels", "class_name", "classname", "label_name"),
    *("class_label", "category_name", "target_name", "breed", "variety", "genus", "diagnosis", "tag", "y"),
    *("class_id", "label_id", "category_id"),
)
SPLIT_COLUMNS = ("split", "subset", "partition", "set")

HEAD_ROWS = 50
"""Rows by which columns are judged."""

Finds = Callable[[object], object | None]
"""What a cell of an image column stands for; None where there is no such image."""


@dataclass(frozen=True, kw_only=True)
class LabelTable(ABC):
    """A table of any format, whose columns are read when they are asked for."""

    names: tuple[str, ...]  # of the columns as they are written; `column 1`, … where there is no header
    size: int  # bytes or characters, to judge by what its rows may cost
    notes: tuple[str, ...] = ()  # what was guessed while reading
    holds_images: frozenset[int] = frozenset()  # columns of the images themselves and not of their paths

    @abstractmethod
    def head(self) -> Sequence[Sequence[object]]:
        """The first rows, at most `HEAD_ROWS`."""

    @abstractmethod
    def read(self, columns: Sequence[int]) -> tuple[Sequence[int], list[Sequence[object]]]:
        """The number by which the user finds each row, and the values of these columns."""


@dataclass(frozen=True)
class ColumnNames:
    """The columns that the user named; None for the one that can only be meant."""

    image: str | None = None
    label: str | None = None
    groups: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where the images, the labels and, if there are such, the splits and the groups are."""

    image: int
    label: int
    split: int | None
    groups: int | None
    note: str | None  # what was guessed


def plain(name: str) -> str:
    """A column's name as it is compared: `File Name` is `file_name`."""
    text = unicodedata.normalize("NFC", name).strip().strip("\ufeff#").strip().casefold()
    return re.sub(r"[\s\-.]+", "_", text)


def is_header(cells: Sequence[object]) -> bool:
    """Whether these are names of columns that a table of images is known to have."""
    names = {plain(str(cell)) for cell in cells}
    return bool(names & set(IMAGE_NAMES)) and bool(names & set(LABEL_NAMES))


def is_image_cell(cell: object) -> bool:
    """Whether a cell is called like an image file."""
    return isinstance(cell, str) and is_image_name(cell.strip())


def choose(table: LabelTable, wanted: ColumnNames, *, finds: Finds) -> Columns:
    """The columns of a table: those that were named, else those that can only be meant."""
    names = table.names
    image = _named(names, wanted.image, "--image-column") if wanted.image else _image(table, finds)
    split = next((i for name in SPLIT_COLUMNS for i in _all_called(names, name) if i != image), None)
    groups = _named(names, wanted.groups, "--groups") if wanted.groups else None
    taken = {image, split, groups} - {None}
    label = _named(names, wanted.label, "--label-column") if wanted.label else _label(table, taken)
    documented = (plain(names[image]), plain(names[label])) == ("path", "label")
    note = None
    if not documented and not (wanted.image and wanted.label):
        note = f"images from the column {printable(names[image])}, labels from {printable(names[label])}"
    return Columns(image, label, None if split == label else split, groups, note)


def _all_called(names: Sequence[str], name: str) -> list[int]:
    found = [index for index, each in enumerate(names) if plain(each) == name]
    if len(found) > 1:
        raise DatasetError(f"the column {name} is there twice; keep one of them")
    return found


def _named(names: Sequence[str], name: str, option: str) -> int:
    exact = [index for index, each in enumerate(names) if each.strip() == name.strip()]
    found = exact or [index for index, each in enumerate(names) if plain(each) == plain(name)]
    if not found and name.isdecimal():  # of a table without a header
        found = [index for index, each in enumerate(names) if each == f"column {name}"]
    if len(found) == 1:
        return found[0]
    what = "is there twice; rename one of them" if found else f"is not there; it has {_shown(names)}"
    raise DatasetError(f"{option}: the column {printable(name)} {what}")


def _image(table: LabelTable, finds: Finds) -> int:
    head, names = table.head(), table.names
    named = [index for name in IMAGE_NAMES for index in _all_called(names, name)]
    inside = sorted(table.holds_images, key=lambda index: (index not in named, index))
    called = [i for i in range(len(names)) if head and all(is_image_cell(row[i]) for row in head)]
    candidates = inside or named or called
    if len(inside) > 1 and inside[0] in named and inside[1] not in named:
        candidates = inside[:1]
    if not candidates:
        raise DatasetError(
            "expected a column of image files, such as path, and one of labels, such as label; "
            f"got {_shown(names)}; name them with --image-column and --label-column"
        )
    if len(candidates) == 1:
        return candidates[0]
    found = {index: [finds(row[index]) for row in head] for index in candidates}
    there = [index for index in candidates if any(each is not None for each in found[index])]
    if not there or plain(names[there[0]]) == "path" or all(found[i] == found[there[0]] for i in there):
        return (there or candidates)[0]
    if len(there) == 1:
        return there[0]
    several = _shown([names[index] for index in there])
    raise DatasetError(f"several columns name images: {several}; say which with --image-column")


def _label(table: LabelTable, taken: set[int | None]) -> int:
    names = table.names
    named = [i for name in LABEL_NAMES for i in _all_called(names, name) if i not in taken]
    if named and (len(named) == 1 or plain(names[named[0]]) == "label"):
        return named[0]
    others = [index for index, name in enumerate(names) if index not in taken and name.strip()]
    if not named and len(others) == 1:
        return others[0]
    if named and (same := _one_to_one(table, named)) is not None:
        return same
    if not named and not others:
        raise DatasetError(f"no column of labels, such as label; it has {_shown(names)}")
    several = _shown([names[index] for index in named or others])
    raise DatasetError(f"which column has the labels? there are {several}; say it with --label-column")


def _one_to_one(table: LabelTable, columns: Sequence[int]) -> int | None:
    """Of columns that say the same (numbers of classes beside their names) the one with names."""
    _, values = table.read(columns)
    first = [str(value) for value in values[0]]
    for column in values[1:]:
        pairs = set(zip(first, map(str, column), strict=True))
        if not len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}):
            return None
    names = [i for i, column in zip(columns, values, strict=True) if not all(map(_is_number, column))]
    return (names or list(columns))[0]


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12:,} more" if len(names) > 12 else ""
    shown = ", ".join(printable(name) or "a column without a name" for name in names[:12])
    return (shown or "nothing") + more
