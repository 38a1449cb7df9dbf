"""Which class is called: the likeliest, or that of the least expected cost; and other shares of the classes.

Source: Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001, equation 1 and theorem 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.heads.linear import Integers, LinearHead

Doubles = NDArray[np.float64]


def decide(probabilities: ArrayLike, costs: ArrayLike | None = None) -> Integers:
    """The class that is called of each image, int64 [N].

    Args:
        probabilities: [N, C].
        costs: [C, C], of calling a true class (row) another one (column); None for the likeliest class. Of
            equal costs the likelier class is called.
    """
    p = np.asarray(probabilities)
    if costs is None:
        return np.asarray(p.argmax(axis=1), dtype=np.int64)
    table = np.asarray(costs, dtype=np.float64)
    expected = p.astype(np.float64) @ table
    least = expected <= expected.min(axis=1, keepdims=True) + 1e-12 * table.max()
    return np.asarray(np.where(least, p, -1).argmax(axis=1), dtype=np.int64)


def with_priors(head: LinearHead, priors: Sequence[float], *, trained: Sequence[float]) -> LinearHead:
    """The head for images among which the classes have other shares than in training.

    Its probabilities are those of before times the ratio of the shares, scaled to sum to one; as that is a
    shift of the logits, it is part of the bias, and so of every exported graph.

    Args:
        head: trained where the classes had the shares ``trained``.
        priors: theirs where it will be used, all above zero.
        trained: the shares in training, as weighted there.
    """
    shift = head.temperature * (np.log(np.asarray(priors)) - np.log(np.asarray(trained)))
    return replace(head, bias=(head.bias + shift).astype(np.float32))
