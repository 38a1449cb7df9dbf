"""How like the training images an image is: told from the features that the head reads, in closed form.

An image is strange where it lies far from every class for how far images lie from the middle of all (the
relative Mahalanobis distance; Ren et al., "A simple fix to Mahalanobis distance for improving near-OOD
detection", 2021), or where much of it lies outside the directions in which training images differ (the
residual; Wang et al., "ViM", CVPR 2022). Features have length one first (Mueller and Hein, "Mahalanobis++",
2025). What an image is measured against are images that the head was not fitted on: familiarity is the share
of them that were at least as strange, so that of images like these a share of 5 % falls below 0.05 (conformal
prediction; Vovk et al., "Algorithmic Learning in a Random World", 2005).

The distance needs no D x D matrix. With `T` the total scatter of N images in D dimensions, penalty included,
and `B = T^-1 Z'Y` the ridge solution onto one-hot targets, the scatter within classes differs from `T` by a
matrix of rank C, and by Woodbury's identity the whole distance is a quadratic form of the C numbers `B'z`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.linear import Floats, Integers
from headstart.heads.ridge import standardised
from headstart.heads.tasks import SingleLabel
from headstart.heads.threads import threads_for

MOST_IMAGES = 2048
"""Training images that are looked at, evenly over the classes: more would cost seconds in every fit."""

FEWEST_KNOWN = 20
"""Images to measure against, below which nothing is said: 0.05 is one of twenty."""

_MOST_KNOWN = 1000
_FOLDS = 10

_PENALTY = 2.0
"""In units of the mean eigenvalue of the features' scatter."""

_RESIDUAL = 0.07
"""Weight of what lies outside the training images' directions, beside the distance within them.

More of it, and a smaller penalty, find more of what is wholly different and less of what is nearly alike;
docs/benchmarks.md has both ways."""

_DIRECTIONS = 64
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Says of features [N, D] how familiar each image is.

    Attributes:
        widths: of the layers that the features are of, summing to D.
        mean: float32 [D], of features whose layers have length one.
        multiplier: float32 [D], which brings these to deviation one.
        projection: float32 [D, C], then ``directions`` float32 [D, K]: what is kept of an image.
        directions: see there; orthonormal.
        form: float32 [C, C], the quadratic form of the C numbers.
        pull: float32 [C]; class c is nearer by its product with the c-th number of ``form`` times those.
        cost: float32 [C], what is added for each class.
        weight: of the residual.
        known: float32 [M], ascending: strangeness of images that nothing was fitted on.
    """

    widths: tuple[int, ...]
    mean: Floats
    multiplier: Floats
    projection: Floats
    directions: Floats
    form: Floats
    pull: Floats
    cost: Floats
    weight: float
    known: Floats

    def strangeness(self, features: Floats) -> Floats:
        """The distance, float32 [N]; larger is stranger, and it has no unit."""
        z = (normalised(features, self.widths) - self.mean) * self.multiplier
        scores = z @ self.projection
        shaped = scores @ self.form
        nearest = (self.cost - self.pull * shaped).min(axis=1)
        outside = np.square(z).sum(axis=1) - np.square(z @ self.directions).sum(axis=1)
        found: Floats = (scores * shaped).sum(axis=1) + nearest + np.float32(self.weight) * outside
        return found

    def of(self, features: Floats) -> Floats:
        """The share of known images that are at least as strange, float32 [N], above 0 and at most 1."""
        below = np.searchsorted(self.known, self.strangeness(features), side="left")
        found: Floats = ((len(self.known) - below + 1) / (len(self.known) + 1)).astype(np.float32)
        return found


def normalised(features: Floats, widths: Sequence[int]) -> Floats:
    """Each layer's features of each image brought to length one, float32 [N, D]."""
    ends = np.cumsum(widths)[:-1]
    parts = np.split(np.asarray(features, np.float32), ends, axis=1)
    return np.concatenate([x / (np.linalg.norm(x, axis=1, keepdims=True) + _TINY) for x in parts], axis=1)


