"""Cross-validation of a ridge head on features that are there already: each image judged by others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import describe
from headstart.errors import printable
from headstart.heads import LabelErrors, find_label_errors, metrics
from headstart.heads.decisions import decide
from headstart.runs import answer
from headstart.runs.callbacks import Callback
from headstart.training.decisions import with_config_priors
from headstart.training.fitting import Trained, fit_ridge, predict_images
from headstart.training.preparation import Prepared


@dataclass(frozen=True)
class CrossValidation:
    """What heads that had not seen an image said of it, for every image that is in a fold.

    Attributes:
        prepared: the images, with their folds.
        images: their indices, fold after fold.
        probabilities: [n, C], of the head that was fitted on the other folds, for the shares of ``priors``.
        plain: [n, C], the same for the shares that the classes have here.
        trained: [n, C], of a head that was fitted on all of them, likewise.
        costs: of mistakes, see `decide`.
    """

    prepared: Prepared
    images: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    plain: NDArray[np.float32]
    trained: NDArray[np.float32]
    costs: NDArray[np.float64] | None = None

    @cached_property
    def label_errors(self) -> LabelErrors:
        """Images whose label is likely wrong; its rows are those of ``images``."""
        return find_label_errors(self.plain, self.prepared.labels(self.images), trained=self.trained)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence on classes that lie in one fold whole, which others cannot judge."""
        prepared, every = self.prepared, range(len(self.prepared.dataset.classes))
        unseen: set[int] = set()
        for fold in prepared.fold_numbers:
            unseen |= set(every) - set(prepared.labels(prepared.fold(fold, inside=False)).tolist())
        if not unseen:
            return ()
        names = ", ".join(printable(prepared.dataset.classes[label]) for label in sorted(unseen)[:3])
        more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
        return (
            f"cross-validation: all images of {names}{more} are in one fold, so that the head that judges "
            "them has seen none of their class and gets them wrong",
        )

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a `Run` keeps of it: accuracy over all images with its interval, and of each fold.

        Where the data set has groups, the interval knows that images of one are right or wrong together.
        """
        prepared, labels = self.prepared, self.prepared.labels(self.images)
        classes = prepared.dataset.classes
        found = metrics.evaluate(self.probabilities, labels, classes=classes, costs=self.costs)
        right = decide(self.probabilities, self.costs) == labels
        folds = np.array([prepared.folds[image] for image in self.images])
        accuracies = [float(right[folds == fold].mean()) for fold in np.unique(folds)]
        named = [prepared.dataset.samples[image].group for image in self.images]
        interval = found.interval
        if any(named):
            number: dict[str | int, int] = {}
            units = np.array([number.setdefault(name or at, len(number)) for at, name in enumerate(named)])
            interval = metrics.clustered_interval(right, units)
        return {
            "folds": len(accuracies),
            "images": found.images,
            "accuracy": found.accuracy,
            "interval": list(interval),
            "spread": float(np.std(accuracies, ddof=1)),
            "accuracies": accuracies,
            "macro_f1": found.macro_f1,
            "log_loss": found.log_loss,
            "calibration_error": found.calibration_error,
            "label_errors": len(self.label_errors.images),
            "wrong_labels": self.label_errors.rate,
        }

    def predictions(self) -> Iterator[dict[str, Any]]:
        """What was said of each image, as `folds.json` has it."""
        prepared, errors = self.prepared, self.label_errors
        suspects = dict(zip(errors.images, zip(errors.classes, errors.wrong, strict=True), strict=True))
        classes, samples = prepared.dataset.classes, prepared.dataset.samples
        calls = decide(self.probabilities, self.costs)
        for at, (row, image, call) in enumerate(zip(self.probabilities, self.images, calls, strict=True)):
            known = describe(
                samples[image],
                label=classes[samples[image].label],
                split=prepared.splits[image],
                content=prepared.extraction.hashes[image],
            )
            said = {
                **known,
                "fold": prepared.folds[image],
                **answer(row.tolist(), classes, called=call),
            }
            if at in suspects:
                likely, wrong = suspects[at]
                said |= {"likely": classes[likely], "wrong": round(float(wrong), 4)}
            yield said


def cross_validate(prepared: Prepared, trained: Trained, *, watch: Callback) -> CrossValidation | None:
    """Judge every image by a ridge head on the images of the other folds; None where there are no folds.

    Each head is what `fit_ridge` gives for these images alone, its standardisation, penalty and temperature
    included. The layers are those of `trained`, chosen once.
    """
    if not prepared.folds:
        return None
    watch.on_phase_begin("folds")
    folds = prepared.fold_numbers
    images, probabilities, plain = [], [], []
    for fold in folds:
        others, own = prepared.fold(fold, inside=False), prepared.fold(fold, inside=True)
        images.append(own)
        before, after = _said_after(prepared, trained, others, of=own)
        plain.append(before)
        probabilities.append(after)
        watch.on_progress("folds", fold + 1, len(folds))
    every = np.concatenate(images)
    found = CrossValidation(
        prepared,
        every,
        np.concatenate(probabilities),
        np.concatenate(plain),
        trained=_said_after(prepared, trained, prepared.fold(None, inside=False), of=every)[0],
        costs=trained.costs,
    )
    watch.on_phase_end("folds", found)
    return found


def _said_after(
    prepared: Prepared, trained: Trained, images: NDArray[np.int64], *, of: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities [n, C] of some images by a head that was fitted on these, without and with the priors."""
    config, classes = trained.config, prepared.dataset.classes
    fitted, _ = fit_ridge(prepared, images, layers=trained.layers, class_weights=config.class_weights)
    weights = prepared.weights(images) if prepared.weighted else None
    plain = predict_images(prepared, replace(trained, head=fitted.head), images=of)
    if config.priors is None:
        return plain, plain
    head = with_config_priors(
        fitted.head, config=config, classes=classes, labels=prepared.labels(images), weights=weights
    )
    return plain, predict_images(prepared, replace(trained, head=head), images=of)
