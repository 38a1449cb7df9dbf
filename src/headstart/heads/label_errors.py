"""Labels that are likely wrong, by confident learning, and how likely each is.

Which: an image counts as class j where its probability of j is at least the mean that images labelled j have;
where it reaches several, as the likeliest of them. One that counts as another class than its label is a
suspect. Counts of labels against classes are the confident joint. Source: Northcutt, Jiang and Chuang,
"Confident Learning: Estimating Uncertainty in Dataset Labels", Journal of Artificial Intelligence Research 70
(2021). It is a few lines here, as cleanlab brings scikit-learn, pandas and tqdm along.

How likely: the joint takes classes that resemble each other for noise. So the rate of wrong labels is that
among the surest images of each predicted class, where nothing but noise contradicts the label (anchor points:
Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017); which labels they get is half
the joint's pattern, half chance. Bayes' rule then gives the probability that a suspect's label is wrong.
Where even the surest images are confused, wrong labels cannot be told from hard images: then it is too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.heads.linear import Floats, Integers, checked

Doubles = NDArray[np.float64]

_SUREST = 0.2
"""Share of the images of each predicted class by which the rate of wrong labels is measured."""

_TRAINED = 1 / 3
"""Weight of what the trained head says, in the geometric mean with what one says that had not seen the image:
chosen on flowers, where it brings the share that is expected nearest to the share that is wrong."""

_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Images whose label is likely wrong, the likeliest first."""

    images: Integers  # [n]: rows of what was asked
    classes: Integers  # [n]: what each likely is
    wrong: Doubles  # [n]: probability that its label is wrong, 0 to 1; the mean of the first N is their share
    rate: float  # of wrong labels among all, as the surest images have it


def find_label_errors(
    probabilities: ArrayLike, labels: ArrayLike, *, trained: ArrayLike | None = None
) -> LabelErrors:
    """The likely label errors of images, by what was said of each by a head that had not seen it.

    Args:
        probabilities: [N, C], calibrated, out of sample.
        labels: as given, [N].
        trained: [N, C], of a head that was trained on all of them. Out of sample an unusual image is often
            far off, whatever its label; one that even its own training does not persuade is likelier wrong.

    Raises:
        OptionError: shapes or labels that do not fit.
    """
    p, y = checked(probabilities, labels, classes=np.shape(probabilities)[-1])
    classes = p.shape[1]
    counts = np.bincount(y, minlength=classes)
    own = np.bincount(y, weights=p[np.arange(len(y)), y], minlength=classes)
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf).astype(np.float32)
    counted = np.concatenate([_counted(p[at : at + _ROWS], thresholds) for at in range(0, len(p), _ROWS)])
    joint = np.zeros((classes, classes))
    np.add.at(joint, (y[counted >= 0], counted[counted >= 0]), 1)
    rate = _rate(p, y)
    suspects = np.flatnonzero((counted >= 0) & (counted != y))
    said = p[suspects].astype(np.float64)
    if trained is not None:
        said = said ** (1 - _TRAINED) * np.asarray(trained, dtype=np.float64)[suspects] ** _TRAINED
        said /= np.maximum(said.sum(axis=1, keepdims=True), 1e-12)
    wrong = _wrong(said, y[suspects], _transitions(joint, counts, rate=rate))
    order = np.argsort(-wrong, kind="stable")
    return LabelErrors(suspects[order], counted[suspects][order], wrong[order], rate)


def _counted(p: Floats, thresholds: Floats) -> Integers:
    """The class that each image counts as, [n]; -1 where it reaches none."""
    reached = np.where(p >= thresholds, p, np.float32(-1))
    found = np.where(reached.max(axis=1) < 0, -1, reached.argmax(axis=1))
    return np.asarray(found, dtype=np.int64)


def _rate(p: Floats, y: Integers) -> float:
    """Share of wrong labels among the surest images, by as many of each predicted class."""
    predicted, sure = p.argmax(axis=1), p.max(axis=1)
    surest = []
    for label in np.unique(predicted):
        inside = np.flatnonzero(predicted == label)
        most = -(-len(inside) // round(1 / _SUREST))
        surest.append(inside[np.argsort(-sure[inside], kind="stable")[:most]])
    rows = np.concatenate(surest)
    return float((np.count_nonzero(y[rows] != predicted[rows]) + 0.5) / (len(rows) + 1))


def _transitions(joint: Doubles, counts: Integers, *, rate: float) -> Doubles:
    """Probability of each label given the class, [C, C]; columns are classes."""
    classes = len(joint)
    if classes == 1:
        return np.ones((1, 1))
    off = 1 - np.eye(classes)
    seen = joint * (counts / np.maximum(joint.sum(axis=1), 1))[:, None] * off
    mass = seen.sum(axis=0)
    pattern = np.where(mass > 0, seen / np.where(mass > 0, mass, 1), off / (classes - 1))
    return (1 - rate) * np.eye(classes) + rate * (pattern + off / (classes - 1)) / 2


def _wrong(p: Doubles, y: Integers, transitions: Doubles) -> Doubles:
    """Probability that each label is wrong, [n].

    The head learnt from noisy labels, so its probabilities are of those; one step of expectation maximisation
    turns them into probabilities of classes.
    """
    of_class = p * ((p / np.maximum(p @ transitions.T, 1e-12)) @ transitions)
    labelled = of_class * transitions[y]
    rows = np.arange(len(y))
    return np.asarray(1 - labelled[rows, y] / np.maximum(labelled.sum(axis=1), 1e-12), dtype=np.float64)
