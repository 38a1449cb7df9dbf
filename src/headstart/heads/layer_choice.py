"""Which layers should the ridge head read? Decided by leaving each image out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.heads.linear import Floats, Integers, checked_features, class_weight_vector
from headstart.heads.ridge import (
    PENALTIES,
    Doubles,
    LeftOut,
    class_prior,
    kernel_spectrum,
    standardised,
)
from headstart.heads.tasks import Labels, SingleLabel, Task, weighted_labels
from headstart.heads.threads import threads_for

# Concatenations of so many of the best single layers are tried.
_CONCATENATIONS = (2, 3, 4, 6, 8)
# Standard errors by which a simpler candidate may trail the best one and still be preferred: the "one
# standard error rule" of Breiman et al., "Classification and Regression Trees" (1984), on the images' paired
# differences.
_TOLERANCE = 1.0
# Of each class that takes part in the comparison. On 200 classes of photographs and 400 made-up ones 4, 8 and
# 16 led to the same layers; 2 told them apart least.
_IMAGES_OF_A_CLASS = 4
# Dimensions that chosen layers may have together. The ridge head takes the eigenvectors of a matrix of as
# many rows as there are dimensions or images, whichever are fewer: 1.5 s at 2,048, and eight times that at
# 4,096.
_MANY_IMAGES = 2048
_WIDEST, _WIDEST_OF_MANY = 4096, 2048


@dataclass(frozen=True)
class LayerCandidate:
    """One choice of layers and what leaving each image out says about it.

    Attributes:
        layers: Names, in the order in which their features are concatenated.
        accuracy: Leave-one-out accuracy, 0 to 1.
        error: Leave-one-out squared error at the best penalty, which ranks the candidates: it tells them
            apart with a fraction of the images that accuracy needs.
        gain: Accuracy above the last layer's.
        trails: Error above the best candidate's.
        noise: Standard error of `trails`, from the images' paired differences.
    """

    layers: tuple[str, ...]
    accuracy: float
    error: float
    gain: float
    trails: float
    noise: float


@dataclass(frozen=True)
class LayerChoice:
    """The layers to read, and every candidate that was tried.

    Attributes:
        layers: The chosen ones, in the order in which to concatenate them.
        loo_accuracy: Theirs, 0 to 1.
        last_loo_accuracy: The last layer's.
        images: How many the candidates were compared on.
        classes: Of how many classes those are.
        table: All candidates, best error first.
    """

    layers: tuple[str, ...]
    loo_accuracy: float
    last_loo_accuracy: float
    images: int
    classes: int
    table: tuple[LayerCandidate, ...]


@dataclass(frozen=True, eq=False)
class _Trial:
    layers: tuple[str, ...]
    errors: Doubles  # [N], squared distance of each image's left-out score from its target
    score: float  # of all images: accuracy, or what the task has instead


def choose_layers(
    features: Mapping[str, Floats],
    labels: Labels,
    *,
    classes: int,
    last: str,
    task: Task | None = None,
    class_weights: str | Mapping[int, float] | Sequence[float] | None = None,
    images: int = 320,
    widest: int = _WIDEST,
    seed: int = 0,
) -> LayerChoice:
    """Chooses between the last layer, any other one, and concatenations of the best.

    The simplest candidate wins that trails the one of least error by no more than noise: the last layer alone
    if it does, else the fewest layers. With fewer than two classes of several images there is nothing to
    compare by, and the last layer is kept.

    Args:
        features: Layer name to features [N, D_t], all of the same N images.
        labels: [N], as the task has them.
        classes: C.
        last: Name of the layer to keep unless others are better by more than noise.
        task: As for `fit_ridge`.
        class_weights: As for `fit_ridge`.
        images: Compare on at most so many (see `comparable_images`); the time grows with their cube.
        widest: Try nothing of more dimensions but the last layer: fitting the head costs their cube, or the
            images' where those are fewer.
        seed: Of the draw.

    Raises:
        OptionError: `last` is not among the layers, there are no images, or shapes do not fit.
    """
    if last not in features:
        raise OptionError(f"there is no layer {last!r}; there are {', '.join(features)}")
    task, every = task or SingleLabel(), np.asarray(labels)
    if not len(every):
        raise OptionError("there are no images to choose layers on")
    order = np.random.default_rng(seed).permutation(len(every))
    rows = comparable_images(task.plain(every), order, most=images)
    if not len(rows):
        return LayerChoice((last,), loo_accuracy=0.0, last_loo_accuracy=0.0, images=0, classes=0, table=())
    y = task.checked(every[rows], classes=classes)
    subsets = {name: checked_features(x[rows], y) for name, x in features.items()}
    weights = np.ones(classes)
    if task.one_of:
        own = task.plain(y)
        weights = class_weight_vector(class_weights, np.bincount(own, minlength=classes))
        present, own = np.unique(own, return_inverse=True)  # absent classes would only cost time
        y = weighted_labels(own, y["weight"]) if task.weighted else own
        weights = weights[present]
    image_weights = task.image_weights(y, weights)
    kernels = {name: layer_kernel(x, image_weights) for name, x in subsets.items()}
    widths = {name: x.shape[1] for name, x in subsets.items()}

    def trial(*layers: str) -> _Trial:
        kernel = np.sum([kernels[name] for name in layers], axis=0)
        return _try(layers, kernel, y, weights, width=sum(widths[name] for name in layers), task=task)

    with threads_for(len(y) ** 2):  # dozens of short calls
        trials = [trial(name) for name in features if name == last or widths[name] <= widest]
        ranked = [t.layers[0] for t in sorted(trials, key=lambda t: t.errors.mean())]
        concatenations = [ranked[:count] for count in _CONCATENATIONS if count <= len(ranked)]
        trials += [
            trial(*layers) for layers in concatenations if sum(widths[name] for name in layers) <= widest
        ]
    return _choose(trials, last, images=len(y), classes=len(weights))


def widest_layers(images: int) -> int:
    """Dimensions that layers may have together for a head that is fitted on so many images."""
    return _WIDEST if images <= _MANY_IMAGES else _WIDEST_OF_MANY


def _try(
    layers: tuple[str, ...], kernel: Doubles, labels: Labels, weights: Doubles, *, width: int, task: Task
) -> _Trial:
    """Leaves every image out once under each penalty and keeps the best penalty's verdicts."""
    targets = task.targets(labels, classes=len(weights))
    prior = class_prior(task.weighted_targets(labels, classes=len(weights)), weights, task)
    image_weights = task.image_weights(labels, weights)
    spectrum, rows, _ = kernel_spectrum(
        kernel, targets, image_weights=image_weights, prior=prior, width=width
    )
    left_out = LeftOut(spectrum, prior, weights, np.asarray(PENALTIES), images=len(labels), task=task)
    left_out.add(rows, labels)
    scores = left_out.scores(rows, labels)[:, left_out.best]
    errors = np.square(targets - scores).sum(axis=1) * image_weights / image_weights.mean()
    return _Trial(layers, errors, task.score(scores, labels))


