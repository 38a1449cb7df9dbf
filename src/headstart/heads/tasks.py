"""What a head predicts of an image: one of several classes, any number of labels, or a number.

A `Task` is all that differs between the three: the targets that ridge regression is fitted on, what becomes
of its scores, and by what both are judged. Everything else asks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import OptionError
from headstart.heads import metrics
from headstart.heads.linear import Floats, LinearHead, calibrate_temperature, check_labels
from headstart.heads.metrics import (
    Evaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
    average_precisions,
    evaluate_labels,
    evaluate_numbers,
    r_squared,
)

Doubles = NDArray[np.float64]
Labels = NDArray[Any]
AnyEvaluation = Evaluation | MultiLabelEvaluation | RegressionEvaluation

TASKS = SINGLE_LABEL, MULTI_LABEL, REGRESSION = ("single-label", "multi-label", "regression")

LINK_OF = {SINGLE_LABEL: "softmax", MULTI_LABEL: "sigmoid", REGRESSION: "identity"}
"""What becomes of a head's scores, see `LinearHead.link`."""

_NEWTON_STEPS = 30
_HALVINGS = 12
_LEAST_SLOPE = 1e-3
_MOST_KEPT = 500
"""Errors that a head knows: a part of many, evenly."""


class Task(ABC):
    """What is predicted. Labels are as `Dataset.labels` has them."""

    name: ClassVar[str]
    one_of: ClassVar[bool]  # whether each image is of exactly one class, so that classes can have weights
    weighted: ClassVar[bool] = False  # whether images have weights of their own

    @abstractmethod
    def checked(self, labels: ArrayLike, *, classes: int) -> Labels:
        """The labels, or an OptionError."""

    @abstractmethod
    def targets(self, labels: Labels, *, classes: int) -> Doubles:
        """What ridge regression is fitted on, float64 [N, C]."""

    def weighted_targets(self, labels: Labels, *, classes: int) -> Doubles:
        """The targets times the images' own weights, where they have such, float64 [N, C]."""
        return self.targets(labels, classes=classes)

    def plain(self, labels: Labels) -> Labels:
        """The labels without the images' own weights."""
        return labels

    def image_weights(self, labels: Labels, class_weights: Doubles) -> Doubles:
        """Each image's weight, float64 [N]: its class's, [C], times its own; one where neither is."""
        return np.ones(len(labels))

    @abstractmethod
    def right(self, scores: Floats, labels: Labels) -> NDArray[Any]:
        """How right scores [N, P, C] are, [N, P]: 1 at best."""

    @abstractmethod
    def score(self, scores: Floats, labels: Labels) -> float:
        """How good scores [N, C] of left-out images are, 1 at best."""

    @abstractmethod
    def head(self, weight: Doubles, bias: Doubles, *, left_out: Floats, labels: Labels) -> LinearHead:
        """The head whose scores these are, calibrated on scores [N, C] of left-out images."""

    @abstractmethod
    def told(self, score: float) -> str:
        """A score in words."""

    @abstractmethod
    def widened(self, head: LinearHead, first: LinearHead) -> LinearHead:
        """A head fitted on several views, calibrated as the one fitted on the first view alone."""

    def decided(self, head: LinearHead, found: Callable[[], Floats], labels: Labels) -> LinearHead:
        """The head that also knows when to call a label, by what it gives, [N, C], for held-out images."""
        return head


@dataclass(frozen=True)
class SingleLabel(Task):
    """One of several classes for each image: one-hot targets, softmax, accuracy."""

    name: ClassVar[str] = SINGLE_LABEL
    one_of: ClassVar[bool] = True

    def checked(self, labels: ArrayLike, *, classes: int) -> Labels:
        """Int64 [N]."""
        return check_labels(labels, classes=classes)

    def targets(self, labels: Labels, *, classes: int) -> Doubles:
        """One-hot."""
        hot: Doubles = (labels[:, None] == np.arange(classes)).astype(np.float64)
        return hot

    def image_weights(self, labels: Labels, class_weights: Doubles) -> Doubles:
        """Their classes'."""
        return class_weights[labels]

    def right(self, scores: Floats, labels: Labels) -> NDArray[Any]:
        """Whether the class with the highest score is the image's."""
        found: NDArray[Any] = scores.argmax(axis=2) == labels[:, None]
        return found

    def score(self, scores: Floats, labels: Labels) -> float:
        """Accuracy."""
        return float((scores.argmax(axis=1) == labels).mean())

    def head(self, weight: Doubles, bias: Doubles, *, left_out: Floats, labels: Labels) -> LinearHead:
        """With a calibrated temperature."""
        temperature = calibrate_temperature(left_out, labels)
        return LinearHead("ridge", weight.astype(np.float32), bias.astype(np.float32), temperature)

    def told(self, score: float) -> str:
        """As a share."""
        return f"{100 * score:.1f}%"

    def widened(self, head: LinearHead, first: LinearHead) -> LinearHead:
        """With the first one's temperature."""
        return replace(head, temperature=first.temperature)


