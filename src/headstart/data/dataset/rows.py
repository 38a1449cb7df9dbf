"""Rows of images and labels become a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from headstart.data.dataset.decimals import NoNumber, as_numbers
from headstart.data.dataset.labels import are_measured, clean, refuse_look_alikes
from headstart.data.dataset.values import Dataset, Sample, Skipped
from headstart.data.sources import Source
from headstart.errors import DatasetError, printable
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Label = str | tuple[str, ...]

SAY_ONE = "say --task single-label"

_LONGEST_SHOWN = 200


def each_of(label: Label) -> tuple[str, ...]:
    """The labels of a row, one or several."""
    return (label,) if isinstance(label, str) else label


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
    task: str | None = SINGLE_LABEL,
    decimal_comma: bool = False,
) -> Dataset:
    """A data set of these rows, its classes in the labels' order, or numbers.

    Args:
        name: of the data set.
        rows: all that are used.
        skipped: what is left out.
        where: as errors show it.
        notes: what was guessed.
        order: of the classes; by their names without.
        task: as asked for; None: labels that can only be measured numbers are numbers.
        decimal_comma: see `as_numbers`.
    """
    several = any(isinstance(row.label, tuple) for row in rows)
    if not several and task in (None, REGRESSION):
        texts = [str(row.label) for row in rows]
        if task == REGRESSION or are_measured(texts):
            told = f"{where}: labels are numbers with fractions: regression; if each is a class, {SAY_ONE}"
            numbers = numbers_of(
                texts,
                lambda at: rows[at].at or printable(rows[at].path),
                where=where,
                asked=task is not None,
                decimal_comma=decimal_comma,
            )
            samples = tuple(
                Sample(
                    printable(row.path),
                    0,
                    row.split,
                    row.source,
                    group=row.group,
                    weight=row.weight,
                    target=value,
                )
                for row, value in zip(rows, numbers, strict=True)
            )
            notes = [*notes, *([told] if task is None else [])]
            return Dataset(name, ("value",), samples, tuple(skipped), tuple(notes), task=REGRESSION)
    labels = [tuple(clean(each) or each for each in each_of(row.label)) for row in rows]
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


def numbers_of(
    labels: Sequence[str],
    place: Callable[[int], str],
    *,
    where: str,
    asked: bool,
    decimal_comma: bool = False,
) -> list[float]:
    """The numbers that labels are; `place` is where one of them stands, `asked` whether they have to be.

    Raises:
        DatasetError: Names the place of the first that is none, or may be one of two.
    """
    try:
        return as_numbers(labels, decimal_comma=decimal_comma)
    except NoNumber as error:
        label = labels[error.at]
        cut = label if len(label) <= _LONGEST_SHOWN else f"{label[:_LONGEST_SHOWN]}…"
        way_out = f"; if each is a class, {SAY_ONE}"
        if asked:
            way_out = "" if ";" in error.why else ", which --task regression expects"
        raise DatasetError(
            f"{where}: {place(error.at)}: the label {printable(cut)!r} {error.why}{way_out}"
        ) from None
