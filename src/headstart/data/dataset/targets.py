"""What is predicted of an image: one label, several, or a number; found from the labels, or asked for.

Only what is certain is found: anything else is one label for each image, or asked about.
"""

from __future__ import annotations

import os
from dataclasses import replace

from headstart.data.dataset.decimals import are_digits
from headstart.data.dataset.rows import numbers_of
from headstart.data.dataset.values import Dataset, Sample
from headstart.data.sources import FileSource
from headstart.errors import DatasetError, OptionError
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

_MANY_NUMBERS = 20
"""Different whole numbers from which on they may be counts and not the numbers of classes: said."""


def check_task(task: str | None) -> None:
    """Refuse a word that is no task, with an OptionError; None leaves it to the data."""
    if task not in (None, "auto", *TASKS):
        raise OptionError(f"task={task!r}: expected one of {', '.join(TASKS)}")


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
        return _of_links(dataset, where=where)
    first = {each.label: each.name for each in reversed(dataset.samples)}
    numbers = numbers_of(dataset.classes, first.__getitem__, where=where, asked=True)
    samples = tuple(replace(each, label=0, target=numbers[each.label]) for each in dataset.samples)
    return replace(dataset, samples=samples, classes=("value",), task=REGRESSION)


def _of_links(dataset: Dataset, *, where: str) -> Dataset:
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
    notes = dataset.notes
    if len(samples) == len(dataset):
        notes = (
            *notes,
            f"{where}: no file is linked into several class folders; each image has one label",
        )
    return replace(dataset, samples=tuple(samples), notes=notes, task=MULTI_LABEL)


def _file(sample: Sample) -> object:
    """What tells an image's file from others: device and number on disk, or where it lies."""
    if not isinstance(sample.source, FileSource):
        return sample.source
    try:
        found = os.stat(sample.source.path)
    except OSError:
        return sample.source
    return found.st_dev, found.st_ino
