"""Which columns of a table hold the images, the labels and the splits."""

from __future__ import annotations

import re
import shlex
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headstart.data.dataset.split_names import sides_of
from headstart.data.sources.names import is_image_name
from headstart.errors import DatasetError, printable
from headstart.heads.tasks import MULTI_LABEL

IMAGE_NAMES = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "fname"),
    *("image", "image_path", "imagepath", "image_file", "image_name", "imagename", "image_filename"),
    *("img", "img_path", "img_name", "photo", "picture", "image_id", "imageid", "img_id", "id", "name"),
    *("id_code", "url", "uri", "image_url", "image_uri", "img_url", "gcs_uri", "gcs_path", "gcs_file_path"),
)
LABEL_NAMES = (
    *("label", "class", "category", "target", "species", "labels", "class_name", "classname", "label_name"),
    *("class_label", "category_name", "target_name", "breed", "variety", "genus", "diagnosis", "tag", "y"),
    *("class_id", "label_id", "category_id", "choice", "dx", "finding_labels"),
)
GROUP_NAMES = (
    *("group", "groups", "group_id", "patient", "patient_id", "subject", "subject_id", "case_id", "study_id"),
    *("lesion_id", "slide_id", "animal_id", "camera", "camera_id", "site", "location", "session", "day"),
    *("video", "video_id", "sequence", "sequence_id", "series", "series_id"),
)
"""Columns whose equal values belong together."""

SPLIT_COLUMNS = ("split", "subset", "partition", "set")

TRUTH_COLUMNS = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation"), ("validation", "train")),
    **dict.fromkeys(("is_test", "is_testing"), ("test", "train")),
    **dict.fromkeys(("is_train", "is_training", "is_training_image"), ("train", "test")),
}
"""Columns of true and false, as fastai's `is_valid`, and the split of either."""

UNASSIGNED = "unassigned"
"""What Google's AutoML writes for a row that it shall split itself."""

_FLAGS = dict.fromkeys(("0", "0.0", "false", "no"), False) | dict.fromkeys(("1", "1.0", "true", "yes"), True)
_UNKNOWN = frozenset({"", "nan", "none", "null", "<na>"})
MINUS_ONE = frozenset({"-1", "-1.0"})
"""Beside 1 alone it is a 0, as CelebA has it; beside 0 and 1 it is "uncertain", as in CheXpert."""

HEAD_ROWS = 50
"""Rows by which columns are judged."""

Finds = Callable[[object], object | None]
"""What a cell of an image column stands for; None where there is no such image."""


class LabelsUnknown(DatasetError):
    """A table of images does not tell which of its columns has the labels."""


@dataclass(frozen=True, kw_only=True)
class LabelTable(ABC):
    """A table of any format, whose columns are read when they are asked for."""

    names: tuple[str, ...]  # of the columns as they are written; `column 1`, … where there is no header
    size: int  # bytes or characters, to judge by what its rows may cost
    notes: tuple[str, ...] = ()  # what was guessed while reading
    decimal_comma: bool = False  # semicolons between cells, as where decimals have a comma: 1.250 may be 1250
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
    weights: str | None = None
    task: str | None = field(default=None, compare=False)  #: as asked for; None: found from the data


@dataclass(frozen=True)
class Columns:
    """Where the images, the labels and, if there are such, the splits and the groups are."""

    image: int
    labels: tuple[int, ...]  # one, or a column for each class with a 1 in it
    split: int | None
    sides: tuple[str, str] | None  # of rows that say true there, and false; None where they say the split
    groups: int | None
    weights: int | None
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
    return isinstance(cell, str) and is_image_name(without_host(cell.strip()))


def without_host(path: str) -> str:
    """What an address names on its host, without a query; a path as it is."""
    found = re.fullmatch(r"(?!file:)[a-z][a-z0-9+.-]*://[^/]*(/?[^?#]*).*", path, re.IGNORECASE | re.DOTALL)
    return found[1] if found else path


def flag(cell: object) -> bool | None:
    """What a cell of a column for one class says; None where it is neither true nor false."""
    return _FLAGS.get(str(cell).strip().casefold())


def choose(table: LabelTable, wanted: ColumnNames, *, finds: Finds) -> Columns:
    """The columns of a table: those that were named, else those that can only be meant."""
    names = table.names
    image = image_column(table, wanted, finds=finds)
    groups = _named(names, wanted.groups, "--groups") if wanted.groups else None
    weights = _named(names, wanted.weights, "--weights-column") if wanted.weights else None
    labels: tuple[int, ...] = (_named(names, wanted.label, "--label-column"),) if wanted.label else ()
    split, sides = _split(table, {image, groups, weights, *labels})
    labels = labels or _labels(table, {image, split, groups, weights}, task=wanted.task)
    guessed = []
    if (plain(names[image]), plain(names[labels[0]])) != ("path", "label") and not (
        wanted.image and wanted.label
    ):
        guessed = [f"images from {_column(names[image])}", f"labels from {_from(names, labels)}"]
    if split is not None and plain(names[split]) not in SPLIT_COLUMNS:
        guessed.append(f"splits from {_column(names[split])}")
    return Columns(image, labels, split, sides, groups, weights, ", ".join(guessed) or None)


