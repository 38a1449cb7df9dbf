"""What a run said of each held-out image: for reports, and for comparisons image by image."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.dataset import FileSource, Sample
from headstart.fitting.preparation import Prepared
from headstart.runs import PREDICTIONS_FILE
from headstart.sources import ZipSource

_TOP = 3
"""Labels kept for each image: the one called, and the two that it was nearly called."""


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
    content = {"split": prepared.fingerprint, "images": images}
    # Escaped to ASCII: the name of a file that is no UTF-8 must come back as it was.
    (folder / PREDICTIONS_FILE).write_text(json.dumps(content))


def _entries(prepared: Prepared, *, split: str, probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
    classes = prepared.dataset.classes
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :_TOP]
    entries = []
    for row, image in enumerate(prepared.images(split)):
        sample = prepared.dataset.samples[image]
        top = [[classes[i], round(float(probabilities[row, i]), 5)] for i in order[row]]
        entry = {
            "path": sample.name,
            "content": (prepared.extraction.hashes[image] or b"").hex(),
            "split": split,
            "label": classes[sample.label],
            "predicted": top[0][0],
            "probability": top[0][1],
            "top": top,
        }
        entries.append(entry | place_of(sample))
    return entries


def place_of(sample: Sample) -> dict[str, str]:
    """Where the image can be read again; nothing for arrays, which only the caller has."""
    source = sample.source
    if isinstance(source, FileSource):
        return {"file": str(Path(source.path).absolute())}
    if isinstance(source, ZipSource) and source.archive.filename:
        return {"file": str(Path(source.archive.filename).absolute()), "member": source.member.filename}
    return {}