WEIGHTED = np.dtype([("label", np.int64), ("weight", np.float64)])
"""Labels of `Weighted`."""


def weighted_labels(labels: ArrayLike, weights: ArrayLike) -> Labels:
    """Labels that carry a weight for each image, [N] of `WEIGHTED`; a weight of 2 does what two images would.

    Raises:
        OptionError: a weight is not a number above zero, or there are not as many as labels.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != np.shape(labels) or not np.isfinite(w).all() or (w <= 0).any():
        raise OptionError(f"weights must be numbers above zero, as many as labels, got {list(w.shape)}")
    found = np.empty(len(w), WEIGHTED)
    found["label"], found["weight"] = labels, w
    return found


@dataclass(frozen=True)
class Weighted(SingleLabel):
    """One of several classes for each image, where images have weights: see `weighted_labels`."""

    weighted: ClassVar[bool] = True

    def checked(self, labels: ArrayLike, *, classes: int) -> Labels:
        """[N] of `WEIGHTED`."""
        found = np.asarray(labels)
        if found.dtype != WEIGHTED:
            raise OptionError("labels have no weights; make them with weighted_labels")
        check_labels(found["label"], classes=classes)
        return found

    def plain(self, labels: Labels) -> Labels:
        """Class indices."""
        return np.asarray(labels["label"])

    def targets(self, labels: Labels, *, classes: int) -> Doubles:
        """One-hot."""
        return super().targets(labels["label"], classes=classes)

    def weighted_targets(self, labels: Labels, *, classes: int) -> Doubles:
        """The images' weights at their classes."""
        weighted: Doubles = self.targets(labels, classes=classes) * labels["weight"][:, None]
        return weighted

    def image_weights(self, labels: Labels, class_weights: Doubles) -> Doubles:
        """Their classes' times their own."""
        weights: Doubles = class_weights[labels["label"]] * labels["weight"]
        return weights

    def right(self, scores: Floats, labels: Labels) -> NDArray[Any]:
        """Whether the class with the highest score is the image's."""
        return super().right(scores, labels["label"])

    def score(self, scores: Floats, labels: Labels) -> float:
        """Accuracy."""
        return super().score(scores, labels["label"])

    def head(self, weight: Doubles, bias: Doubles, *, left_out: Floats, labels: Labels) -> LinearHead:
        """With a calibrated temperature."""
        return super().head(weight, bias, left_out=left_out, labels=labels["label"])


@dataclass(frozen=True, eq=False)
class RareScores:
    """Left-out scores of images on the rarer side of a label, beside an even part of all images' scores.

    Attributes:
        scores: by label [n], of every image on that side or an even part of them; labels whose sides are both
            common enough have none.
        having: whether the images on that side have the label, [C].
        counts: how many there are, [C].
        images: on both sides.
    """

    scores: Mapping[int, Floats]
    having: NDArray[np.bool_]
    counts: Doubles
    images: int


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels for each image: a target of 0 and 1 for each label, sigmoid, mAP."""

    name: ClassVar[str] = MULTI_LABEL
    one_of: ClassVar[bool] = False

    def checked(self, labels: ArrayLike, *, classes: int) -> Labels:
        """Uint8 [N, C] of 0 and 1."""
        y = np.asarray(labels)
        if y.ndim != 2 or y.shape[1] != classes or not np.isin(y, (0, 1)).all():
            raise OptionError(f"labels must be 0 and 1, [N, {classes}], got {list(y.shape)}")
        return y.astype(np.uint8)

    def targets(self, labels: Labels, *, classes: int) -> Doubles:
        """The labels."""
        return labels.astype(np.float64)

    def right(self, scores: Floats, labels: Labels) -> NDArray[Any]:
        """The share of labels on the right side of one half."""
        found: NDArray[Any] = ((scores > 0.5) == labels[:, None, :].astype(bool)).mean(axis=2)
        return found

    def score(self, scores: Floats, labels: Labels) -> float:
        """Mean average precision."""
        return float(np.nanmean(average_precisions(scores, labels))) if labels.any() else 0.0

    def head(
        self,
        weight: Doubles,
        bias: Doubles,
        *,
        left_out: Floats,
        labels: Labels,
        rare: RareScores | None = None,
    ) -> LinearHead:
        """With each label's scores brought to log-odds: slope and shift go into the weights."""
        slope, shift = calibrate_labels(left_out, labels, rare=rare)
        scaled, moved = (weight * slope).astype(np.float32), (bias * slope + shift).astype(np.float32)
        return LinearHead("ridge", scaled, moved, link="sigmoid", platt=(slope, shift))

    def told(self, score: float) -> str:
        """As a mean average precision."""
        return f"mAP {score:.3f}"

    def widened(self, head: LinearHead, first: LinearHead) -> LinearHead:
        """With the first one's slopes and shifts: another view of a left-out image tells its labels."""
        if head.platt is None or first.platt is None:
            return head
        (own, moved), (slope, shift) = head.platt, first.platt
        ratio = np.divide(slope, own, out=np.zeros_like(slope), where=own != 0)  # 0: a label that all have
        weight = (head.weight * ratio).astype(np.float32)
        bias = ((head.bias - moved) * ratio + shift).astype(np.float32)
        return replace(head, weight=weight, bias=bias, platt=first.platt)

    def decided(self, head: LinearHead, found: Callable[[], Floats], labels: Labels) -> LinearHead:
        """With the threshold of each label that gives the best F1."""
        return replace(head, thresholds=best_thresholds(found(), labels))


