"""What a run said of each held-out image: for reports, and for comparisons image by image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.dataset import describe
from headstart.runs import answer, write_predictions
from headstart.training.prepared import Prepared


def save_predictions(
    folder: Path, prepared: Prepared, probabilities: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write `predictions.json`: the split's fingerprint, and one entry per held-out image.

    Args:
        folder: of the run.
        prepared: the data set and its splits.
        probabilities: by split, [n, C] in the order of ``prepared.images(split)``.
    """
    images = [
        entry
        for split, rows in probabilities.items()
        for entry in _entries(prepared, split=split, probabilities=rows)
    ]
    write_predictions(folder, images, split=prepared.fingerprint)


def _entries(prepared: Prepared, *, split: str, probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
    classes = prepared.dataset.classes
    entries = []
    for row, image in zip(probabilities.tolist(), prepared.images(split), strict=True):
        sample, content = prepared.dataset.samples[image], prepared.extraction.hashes[image]
        known = describe(sample, label=classes[sample.label], split=split, content=content)
        entries.append({**known, **answer(row, classes)})
    return entries
