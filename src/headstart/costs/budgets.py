"""Makes a job fit into the seconds that it may take."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.costs.estimates import Range
from headstart.dataset import Dataset
from headstart.errors import OptionError
from headstart.formatting import human_seconds

CAREFUL = 0.85
"""Share of the budget that the median prediction may fill; what it is off by is corrected on the way."""

IMAGES_PER_CLASS = 8
"""Below so many images of a class a cut could leave none to train on, or none to validate on."""

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class OutOfTime(Exception):
    """The features' share of the budget is spent after ``done`` images; the main job catches it."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


def parse_budget(budget: str | float | None) -> float | None:
    """Seconds from ``30``, ``"30s"``, ``"2m"``, ``"1.5h"``; None stays None.

    Raises:
        OptionError: It is none of these, or not above zero.
    """
    if budget is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(budget).lower())
    if not match or match[2] not in _UNITS or float(match[1]) <= 0:
        raise OptionError(f"budget {budget!r}: expected a time above zero, like 30s, 2m or 1h")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Settings:
    """What a budget may cut."""

    epochs: int  # 0 where nothing is trained in epochs
    views: int
    taps: str
    images: int


@dataclass(frozen=True)
class Cut:
    """The settings that fit, and in words what was cut (empty: nothing)."""

    settings: Settings
    cuts: tuple[str, ...]

    def sentence(self, budget: float) -> str:
        """One line for people; empty where nothing was cut."""
        return f"budget {human_seconds(budget)}: {', '.join(self.cuts)}" if self.cuts else ""


def fit_into(budget: float, asked: Settings, *, predict: Callable[[Settings], Range], classes: int) -> Cut:
    """The settings nearest to those asked for whose predicted seconds fit.

    In order: epochs to half, views down to one, epochs down to one, the last layer instead of a choice of
    taps, and only then fewer images.

    Raises:
        OptionError: Not even the smallest job fits; says how much it needs.
    """

    def fits(settings: Settings) -> bool:
        return predict(settings).median <= CAREFUL * budget

    smallest = min(asked.images, IMAGES_PER_CLASS * classes)
    settings = asked
    for floor in (
        {"epochs": max(1, asked.epochs // 2) if asked.epochs else 0},
        {"views": 1},
        {"epochs": min(1, asked.epochs)},
        {"taps": "last"},
        {"images": smallest},
    ):
        if fits(settings):
            break
        ((name, least),) = floor.items()
        settings = _largest(settings, name, least, fits)
    if not fits(settings):
        needed = math.ceil(10 * predict(settings).median / CAREFUL) / 10
        raise OptionError(
            f"budget {human_seconds(budget)}: the smallest job needs about {needed:.1f} s here; "
            "give it more, or take a smaller --size or a faster --backbone"
        )
    return Cut(settings, _words(asked, settings))


def _largest(settings: Settings, name: str, least: int | str, fits: Callable[[Settings], bool]) -> Settings:
    """The largest value of one setting that fits, by halving the interval; its least where none does."""
    lowest = _with(settings, name, least)
    if isinstance(least, str) or not fits(lowest):
        return lowest
    low, high = least, int(getattr(settings, name))  # low fits, high does not
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_with(settings, name, middle)) else (low, middle)
    return _with(settings, name, low)


def _with(settings: Settings, name: str, value: Any) -> Settings:
    return replace(settings, **{name: value})


def _words(asked: Settings, taken: Settings) -> tuple[str, ...]:
    found = [
        f"{getattr(taken, name):,} of {getattr(asked, name):,} {name}"
        for name in ("epochs", "views", "images")
        if getattr(taken, name) != getattr(asked, name)
    ]
    if taken.taps != asked.taps:
        found.append("the head reads the last layer without trying others")
    return tuple(found)


def interleaved(dataset: Dataset) -> Dataset:
    """The same images in an order of which every beginning has the classes in proportion.

    The first `IMAGES_PER_CLASS` of every class come before all others, one of each class in turn, so that a
    short beginning can be trained on too. The order depends on names and labels alone. Each keeps its place;
    they are trained on in that order, so a budget that cuts nothing changes nothing.
    """
    members: dict[tuple[int, str | None], list[int]] = defaultdict(list)
    for index, sample in enumerate(dataset.samples):
        members[sample.label, sample.split].append(index)
    keys = np.zeros(len(dataset.samples))
    for number, indices in enumerate(members.values()):
        order = np.random.default_rng(number).permutation(len(indices))
        for rank, position in enumerate(order):
            early = rank < IMAGES_PER_CLASS
            keys[indices[position]] = rank - IMAGES_PER_CLASS if early else rank / len(indices)
    placed = [
        sample if sample.place >= 0 else replace(sample, place=place)
        for place, sample in enumerate(dataset.samples)
    ]
    return replace(dataset, samples=tuple(placed[i] for i in np.argsort(keys, kind="stable")))


def beginning(dataset: Dataset, images: int) -> Dataset:
    """The first so many images."""
    return dataset if images >= len(dataset) else replace(dataset, samples=dataset.samples[:images])
