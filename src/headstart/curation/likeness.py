"""Images that look alike: the space in which likeness is measured, and groups in it."""

import numpy as np
from numpy.typing import NDArray

_BEGINNINGS = 8
"""Of which the best is kept: k-means ends where it began too near."""

_ROUNDS = 60
"""Of k-means, at most; it settles long before on what people photograph."""


def scaled(features: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features [N, D], centred and scaled by those of known images, each then of length one."""
    deviation = known.std(axis=0)
    live = deviation > 1e-6
    centred = (features - known.mean(axis=0))[:, live] / deviation[live]
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    result: NDArray[np.float32] = (centred / np.maximum(length, 1e-12)).astype(np.float32)
    return result


def groups_of(features: NDArray[np.float32], *, count: int, seed: int = 0) -> list[list[int]]:
    """Group images by likeness: rows of each group, the most typical first; the largest group first.

    Spherical k-means (Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data Using
    Clustering", Machine Learning 2001), begun as k-means++ (Arthur and Vassilvitskii, SODA 2007).

    Args:
        features: float32 [N, D].
        count: how many groups, at most; a group that stays empty is left out.
        seed: of the first centre.
    """
    points = scaled(features, features)
    random = np.random.default_rng(seed)
    tried = [_settled(points, _begun(points, count=count, random=random)) for _ in range(_BEGINNINGS)]
    likeness, nearest = max(tried, key=lambda each: float(each[0].sum()))
    order = np.argsort(-likeness, kind="stable")
    found = [[int(row) for row in order if nearest[row] == each] for each in range(int(nearest.max()) + 1)]
    return sorted((rows for rows in found if rows), key=len, reverse=True)


def _begun(points: NDArray[np.float32], *, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Points far from each other, as centres to begin with."""
    centres = points[[int(random.integers(len(points)))]]
    while len(centres) < min(count, len(points)):
        far = np.maximum(0.0, 1 - (points @ centres.T).max(axis=1)).astype(np.float64)
        if far.sum() < 1e-6:  # all that is left is like a centre already
            break
        centres = np.vstack([centres, points[int(random.choice(len(points), p=far / far.sum()))]])
    return centres


def _settled(
    points: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Each point's likeness to its centre, and which that is, once nothing moves any more."""
    nearest = (points @ centres.T).argmax(axis=1)
    for _ in range(_ROUNDS):
        sums = np.stack([points[nearest == each].sum(axis=0) for each in range(len(centres))])
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        before, nearest = nearest, (points @ centres.T).argmax(axis=1)
        if np.array_equal(before, nearest):
            break
    return (points * centres[nearest]).sum(axis=1), nearest
