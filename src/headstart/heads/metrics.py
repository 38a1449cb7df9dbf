"""Scores of one label (accuracy, F1, calibration, confusions), of several (mAP), of numbers (R-squared)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import OptionError
from headstart.heads.decisions import decide

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
    mean_cost: float | None = None  # of what was called, where mistakes have costs

    def __repr__(self) -> str:
        low, high = self.interval
        return f"Evaluation({self.images} images: accuracy {self.accuracy:.1%} ({low:.1%} to {high:.1%}))"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, ready for JSON."""
        costs = {} if self.mean_cost is None else {"mean_cost": self.mean_cost}
        return {
            **{name: value for name, value in vars(self).items() if name != "mean_cost"},
            **costs,
            "interval": list(self.interval),
            "confusion": self.confusion.tolist(),
            "per_class": [vars(score) for score in self.per_class],
        }


def evaluate(
    probabilities: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], costs: Doubles | None = None
) -> Evaluation:
    """Compares predicted probabilities with the true labels.

    Args:
        probabilities: [N, C], rows summing to one.
        labels: [N], 0 to C - 1.
        classes: The C names.
        costs: Of mistakes, [C, C], see `decide`; None where the likeliest class is called.

    Raises:
        OptionError: No images, or shapes, labels or probabilities that cannot be.
    """
    p, y = _checked(probabilities, labels, len(classes))
    predicted = decide(p, costs)
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
        mean_cost=None if costs is None else float(costs[y, predicted].mean()),
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


def precision_recall(scores: Doubles, positive: NDArray[np.bool_]) -> tuple[Doubles, Doubles, Doubles]:
    """Thresholds, falling, with precision and recall of what scores at least so much; each score once.

    Args:
        scores: [N].
        positive: which images are what is looked for, [N]; at least one.
    """
    order = np.argsort(-scores, kind="stable")
    thresholds, found = scores[order], np.cumsum(positive[order])
    last = np.append(np.diff(thresholds) != 0, True)
    called = np.arange(1, len(scores) + 1)[last]
    return thresholds[last], found[last] / called, found[last] / found[-1]


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


# ------------------------------------------------------------------------------------------- several labels


@dataclass(frozen=True)
class LabelScore:
    """One label's part in an evaluation of several labels for each image."""

    name: str
    average_precision: float | None  # None where no image has the label
    precision: float  # of the images that it was called on
    recall: float  # of the images that have it
    f1: float
    support: int  # images that have it
    threshold: float  # probability from which it is called


@dataclass(frozen=True, eq=False)
class MultiLabelEvaluation:
    """Scores on images that have any number of labels."""

    images: int
    accuracy: float  # subset accuracy: the share of images with every label right
    interval: tuple[float, float]  # its 95 % Wilson interval
    mean_average_precision: float  # over the labels that occur, 0 to 1
    mean_average_precision_interval: tuple[float, float]  # 95 %, by drawing the images again
    micro_f1: float  # of all decisions together
    macro_f1: float  # mean over the labels that occur among the labels or the calls
    per_class: tuple[LabelScore, ...]

    def __repr__(self) -> str:
        low, high = self.mean_average_precision_interval
        score = f"mAP {self.mean_average_precision:.3f} ({low:.3f} to {high:.3f})"
        return f"MultiLabelEvaluation({self.images} images: {score})"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, ready for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("interval", "mean_average_precision_interval")}
        return {**vars(self), **lists, "per_class": [vars(score) for score in self.per_class]}


_DRAWS = 200
"""Of the images, for intervals that have no formula."""

_DRAWN_AT_ONCE = 2**21
"""Draws times images, which bounds memory to some dozens of megabytes."""


