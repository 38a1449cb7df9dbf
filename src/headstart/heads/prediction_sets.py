"""Sets of labels that hold the right one as often as is asked: split conformal prediction.

Source: Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers with bounded error levels",
Journal of the American Statistical Association 114 (2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.heads.linear import Floats, Integers

MOST_KEPT = 500


def right_probabilities(probabilities: Floats, labels: Integers) -> tuple[float, ...]:
    """What images that nothing was fitted on were given for their right label, ascending; a part of many.

    Args:
        probabilities: float32 [N, C].
        labels: int64 [N].
    """
    found = np.sort(probabilities[np.arange(len(labels)), labels])
    if len(found) > MOST_KEPT:
        found = np.quantile(found, np.linspace(0, 1, MOST_KEPT), method="nearest")
    return tuple(round(float(each), 6) for each in found)


def least_probability(known: Sequence[float], *, coverage: float) -> float | None:
    """The probability from which labels belong to the set; None where too few images are known to promise it.

    Args:
        known: see `right_probabilities`.
        coverage: the share of images whose set shall hold the right label, between 0 and 1.
    """
    below = int(np.floor((1 - coverage) * (len(known) + 1)))
    return known[min(below, len(known)) - 1] if known and below >= 1 else None