@dataclass(frozen=True)
class Regression(Task):
    """A number for each image, standardised while it is fitted: R-squared."""

    mean: float = 0.0  # of the training images
    scale: float = 1.0  # their standard deviation

    name: ClassVar[str] = REGRESSION
    one_of: ClassVar[bool] = False

    def checked(self, labels: ArrayLike, *, classes: int) -> Labels:
        """Float64 [N]."""
        y = np.asarray(labels, dtype=np.float64)
        if y.ndim != 1 or not np.isfinite(y).all():
            raise OptionError(f"labels must be finite numbers, [N], got {list(y.shape)}")
        return y

    def targets(self, labels: Labels, *, classes: int) -> Doubles:
        """The numbers, standardised, [N, 1]."""
        standardised: Doubles = ((labels - self.mean) / self.scale)[:, None]
        return standardised

    def right(self, scores: Floats, labels: Labels) -> NDArray[Any]:
        """One less the squared error in standard deviations: the mean is R-squared."""
        found: NDArray[Any] = 1 - np.square(scores[:, :, 0] - self.targets(labels, classes=1))
        return found

    def score(self, scores: Floats, labels: Labels) -> float:
        """R-squared."""
        return r_squared(self.mean + self.scale * scores[:, 0].astype(np.float64), labels)

    def head(self, weight: Doubles, bias: Doubles, *, left_out: Floats, labels: Labels) -> LinearHead:
        """In the numbers' own unit, with the errors of left-out images."""
        scaled, moved = weight * self.scale, bias * self.scale + self.mean
        errors = np.sort(np.abs(self.mean + self.scale * left_out[:, 0].astype(np.float64) - labels))
        if len(errors) > _MOST_KEPT:
            errors = np.quantile(errors, np.linspace(0, 1, _MOST_KEPT), method="nearest")
        return LinearHead(
            "ridge",
            scaled.astype(np.float32),
            moved.astype(np.float32),
            link="identity",
            errors=tuple(float(f"{error:.6g}") for error in errors),
        )

    def told(self, score: float) -> str:
        """As a share of the variance."""
        return f"R² {score:.3f}"

    def widened(self, head: LinearHead, first: LinearHead) -> LinearHead:
        """With the first one's errors: another view of an image that is left out tells its number."""
        return replace(head, errors=first.errors)


def task_of(name: str, labels: Labels) -> Task:
    """The task of this name, for these labels of training images."""
    if name == REGRESSION:
        scale = float(labels.std()) if len(labels) else 1.0
        return Regression(float(labels.mean()) if len(labels) else 0.0, scale or 1.0)
    return MultiLabel() if name == MULTI_LABEL else SingleLabel()


def evaluate(
    task: str,
    found: ArrayLike,
    labels: ArrayLike,
    *,
    classes: Sequence[str],
    thresholds: Sequence[float] = (),
    errors: Sequence[float] = (),
    costs: Doubles | None = None,
) -> AnyEvaluation:
    """How good answers [N, C] are: accuracy and the like, mAP and the like, or R-squared and the like.

    Args:
        task: the name of what was asked.
        found: what a head or a saved model gave.
        labels: as `Dataset.labels` has them.
        classes: C names.
        thresholds: of several labels, see `evaluate_labels`.
        errors: of a number, see `evaluate_numbers`.
        costs: of mistakes about one label, see `metrics.evaluate`.
    """
    if task == MULTI_LABEL:
        return evaluate_labels(found, labels, classes=classes, thresholds=thresholds)
    if task == REGRESSION:
        return evaluate_numbers(found, labels, errors=errors)
    return metrics.evaluate(found, labels, classes=classes, costs=costs)


def only_single_label(task: str, what: str, *, instead: str = "") -> None:
    """Refuse what is done for single labels alone, with an OptionError that names the task."""
    if task != SINGLE_LABEL:
        raise OptionError(f"{task}: {what} is not done yet" + (f"; {instead}" if instead else ""))


