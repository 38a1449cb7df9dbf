"""Rows of path, label, split and source become a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headstart.dataset.labels import clean, refuse_look_alikes
from headstart.dataset.values import Dataset, Sample, Skipped
from headstart.errors import DatasetError, printable
from headstart.sources import Source

Row = tuple[str, str, str | None, Source]
"""Path, label, split or None, source."""


def build(
    name: str,
    rows: Sequence[Row],
    skipped: Sequence[Skipped],
    *,
    where: str,
    places: Sequence[str] | None = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """A data set of these rows: path, label, split or None, source; classes are in the labels' order.

    Args:
        name: of the data set.
        rows: what is used.
        skipped: what is left out.
        where: the source, as errors show it.
        places: where each row was found ("row 3"); None where its path says it.
        notes: what was guessed while reading.

    Raises:
        DatasetError: Two labels differ by what is hardly seen.
    """
    labels = [clean(label) or label for _, label, _, _ in rows]
    first: dict[str, str] = {}
    for number, label in enumerate(labels):
        if label not in first:
            first[label] = places[number] if places else printable(rows[number][0])
    try:
        refuse_look_alikes(first.items())
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    classes = sorted(first)
    index = {label: number for number, label in enumerate(classes)}
    samples = tuple(
        Sample(printable(path), index[label], split, source)
        for label, (path, _, split, source) in zip(labels, rows, strict=True)
    )
    return Dataset(name, tuple(map(printable, classes)), samples, tuple(skipped), tuple(notes))
