"""How well frozen features separate a few of the user's images: ridge, nearest neighbours, LogME."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart import heads
from headstart.heads.threads import threads_for

_NEIGHBOURS = 5
_LOGME_ITERATIONS = 50
_LOGME_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Probe:
    """What one look at some images says about a backbone.

    Attributes:
        images: how many it looked at.
        loo_accuracy: of a ridge head, each image left out once, 0 to 1; what the choice goes by. Of the head
            that a fit would give, where that reads more than the features.
        loo_error: its squared error, which breaks ties.
        knn_accuracy: of the nearest neighbours by cosine, each image left out; a cross-check.
        logme: log evidence per image; a column to look at, it decides nothing.
    """

    images: int
    loo_accuracy: float
    loo_error: float
    knn_accuracy: float
    logme: float

    @property
    def standard_error(self) -> float:
        """Of the accuracy, of a share (binomial)."""
        share = min(max(self.loo_accuracy, 1 / (self.images + 2)), 1 - 1 / (self.images + 2))
        return float(np.sqrt(share * (1 - share) / self.images))


def probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    classes: int,
    fitted: heads.RidgeFit | None = None,
) -> Probe:
    """Look at features [N, D] and labels [N]; ``fitted`` is the head to go by, None for one on these."""
    fitted = fitted or heads.fit_ridge((features, labels), classes=classes)
    return Probe(
        images=len(labels),
        loo_accuracy=fitted.loo_accuracy,
        loo_error=fitted.loo_error,
        knn_accuracy=knn_accuracy(features, labels, classes=classes),
        logme=logme(features, labels, classes=classes),
    )


def knn_accuracy(features: NDArray[np.float32], labels: NDArray[np.int64], *, classes: int) -> float:
    """Leave-one-out accuracy of a vote of the nearest neighbours by cosine, the nearer counting more."""
    if len(labels) < 2:
        return 0.0
    centred = features - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    count = min(_NEIGHBOURS, len(labels) - 1)
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    weights = np.exp(np.take_along_axis(similarity, nearest, axis=1))
    votes = np.zeros((len(labels), classes))
    for column in range(count):
        np.add.at(votes, (np.arange(len(labels)), labels[nearest[:, column]]), weights[:, column])
    return float((votes.argmax(axis=1) == labels).mean())


def logme(features: NDArray[np.float32], labels: NDArray[np.int64], *, classes: int) -> float:
    """Logarithm of the maximum evidence of a Bayesian linear model, per image, averaged over the classes.

    For each class's one-hot target y the prior's precision alpha and the noise's beta are those that
    maximise p(y | F), found by fixed-point iteration on the singular values of F. Source: You, Liu, Wang and
    Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, section 4.
    """
    x = features.astype(np.float64)
    count, width = x.shape
    with threads_for(min(count, width) ** 2):
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
    sigma = singular**2
    evidences = [
        _evidence(left.T @ target, float(target @ target), sigma, count=count, width=width)
        for target in (np.equal(labels, label).astype(np.float64) for label in range(classes))
    ]
    return float(np.mean(evidences))


def _evidence(
    projection: NDArray[np.float64], energy: float, sigma: NDArray[np.float64], *, count: int, width: int
) -> float:
    """The maximum over alpha and beta for one target, given its projection on the left singular vectors."""
    inside = projection**2
    outside = max(energy - float(inside.sum()), 0.0)  # of the target, what no feature can reach
    alpha, beta = 1.0, 1.0
    for _ in range(_LOGME_ITERATIONS):
        ratio = alpha / beta
        gamma = float((sigma / (sigma + ratio)).sum())
        weights = float((sigma * inside / (sigma + ratio) ** 2).sum())  # |m|^2
        residual = float((inside * (ratio / (sigma + ratio)) ** 2).sum()) + outside  # |F m - y|^2
        alpha = gamma / max(weights, 1e-12)
        beta = max(count - gamma, 1e-12) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= _LOGME_TOLERANCE * ratio:
            break
    ratio = alpha / beta
    weights = float((sigma * inside / (sigma + ratio) ** 2).sum())
    residual = float((inside * (ratio / (sigma + ratio)) ** 2).sum()) + outside
    determinant = float(np.log(alpha + beta * sigma).sum()) + (width - len(sigma)) * np.log(alpha)
    evidence = (
        width / 2 * np.log(alpha)
        + count / 2 * np.log(beta)
        - count / 2 * np.log(2 * np.pi)
        - beta / 2 * residual
        - alpha / 2 * weights
        - determinant / 2
    )
    return float(evidence / count)
