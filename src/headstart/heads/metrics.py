"""Scores of a classifier: accuracy with an interval, macro-F1, calibration error, log-loss, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import OptionError

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

# The 97.5 % quantile of the standard normal distribution: intervals cover 95 %.
_Z95 = 1.959963984540054
# Fifteen bins of equal width, as Guo et al. (ICML 2017) report it.
_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """One class's part in an evaluation."""

    name: str
    precision: float  # share of the images called so that are so; 0 where none was called so
    recall: float  # share of the images that are so that were called so; 0 where there are none
    f1: float  # harmonic mean of the two; 0 where both are
    support: int  # images of the class


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A classifier's scores on labelled images."""

    images: int
    accuracy: float  # share classified correctly, 0 to 1
    interval: tuple[float, float]  # its 95 % Wilson interval
    macro_f1: float  # mean F1 over the classes that occur among the labels or the predictions
    calibration_error: float  # expected calibration error over 15 bins of equal width, 0 to 1
    log_loss: float  # mean negative logarithm of the right class's probability, in nats
    confusion: Integers  # int64 [C, C]; rows are the true classes, columns the predicted ones
    per_class: tuple[ClassScore, ...]  # one per class, in the classes' order

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, ready for JSON."""
        return {
            **vars(self),
            "interval": list(self.interval),
            "confusion": self.confusion.tolist(),
            "per_class": [vars(score) for score in self.per_class],
        }


def evaluate(probabilities: ArrayLike, labels: ArrayLike, *, classes: Sequence[str]) -> Evaluation:
    """Compares predicted probabilities with the true labels.

    Args:
        probabilities: [N, C], rows summing to one.
        labels: [N], 0 to C - 1.
        classes: The C names.

    Raises:
        OptionError: No images, or shapes, labels or probabilities that cannot be.
    """
    p, y = _checked(probabilities, labels, len(classes))
    predicted = p.argmax(axis=1)
    confusion = confusion_matrix(y, predicted, classes=len(classes))
    scores = class_scores(confusion, classes=classes)
    occurring = [
        score.f1
        for score, row, column in zip(scores, confusion, confusion.T, strict=True)
        if (row + column).any()
    ]
    correct = int(np.trace(confusion))
    return Evaluation(
        images=len(y),
        accuracy=correct / len(y),
        interval=wilson_interval(correct, len(y)),
        macro_f1=float(np.mean(occurring)),
        calibration_error=calibration_error(p, y),
        log_loss=log_loss(p, y),
        confusion=confusion,
        per_class=scores,
    )


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """The 95 % score interval of a share.

    Unlike the share plus and minus its standard error it stays within 0 and 1 and does not collapse at the
    ends. Source: Wilson, Journal of the American Statistical Association 22 (1927).

    Raises:
        OptionError: No trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise OptionError(
            f"an interval wants 0 <= successes <= trials and a trial, got {successes} of {trials}"
        )
    share = successes / trials
    spread = _Z95**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * np.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # At the ends the formula gives 0 and 1 exactly; rounding would not.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == trials else float(centre + half)
    return low, high


def clustered_interval(right: NDArray[np.bool_], units: Integers) -> tuple[float, float]:
    """The 95 % score interval of the share that is right, where images of one unit are so together.

    Wilson's, of as many independent images as would leave the share as uncertain as the units do: their
    number over the design effect, the variance of the share between units over that of a coin. Source: Dean
    and Pagano, "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys",
    Journal of Survey Statistics and Methodology 3 (2015). The U / (U - 1) is for few units.

    Args:
        right: [n].
        units: the unit of each image, [n], from 0 to U - 1.
    """
    share, images = float(right.mean()), len(right)
    of_units = np.bincount(units, weights=right - share)
    count = len(of_units)
    chance = images * share * (1 - share)
    if count < 2 or not chance:
        return wilson_interval(int(right.sum()), images)
    effect = max(1.0, count / (count - 1) * float(np.square(of_units).sum()) / chance)
    return wilson_interval(share * images / effect, images / effect)


def confusion_matrix(labels: Integers, predicted: Integers, *, classes: int) -> Integers:
    """Counts, int64 [C, C]: row is the true class, column the predicted one."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_scores(confusion: Integers, *, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of each class; a ratio with nothing to divide by is 0."""
    right = np.diag(confusion).astype(np.float64)
    called, support = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = _ratio(right, called), _ratio(right, support)
    f1 = _ratio(2 * right, called + support)
    return tuple(
        ClassScore(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
        for i, name in enumerate(classes)
    )


def calibration_error(probabilities: Doubles, labels: Integers) -> float:
    """Expected calibration error of the predicted class's probability, 0 to 1.

    The images are binned by that probability into 15 bins of equal width, closed on the right; the result is
    the mean over the images of their bin's distance between mean probability and accuracy. Source: Guo et
    al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * _CALIBRATION_BINS) - 1, 0, _CALIBRATION_BINS - 1).astype(np.int64)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def log_loss(probabilities: Doubles, labels: Integers) -> float:
    """Mean negative logarithm of the right class's probability, in nats, floored at float32's epsilon."""
    right = probabilities[np.arange(len(labels)), labels]
    return float(0.0 - np.log(np.maximum(right, np.finfo(np.float32).eps)).mean())  # never minus zero


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Doubles:
    zeros = np.zeros(len(numerator))
    return np.asarray(np.divide(numerator, denominator, out=zeros, where=denominator > 0), dtype=np.float64)


def _checked(probabilities: ArrayLike, labels: ArrayLike, classes: int) -> tuple[Doubles, Integers]:
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    if p.ndim != 2 or p.shape != (len(y), classes):
        raise OptionError(
            f"expected probabilities [{len(y)}, {classes}] for the labels and classes, got {list(p.shape)}"
        )
    if len(y) == 0:
        raise OptionError("there are no images to evaluate on")
    if y.min() < 0 or y.max() >= classes:
        raise OptionError(
            f"labels must be 0 to {classes - 1} for {classes} classes, got {y.min()} to {y.max()}"
        )
    # Tolerant of half precision; what this must catch is logits passed for probabilities.
    if not np.all(np.isfinite(p)) or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-2:
        raise OptionError(
            "probabilities must be finite, none negative, each row summing to 1; are these logits?"
        )
    return p, y
