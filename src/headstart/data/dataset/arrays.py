"""Arrays and their labels become a data set."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from headstart.data.dataset.labels import as_label
from headstart.data.dataset.rows import LabelledRow, build
from headstart.data.dataset.values import Dataset
from headstart.data.sources import ArraySource
from headstart.errors import DatasetError


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
    targets = _one_each(labels, count=len(images))
    if len(targets) == 0:
        raise DatasetError("X: no images")
    names = _names(targets)
    kinds = {_kind(target) for target in targets}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        raise DatasetError(f"y: labels are of several kinds ({found}); make all of them text")
    rows = [
        LabelledRow(f"image {index}", name, None, ArraySource(image), at=f"label {index}")
        for index, (name, image) in enumerate(zip(names, images, strict=True))
    ]
    return build("arrays", rows, (), where="y", order=float if kinds == {"numbers"} else None, task=task)


def _one_each(labels: Any, *, count: int) -> list[Any]:
    """The labels as Python's own values; a column of N rows is a list of N."""
    kind = getattr(getattr(labels, "dtype", None), "kind", None)
    values = labels.astype(str) if kind in ("m", "M") else labels  # else NumPy makes numbers of dates
    targets = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(targets, list | tuple):
        several = hasattr(targets, "__iter__") and not isinstance(targets, str)
        targets = list(targets) if several else [targets]
    if all(isinstance(target, list | tuple) and len(target) == 1 for target in targets):
        targets = [target[0] for target in targets]
    if len(targets) != count:
        raise DatasetError(f"y: expected one label per image, got {len(targets)} labels for {count} images")
    widths = {len(target) for target in targets if isinstance(target, list | tuple)}
    if len(widths) == 1 and hasattr(labels, "shape"):
        raise DatasetError(
            f"y: expected one label per image, got the shape {list(labels.shape)}; "
            "of one-hot rows pass y.argmax(axis=1)"
        )
    return list(targets)


def _names(targets: list[Any]) -> list[str]:
    """Every label's class; missing ones are counted before they are refused."""
    names: list[str | None] = []
    for index, target in enumerate(targets):
        try:
            names.append(as_label(target))
        except DatasetError as error:
            raise DatasetError(f"y: label {index}: {error}") from None
    missing = [index for index, name in enumerate(names) if name is None]
    if missing:
        count = "1 label is" if len(missing) == 1 else f"{len(missing)} labels are"
        raise DatasetError(f"y: {count} missing, the first at {missing[0]}; leave those images out")
    return [name for name in names if name is not None]


def _kind(target: Any) -> str:
    if isinstance(target, str | bytes):
        return "text"
    if isinstance(target, numbers.Real) and not isinstance(target, bool):
        return "numbers"
    return type(target).__name__
