"""Groups (camera, patient, day) of images whose labels come from elsewhere: a table of files and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from headstart.data.dataset.columns import GROUP_NAMES, ColumnNames, LabelTable, image_column, plain
from headstart.data.dataset.labels import as_label
from headstart.data.dataset.lookup import Files
from headstart.data.dataset.tables import found
from headstart.data.dataset.values import Dataset
from headstart.data.sources import TABLE_SUFFIXES, Source
from headstart.errors import DatasetError, printable
from headstart.files import is_there


def names_a_table(groups: str | None) -> bool:
    """Whether `groups` is the path of a table, and not the name of a column.

    Raises:
        DatasetError: it is called like one, and is not there.
    """
    if groups is None or not groups.lower().endswith(TABLE_SUFFIXES):
        return False
    if not is_there(groups):
        raise DatasetError(f"{printable(groups)}: no such table of groups")
    return True


def grouped(dataset: Dataset, table: LabelTable, *, column: str | None, shown: str) -> Dataset:
    """The data set with the group of every image that the table names; the others are each by itself.

    Args:
        dataset: without groups.
        table: files and groups.
        column: of the groups; None for the one that can only be meant.
        shown: the table, as errors name it.

    Raises:
        DatasetError: it names none of the images, or one in two groups.
    """
    files = Files.listed({sample.name: sample.source for sample in dataset.samples})
    try:
        image = image_column(table, ColumnNames(), finds=partial(found, files=files))
        chosen = _group_column(table, image, column)
    except DatasetError as error:
        raise DatasetError(f"{shown}: {error}") from None
    numbers, (images, values) = table.read([image, chosen])
    groups: dict[Source, str | None] = {}
    for number, cell, value in zip(numbers, images, values, strict=True):
        file, group = found(cell, files), as_label(value)
        if file is not None and groups.setdefault(file.source, group) != group:
            raise DatasetError(
                f"{shown}: row {number}: {printable(file.path)} is in two groups, {printable(str(group))} "
                f"and {printable(str(groups[file.source]))}; keep one"
            )
    if not groups:
        raise DatasetError(f"{shown}: none of its {len(numbers):,} rows names an image of {dataset.name}")
    samples = tuple(replace(sample, group=groups.get(sample.source)) for sample in dataset.samples)
    alone = sum(sample.group is None for sample in samples)
    note = f"{shown}: groups from the column {printable(table.names[chosen])}"
    note += f"; images in none: {alone:,}" if alone else ""
    return replace(dataset, samples=samples, notes=(*dataset.notes, note))


def _group_column(table: LabelTable, image: int, column: str | None) -> int:
    others = [index for index in range(len(table.names)) if index != image]
    wanted = (column,) if column is not None else GROUP_NAMES
    for name in wanted:
        if fits := [index for index in others if plain(table.names[index]) == plain(name)]:
            return fits[0]
    if column is None and len(others) == 1:
        return others[0]
    raise DatasetError(f"which column has the groups? there are {_some([table.names[i] for i in others])}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:8]) or "none"
