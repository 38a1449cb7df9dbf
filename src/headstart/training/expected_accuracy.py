"""The accuracy to expect of each backbone on these photographs, as a range, and which one to take.

Estimated are the log-odds of the accuracy that a head on all photographs reaches. Before any look they lie on
a line in the published ImageNet accuracy, whose height and slope differ between data sets, and each backbone
deviates from it. A look measures them by leave-one-out on a few photographs: with the error of so few, partly
shared by all backbones that looked at the same ones, and too low by a learning curve. All of this is taken as
normal, so one conditioning gives means and covariances of all backbones, also of those without a look.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads import RidgeFit
from headstart.runs.callbacks import COVERAGE

Doubles = NDArray[np.float64]

# Fitted to looks and full fits of twelve backbones and sizes on 26 data sets drawn from flowers, digits and
# Tiny ImageNet (`benchmarks/choice.py` checks the ranges on other draws). In log-odds:
_HEIGHT, _HEIGHT_SPREAD = 2.0, 1.45  # at _TYPICAL points of published accuracy
_TYPICAL = 70.0
_SLOPE, _SLOPE_SPREAD = 0.037, 0.032  # for each point more
_UNPUBLISHED = 0.4  # how far one without published accuracy may be off, beside its deviation
# How far backbones deviate from the line, and the logarithm of how likely that is before any look: the looks
# choose, so that one that is far off on these photographs is not pulled to the others.
_DEVIATIONS = ((0.15, 0.0), (0.4, -1.5), (1.0, -3.0))
_OVERDISPERSION = 1.5  # errors of a look over those of as many coins
_SHARED = 0.4  # correlation of the errors of two looks at the same photographs
# For what 1 / sqrt(images of a class) falls by, in all and for each unit that the look's own log-odds are
# above zero: the better it goes, the faster it gets better.
_GROWTH, _GROWTH_SPREAD = (3.9, 1.8), (0.6, 1.3)
_DEEPER = 0.4  # of stages that are fine-tuned beside their head alone

MINUTE = 60.0
"""Seconds that the recommended training may take where no budget says otherwise."""

TIMES_QUICKEST = 10.0
"""It may also take so many times as long as the quickest one, where that is more."""

HARDLY_BETTER = 0.005
"""Of accuracies this close together the quickest training is recommended."""


@dataclass(frozen=True)
class Probe:
    """What one look at some images says about a backbone.

    Attributes:
        images: how many it looked at.
        loo_accuracy: of the ridge head that a fit would give, each image left out once, 0 to 1.
    """

    images: int
    loo_accuracy: float

    @classmethod
    def of(cls, fitted: RidgeFit) -> "Probe":
        """What a head says of the features it was fitted on."""
        return cls(images=fitted.images, loo_accuracy=fitted.loo_accuracy)

    @property
    def log_odds(self) -> tuple[float, float]:
        """Of being right, and their standard error; finite also where all or none are."""
        right = self.loo_accuracy * self.images + 0.5
        wrong = (1 - self.loo_accuracy) * self.images + 0.5
        return math.log(right / wrong), math.sqrt(1 / right + 1 / wrong)


@dataclass(frozen=True)
class Expected:
    """Accuracy on photographs of the same kind, 0 to 1: nine in ten outcomes lie from ``low`` to ``high``."""

    low: float
    accuracy: float
    high: float
    images: int  # of the look that it rests on; 0 for none
    published: float | None  # ImageNet top-1 in percent
    guessed: bool  # no backbone at all was looked at
    head_only: bool = True  # False: stages are fine-tuned, of which a look at the head says less

    @property
    def basis(self) -> str:
        """What it rests on."""
        if self.images:
            found = f"leave-one-out on {self.images} photographs"
        elif self.published is None:
            found = "unknown"
        else:
            found = "published" if self.guessed else "published, beside the measured ones"
        return found if self.head_only else f"its head alone: {found}"

    @property
    def source(self) -> str:
        """The same in a word or two, for a table."""
        found = f"{self.images} photos" if self.images else "published" if self.published else "unknown"
        return found if self.head_only else f"{found}, head"

    def fine_tuned(self) -> "Expected":
        """Of the same backbone with stages fine-tuned: what its head alone would give, and less sure."""
        middle = _log_odds(self.accuracy)
        half = math.hypot(middle - _log_odds(self.low), COVERAGE * _DEEPER)
        return replace(self, low=_share(middle - half), high=_share(middle + half), head_only=False)

    def __str__(self) -> str:
        if self.guessed:
            return "unknown" if self.published is None else f"{self.published:.0f}% on ImageNet"
        return f"{100 * self.accuracy:.0f}% ({100 * self.low:.0f} to {100 * self.high:.0f})"

    @property
    def text(self) -> str:
        """For a sentence."""
        return str(self) if self.guessed else f"about {self}"

    @property
    def brief(self) -> str:
        """The same without its range."""
        return str(self) if self.guessed else f"about {100 * self.accuracy:.0f}%"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "basis": self.basis, "source": self.source, "text": str(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Expected":
        """The inverse of `to_dict`."""
        return cls(**{each.name: data[each.name] for each in fields(cls)})


@dataclass(frozen=True, eq=False)
class Expectations:
    """The same of several backbones: log-odds with means [n] and covariances [n, n]."""

    means: Doubles
    covariances: Doubles
    published: tuple[float | None, ...]
    probes: tuple[Probe | None, ...]

    def of(self, index: int) -> Expected:
        """Of one backbone."""
        half = COVERAGE * math.sqrt(self.covariances[index, index])
        mean = float(self.means[index])
        probe = self.probes[index]
        return Expected(
            low=_share(mean - half),
            accuracy=_share(mean),
            high=_share(mean + half),
            images=probe.images if probe else 0,
            published=self.published[index],
            guessed=not any(self.probes),
        )

    def gain(self, index: int, *, over: int, images: int) -> float:
        """What a look at so many images by two is expected to be worth, 0 to 1, if the second is ahead now.

        The accuracy gained where the first comes out ahead, times how likely that is (expected value of
        sample information: Raiffa and Schlaifer, "Applied Statistical Decision Theory", 1961).
        """
        share = _share(float(self.means[index] + self.means[over]) / 2)
        slope = share * (1 - share)
        pair = self.covariances[index, index] + self.covariances[over, over]
        variance = max(pair - 2 * self.covariances[index, over], 1e-12)
        noise = 2 * (1 - _SHARED) * _OVERDISPERSION**2 / (images * slope)
        spread = variance / math.sqrt(variance + noise)  # of the difference that will be expected then
        lead = float(self.means[index] - self.means[over]) / spread
        density = math.exp(-(lead**2) / 2) / math.sqrt(2 * math.pi)
        return float(slope * spread * (density + lead * 0.5 * math.erfc(-lead / math.sqrt(2))))


def expectations(
    published: Sequence[float | None],
    probes: Sequence[Probe | None],
    *,
    training_images: int,
    classes: int,
) -> Expectations:
    """What to expect of backbones.

    Args:
        published: ImageNet top-1 of each in percent.
        probes: the last look of each.
        training_images: that the full training will have.
        classes: among which they are divided.
    """
    points = np.array([0.0 if each is None else each - _TYPICAL for each in published])
    unpublished = np.array([_UNPUBLISHED if each is None else 0.0 for each in published])
    means = _HEIGHT + _SLOPE * points
    line = _HEIGHT_SPREAD**2 + _SLOPE_SPREAD**2 * np.outer(points, points) + np.diag(unpublished**2)
    seen = {index: probe for index, probe in enumerate(probes) if probe is not None}
    if not seen:
        covariances = line + _DEVIATIONS[0][0] ** 2 * np.eye(len(points))
        return Expectations(means, covariances, tuple(published), tuple(probes))
    measured, noise = _measured(list(seen.values()), training_images=training_images, classes=classes)
    at, found = list(seen), []
    for deviation, likely in _DEVIATIONS:
        covariances = line + deviation**2 * np.eye(len(points))
        spread, residuals = covariances[np.ix_(at, at)] + noise, measured - means[at]
        explained = np.linalg.solve(spread, residuals)
        likely -= (residuals @ explained + np.linalg.slogdet(spread)[1]) / 2
        found.append((likely, deviation, covariances, spread, explained))
    _, _, covariances, spread, explained = max(found, key=lambda each: each[:2])
    return Expectations(
        means + covariances[:, at] @ explained,
        covariances - covariances[:, at] @ np.linalg.solve(spread, covariances[at]),
        tuple(published),
        tuple(probes),
    )


def _measured(probes: Sequence[Probe], *, training_images: int, classes: int) -> tuple[Doubles, Doubles]:
    """By these looks, log-odds of heads on all images, [n], and the covariance of their errors, [n, n]."""
    log_odds, errors = np.array([each.log_odds for each in probes]).T
    noise = _OVERDISPERSION**2 * (_SHARED * np.outer(errors, errors) + (1 - _SHARED) * np.diag(errors**2))
    falls = 1 / np.sqrt([each.images / classes for each in probes]) - math.sqrt(classes / training_images)
    growth, spread = (
        (common + own * np.maximum(log_odds, 0.0)) * np.maximum(falls, 0.0)
        for common, own in (_GROWTH, _GROWTH_SPREAD)
    )
    return log_odds + growth, noise + np.outer(spread, spread)


NOTHING_KNOWN = Expected(0.0, 0.5, 1.0, images=0, published=None, guessed=True)


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def by_published(published: float | None, *, training_images: int, of: int, classes: int) -> float:
    """Accuracy to expect before any look, of a head on some of the training images, 0 to 1.

    Args:
        published: ImageNet top-1 in percent.
        training_images: those that are trained on.
        of: how many there are.
        classes: among which they are divided.
    """
    log_odds = _HEIGHT + _SLOPE * (0.0 if published is None else published - _TYPICAL)
    falls = math.sqrt(classes / training_images) - math.sqrt(classes / of)
    common, own = _GROWTH
    return _share(log_odds - (common + own * max(log_odds, 0.0)) * falls)


def recommend(accuracies: Sequence[float], seconds: Sequence[float], *, limit: float | None) -> int:
    """Index of the training to take.

    The most accurate one that is predicted to stay within the limit; of those less than `HARDLY_BETTER`
    below it, the quickest; where none stays within the limit, the quickest of all.

    Args:
        accuracies: expected ones, 0 to 1.
        seconds: predicted ones.
        limit: seconds; None for `MINUTE`, or `TIMES_QUICKEST` the quickest training if that is more.
    """
    if limit is None:
        limit = max(MINUTE, TIMES_QUICKEST * min(seconds))
    within = [index for index, each in enumerate(seconds) if each <= limit]
    if not within:
        return int(np.argmin(seconds))
    enough = max(accuracies[index] for index in within) - HARDLY_BETTER
    return min((index for index in within if accuracies[index] >= enough), key=lambda index: seconds[index])
