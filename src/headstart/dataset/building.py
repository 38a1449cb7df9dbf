"""Rows of path, label, split and source become a data set."""

from __future__ import annotations

from headstart.dataset.values import Dataset, Sample, Skipped
from headstart.errors import printable
from headstart.sources import Source


def build(name: str, rows: list[tuple[str, str, str | None, Source]], skipped: list[Skipped]) -> Dataset:
    """A data set of these rows: path, label, split or None, source; classes are in the labels' order."""
    classes = sorted({label for _, label, _, _ in rows})
    index = {label: number for number, label in enumerate(classes)}
    samples = tuple(
        Sample(printable(path), index[label], split, source) for path, label, split, source in rows
    )
    return Dataset(name, tuple(map(printable, classes)), samples, tuple(skipped))
