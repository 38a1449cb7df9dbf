"""Tables of images and labels, of any format, become a data set.

`from_tables` answers for every row: it is used, it is left out with its number and the reason, or the table
is refused with the row that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from headstart.data.dataset.columns import (
    UNASSIGNED,
    ColumnNames,
    Columns,
    LabelTable,
    choose,
    flag,
    unused_groups,
)
from headstart.data.dataset.decimals import NoNumber, as_number, as_numbers
from headstart.data.dataset.delimited import (
    MAX_TABLE_BYTES,
    WESTERN,
    NotCertain,
    is_utf8,
    read_json_lines,
    read_text,
    western,
)
from headstart.data.dataset.label_files import read_label_file
from headstart.data.dataset.labels import as_label, clean
from headstart.data.dataset.lookup import Files, Found
from headstart.data.dataset.parquet import ImageCell, read_parquet
from headstart.data.dataset.rows import Label, LabelledRow, build, each_of
from headstart.data.dataset.several import SAY_SEVERAL, apart, flagged, lists_of
from headstart.data.dataset.split_names import sides_of
from headstart.data.dataset.values import Dataset, Skipped
from headstart.data.sources import Place
from headstart.errors import DatasetError, ImageError, printable
from headstart.files import Unreadable, held_roots, read_regular, root_of
from headstart.heads.tasks import MULTI_LABEL, SINGLE_LABEL

_NAMED = 3
"""Classes that an error names; the others are counted."""

_MANY = 100_000
"""Rows, from which on most of them naming the same images is an attack or a mistake."""

_MOST_FLAGS = 50_000_000
"""Cells of columns of 0 and 1, one for each class: 25,000 images of 2,000 classes."""

_LONGEST_SHOWN = 200
"""Characters of a cell; what is longer is no path."""

_LEFT_OUT = 50_000
"""Rows of any table that may be without a file, or repeated; of a larger one as many as it has bytes.

A few kilobytes can claim millions of them, and each is looked for and named.
"""


@dataclass(frozen=True)
class LocatedTable:
    """A table with the files around it."""

    table: LabelTable
    files: Files
    where: str  # as errors show it
    folder: str = ""  # of the table below the source, with a slash at its end; empty at the top
    split: str | None = None  # of rows that do not say theirs, as a file named `train.csv` says it


def read_table(name: str, *, data: bytes | None = None, path: Path | None = None) -> LabelTable:
    """A table by its name's ending, from memory or from disk."""
    if name.lower().endswith(".parquet"):
        return read_parquet(name, data=data, path=path)
    if data is None:
        try:
            data = read_regular(str(path), limit=MAX_TABLE_BYTES, below=root_of(str(path), held_roots()))
        except Unreadable as error:
            raise DatasetError(f"{printable(name)}: {error}") from None
    if name.lower().endswith(".json"):
        return read_label_file(data, name)
    return read_json_lines(data, name) if name.lower().endswith(".jsonl") else read_text(data, name)


def table_at(place: Place) -> LabelTable:
    """A table on disk or at an address."""
    if isinstance(place, Path):
        return read_table(printable(place), path=place)
    try:
        return read_table(place.name, data=place.source().read())
    except ImageError as error:
        raise DatasetError(f"{place}: {error}") from None


@dataclass
class _Ledger:
    """What became of every row so far."""

    skipped: list[Skipped]
    notes: list[str]
    rows: dict[object, LabelledRow] = field(default_factory=dict)  # used, by their images
    lost: dict[str | tuple[str, ...], str] = field(
        default_factory=dict
    )  # labels of rows without a file: the first such row
    total: int = 0
    whole: bool = False  # whether labels were lists, or columns of 0 and 1, and not text that may be several


