"""Is training deeper than the head worth it? Only if validation says so beyond its noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_IMAGES = 30
"""Validation images below which one image more or less is a difference of several points."""

HEAD_KEPT = "the head alone is kept: "
"""How a run's note begins whose deeper training took its time and was not kept."""


@dataclass(frozen=True)
class Verdict:
    """Whether the deeper training is kept, and why in plain words."""

    deeper: bool
    gain: float
    standard_error: float
    reason: str


def judge(head: NDArray[np.bool_], deeper: NDArray[np.bool_], *, name: str) -> Verdict:
    """Compare two classifiers on the same validation images.

    Args:
        head: which images the frozen network with a head got right, [N].
        deeper: which the one with thawed stages got right, [N]; see `without_luck`.
        name: what was trained, for the reason.
    """
    difference = deeper.astype(np.float64) - head.astype(np.float64)
    gain = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.inf
    kept = gain > error
    points = f"{100 * gain:+.1f} points on {len(head)} validation images, standard error {100 * error:.1f}"
    reason = f"{name} is kept: {points}" if kept else f"{HEAD_KEPT}{name} gives {points}"
    return Verdict(kept, gain, error, reason)


def without_luck(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which validation images a training gets right whose epoch was chosen on other images, bool [N].

    A training keeps the epoch that does best on these very images, and of many noisy scores the highest is
    high by luck too. So the images are halved, class by class, and each half is judged at the epoch that is
    best on the other one (two-fold cross-validation: Stone, "Cross-validatory choice and assessment of
    statistical predictions", Journal of the Royal Statistical Society B 36, 1974).

    Args:
        answers: of each epoch, float32 [epochs, 2, N]: right (1) or wrong (0), and the loss.
        labels: class indices, [N]; images of a class alternate between the halves in this order.
    """
    rank = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    first = rank % 2 == 0
    found = np.zeros(len(labels), bool)
    for half in (first, ~first):
        accuracy, loss = answers[:, :, ~half].mean(axis=2).T
        best = np.lexsort((loss, -accuracy))[0]  # as the training chooses: ties go to the smaller loss
        found[half] = answers[best, 0, half] > 0
    return found
