"""What a run is judged by: what was trained, asked about the images that were held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads.tasks import AnyEvaluation, evaluate
from headstart.runs.callbacks import Callback
from headstart.training.cross_validation import CrossValidation, cross_validate
from headstart.training.fitting import Trained, predict_images
from headstart.training.preparation import Prepared

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Scores:
    """What was said of the held-out images, and how good that is.

    Attributes:
        prepared: the images.
        trained: who was asked.
        probabilities: by split, [n, C] in the order of ``Prepared.images``.
        evaluations: by split; those without images have none.
        folds: what heads that had not seen an image say of it; None where the config has no folds.
    """

    prepared: Prepared
    trained: Trained
    probabilities: Mapping[str, NDArray[np.float32]]
    evaluations: Mapping[str, AnyEvaluation]
    folds: CrossValidation | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The fields of a `Run` that say how good it is; macro F1 on validation, else on test."""
        found = self.evaluations
        chosen_on = found.get("validation") or found.get("test")
        return {
            "accuracy": {split: getattr(found.get(split), "accuracy", None) for split in HELD_OUT},
            "macro_f1": getattr(chosen_on, "macro_f1", None),
            "evaluation": {split: each.to_dict() for split, each in found.items()},
            "cross_validation": self.folds.record if self.folds else None,
        }


def score(prepared: Prepared, trained: Trained, *, watch: Callback | None = None) -> Scores:
    """Ask what was trained about every held-out image, from what is cached."""
    watch = watch or Callback()
    folds = cross_validate(prepared, trained, watch=watch)
    watch.on_phase_begin("evaluate")
    classes = prepared.dataset.classes
    probabilities = {
        split: predict_images(prepared, trained, images=prepared.images(split)) for split in HELD_OUT
    }
    evaluations = {
        split: evaluate(
            prepared.task.name,
            found,
            prepared.labels(prepared.images(split)),
            classes=classes,
            thresholds=trained.head.thresholds,
            errors=trained.head.errors,
            costs=trained.costs,
        )
        for split, found in probabilities.items()
        if len(found)
    }
    scores = Scores(prepared, trained, probabilities, evaluations, folds)
    watch.on_phase_end("evaluate", scores)
    return scores