def evaluate_labels(
    probabilities: ArrayLike, labels: ArrayLike, *, classes: Sequence[str], thresholds: Sequence[float] = ()
) -> MultiLabelEvaluation:
    """Compares the probability of each label with whether the image has it.

    Args:
        probabilities: [N, C], each 0 to 1.
        labels: 0 and 1, [N, C].
        classes: The C names.
        thresholds: From which probability each is called; none for one half.

    Raises:
        OptionError: No images, or shapes and values that cannot be.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if p.ndim != 2 or p.shape != y.shape or p.shape[1] != len(classes) or not len(p):
        raise OptionError(f"expected probabilities and labels [N, {len(classes)}], got {list(p.shape)}")
    if not np.all(np.isfinite(p)) or p.min() < 0 or p.max() > 1 or not np.isin(y, (0, 1)).all():
        raise OptionError("probabilities must be 0 to 1, and labels 0 or 1")
    limits = np.asarray(thresholds or [0.5] * len(classes))
    called = p >= limits
    hits, calls, support = (called & (y == 1)).sum(axis=0), called.sum(axis=0), y.sum(axis=0)
    precision, recall, f1 = _ratio(hits, calls), _ratio(hits, support), _ratio(2 * hits, calls + support)
    each = average_precisions(p, y)
    exact = int((called == y).all(axis=1).sum())
    occurring = (calls + support) > 0
    return MultiLabelEvaluation(
        images=len(y),
        accuracy=exact / len(y),
        interval=wilson_interval(exact, len(y)),
        mean_average_precision=_mean(each),
        mean_average_precision_interval=_precision_interval(p, y),
        micro_f1=float(_ratio(2 * hits.sum(keepdims=True), (calls + support).sum(keepdims=True))[0]),
        macro_f1=float(f1[occurring].mean()) if occurring.any() else 0.0,
        per_class=tuple(
            LabelScore(
                name,
                None if np.isnan(each[i]) else float(each[i]),
                float(precision[i]),
                float(recall[i]),
                float(f1[i]),
                int(support[i]),
                float(limits[i]),
            )
            for i, name in enumerate(classes)
        ),
    )


def average_precisions(scores: NDArray[Any], labels: NDArray[Any]) -> Doubles:
    """Average precision of each label, float64 [C]; NaN of those that no image has.

    The mean, over the images that have the label, of the precision among the images scored at least as high;
    equal scores count together, as scikit-learn's `average_precision_score` has it.
    """
    found = np.full(labels.shape[1], np.nan)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    has = np.take_along_axis(labels, order, axis=0).astype(np.int64)
    hits = np.cumsum(has, axis=0)
    ranks = np.arange(1, len(labels) + 1)
    for column in np.flatnonzero(hits[-1] if len(labels) else []):
        ends = np.flatnonzero(np.append(ranked[:-1, column] != ranked[1:, column], True))
        gained = np.diff(hits[ends, column], prepend=0)
        found[column] = float((gained * hits[ends, column] / ranks[ends]).sum() / hits[-1, column])
    return found


def _mean(values: Doubles) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _precision_interval(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[float, float]:
    """Of the mean average precision, from draws of the images: each label is sorted once for all of them."""
    order = np.argsort(-scores, axis=0, kind="stable")
    found: list[float] = []
    draws, most = _draws(len(scores)), max(1, _DRAWN_AT_ONCE // len(scores))
    while some := list(islice(draws, most)):
        times = np.stack([np.bincount(rows, minlength=len(scores)) for rows in some], axis=1)  # [N, draws]
        each = np.full((labels.shape[1], len(some)), np.nan)
        for label in np.flatnonzero(labels.any(axis=0)):
            ranked, has = scores[order[:, label], label], labels[order[:, label], label] > 0
            called = np.cumsum(times[order[:, label]], axis=0)
            last = np.searchsorted(-ranked, -ranked[has], side="right") - 1  # equal scores count together
            gained = times[order[has, label]]
            hits = np.cumsum(gained, axis=0)
            together = np.searchsorted(last, last, side="right") - 1
            precision = hits[together] / np.maximum(called[last], 1)
            each[label] = (gained * precision).sum(axis=0) / np.where(hits[-1], hits[-1], np.nan)
        found += [_mean(column) for column in each.T]
    return _middle(found)


def _draws(count: int) -> Iterator[Integers]:
    """Images drawn with replacement, as many as there are, [N] each."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, count, count) for _ in range(_DRAWS))


def _middle(scores: Sequence[float]) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(scores, (0.025, 0.975))
    return float(low), float(high)


def _bootstrap(count: int, score: Callable[[Integers], float]) -> tuple[float, float]:
    """The middle 95 % of a score over draws of as many images, with replacement."""
    return _middle([score(rows) for rows in _draws(count)])


# -------------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class RegressionEvaluation:
    """Scores of predicted numbers."""

    images: int
    mean_absolute_error: float  # in the numbers' own unit
    mean_absolute_error_interval: tuple[float, float]  # 95 %, by drawing the images again
    r_squared: float  # share of the variance that is explained; 1 at best, 0 of the mean, below of worse
    r_squared_interval: tuple[float, float]  # likewise
    root_mean_squared_error: float
    coverage: float | None  # share of images whose 90 % interval holds the number; None without intervals

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries, ready for JSON."""
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return {**vars(self), **lists}


USUAL_COVERAGE = 0.9
"""Of the interval around a number, unless another is asked for."""


def evaluate_numbers(
    found: ArrayLike, labels: ArrayLike, *, errors: Sequence[float] = ()
) -> RegressionEvaluation:
    """Compares predicted numbers, [N] or [N, 1], with the true ones, [N].

    Args:
        found: The predictions.
        labels: The numbers.
        errors: Of left-out images, ascending: see `largest_error`.

    Raises:
        OptionError: No images, or shapes and values that cannot be.
    """
    p, y = np.asarray(found, dtype=np.float64).reshape(-1), np.asarray(labels, dtype=np.float64)
    if p.shape != y.shape or not len(y) or not np.isfinite(p).all() or not np.isfinite(y).all():
        raise OptionError(f"expected as many finite predictions as numbers, got {len(p)} and {len(y)}")
    miss = np.abs(p - y)
    largest = largest_error(errors, coverage=USUAL_COVERAGE)
    return RegressionEvaluation(
        images=len(y),
        mean_absolute_error=float(miss.mean()),
        mean_absolute_error_interval=_bootstrap(len(y), lambda rows: float(miss[rows].mean())),
        r_squared=r_squared(p, y),
        r_squared_interval=_bootstrap(len(y), lambda rows: r_squared(p[rows], y[rows])),
        root_mean_squared_error=float(np.sqrt(np.square(miss).mean())),
        coverage=None if largest is None else float((miss <= largest).mean()),
    )


def r_squared(found: Doubles, labels: Doubles) -> float:
    """One less the squared error over the variance; 0 where all numbers are the same."""
    total = float(np.square(labels - labels.mean()).sum())
    return 1 - float(np.square(found - labels).sum()) / total if total > 0 else 0.0


def largest_error(errors: Sequence[float], *, coverage: float) -> float | None:
    """Half the width of an interval that holds so many numbers; None where too few errors are known.

    Source: split conformal prediction on leave-one-out residuals, as the jackknife has them; Barber et al.,
    "Predictive inference with the jackknife+", Annals of Statistics 49 (2021).

    Args:
        errors: absolute ones, of images that the head was not fitted on, ascending.
        coverage: the share of images whose interval shall hold the number, between 0 and 1.
    """
    place = int(np.ceil(coverage * (len(errors) + 1)))
    return errors[place - 1] if 1 <= place <= len(errors) else None