def from_tables(
    name: str,
    tables: Sequence[LocatedTable],
    *,
    where: str,
    wanted: ColumnNames,
    for_training: bool,
    skipped: Iterable[Skipped] = (),
    notes: Iterable[str] = (),
) -> Dataset:
    """The data set that one table describes, or several that are its splits or parts."""
    ledger = _Ledger(list(skipped), list(notes))
    for each in tables:
        try:
            _take(each, ledger, wanted=wanted, alone=len(tables) == 1)
        except DatasetError as error:
            said = str(error)
            raise DatasetError(said if said.startswith(each.where) else f"{each.where}: {said}") from None
    if not ledger.rows:
        _refuse_nothing(where, ledger)
    rows = list(ledger.rows.values())
    rows, assumed = apart(rows, task=wanted.task, where=where, whole=ledger.whole)
    ledger.notes += assumed
    if wanted.groups and 0 < (alone := sum(row.group is None for row in rows)) < len(rows):
        ledger.notes.append(f"{where}: rows without a group: {alone:,}, each by itself")
    dataset = build(
        name,
        rows,
        ledger.skipped,
        where=where,
        notes=dict.fromkeys(ledger.notes),
        task=wanted.task,
        decimal_comma=any(each.table.decimal_comma for each in tables),
    )
    used = {row.label for row in rows}
    gone = [str(label) for label in ledger.lost if label not in used]
    if gone and for_training and dataset.task == SINGLE_LABEL:
        raise DatasetError(
            f"{where}: no file of class {', '.join(map(printable, gone[:_NAMED]))} is there, e.g. "
            f"{ledger.lost[gone[0]]}; bring the files or remove the rows"
        )
    return dataset


def _take(located: LocatedTable, ledger: _Ledger, *, wanted: ColumnNames, alone: bool) -> None:
    """Every row of one table into the ledger."""
    table, prefix = located.table, "" if alone else f"{located.where} "
    columns = choose(table, wanted, finds=lambda cell: found(cell, located.files))
    told = [*table.notes, *filter(None, [columns.note])]
    told += [] if located.split else unused_groups(table, columns)
    searched: list[str] = []
    most_left_out = len(ledger.skipped) + max(_LEFT_OUT, table.size)
    cells = _columns(located, columns, wanted.task, told)
    ledger.whole = ledger.whole or any(isinstance(label, tuple) for label in cells[2])
    for number, image, label, split, group, weight in zip(*cells, strict=True):
        ledger.total += 1
        at = f"{prefix}row {number}"
        if len(ledger.skipped) > most_left_out:
            _refuse_left_out(ledger, at)
        path, inside = _path_of(image), isinstance(image, ImageCell)
        if not path and not inside:
            ledger.skipped.append(Skipped(at, f"{at} names no file"))
            continue
        file = found(image, located.files)
        if file is None:
            ledger.skipped.append(Skipped(_shown(path), f"{at}: {located.files.why_not(path)}"))
            ledger.lost.setdefault(label, f"{at}: {_shown(path)}")
            continue
        if not file.exact:
            searched.append(f"{_shown(path)} is {printable(file.path)}")
        shown = f"{at} {path}".strip() if inside else located.folder + file.path
        row = LabelledRow(shown, label, split, file.source, group, weight, at)
        earlier = ledger.rows.setdefault(file.source, row)
        if earlier is not row:
            _repeat(ledger, path, earlier, row, task=wanted.task)
    if searched:
        told.append(f"{len(searched):,} rows name files by other paths, e.g. {searched[0]}")
    if located.files.pages:
        told.append("not UTF-8; read as Windows-1252")
    ledger.notes += [f"{located.where}: {note}" for note in told]


def _columns(
    located: LocatedTable, columns: Columns, task: str | None, told: list[str]
) -> tuple[Sequence[int], Sequence[object], Sequence[Label], list[str | None], list[str | None], list[float]]:
    """The columns that are used; missing labels and unknown splits are refused here, all of them counted.

    What is assumed goes to `told`.
    """
    optional = [index for index in (columns.split, columns.groups, columns.weights) if index is not None]
    numbers, values = located.table.read([columns.image, columns.labels[0], *optional])
    images = values[0]
    different = len(set(images)) if len(images) >= _MANY and isinstance(images[0], str) else len(images)
    if different < len(images) / 2 and task != MULTI_LABEL:
        raise DatasetError(
            f"{len(images):,} rows name only {different:,} different images; keep a row for each"
        )
    for image in images:
        if isinstance(image, str) and not is_utf8(image):
            found(image, located.files)  # which may prove the code page of the labels
    labels: Sequence[Label]
    if len(columns.labels) > 1:
        named = sum(bool(name.strip()) for name in located.table.names)
        alone = named == 1 + len(optional) + len(columns.labels)
        labels, assumed = _labels_of_flags(located.table, columns.labels, task=task, alone=alone)
        told += assumed
    else:
        labels = _labels(located, numbers, values[1], task=task)
    splits = [located.split] * len(labels)
    if columns.split is not None:
        splits = _splits(located, numbers, values[2], sides=columns.sides)
    groups: list[str | None] = [None] * len(labels)
    if columns.groups is not None:
        groups = [as_label(value) for value in values[2 + optional.index(columns.groups)]]
    weights = [1.0] * len(labels)
    if columns.weights is not None:
        cells = values[2 + optional.index(columns.weights)]
        weights = _weights(numbers, cells, decimal_comma=located.table.decimal_comma)
    return numbers, images, labels, splits, groups, weights