def calibrate_labels(
    scores: Floats, labels: Labels, *, rare: RareScores | None = None
) -> tuple[Doubles, Doubles]:
    """Slope and shift, [C] each, that make log-odds of each label's scores, float32 [N, C].

    Platt's method with his targets, which keep rare labels finite; by Newton's method, all labels at once.
    Source: Lin, Lin and Weng, "A note on Platt's probabilistic outputs", Machine Learning 68 (2007).

    Args:
        scores: of left-out images, all or an even part of them.
        labels: theirs, 0 and 1, [N, C].
        rare: scores of images on each label's rarer side, where ``scores`` are of a part.
    """
    x, has, weight = scores.astype(np.float64), labels.astype(bool), np.ones(scores.shape)
    if rare is not None:
        x, has, weight = _joined(x, has, rare)
    positive, total = (weight * has).sum(axis=0), weight.sum(axis=0)
    negative = total - positive
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    t = np.where(has, high, low)
    centre = (weight * x).sum(axis=0) / total
    spread = np.maximum(np.sqrt((weight * np.square(x - centre)).sum(axis=0) / total), 1e-9)
    z = (x - centre) / spread
    slope, shift = np.zeros(x.shape[1]), np.log((positive + 1) / (negative + 1))

    def loss(slope: Doubles, shift: Doubles) -> Doubles:
        u = slope * z + shift
        return np.asarray((weight * (np.logaddexp(0, u) - t * u)).sum(axis=0))

    least = loss(slope, shift)
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(slope * z + shift, -500, 500)))
        w, error = weight * np.maximum(p * (1 - p), 1e-12), weight * (p - t)
        a, b, c = (w * z * z).sum(axis=0) + 1e-9, (w * z).sum(axis=0), w.sum(axis=0) + 1e-9
        g, h = (error * z).sum(axis=0), error.sum(axis=0)
        determinant = np.maximum(a * c - b * b, 1e-12)
        step_slope, step_shift = (c * g - b * h) / determinant, (a * h - b * g) / determinant
        size = np.ones_like(slope)
        for _ in range(_HALVINGS):  # of the few images of a rare label a whole step goes far too far
            found = loss(slope - size * step_slope, shift - size * step_shift)
            if (better := found <= least).all():
                break
            size = np.where(better, size, size / 2)
        size = np.where(found <= least, size, 0)
        slope, shift = slope - size * step_slope, shift - size * step_shift
        settled = (least - found <= 1e-10 * least).all()
        least = np.minimum(found, least)
        if settled:
            break
    slope = np.where((positive > 0) & (negative > 0), np.maximum(slope, _LEAST_SLOPE) / spread, 0)
    return slope, shift - slope * centre


def _joined(
    scores: Doubles, has: NDArray[np.bool_], rare: RareScores
) -> tuple[Doubles, NDArray[np.bool_], Doubles]:
    """Scores, labels and weights, [N + M, C] each: those of each label's rare side stand in new rows."""
    count, most = len(scores), max(map(len, rare.scores.values()), default=0)
    x = np.concatenate([scores, np.zeros((most, scores.shape[1]))])
    weight = np.zeros_like(x)
    weight[:count] = rare.images / count
    for label, found in rare.scores.items():
        common = has[:, label] != rare.having[label]
        weight[:count, label] = common * (rare.images - rare.counts[label]) / max(common.sum(), 1)
        x[count : count + len(found), label] = found
        weight[count : count + len(found), label] = rare.counts[label] / len(found)
    return x, np.concatenate([has, np.broadcast_to(rare.having, (most, len(rare.having)))]), weight


def best_thresholds(probabilities: Floats, labels: Labels, *, fewest: int = 3) -> tuple[float, ...]:
    """For each label the probability from which calling it gives the best F1; 0.5 of labels seen too rarely.

    Args:
        probabilities: [N, C], of images that nothing was fitted on.
        labels: 0 and 1, [N, C].
        fewest: images that must have the label.
    """
    found = []
    for p, y in zip(np.asarray(probabilities).T, np.asarray(labels).T, strict=True):
        if y.sum() < fewest or y.sum() == len(y):
            found.append(0.5)
            continue
        order = np.argsort(-p, kind="stable")
        hits = np.cumsum(y[order].astype(np.int64))
        f1 = 2 * hits / (np.arange(1, len(y) + 1) + y.sum())
        ends = np.append(p[order][:-1] != p[order][1:], True)  # equal probabilities are called together
        best = int(np.argmax(np.where(ends, f1, -1)))
        following = float(p[order][best + 1]) if best + 1 < len(y) else 0.0
        found.append((float(p[order][best]) + following) / 2)
    return tuple(found)
