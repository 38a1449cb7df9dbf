"""Arrays and their labels become a data set."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.dataset.columns import flag
from headstart.data.dataset.decimals import are_digits, as_number
from headstart.data.dataset.labels import as_label
from headstart.data.dataset.rows import Label, LabelledRow, build, each_of
from headstart.data.dataset.several import apart, flagged, lists_of
from headstart.data.dataset.values import Dataset
from headstart.data.sources import ArraySource
from headstart.errors import DatasetError
from headstart.heads.tasks import MULTI_LABEL


def from_arrays(images: Any, labels: Any, *, task: str | None) -> Dataset:
    """A data set of arrays; the range of floats is not guessed, so they are refused."""
    if not hasattr(images, "__len__"):
        raise DatasetError(f"X: expected an array or a list of images, got {type(images).__name__}")
    if not isinstance(images, np.ndarray):
        images = [np.asarray(image) for image in images]
    for array in [images] if isinstance(images, np.ndarray) else images:
        if array.dtype != np.uint8:
            way_out = "for values from 0 to 1, pass (X * 255).round().astype('uint8')"
            if array.dtype.kind in "iu":
                way_out = "pass X.astype('uint8')"
            raise DatasetError(f"X: expected uint8 from 0 to 255, got {array.dtype}; {way_out}")
    if isinstance(images, np.ndarray) and not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    ):
        raise DatasetError(f"X: expected the shape [N, H, W] or [N, H, W, 1|3|4], got {list(images.shape)}")
    names, targets = _one_each(labels, count=len(images))
    if len(targets) == 0:
        raise DatasetError("X: no images")
    found, assumed = _several(names, targets, task=task, table=getattr(labels, "ndim", 1) > 1)
    given: Sequence[Label] = _names(targets, task=task) if found is None else found
    kinds = {_kind(target) for target, label in zip(targets, given, strict=True) if label}
    if found is None and len(kinds) > 1:
        several = ", ".join(sorted(kinds))
        raise DatasetError(f"y: labels are of several kinds ({several}); make all of them text")
    rows = [
        LabelledRow(f"image {index}", label, None, ArraySource(image), at=f"label {index}")
        for index, (label, image) in enumerate(zip(given, images, strict=True))
    ]
    rows, notes = apart(rows, task=task, where="y", whole=found is not None)
    numeric = "text" not in kinds and all(are_digits(each_of(row.label)) for row in rows)
    order = (lambda label: as_number(label) or 0.0) if numeric else None
    return build("arrays", rows, (), where="y", notes=(*assumed, *notes), order=order, task=task)


def _one_each(labels: Any, *, count: int) -> tuple[list[str] | None, list[Any]]:
    """The names of the labels' columns, if they have such; and each image's label as Python's own value."""
    names = getattr(labels, "columns", None)
    if names is not None:
        labels = labels.to_numpy()
    kind = getattr(getattr(labels, "dtype", None), "kind", None)
    values = labels.astype(str) if kind in ("m", "M") else labels  # else NumPy makes numbers of dates
    targets = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(targets, list | tuple):
        several = hasattr(targets, "__iter__") and not isinstance(targets, str)
        targets = list(targets) if several else [targets]
    targets = [target.tolist() if isinstance(target, np.ndarray) else target for target in targets]
    if len(targets) != count:
        one = "label" if len(targets) == 1 else "labels"
        raise DatasetError(f"y: expected one label per image, got {len(targets)} {one} for {count} images")
    return None if names is None else [str(name) for name in names], targets


def _several(
    names: list[str] | None, targets: list[Any], *, task: str | None, table: bool
) -> tuple[list[tuple[str, ...]] | None, tuple[str, ...]]:
    """Each image's labels, of rows of 0 and 1, lists or sets, and what was assumed; None where each has one.

    Rows none of which has two 1s may be one-hot, and are refused unasked. `table`: whether all are one array.
    """
    rows = all(isinstance(target, list | tuple) for target in targets)
    widths = {len(target) for target in targets} if rows else set()
    if widths == {1} and task != MULTI_LABEL:
        targets[:] = [target[0] for target in targets]  # a column of N labels
        return None, ()
    even = len(widths) == 1 and widths != {0}
    numeric = even and all(_kind(each) in ("numbers", "bool") for target in targets for each in target)
    flags = numeric and all(flag(each) is not None for target in targets for each in target)
    twice = flags and any(sum(map(bool, target)) > 1 for target in targets)
    if (task is None and twice) or (task == MULTI_LABEL and numeric and (table or (flags and widths != {1}))):
        columns = list(zip(*targets, strict=True))
        labels = names or [str(index) for index in range(len(columns))]
        found, notes = flagged(labels, columns, lambda at: f"y: label {at}", signs=task == MULTI_LABEL)
        return found, tuple(f"y: {note}" for note in notes)
    if task != MULTI_LABEL and even and (table or flags):
        way_out = "; of one-hot rows pass y.argmax(axis=1)" if flags else ""
        several = "; of several labels say task='multi-label'" if task is None else ""
        shape = [len(targets), *widths]
        raise DatasetError(f"y: expected one label per image, got the shape {shape}{way_out}{several}")
    return lists_of(targets, lambda at: f"y: label {at}"), ()


def _names(targets: list[Any], *, task: str | None) -> list[str]:
    """Every label's class; missing ones are counted before they are refused, or are none of several."""
    names: list[str | None] = []
    for index, target in enumerate(targets):
        try:
            names.append(as_label(target))
        except DatasetError as error:
            raise DatasetError(f"y: label {index}: {error}") from None
    missing = [index for index, name in enumerate(names) if name is None]
    if missing and task != MULTI_LABEL:
        count = "1 label is" if len(missing) == 1 else f"{len(missing)} labels are"
        raise DatasetError(f"y: {count} missing, the first at {missing[0]}; leave those images out")
    return [name or "" for name in names]


def _kind(target: Any) -> str:
    if isinstance(target, str | bytes):
        return "text"
    if isinstance(target, numbers.Real) and not isinstance(target, bool):
        return "numbers"
    return type(target).__name__
