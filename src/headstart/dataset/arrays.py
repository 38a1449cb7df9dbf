"""Arrays and their labels become a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.dataset.values import Dataset, Sample
from headstart.errors import DatasetError
from headstart.sources import ArraySource


def from_arrays(images: Any, labels: Any) -> Dataset:
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
    targets = np.asarray(labels).ravel()
    if len(targets) != len(images):
        raise DatasetError(
            f"y: expected one label per image, got {len(targets)} labels for {len(images)} images"
        )
    if len(targets) == 0:
        raise DatasetError("X: no images")
    missing = [index for index, target in enumerate(targets) if target is None or target != target]  # NaN
    if missing:
        raise DatasetError(
            f"y: {len(missing)} labels are missing, the first at {missing[0]}; leave those out"
        )
    try:
        values, codes = np.unique(targets, return_inverse=True)  # sorts numbers as numbers
    except TypeError as error:
        raise DatasetError(f"y: labels are of several kinds ({error}); make all of them text") from error
    samples = tuple(
        Sample(f"image {index}", int(code), None, ArraySource(image))
        for index, (code, image) in enumerate(zip(codes.ravel(), images, strict=True))
    )
    return Dataset("arrays", tuple(str(value) for value in values), samples)