def _choose(trials: Sequence[_Trial], last: str, *, images: int, classes: int) -> LayerChoice:
    """The simplest of the candidates that trail the best by no more than noise."""
    reference = next(t for t in trials if t.layers == (last,))
    best = min(trials, key=lambda t: float(t.errors.mean()))
    table = sorted((_candidate(t, best, reference) for t in trials), key=lambda c: c.error)
    contenders = [c for c in table if c.trails <= _TOLERANCE * c.noise]
    chosen = min(contenders, key=lambda c: (c.layers != (last,), len(c.layers), c.error))
    return LayerChoice(
        layers=chosen.layers,
        loo_accuracy=chosen.accuracy,
        last_loo_accuracy=reference.score,
        images=images,
        classes=classes,
        table=tuple(table),
    )


def _candidate(trial: _Trial, best: _Trial, reference: _Trial) -> LayerCandidate:
    difference = trial.errors - best.errors
    return LayerCandidate(
        layers=trial.layers,
        accuracy=trial.score,
        error=float(trial.errors.mean()),
        gain=trial.score - reference.score,
        trails=float(difference.mean()),
        noise=float(difference.std() / np.sqrt(len(difference))),
    )


def layer_kernel(features: Floats, image_weights: Doubles) -> Doubles:
    """`Z Z'` of one layer, standardised and divided by its width, float64 [N, N]; such kernels add up."""
    z, _, _ = standardised(features, image_weights, widths=(features.shape[1],))
    return (z @ z.T).astype(np.float64)


def comparable_images(labels: Labels, order: Integers, *, most: int) -> NDArray[np.int64]:
    """Sorted indices of at most `most` images by which leaving each out can tell layers apart; perhaps none.

    The only image of a class takes its class along when it is left out, so such classes take no part. Each of
    the others has four images in the sample or all it has, and what is left of `most` is shared in
    proportion; where there are too many classes for that, some of them take part: with 400 classes, 80 of
    four images choose what 400 classes of ten are best told apart by, and one image of 320 classes chooses
    nothing.

    Args:
        labels: [N]; of several labels, and of numbers, the first images are taken.
        order: [N], any numbers that put the images (and by their first ones, the classes) in order: the first
            ones are taken.
        most: So many.
    """
    ranked = np.argsort(order, kind="stable")
    if labels.dtype.kind == "f" or labels.ndim > 1:  # of other tasks
        return np.sort(ranked[:most])
    counts = np.bincount(labels, minlength=1)
    classes, firsts = np.unique(labels[ranked], return_index=True)
    several = classes[counts[classes] > 1]
    if len(several) < 2:
        return np.zeros(0, dtype=np.int64)
    quota = np.minimum(counts, _IMAGES_OF_A_CLASS)
    quota[counts < 2] = 0
    if quota.sum() > most:
        by_first = classes[np.argsort(firsts, kind="stable")]
        taking = by_first[np.isin(by_first, several)]
        quota[taking[max(2, np.count_nonzero(np.cumsum(quota[taking]) <= most)) :]] = 0
    elif rest := int(counts[several].sum() - quota.sum()):
        quota[several] += (counts[several] - quota[several]) * min(rest, int(most - quota.sum())) // rest
    by_class = ranked[np.argsort(labels[ranked], kind="stable")]
    place = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[by_class]]
    return np.sort(by_class[place < quota[labels[by_class]]])
