"""The images of an experiment: the learner's own, scikit-learn's digits, or drawings made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headstart.data.dataset import Dataset, read_dataset

DRAWINGS = "drawings"
DIGITS = "digits"
TURNED = "turned drawings"
"""Two shapes, each turned four ways: pre-trained features hardly say which way something points."""

SIDE = 32
"""Pixels a side of digits (8 in the collection, each repeated) and drawings."""

MOST_CLASSES = 10
"""An experiment on a folder of many classes takes those with the most images."""

_DRAWN_PER_CLASS = 180
"""As many as there are of each digit."""

SHAPES = ("bars", "checks", "cross", "disc", "frame", "ring", "stairs", "triangle")


def images_of(source: Any, *, per_class: int, seed: int, default: str | None = None) -> Dataset:
    """The data set of an experiment, cut to a size that keeps its bound.

    Args:
        source: what `fit` takes; "drawings", "turned drawings" or "digits" by name; None for the default.
        per_class: images of each class at most, of all splits together.
        seed: which ones; other drawings are made, digits and one's own are drawn from those there are.
        default: a name; None is digits where scikit-learn is installed, else drawings.

    Raises:
        DatasetError: the learner's own images form no data set.
    """
    if source is None:
        source = default or (DIGITS if find_spec("sklearn") else DRAWINGS)
    if isinstance(source, str) and source in (DRAWINGS, TURNED):
        draw = turned_drawings if source == TURNED else drawings
        drawn = draw(per_class=min(per_class, _DRAWN_PER_CLASS), seed=seed)
        return replace(read_dataset(drawn), name=source)
    if isinstance(source, str) and source == DIGITS:
        return replace(limited(read_dataset(_digits()), per_class=per_class, seed=seed), name=DIGITS)
    return limited(_testable(read_dataset(source)), per_class=per_class, seed=seed)


def _testable(dataset: Dataset) -> Dataset:
    """The data set; where it says what is for training but nothing for testing, its sides are drawn anew.

    An experiment measures on test images, and one of few images cannot do with what `fit` would hold out.
    """
    given = {sample.split for sample in dataset.samples}
    if given == {None} or "test" in given:
        return dataset
    return replace(dataset, samples=tuple(replace(sample, split=None) for sample in dataset.samples))


def limited(dataset: Dataset, *, per_class: int, seed: int, classes: int = MOST_CLASSES) -> Dataset:
    """At most so many images of at most so many classes, those with the most images."""
    labels = dataset.labels
    counts = np.bincount(labels, minlength=len(dataset.classes))
    kept = sorted(np.argsort(-counts, kind="stable")[:classes].tolist())
    random = np.random.default_rng(seed)
    samples = []
    for new, old in enumerate(kept):
        of_class = np.flatnonzero(labels == old)
        chosen = np.sort(random.permutation(of_class)[:per_class])
        samples += [replace(dataset.samples[i], label=new) for i in chosen]
    names = tuple(dataset.classes[old] for old in kept)
    return replace(dataset, classes=names, samples=tuple(samples))


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """1,797 handwritten digits, dark on white, uint8 [N, 32, 32, 3]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = np.uint8(255 - 255 * found.images / 16)
    enlarged = grey.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return np.repeat(enlarged[..., None], 3, axis=3), found.target.astype(str)


def drawings(
    *, per_class: int, seed: int = 0, shapes: tuple[str, ...] = SHAPES
) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Small labelled drawings: a shape of random colour, size and place on a noisy background.

    Returns:
        Pixels uint8 [N, 32, 32, 3] and names [N]; the same for the same arguments, and fewer are among more.
    """
    pixels, names = [], []
    for place, shape in enumerate(shapes):
        for number in range(per_class):
            pixels.append(_draw(shape, np.random.default_rng([seed, place, number])))
            names.append(shape)
    return np.stack(pixels), np.array(names)


def turned_drawings(*, per_class: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Drawings of two shapes, each turned by none, one, two and three quarters, which are the classes."""
    pixels, names = drawings(per_class=4 * per_class, seed=seed, shapes=("stairs", "triangle"))
    quarters = [number % 4 for number in range(len(names))]
    turned = [np.rot90(image, quarter) for image, quarter in zip(pixels, quarters, strict=True)]
    return np.stack(turned), np.array(
        [f"{name} turned by {90 * quarter}" for name, quarter in zip(names, quarters, strict=True)]
    )


def _draw(shape: str, random: np.random.Generator) -> NDArray[np.uint8]:
    background, colour = random.integers(0, 120, 3), random.integers(136, 256, 3)
    if random.random() < 0.5:  # so that brightness says nothing about the class
        background, colour = colour, background
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in background))
    pen = ImageDraw.Draw(image)
    ink = tuple(int(value) for value in colour)
    extent = int(random.integers(13, 22))
    left, top = (int(value) for value in random.integers(1, SIDE - extent - 1, 2))
    _SHAPES[shape](pen, (left, top, left + extent, top + extent), ink)
    noisy = np.asarray(image, np.float64) + random.normal(0, 14, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


Ink = tuple[int, ...]
Pen = ImageDraw.ImageDraw
Corners = tuple[int, int, int, int]


def _bars(pen: Pen, box: Corners, ink: Ink) -> None:
    left, top, right, bottom = box
    for y in range(top, bottom, 5):
        pen.rectangle((left, y, right, y + 1), fill=ink)


def _checks(pen: Pen, box: Corners, ink: Ink) -> None:
    left, top, right, _ = box
    step = max(3, (right - left) // 4)
    for row in range(4):
        for column in range(row % 2, 4, 2):
            x, y = left + column * step, top + row * step
            pen.rectangle((x, y, x + step - 1, y + step - 1), fill=ink)


def _cross(pen: Pen, box: Corners, ink: Ink) -> None:
    left, top, right, bottom = box
    pen.line(box, fill=ink, width=3)
    pen.line((right, top, left, bottom), fill=ink, width=3)


def _stairs(pen: Pen, box: Corners, ink: Ink) -> None:
    left, top, right, _ = box
    step = max(3, (right - left) // 4)
    for row in range(4):
        y = top + row * step
        pen.rectangle((left, y, left + (row + 1) * step, y + step - 1), fill=ink)


def _triangle(pen: Pen, box: Corners, ink: Ink) -> None:
    left, top, right, bottom = box
    pen.polygon((left, bottom, right, bottom, (left + right) // 2, top), fill=ink)


_SHAPES: dict[str, Callable[[Pen, Corners, Ink], None]] = {
    "bars": _bars,
    "checks": _checks,
    "cross": _cross,
    "disc": lambda pen, box, ink: pen.ellipse(box, fill=ink),
    "frame": lambda pen, box, ink: pen.rectangle(box, outline=ink, width=3),
    "ring": lambda pen, box, ink: pen.ellipse(box, outline=ink, width=3),
    "stairs": _stairs,
    "triangle": _triangle,
}