def _weights(numbers: Sequence[int], values: Sequence[object], *, decimal_comma: bool) -> list[float]:
    """Every row's weight, a number above zero."""
    texts = [str(value).strip() for value in values]
    for number, text in zip(numbers, texts, strict=True):
        weight = as_number(text)
        if weight is None or weight <= 0:
            raise DatasetError(
                f"row {number}: the weight {_shown(text)!r} is no number above zero; to leave an image "
                "out, remove its row"
            )
    try:
        return as_numbers(texts, decimal_comma=decimal_comma)
    except NoNumber as error:
        raise DatasetError(
            f"row {numbers[error.at]}: the weight {_shown(texts[error.at])!r} {error.why}"
        ) from None


def _labels_of_flags(
    table: LabelTable, columns: Sequence[int], *, task: str | None, alone: bool
) -> tuple[Sequence[Label], tuple[str, ...]]:
    """Every row's label: the column that has its 1; or its labels, where rows have several; what was assumed.

    `alone`: whether the table has no other columns, so that these can only be labels.
    """
    names = [clean(table.names[index]) for index in columns]
    numbers, values = table.read(columns)
    if len(numbers) * len(names) > _MOST_FLAGS:
        raise DatasetError(
            f"{len(names):,} columns of 0 and 1 on {len(numbers):,} rows are too many; "
            "write one column of labels"
        )
    labels, assumed = flagged(names, values, lambda at: f"row {numbers[at]}", signs=task == MULTI_LABEL)
    if task == MULTI_LABEL or (task is None and alone and any(len(on) > 1 for on in labels)):
        return labels, assumed
    several = f"; {SAY_SEVERAL}" if task is None else ""
    for number, on in zip(numbers, labels, strict=True):
        if len(on) > 1:
            raise DatasetError(
                f"row {number}: {printable(on[0])} and {printable(on[1])} are both 1; keep the rows that "
                f"have one{several}"
            )
        if not on:
            raise DatasetError(
                f"row {number}: none of {', '.join(map(printable, names[:_NAMED]))}, … is 1; label the row "
                f"or remove it{several}"
            )
    return [on[0] for on in labels], assumed


def _shown(text: str) -> str:
    cut = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    return printable(cut)


def _refuse_left_out(ledger: _Ledger, at: str) -> None:
    raise DatasetError(
        f"{at}: {len(ledger.skipped):,} rows so far name no file that is here, or one that another row named "
        f"({ledger.skipped[-1].reason}); keep the rows whose images are here, each once"
    )


def _labels(
    located: LocatedTable, numbers: Sequence[int], values: Sequence[object], *, task: str | None
) -> Sequence[Label]:
    """Every row's label, or labels where the cells are lists; equal values are looked at once.

    An empty cell is none of several labels where these were asked for, and refused otherwise.
    """
    if (lists := lists_of(values, lambda at: f"row {numbers[at]}")) is not None:
        return lists
    keys: Sequence[object] = values
    if {*map(type, values)} not in ({str}, {int}, {float}, {bytes}):  # 1 is True, and a list no key
        plain = (str, int, float, bytes)
        keys = [(type(v), v if isinstance(v, plain) else n) for n, v in zip(numbers, values, strict=True)]
    first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
    different = [values[index] for index in first.values()]
    utf8 = any(isinstance(value, str) and not value.isascii() and is_utf8(value) for value in different)
    known: dict[object, str | None] = {}
    for key, index in sorted(first.items(), key=itemgetter(1)):
        value = values[index]
        try:
            known[key] = as_label(_readable(value, located, utf8=utf8) if isinstance(value, str) else value)
        except NotCertain:
            raise DatasetError(
                f"row {numbers[index]}: the label {printable(str(value))!r} is no UTF-8, and its code page "
                "is not certain; save the table as CSV UTF-8"
            ) from None
        except DatasetError as error:
            raise DatasetError(f"row {numbers[index]}: {error}") from None
    labels = [known[key] for key in keys]
    if None in known.values() and task != MULTI_LABEL:
        missing = [number for number, label in zip(numbers, labels, strict=True) if label is None]
        more = f", and of {len(missing) - 1:,} more rows" if len(missing) > 1 else ""
        bars = task is None and any("|" in label or label[0] == "[" for label in labels if label)
        several = f"; {SAY_SEVERAL}, or none" if bars else ""
        raise DatasetError(f"row {missing[0]}: label is empty{more}; label the rows or remove them{several}")
    return [label or "" for label in labels]


