"""Rows of images and labels become a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from headstart.data.dataset.labels import clean, refuse_look_alikes
from headstart.data.dataset.values import Dataset, Sample, Skipped
from headstart.data.sources import Source
from headstart.errors import DatasetError, printable


class LabelledRow(NamedTuple):
    """One labelled image as it was found."""

    path: str
    label: str
    split: str | None
    source: Source
    group: str | None = None
    at: str = ""  # "row 3" of a table; empty where the path says it


def build(
    name: str,
    rows: Sequence[LabelledRow],
    skipped: Sequence[Skipped],
    *,
    where: str,
    notes: Iterable[str] = (),
    order: Callable[[str], float] | None = None,
) -> Dataset:
    """A data set of these rows, its classes in the labels' order; `where` is shown in errors."""
    labels = [clean(row.label) or row.label for row in rows]
    first: dict[str, str] = {}
    for row, label in zip(rows, labels, strict=True):
        if label not in first:
            first[label] = row.at or printable(row.path)
    try:
        refuse_look_alikes(first.items())
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    classes = sorted(first, key=order)
    index = {label: number for number, label in enumerate(classes)}
    samples = tuple(
        Sample(printable(row.path), index[label], row.split, row.source, group=row.group)
        for row, label in zip(rows, labels, strict=True)
    )
    return Dataset(name, tuple(map(printable, classes)), samples, tuple(skipped), tuple(notes))
