"""Is training deeper than the head worth it? Only if validation says so beyond its noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_IMAGES = 30
"""Validation images below which one image more or less is a difference of several points."""


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
        deeper: which the one with thawed stages got right, [N].
        name: what was trained, for the reason.
    """
    difference = deeper.astype(np.float64) - head.astype(np.float64)
    gain = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.inf
    kept = gain > error
    points = f"{100 * gain:+.1f} points on {len(head)} validation images, standard error {100 * error:.1f}"
    reason = f"{name} is kept: {points}" if kept else f"the head alone is kept: {name} gives {points}"
    return Verdict(kept, gain, error, reason)
