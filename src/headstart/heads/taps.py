"""Which taps should the ridge head read? Decided by leaving each image out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.heads.linear import Floats, Integers, checked, class_weight_vector
from headstart.heads.ridge import (
    PENALTIES,
    Doubles,
    LeftOut,
    block_scale,
    class_prior,
    column_statistics,
    kernel_spectrum,
)

# Standard errors of the paired difference by which a candidate must beat the last tap.
_MARGIN = 1.0


@dataclass(frozen=True)
class TapCandidate:
    """One choice of taps and what leaving each image out says about it.

    Attributes:
        taps: Names, in the order in which their features are concatenated.
        accuracy: Leave-one-out accuracy, 0 to 1.
        error: Leave-one-out squared error at the best penalty.
        gain: Accuracy above the last tap's.
        noise: Standard error of that gain, from the images' paired differences.
    """

    taps: tuple[str, ...]
    accuracy: float
    error: float
    gain: float
    noise: float


@dataclass(frozen=True)
class TapChoice:
    """The taps to read, and every candidate that was tried.

    Attributes:
        taps: The chosen ones, in the order in which to concatenate them.
        loo_accuracy: Theirs, 0 to 1.
        last_loo_accuracy: The last tap's.
        images: How many the candidates were compared on.
        table: All candidates, best error first.
    """

    taps: tuple[str, ...]
    loo_accuracy: float
    last_loo_accuracy: float
    images: int
    table: tuple[TapCandidate, ...]


@dataclass(frozen=True, eq=False)
class _Trial:
    taps: tuple[str, ...]
    error: float
    correct: NDArray[np.bool_]  # [N], by image left out


def choose_taps(
    features: Mapping[str, Floats],
    labels: Integers,
    *,
    classes: int,
    last: str,
    class_weights: str | Mapping[int, float] | Sequence[float] | None = None,
    images: int = 1024,
    seed: int = 0,
) -> TapChoice:
    """Chooses between the last tap, any other one, and concatenations of the best.

    Args:
        features: Tap name to features [N, D_t], all of the same N images.
        labels: [N].
        classes: C.
        last: Name of the tap to keep unless another choice is better by more than noise.
        class_weights: As for `fit_ridge`.
        images: Compare on at most so many, drawn evenly over the classes' images; cost grows with their cube.
        seed: Of that draw.

    Raises:
        OptionError: `last` is not among the taps, or shapes do not fit.
    """
    if last not in features:
        raise OptionError(f"there is no tap {last!r}; there are {', '.join(features)}")
    rows = stratified(np.asarray(labels), images, seed=seed)
    checked_taps = {name: checked(x[rows], labels[rows], classes=classes) for name, x in features.items()}
    y = checked_taps[last][1]
    if not len(y):
        raise OptionError("there are no images to choose taps on")
    weights = class_weight_vector(class_weights, np.bincount(y, minlength=classes))
    kernels = {name: tap_kernel(x, weights[y]) for name, (x, _) in checked_taps.items()}
    widths = {name: x.shape[1] for name, (x, _) in checked_taps.items()}

    def trial(taps: tuple[str, ...]) -> _Trial:
        kernel = np.sum([kernels[name] for name in taps], axis=0)
        return _try(taps, kernel, y, weights, width=sum(widths[name] for name in taps))

    trials = [trial((name,)) for name in features]
    ranked = [t.taps[0] for t in sorted(trials, key=lambda t: t.error)]
    trials += [trial(tuple(ranked[:count])) for count in range(2, len(ranked) + 1)]
    return _choose(trials, last)


def _try(taps: tuple[str, ...], kernel: Doubles, labels: Integers, weights: Doubles, *, width: int) -> _Trial:
    """Leaves every image out once under each penalty and keeps the best penalty's verdicts."""
    prior = class_prior(labels, weights)
    grid = np.asarray(PENALTIES)
    spectrum, rows, _ = kernel_spectrum(
        kernel, labels, image_weights=weights[labels], prior=prior, width=width
    )
    left_out = LeftOut(spectrum, prior, weights, grid, images=len(labels))
    left_out.add(rows, labels)
    scores = left_out.scores(rows, labels)[:, left_out.best]
    return _Trial(taps, left_out.table()[left_out.best].error, scores.argmax(axis=1) == labels)


def _choose(trials: Sequence[_Trial], last: str) -> TapChoice:
    """The candidate of least error, if it is more accurate than the last tap alone by more than noise."""
    reference = next(t for t in trials if t.taps == (last,))
    table = sorted((_against(t, reference) for t in trials), key=lambda c: c.error)
    best = table[0]
    unchanged = next(c for c in table if c.taps == (last,))
    chosen = best if best.gain > _MARGIN * best.noise else unchanged
    return TapChoice(
        taps=chosen.taps,
        loo_accuracy=chosen.accuracy,
        last_loo_accuracy=unchanged.accuracy,
        images=len(reference.correct),
        table=tuple(table),
    )


def _against(trial: _Trial, reference: _Trial) -> TapCandidate:
    difference = trial.correct.astype(np.float64) - reference.correct
    return TapCandidate(
        taps=trial.taps,
        accuracy=float(trial.correct.mean()),
        error=trial.error,
        gain=float(difference.mean()),
        noise=float(difference.std() / np.sqrt(len(difference))),
    )


def tap_kernel(features: Floats, image_weights: Doubles) -> Doubles:
    """`Z Z'` of one tap, standardised and divided by its width, float64 [N, N]; kernels of taps add up."""
    mean, multiplier = column_statistics(features, image_weights)
    multiplier *= block_scale(features.shape[1], None)
    z = (features - mean.astype(np.float32)) * multiplier.astype(np.float32)
    return (z @ z.T).astype(np.float64)


def stratified(labels: Integers, images: int, *, seed: int) -> NDArray[np.int64]:
    """Sorted indices of at most `images`, drawn so that every class keeps its share."""
    if len(labels) <= images:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = np.arange(len(members)) / len(
            members
        )  # the share of its class drawn before this image
    return np.sort(np.argsort(ranks, kind="stable")[:images])