def unused_groups(table: LabelTable, columns: Columns) -> list[str]:
    """A sentence where a column that is not used looks like one of groups, whose values come again."""
    if columns.groups is not None or columns.split is not None:
        return []
    for index, name in enumerate(table.names):
        if plain(name) in GROUP_NAMES and index not in (columns.image, *columns.labels):
            values = [str(value) for value in table.read([index])[1][0]]
            if 1 < len(set(values)) < len(values):
                shown = shlex.quote(printable(name.strip()))
                return [
                    f"{_column(name)} is not used ({len(set(values)):,} different values): --groups {shown} "
                    "keeps images that share one on one side of the split"
                ]
    return []


def _column(name: str) -> str:
    return name if re.fullmatch(r"column \d+", name) else f"the column {printable(name)}"


def image_column(table: LabelTable, wanted: ColumnNames, *, finds: Finds) -> int:
    """The column of the images, by its name, its look, or the files that it names."""
    return _named(table.names, wanted.image, "--image-column") if wanted.image else _image(table, finds)


def _from(names: Sequence[str], labels: Sequence[int]) -> str:
    if len(labels) == 1:
        return printable(names[labels[0]])
    return f"{len(labels)} columns of 0 and 1 ({_shown([names[index] for index in labels])})"


def _split(table: LabelTable, taken: set[int | None]) -> tuple[int | None, tuple[str, str] | None]:
    """The column that says the splits, by its name or because all that it says are splits."""
    names = table.names
    free = [index for index in range(len(names)) if index not in taken]
    for name in SPLIT_COLUMNS:
        for index in _all_called(names, name):
            if index in free:
                return index, None
    told = [index for index in free if plain(names[index]) in TRUTH_COLUMNS]
    if len(told) > 1:
        raise DatasetError(
            f"{_shown([names[index] for index in told])} all say the splits; write one column split with "
            "train, validation and test"
        )
    if told:
        return told[0], TRUTH_COLUMNS[plain(names[told[0]])]
    if len(free) > 1:
        for index in free:
            if plain(names[index]) not in LABEL_NAMES and _says_splits(table, index):
                return index, None
    return None, None


def _says_splits(table: LabelTable, index: int) -> bool:
    """Whether all of a column's values mean splits, those of the first rows before any others are read."""

    def all_mean_splits(values: Sequence[object]) -> bool:
        words = {str(value).strip() for value in values} - {""}
        return bool(words) and {word for word in words if word.casefold() != UNASSIGNED} == set(
            sides_of(words)
        )

    head = [row[index] for row in table.head()]
    return all_mean_splits(head) and all_mean_splits(table.read([index])[1][0])


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
    candidates = inside or named or called or _all_found(table, finds)
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


def _all_found(table: LabelTable, finds: Finds) -> list[int]:
    """Columns whose first cells all differ and all name files that are there, whatever they are called."""
    head = table.head()
    columns = range(len(table.names)) if len(head) > 1 else ()
    return [
        index
        for index in columns
        if len({str(row[index]) for row in head}) == len(head)
        and all(isinstance(row[index], str) and finds(row[index]) is not None for row in head)
    ]


def _labels(table: LabelTable, taken: set[int | None], *, task: str | None) -> tuple[int, ...]:
    names = table.names
    named = [i for name in LABEL_NAMES for i in _all_called(names, name) if i not in taken]
    if named and (len(named) == 1 or plain(names[named[0]]) == "label"):
        return (named[0],)
    others = [index for index, name in enumerate(names) if index not in taken and name.strip()]
    if not named and len(others) == 1:
        return (others[0],)
    if named and (same := _one_to_one(table, named)) is not None:
        return (same,)
    flags = [] if named else _flags(table, others)
    if task == MULTI_LABEL and len(flags) > 1:
        return tuple(flags)
    if len(flags) > 1 and (classes := _one_hot(table, flags, alone=len(flags) == len(others))):
        return classes
    if not named and not others:
        raise LabelsUnknown(f"no column of labels, such as label; it has {_shown(names)}")
    several = _shown([names[index] for index in named or others])
    way_out = ", or --task multi-label, if they are columns of 0 and 1" if task is None and flags[1:] else ""
    raise LabelsUnknown(
        f"which column has the labels? there are {several}; say it with --label-column{way_out}"
    )


def _flags(table: LabelTable, columns: Sequence[int]) -> list[int]:
    """Columns whose first cells are 0 and 1, or what is written beside these: nothing, or -1."""

    def all_fit(index: int) -> bool:
        words = {str(row[index]).strip().casefold() for row in head}
        return words - _UNKNOWN <= _FLAGS.keys() | MINUS_ONE and bool(words - _UNKNOWN)

    head = table.head()
    found = [index for index in columns if head and all_fit(index)]
    return [] if any(table.names[index] == f"column {index + 1}" for index in found) else found


def _one_hot(table: LabelTable, columns: Sequence[int], *, alone: bool) -> tuple[int, ...]:
    """Columns of 0 and 1, one for each class; beside others where every first row has exactly one 1."""
    head = table.head()
    flags = [index for index in columns if all(flag(row[index]) is not None for row in head)]
    counts = [sum(bool(flag(row[index])) for index in flags) for row in head]
    if alone and len(flags) == len(columns):
        return tuple(flags) if any(counts) else ()
    used = {index for row in head for index in flags if flag(row[index])}
    return tuple(flags) if len(used) > 1 and all(count == 1 for count in counts) else ()


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
