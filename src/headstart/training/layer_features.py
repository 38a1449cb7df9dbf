"""Features of the layers that a ridge head reads, and their choice; alike for fits and for choices."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import heads
from headstart.costs.formulas import LAYER_IMAGES
from headstart.data.images import CENTRE, View
from headstart.features import Extraction

_ROWS_PER_CHUNK = 1024


def choose_layers(
    extraction: Extraction,
    images: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    layers: str,
    classes: int,
    class_weights: str | None,
    task: heads.Task | None = None,
) -> tuple[tuple[str, ...] | None, heads.LayerChoice | None]:
    """Names of the layers to read, None for the last layer alone; and the choice, where there was one.

    Without two classes of several images there is nothing to choose by, and the last layer is read.

    Args:
        extraction: features of these and other images.
        images: those to train on, as indices into the samples.
        labels: theirs, as the task has them.
        layers: "auto", "last" or "all".
        classes: how many there are.
        class_weights: "balanced" or None.
        task: what is predicted; None for one of the classes.
    """
    if not extraction.spec.layers or layers == "last":
        return None, None
    names = tuple(layer.name for layer in extraction.backbone.feature_layers())
    if layers == "all":
        return names, None
    contents = np.array([extraction.hashes[image] or b"" for image in images])
    by_content = np.argsort(np.argsort(contents, kind="stable"), kind="stable")
    plain = labels if task is None else task.plain(labels)
    rows = heads.comparable_images(plain, by_content, most=LAYER_IMAGES)
    if not len(rows):
        return None, None
    choice = heads.choose_layers(
        extraction.by_layer(images[rows], view=CENTRE),
        labels[rows],
        classes=classes,
        last=names[-1],
        widest=heads.widest_layers(len(images)),
        class_weights=class_weights,
        task=task,
    )
    return (None if choice.layers == names[-1:] else choice.layers), choice


def can_leave_out(labels: NDArray[Any]) -> bool:
    """Whether leaving each image out tells anything: the only image of a class takes its class along."""
    if labels.dtype.kind == "f" or labels.ndim > 1:
        return len(labels) > 1
    return bool(np.bincount(labels, minlength=1).max() > 1)


def layer_widths(extraction: Extraction, layers: tuple[str, ...] | None) -> list[int]:
    """Dimensions of each layer that is read."""
    width = {layer.name: layer.width(extraction.backbone) for layer in extraction.backbone.feature_layers()}
    return [width[name] for name in layers or list(width)[-1:]]


def batches(
    extraction: Extraction,
    images: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    layers: tuple[str, ...] | None,
    views: Sequence[View] = (CENTRE,),
) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    """Features and labels of every view of some images, a bounded number at once."""
    for view in views:
        for start in range(0, len(images), _ROWS_PER_CHUNK):
            rows = slice(start, start + _ROWS_PER_CHUNK)
            yield extraction.features(images[rows], layers=layers, view=view), labels[rows]
