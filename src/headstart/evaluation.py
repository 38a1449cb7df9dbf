"""Measures a saved classifier on other labelled images."""

from typing import Any

import numpy as np

from headstart.classifier import Classifier
from headstart.dataset import Skipped, read_dataset
from headstart.errors import DatasetError
from headstart.features import Progress
from headstart.metrics import Evaluation
from headstart.metrics import evaluate as measure

_WINDOW = 256
"""Images decoded before they are run: bounds memory."""


def evaluate(
    classifier: Classifier, source: Any, *, progress: Progress | None = None
) -> tuple[Evaluation, tuple[Skipped, ...]]:
    """Predict every image of a labelled data set and compare.

    Labels are matched by name, so the folder may hold fewer classes than the classifier knows.

    Raises:
        DatasetError: the data has a class that the classifier does not know, or no readable image.
    """
    dataset = read_dataset(source, for_training=False)
    unknown = sorted(set(dataset.classes) - set(classifier.classes))
    if unknown:
        raise DatasetError(
            f"{dataset.name}: the classifier does not know {', '.join(unknown[:3])}; "
            f"it knows {', '.join(classifier.classes[:8])}"
        )
    position = np.array([classifier.classes.index(name) for name in dataset.classes], np.int64)
    labels, rows, skipped = [], [], list(dataset.skipped)
    for start in range(0, len(dataset.samples), _WINDOW):
        window = dataset.samples[start : start + _WINDOW]
        rendered = classifier.render(window)
        good = [
            (sample, pixels)
            for sample, pixels in zip(window, rendered, strict=True)
            if not isinstance(pixels, str)
        ]
        skipped += [Skipped(s.name, p) for s, p in zip(window, rendered, strict=True) if isinstance(p, str)]
        if good:
            rows.append(classifier.probabilities(np.stack([pixels for _, pixels in good])))
            labels += [position[sample.label] for sample, _ in good]
        if progress:
            progress("evaluate", start + len(window), len(dataset.samples))
    if not labels:
        raise DatasetError(f"{dataset.name}: no readable image; {skipped[0].name}: {skipped[0].reason}")
    found = measure(np.concatenate(rows), np.array(labels), classes=classifier.classes)
    return found, tuple(skipped)