def _readable(text: str, located: LocatedTable, *, utf8: bool) -> str:
    """A label that may be in a code page.

    It is certain by its letters, or where files are found under the names that this code page gives them.
    `utf8`: whether other labels of the table are UTF-8, so that nothing is certain.
    """
    if is_utf8(text):
        return text
    if utf8:
        raise NotCertain
    try:
        label = western(text)
    except NotCertain:
        if WESTERN not in located.files.pages:
            raise
        try:
            label = text.encode("utf-8", "surrogateescape").decode(WESTERN)
        except UnicodeDecodeError:
            raise NotCertain from None
    located.files.pages.add(WESTERN)
    return label


def _splits(
    located: LocatedTable,
    numbers: Sequence[int],
    values: Sequence[object],
    *,
    sides: tuple[str, str] | None,
) -> list[str | None]:
    """Every row's split; `sides` are those of true and false where the column has these."""
    known = sides_of({str(value).strip() for value in values})
    splits: list[str | None] = []
    for number, value in zip(numbers, values, strict=True):
        if sides is not None:
            truth = flag(value)
            if truth is None:
                said = f"row {number}: {_shown(str(value))!r} is neither true nor false"
                raise DatasetError(f"{said}, where other rows say their split so")
            splits.append(sides[not truth])
            continue
        side = as_label(value)
        side = None if side is not None and side.casefold() == UNASSIGNED else side
        if side is not None and side not in known:
            raise DatasetError(
                f"row {number}: split is {printable(side)!r}; expected train, validation, test or nothing"
            )
        splits.append(located.split if side is None else known[side])
    return splits


def _path_of(image: object) -> str:
    if isinstance(image, ImageCell):
        return image.path or ""
    return "" if image is None or image != image else str(image).strip()


def found(image: object, files: Files) -> Found | None:
    """What a cell of an image column stands for; None where there is no such file."""
    if isinstance(image, ImageCell):
        return Found(image.path or "", image.source)
    path = _path_of(image)
    return files.find(path) if path else None


def _repeat(ledger: _Ledger, path: str, earlier: LabelledRow, now: LabelledRow, *, task: str | None) -> None:
    """A row that names an image again is left out, gives it one more label, or is refused."""
    for what in ("split", "group", "weight", "label"):
        before, after = getattr(earlier, what), getattr(now, what)
        if before == after or (what == "label" and task == MULTI_LABEL):
            continue
        here, there = ("none" if each is None else repr(printable(_said(each))) for each in (after, before))
        several = f", or {SAY_SEVERAL}" if what == "label" and task is None else ""
        raise DatasetError(
            f"{now.at}: {printable(path)} has {what} {here} here and {there} in {earlier.at}; keep one of "
            f"them{several}"
        )
    if earlier.label == now.label:
        ledger.skipped.append(Skipped(printable(path), f"{now.at} repeats {earlier.at}"))
        return
    both = dict.fromkeys((*each_of(earlier.label), *each_of(now.label)))
    ledger.rows[now.source] = earlier._replace(label=tuple(both))


def _said(cell: object) -> str:
    if isinstance(cell, tuple):
        return "|".join(cell)
    return f"{cell:.10g}" if isinstance(cell, float) else str(cell)


def _refuse_nothing(where: str, ledger: _Ledger) -> None:
    if not ledger.total:
        raise DatasetError(f"{where}: no rows below its header")
    first = next(iter(ledger.lost.values()), "row without a path")
    way_out = "paths are relative to the table: put it beside the images"
    if "://" in first:
        way_out = "nothing is downloaded here: fetch the images and put them beside the table"
    raise DatasetError(f"{where}: no file of its {ledger.total:,} rows is there; {first}; {way_out}")