def fit_familiarity(
    features: Floats, labels: Integers, *, widths: Sequence[int], held_out: Floats | None = None
) -> Familiarity | None:
    """Learn what is familiar; None where there are too few images to say.

    Args:
        features: float32 [N, D], of images that the head was trained on.
        labels: int64 [N], theirs.
        widths: of the layers, summing to D.
        held_out: float32 [M, D], of labelled images that neither the head nor the network was trained on;
            None where there are none: the training images are then measured against in ten folds, each by
            the others, which is right where the network is frozen.
    """
    whole = _fitted(features, labels, widths=widths)
    if held_out is not None:
        known = whole.strangeness(held_out)
    else:
        folds = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
        known = np.concatenate(
            [
                _fitted(features[folds != k], labels[folds != k], widths=widths).strangeness(
                    features[folds == k]
                )
                for k in range(_FOLDS if len(labels) >= FEWEST_KNOWN else 0)
            ]
            or [np.zeros(0, np.float32)]
        )
    if len(known) < FEWEST_KNOWN or not np.isfinite(known).all():
        return None
    if len(known) > _MOST_KNOWN:
        known = np.quantile(known, np.linspace(0, 1, _MOST_KNOWN), method="nearest")
    return replace(whole, known=np.sort(known).astype(np.float32))


def even_sample(labels: Integers, *, most: int = MOST_IMAGES) -> NDArray[np.int64]:
    """Positions of at most about so many images, in order: as many of each class, evenly along it."""
    each = max(1, most // max(1, len(np.unique(labels))))
    order = np.argsort(labels, kind="stable")
    return np.sort(np.concatenate([evenly(few, most=each) for few in _by_class(order, labels[order])]))


def _by_class(order: NDArray[np.int64], labels: Integers) -> list[NDArray[np.int64]]:
    return np.split(order, np.flatnonzero(np.diff(labels)) + 1)


def evenly(images: Integers, *, most: int = MOST_IMAGES) -> Integers:
    """At most so many of these, evenly from the first to the last: images of one class stand together."""
    if len(images) <= most:
        return images
    return images[np.linspace(0, len(images) - 1, most).round().astype(np.int64)]


def _fitted(features: Floats, labels: Integers, *, widths: Sequence[int]) -> Familiarity:
    present, labels = np.unique(labels, return_inverse=True)
    unit = normalised(features, widths)
    z, mean, multiplier = standardised(unit, np.ones(len(unit)), widths=[unit.shape[1]])
    count, width = z.shape
    targets = SingleLabel().targets(labels, classes=len(present)).astype(np.float32)
    images = targets.sum(axis=0)
    kernel = z @ z.T if count <= width else z.T @ z
    penalty = _PENALTY * max(float(np.trace(kernel)) / width, _TINY)
    kernel[np.diag_indices_from(kernel)] += penalty
    with threads_for(len(kernel) ** 2):
        if count <= width:
            solution = z.T @ np.linalg.solve(kernel, targets)
        else:
            solution = np.linalg.solve(kernel, z.T @ targets)
        directions = _principal(z, most=_DIRECTIONS)
    between = (z.T @ targets) / np.sqrt(images)
    projection = solution / np.sqrt(images)
    share = (between.T @ projection).astype(np.float64)
    form = count * np.linalg.inv(np.eye(len(present)) - (share + share.T) / 2)
    return Familiarity(
        widths=tuple(widths),
        mean=mean.astype(np.float32),
        multiplier=multiplier.astype(np.float32),
        projection=projection,
        directions=directions,
        form=form.astype(np.float32),
        pull=(2 / np.sqrt(images)).astype(np.float32),
        cost=(np.diag(share @ form) / images).astype(np.float32),
        weight=_RESIDUAL * count / penalty,
        known=np.zeros(0, np.float32),
    )


def _principal(z: Floats, *, most: int) -> Floats:
    """Orthonormal directions [D, K] in which images differ most, by randomised subspace iteration.

    Source: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithm 4.4.
    """
    count = max(1, min(most, min(z.shape) // 4))
    basis = np.random.default_rng(0).standard_normal((z.shape[1], count)).astype(np.float32)
    for _ in range(3):
        basis, _ = np.linalg.qr(z.T @ (z @ basis))
    return np.asarray(basis, np.float32)
