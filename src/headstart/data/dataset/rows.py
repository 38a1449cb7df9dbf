"""Rows of images and labels become a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from headstart.data.dataset.labels import clean, refuse_look_alikes
from headstart.data.dataset.values import Dataset, Sample, Skipped
from headstart.data.sources import Source
from headstart.errors import DatasetError, printable
from headstart.heads.tasks import MULTI_LABEL, SINGLE_LABEL

Label = str | tuple[str, ...]


class LabelledRow(NamedTuple):
    """One labelled image as it was found."""

    path: str
    label: Label  # several of a multi-label image, or none
    split: str | None
    source: Source
    group: str | None = None
    weight: float = 1.0
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
    several = any(isinstance(row.label, tuple) for row in rows)
    labels = [
        tuple(clean(each) or each for each in ((row.label,) if isinstance(row.label, str) else row.label))
        for row in rows
    ]
    first: dict[str, str] = {}
    for row, found in zip(rows, labels, strict=True):
        for label in found:
            if label not in first:
                first[label] = row.at or printable(row.path)
    try:
        refuse_look_alikes(first.items())
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    classes = sorted(first, key=order)
    index = {label: number for number, label in enumerate(classes)}
    samples = tuple(
        Sample(
            printable(row.path),
            -1 if several else index[found[0]],
            row.split,
            row.source,
            group=row.group,
            weight=row.weight,
            target=tuple(sorted({index[label] for label in found})) if several else None,
        )
        for row, found in zip(rows, labels, strict=True)
    )
    task = MULTI_LABEL if several else SINGLE_LABEL
    return Dataset(name, tuple(map(printable, classes)), samples, tuple(skipped), tuple(notes), task=task)
