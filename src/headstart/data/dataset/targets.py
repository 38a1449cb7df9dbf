"""What is predicted of an image: one label, several, or a number; found from the labels, or asked for.

Only what is certain is found: anything else is one label for each image, or asked about.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from headstart.data.dataset.decimals import are_digits
from headstart.data.dataset.labels import are_measured, as_label, made_of_others
from headstart.data.dataset.rows import LabelledRow, numbers_of
from headstart.data.dataset.values import Dataset, Sample
from headstart.data.sources import FileSource
from headstart.errors import DatasetError, OptionError, printable
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

SAY_SEVERAL = "if images have several labels, say --task multi-label"

_DELIMITERS = ("|", ";", ",")
"""Between the labels of a cell, the first that occurs."""

_LONGEST_SHOWN = 200
_MANY_NUMBERS = 20
"""Different whole numbers from which on they may be counts and not the numbers of classes: said."""


def check_task(task: str | None) -> None:
    """Refuse a word that is no task, with an OptionError; None leaves it to the data."""
    if task not in (None, "auto", *TASKS):
        raise OptionError(f"task={task!r}: expected one of {', '.join(TASKS)}")


def labels_of(cell: Sequence[object]) -> tuple[str, ...]:
    """The labels of a cell that is a list, each once."""
    found = [as_label(each) for each in cell]
    if None in found:
        raise DatasetError("a label in the list is empty")
    return tuple(dict.fromkeys(each for each in found if each is not None))


def apart(
    rows: Sequence[LabelledRow], *, task: str | None, where: str
) -> tuple[list[LabelledRow], tuple[str, ...]]:
    """Rows whose cells hold several labels, as `cat|dog`, with these; and what was assumed.

    Raises:
        DatasetError: some cells may be several labels, which is not certain.
    """
    texts = [row.label for row in rows if isinstance(row.label, str)]
    if len(texts) < len(rows):  # several already
        return [row if isinstance(row.label, tuple) else row._replace(label=(row.label,)) for row in rows], ()
    if task == MULTI_LABEL:
        delimiter = next((each for each in _DELIMITERS if any(each in text for text in texts)), "|")
        return _split(rows, delimiter), ()
    unsure = task is None and not are_measured(texts)  # 0,5 is not 0 and 5
    found = sorted(made_of_others(set(texts)), key=lambda each: not each[2])[:1] if unsure else []
    for label, parts, certain in found:
        shown = " and ".join(repr(_shown(part)) for part in parts[:3])
        said = f"the label {_shown(label)!r} is {shown}"
        if not certain:
            return list(rows), (
                f"{where}: {said} together, which are labels too; each image is taken to have one",
            )
        if "|" in label and _recurring(texts):
            return _split(rows, "|"), (
                f"{where}: labels such as {_shown(label)!r} are several: multi-label; if they are one, say "
                "--task single-label",
            )
        at = next(row.at for row in rows if row.label == label)
        raise DatasetError(f"{where}: {at}: {said} together; keep one, or {SAY_SEVERAL}")
    return list(rows), ()


def _split(rows: Sequence[LabelledRow], delimiter: str) -> list[LabelledRow]:
    found = []
    for row in rows:
        parts = (part.strip() for part in str(row.label).split(delimiter))
        found.append(row._replace(label=tuple(dict.fromkeys(part for part in parts if part))))
    return found


def _recurring(texts: Sequence[str]) -> bool:
    """Whether fewer than half of the cells have a bar, and all that stands between bars comes again."""
    with_bar = [text for text in texts if "|" in text]
    counts = Counter(part.strip() for text in texts for part in text.split("|"))
    parts = {part.strip() for text in with_bar for part in text.split("|")}
    return len(with_bar) < len(texts) / 2 and all(part and counts[part] > 1 for part in parts)


def as_task(dataset: Dataset, asked: str | None, *, where: str) -> Dataset:
    """The data set for the task asked for, or the one that its labels can only mean, which is noted.

    Raises:
        DatasetError: its labels are not of that task.
    """
    many = asked is None and dataset.task == SINGLE_LABEL and len(dataset.classes) >= _MANY_NUMBERS
    if many and are_digits(dataset.classes):
        told = f"{where}: {len(dataset.classes):,} different numbers are taken for classes; to predict the "
        dataset = replace(dataset, notes=(*dataset.notes, f"{told}number, say --task regression"))
    if asked in (None, dataset.task):
        return dataset
    if dataset.task != SINGLE_LABEL:
        have = "a number" if dataset.task == REGRESSION else "several labels"
        raise DatasetError(f"{where}: images have {have} each, which is no {asked} task")
    if asked == MULTI_LABEL:
        return _of_links(dataset)
    first = {each.label: each.name for each in reversed(dataset.samples)}
    numbers = numbers_of(dataset.classes, first.__getitem__, where=where, asked=True)
    samples = tuple(replace(each, label=0, target=numbers[each.label]) for each in dataset.samples)
    return replace(dataset, samples=samples, classes=("value",), task=REGRESSION)


def _of_links(dataset: Dataset) -> Dataset:
    """Several labels for each file that lies, by links, in several class folders."""
    same: dict[object, list[Sample]] = {}
    for sample in dataset.samples:
        same.setdefault(_file(sample), []).append(sample)
    samples = []
    for found in same.values():
        if len({each.split for each in found}) > 1:
            sides = " and ".join(sorted({str(each.split) for each in found}))
            raise DatasetError(
                f"{found[0].name} and {found[-1].name} are one file, in {sides}; keep one of them"
            )
        labels = tuple(sorted({each.label for each in found}))
        samples.append(replace(found[0], label=-1, target=labels))
    return replace(dataset, samples=tuple(samples), task=MULTI_LABEL)


def _file(sample: Sample) -> object:
    """What tells an image's file from others: device and number on disk, or where it lies."""
    if not isinstance(sample.source, FileSource):
        return sample.source
    try:
        found = os.stat(sample.source.path)
    except OSError:
        return sample.source
    return found.st_dev, found.st_ino


def _shown(text: str) -> str:
    return printable(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
