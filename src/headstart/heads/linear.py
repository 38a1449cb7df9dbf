"""The one shape of every head: a matrix, a bias and a temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import OptionError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# Bounds of the search for a temperature. Ridge scores lie near 0 and 1 and want about 0.05 to 0.5; the bounds
# keep perfectly separated or perfectly useless scores from running off to 0 or infinity.
_TEMPERATURE_BOUNDS = (1e-2, 1e2)
_TEMPERATURE_STEPS = 27  # halvings that narrow four decades to less than one part in ten million


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier over raw features; standardisation is already folded in."""

    kind: str  # what fitted it, "ridge" or "softmax"; a trained tail hands back "softmax"
    weight: Floats  # float32 [D, C]
    bias: Floats  # float32 [C]
    temperature: float = 1.0
    """Divides the logits before the softmax, so that probabilities are calibrated; above zero."""
    link: str = "softmax"  # what becomes of the scores: "softmax", "sigmoid", or "identity" of a number
    thresholds: tuple[float, ...] = ()  # probability from which each label is called, where there are several
    platt: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """Slope and shift of each label's scores, [C] each, which are in the weight and the bias already."""
    errors: tuple[float, ...] = ()  # of a number, of left-out images, ascending

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            raise OptionError(
                f"a head wants a weight [D, C] and a bias [C], got {self.weight.shape} and {self.bias.shape}"
            )
        if not self.temperature > 0:
            raise OptionError(f"a head's temperature must be above zero, got {self.temperature}")

    def logits(self, features: ArrayLike) -> Floats:
        """Scores before temperature and softmax.

        Args:
            features: [N, D], as the backbone gives them.

        Returns:
            float32 [N, C]: `features @ weight + bias`.

        Raises:
            OptionError: The features are not [N, D].
        """
        x = np.asarray(features, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.weight.shape[0]:
            raise OptionError(f"this head reads features [N, {self.weight.shape[0]}], got {list(x.shape)}")
        return x @ self.weight + self.bias

    def probabilities(self, features: ArrayLike) -> Floats:
        """What the head gives, float32 [N, C]: calibrated probabilities, or the number."""
        scores = self.logits(features) / np.float32(self.temperature)
        return LINKS[self.link](scores)


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis; the maximum is taken off first, so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: Floats) -> Floats:
    """Of each number; float32's exponential overflows beyond 88."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


LINKS: Mapping[str, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "identity": lambda scores: scores,
}
"""What becomes of a head's scores, by its `LinearHead.link`."""


def log_losses(logits: Floats, labels: Integers) -> Floats:
    """Cross-entropy of each row, float32 [N], from logits [N, C] and labels [N]."""
    top = logits.max(axis=1)
    normaliser = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    result: Floats = normaliser - logits[np.arange(len(labels)), labels]
    return result


def calibrate_temperature(logits: Floats, labels: Integers) -> float:
    """The temperature that minimises the log-loss of held-out logits.

    The loss is convex in `1 / temperature`, so its slope changes sign once, which halving finds; the loss
    itself is flat there, and rounding would leave four digits. Source: Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017, section 4.2.

    Args:
        logits: [N, C], from images that the head was not fitted on (or left out one at a time).
        labels: [N].

    Returns:
        A temperature between 0.01 and 100; 1.0 where there is nothing to calibrate on.
    """
    if len(labels) == 0:
        return 1.0
    right = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the loss, in `1 / temperature`: what the probabilities expect of the logits, less the truth."""
        expected = (softmax(logits / np.float32(np.exp(log_temperature))) * logits).sum(axis=1)
        return float((expected - right).mean(dtype=np.float64))

    low, high = np.log(_TEMPERATURE_BOUNDS)
    for _ in range(_TEMPERATURE_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def class_weight_vector(
    class_weights: str | Mapping[int, float] | ArrayLike | None, counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One weight per class, float64 [C].

    Args:
        class_weights: None (all 1), "balanced" (`N / (classes present * images of the class)`, as scikit-
            learn defines it), a mapping from class index to weight (absent classes weigh 1), or one number
            per class.
        counts: Training images of each class, [C].

    Raises:
        OptionError: An unknown word, an unknown class, or a weight that is negative or not a number.
    """
    classes = len(counts)
    weights = np.ones(classes)
    if class_weights is None:
        return weights
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise OptionError(f"class_weights: expected 'balanced' or numbers, got {class_weights!r}")
        present = counts > 0
        weights[present] = counts.sum() / (present.sum() * counts[present])
        return weights
    if isinstance(class_weights, Mapping):
        for label, weight in class_weights.items():
            if not 0 <= label < classes:
                raise OptionError(f"class_weights: there is no class {label}; expected 0 to {classes - 1}")
            weights[label] = weight
    else:
        weights = np.asarray(class_weights, dtype=np.float64)
    if weights.shape != (classes,) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise OptionError(
            f"class_weights: expected {classes} finite numbers, none negative, got {class_weights}"
        )
    return weights


def checked(features: ArrayLike, labels: ArrayLike, *, classes: int) -> tuple[Floats, Integers]:
    """Features as float32 [n, D] and labels as int64 [n], or an error that says what is wrong with them."""
    x = checked_features(features, labels)
    return x, check_labels(labels, classes=classes)


def checked_features(features: ArrayLike, labels: ArrayLike) -> Floats:
    """Features as float32 [n, D], as many as there are labels, or an OptionError."""
    x = np.asarray(features, dtype=np.float32)
    if x.ndim != 2 or np.shape(labels)[:1] != x.shape[:1]:
        raise OptionError(
            f"a head wants features [N, D] and labels [N], got {list(x.shape)} and {list(np.shape(labels))}"
        )
    return x


def check_labels(labels: ArrayLike, *, classes: int) -> Integers:
    """Labels of single-label images as int64 [n], or an OptionError."""
    y = np.asarray(labels, dtype=np.int64)
    if y.ndim != 1:
        raise OptionError(f"a head wants features [N, D] and labels [N], got labels of shape {list(y.shape)}")
    if len(y) and (y.min() < 0 or y.max() >= classes):
        raise OptionError(
            f"labels must be 0 to {classes - 1} for {classes} classes, got {y.min()} to {y.max()}"
        )
    return y
