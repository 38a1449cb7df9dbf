"""Figures of matplotlib for notebooks: a data set's images, a run's mistakes, its confusions."""

import io
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.dataset import Dataset, read_dataset
from headstart.errors import ImageError, MissingExtra, OptionError
from headstart.heads.metrics import Evaluation
from headstart.reports.run_facts import mistakes_of
from headstart.runs import Run, thumbnails

try:
    from matplotlib.figure import Figure
except ImportError:
    raise MissingExtra("a figure", extra="report") from None

_SIDE = 160
"""Pixels of a photograph."""

_CELL = 1.7
"""Inches that it takes."""

_NUMBERED = 20
"""Classes up to which a matrix has its numbers written in."""


def show_batch(source: Any, *, images: int = 16, seed: int = 0) -> Figure:
    """Some images of a data set with their labels, drawn at random.

    Args:
        source: whatever `headstart.read_dataset` takes, or a `Dataset`.
        images: how many, at most.
        seed: of the draw.

    Raises:
        DatasetError: there are no labelled images.
    """
    dataset = source if isinstance(source, Dataset) else read_dataset(source)
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    tiles: list[tuple[Any, str]] = []
    for sample in (dataset.samples[index] for index in order):
        if len(tiles) == images:
            break
        try:
            tiles.append((_pixels(sample.source.read()), dataset.label_of(sample)))
        except ImageError:  # which `fit` names
            continue
    return _mosaic(tiles, title=f"{dataset.name}: {len(dataset):,} images")


def show_mistakes(run: Run, *, images: int = 12) -> Figure:
    """A run's most confident mistakes on held-out images, or of numbers the largest errors.

    Args:
        run: what `headstart.fit` gave.
        images: how many, at most.
    """
    split, found = mistakes_of(run, most=images)
    tiles = []
    for image in found:
        data = thumbnails.unchanged(image)
        share = f" {image['probability']:.0%}" if "probability" in image else ""
        said = f"{image['predicted'] or 'no label'}{share}\nis {image['label'] or 'without a label'}"
        tiles.append((None if data is None else _pixels(data), said))
    return _mosaic(tiles, title=f"mistakes on {split} images" if tiles else f"no mistake on {split} images")


def plot_confusion(of: Run | Evaluation, *, split: str | None = None) -> Figure:
    """What was taken for what, as a matrix: rows are the true classes, columns the called ones.

    Args:
        of: a run, or what `headstart.evaluate` gave.
        split: of a run, "validation" or "test"; None for the test images where there are any.

    Raises:
        OptionError: there is no confusion matrix of it.
    """
    if isinstance(of, Run):
        split = split or ("test" if of.evaluation.get("test") else "validation")
        found = (of.evaluation.get(split) or {}).get("confusion")
        if not found:
            raise OptionError(f"run {of.id} has no confusion matrix of {split} images")
        return _matrix(np.array(found), of.classes, title=f"{split} images")
    if not isinstance(of, Evaluation):
        raise OptionError(
            f"{type(of).__name__}: confusions are of single labels; give a run or an evaluation"
        )
    return _matrix(of.confusion, [each.name for each in of.per_class], title=f"{of.images:,} images")


def _matrix(counts: Any, names: Sequence[str], *, title: str) -> Figure:
    side = min(1.6 + 0.45 * len(names), 9.0)
    figure = _figure(side + 0.6, side)
    axes: Any = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names)) if len(names) <= 3 * _NUMBERED else []
    labels = [_plain(names[each]) for each in ticks]
    axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels), default=0) > 3 else 0)
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize="medium")
    if len(names) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=ink)
    return figure


def _mosaic(tiles: Sequence[tuple[Any, str]], *, title: str) -> Figure:
    columns = min(max(len(tiles), 1), 6)
    rows = -(-max(len(tiles), 1) // columns)
    lines = max((text.count("\n") + 1 for _, text in tiles), default=1)
    figure = _figure(_CELL * max(columns, 2), (_CELL + 0.2 * lines) * rows + 0.3)
    figure.suptitle(title.replace("$", r"\$"), fontsize="medium")
    for axes, (pixels, text) in zip(figure.subplots(rows, columns, squeeze=False).flat, tiles, strict=False):
        if pixels is None:
            axes.text(0.5, 0.5, "no picture", ha="center", va="center")
        else:
            axes.imshow(pixels)
        axes.set_title("\n".join(_plain(line) for line in text.split("\n")), fontsize="small")
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot, and so once."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=72, bbox_inches="tight")
        return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    return NotebookFigure(figsize=(width, height), layout="constrained")


def _pixels(data: Any) -> Any:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(thumbnails.thumbnail(data, side=_SIDE, quality=90))))


def _plain(text: str) -> str:
    """No mathematics in it, and no longer than what fits above a photograph."""
    short = text if len(text) <= 24 else f"{text[:23]}…"
    return short.replace("$", r"\$")
