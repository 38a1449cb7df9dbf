"""How long an experiment will take on this machine, as a range, before it runs.

Where it never ran here it is planned: the seconds that it took once on two quiet cores, in proportion to the
arithmetic that its parameters ask for, scaled by what the planner (`headstart.costs`) remembers of this
machine. Afterwards its own runs are remembered as ratios to that plan, so they speak for other values too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headstart.costs import Timings, timings
from headstart.costs import formulas as jobs
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.declarations import BOUND, Declaration
from headstart.runs.callbacks import Range
from headstart.runs.store import Address, Timing, address
from headstart.web.plots import Value

PLANNED = "planned"
REMEMBERED = "remembered from runs here"

CLASSES = 10
"""An experiment has so many classes at most, and digits have as many."""

MACS_PER_PIXEL = 1910.3125
"""Multiply-adds of the built-in network per pixel. Asking the network itself may have to compile it first."""

LARGE = 2.17
"""Multiply-adds of the larger built-in network, for each of the smaller one's."""

STAND_IN = 4.0
"""Multiply-adds of EfficientNet-Lite0, which stands in for large networks, for each of the smaller one's."""

HELD_OUT = 1.0
"""Images held out, over those trained on: a fifth to validate and three tenths to test, of all."""

_BATCH = 8
"""Images of a step from scratch."""

_SHALLOW = 0.6
"""Arithmetic of a network's first stages, of all of it."""

QUANTITY = "experiment"
_UNSEEN = 0.5
"""How far a plan may be off on a machine that ran no experiment: a factor 1.6, as a standard deviation."""


@dataclass(frozen=True)
class Foreseen:
    """Seconds to come, as nine in ten runs take them, and where they are known from."""

    seconds: Range
    source: str


@dataclass(frozen=True)
class _Part:
    """Some work of one kind: seconds by the planner's formula, under the planner's name of it."""

    quantity: str
    base: float


def foresee(declared: Declaration, values: Mapping[str, Value], *, size: str) -> Foreseen:
    """The seconds of an experiment with these values.

    Args:
        declared: the experiment.
        values: every parameter.
        size: "small" or "normal"; where they are declared values, these are what was measured elsewhere.
    """
    known_here = _timings()
    seconds, spread = _plan(declared, values, size=size)
    key = _key(declared, size)
    known = known_here.known(QUANTITY, key)
    if known:
        factor, spread = known_here.scale(QUANTITY, key, spread=spread)
        seconds *= factor
    return Foreseen(_bounded(Range.around(seconds, spread=spread)), REMEMBERED if known else PLANNED)


def remember(declared: Declaration, values: Mapping[str, Value], *, size: str, seconds: float) -> None:
    """Keep how long it took, as a ratio to the plan."""
    planned, _ = _plan(declared, values, size=size)
    if planned > 0:
        timings.remember([Timing(QUANTITY, _key(declared, size), seconds / planned)])


def _timings() -> Timings:
    """This machine's ratios. A page asks for every experiment; thousands are read only where some are new."""
    return _loaded(address(), timings.machine(), _stamp(address()))


def _stamp(file: Address) -> tuple[int, ...]:
    """Changes whenever something was written to SQLite's file, and for a server in time; costs no reading."""
    if isinstance(file, str):
        return (int(time.monotonic() / _SERVER_SECONDS),)
    found: list[int] = []
    for each in (file, file.with_name(f"{file.name}-wal")):
        with suppress(OSError):
            stat = each.stat()
            found += (stat.st_mtime_ns, stat.st_size)
    return tuple(found)


_SERVER_SECONDS = 5
"""So long a server's timings are taken for the newest."""


@lru_cache(maxsize=1)
def _loaded(_file: Address, _machine: str, _stamp: tuple[int, ...]) -> Timings:
    return Timings.load()


def _key(declared: Declaration, size: str) -> str:
    return f"{declared.name} {size}"


def _bounded(seconds: Range) -> Range:
    """Trainings end at the bound, so nothing takes much longer."""
    return Range(min(seconds.low, BOUND), min(seconds.median, BOUND), min(seconds.high, BOUND))


def _plan(declared: Declaration, values: Mapping[str, Value], *, size: str) -> tuple[float, float]:
    """Seconds once measured elsewhere, times what this machine and these values change; and their spread."""
    parts, known = _WORK[declared.name], _timings()
    usual = sum(part.base for part in parts(declared.values(size)))
    here = sum(known.scale(part.quantity, "", spread=_UNSEEN)[0] * part.base for part in parts(values))
    measured: float = getattr(declared, f"{size}_seconds")
    return measured * here / usual, _UNSEEN


# What each experiment does, in multiply-adds. Only proportions matter: see `_plan`. ------------------------


def _number(values: Mapping[str, Value], name: str) -> int:
    return int(values[name] or 0)


def _macs(values: Mapping[str, Value]) -> float:
    """Multiply-adds of the built-in network at the size that is asked for."""
    return MACS_PER_PIXEL * _number(values, "size") ** 2


def _macs_of(values: Mapping[str, Value], network: str) -> float:
    """Multiply-adds of the network that a parameter names, ``builtin@96`` or another.

    Others than the built-in ones are not asked: as often as not another one takes their part.
    """
    name, side = networks.named(str(values[network]), size=_number(values, "size"))
    if name not in (networks.BUILTIN, networks.BUILTIN_LARGE):
        return MACS_PER_PIXEL * networks.moderate_size(side) ** 2 * STAND_IN
    return MACS_PER_PIXEL * side**2 * (1 if name == networks.BUILTIN else LARGE)


def _look(
    values: Mapping[str, Value], *, macs: float, views: int = 1, images: str = "images_per_class"
) -> list[_Part]:
    """Decoding and one pass over all images, those held out too."""
    count = CLASSES * _number(values, images) * (1 + HELD_OUT)
    return [
        _Part("decode", count * (jobs.DECODE + jobs.RENDER * views)),
        _Part("prefix", count * views * macs / jobs.FROZEN_RATE["f32"]),
    ]


def _train(images: float, *, macs: float, epochs: float) -> _Part:
    """A loop over fine-tuned stages, validation included."""
    forward = macs / jobs.TRAIN_RATE
    return _Part("epoch", epochs * images * (jobs.FORWARD_AND_BACKWARD + 0.4) * forward)


def _trained(values: Mapping[str, Value], *, macs: float, epochs: float) -> _Part:
    return _train(CLASSES * _number(values, "images_per_class"), macs=macs, epochs=epochs)


def _pretrained_vs_scratch(values: Mapping[str, Value]) -> list[_Part]:
    macs, epochs = _macs(values), _number(values, "epochs")
    return [
        *_look(values, macs=macs),
        *_look(values, macs=0.0),
        _trained(values, macs=macs, epochs=2 * epochs),
    ]


def _images_needed(values: Mapping[str, Value]) -> list[_Part]:
    few, many = _number(values, "images_per_class"), _number(values, "most_images_per_class")
    counts, draws = len({few, round((few * many) ** 0.5), many}), _number(values, "draws")
    looks = _look({**values, "images_per_class": many}, macs=_macs(values)) * draws
    images = counts * draws * _number(values, "steps") * _BATCH
    return [*looks, _train(images, macs=_SHALLOW * _macs(values), epochs=1)]


def _five_images(values: Mapping[str, Value]) -> list[_Part]:
    if values["face"] == "Keras":  # TensorFlow begins, builds and traces the model; then a step takes 0.1 s
        return [_Part("prefix", 15.0 + 0.1 * _number(values, "runs"))]
    beginning = 0.2 if values["backbone"] == "builtin" else 4.0
    macs = _macs({**values, "size": 96})
    return [_Part("prefix", beginning + _number(values, "runs") * 5 * macs / jobs.FROZEN_RATE["f32"])]


def _model_choice(values: Mapping[str, Value]) -> list[_Part]:
    small, large = (_macs_of(values, network) for network in ("backbone", "large"))
    draws, epochs = _number(values, "draws"), _number(values, "epochs")
    looks = [part for macs in (small, large, 0.0, 0.0) for part in _look(values, macs=macs)] * draws
    return [*looks, _trained(values, macs=(1 + _SHALLOW) * _macs(values), epochs=epochs * draws)]


def _freeze_depth(values: Mapping[str, Value]) -> list[_Part]:
    macs, epochs = _macs(values), _number(values, "epochs")
    depths = _number(values, "depths")
    halves = 0.5 * depths * epochs  # on average half of the network is fine-tuned
    return [*_look(values, macs=macs), _trained(values, macs=macs, epochs=halves)]


def _accuracy_against_time(values: Mapping[str, Value]) -> list[_Part]:
    macs, chosen, epochs = _macs(values), _macs_of(values, "backbone"), _number(values, "epochs")
    share = {"none": 1.0, "half": 0.45, "all": 0.0}[str(values["depth"])]
    views = _number(values, "views")
    large, draws = LARGE * macs, _number(values, "draws")
    smallest = MACS_PER_PIXEL * networks.SMALLEST**2
    frozen = (smallest, macs, macs, large, 4 * large)
    looks = [part for each in frozen for part in _look(values, macs=each)] * draws
    own = _look(values, macs=chosen, views=views) * (1 if share else draws)
    reference = _trained(values, macs=1.17 * macs, epochs=_number(values, "reference_epochs"))
    return [*looks, *own, reference, _trained(values, macs=share * views * chosen, epochs=epochs)]


def _one_pass(values: Mapping[str, Value]) -> list[_Part]:
    count = CLASSES * _number(values, "images_per_class") * (_number(values, "epochs") + 2)
    return [*_look(values, macs=0.0), _Part("prefix", count * _macs(values) / jobs.FROZEN_RATE["f32"])]


def _batchnorm(values: Mapping[str, Value]) -> list[_Part]:
    forward_only = 2 / jobs.FORWARD_AND_BACKWARD
    work = _trained(values, macs=_macs(values) * forward_only, epochs=_number(values, "epochs"))
    return [*_look(values, macs=0.0), work]


def _taps(values: Mapping[str, Value]) -> list[_Part]:
    return _look(values, macs=_macs(values))


def _calibration(values: Mapping[str, Value]) -> list[_Part]:
    return _look(values, macs=_macs(values), images="all_images_per_class")


def _smallest_example(values: Mapping[str, Value]) -> list[_Part]:
    count = CLASSES * _number(values, "images_per_class")
    look = count * (jobs.DECODE + jobs.RENDER + MACS_PER_PIXEL * 128**2 / jobs.FROZEN_RATE["f32"])
    return [_Part("prefix", 1.5 + 2 * look)]  # a process begins, fits, and predicts


def _gradients_way(values: Mapping[str, Value]) -> list[_Part]:
    images = 4 * (_number(values, "repeats") + 1) * _number(values, "batch_size")
    return [_Part("epoch", images * 0.7 * jobs.FORWARD_AND_BACKWARD * _macs(values) / jobs.TRAIN_RATE)]


def _wrong_preparation(values: Mapping[str, Value]) -> list[_Part]:
    passes = 1 + 4 * 0.6  # the training images once, the test images four times
    forward = CLASSES * _number(values, "images_per_class") * _macs(values) / jobs.TRAIN_RATE
    return [*_look(values, macs=0.0), _Part("epoch", passes * forward)]


def _passes(count: Callable[[Mapping[str, Value]], float]) -> Callable[[Mapping[str, Value]], list[_Part]]:
    """Images decoded once, and pictures made of each that the network sees."""

    def parts(values: Mapping[str, Value]) -> list[_Part]:
        images = CLASSES * _number(values, "images_per_class")
        seen = images * count(values) * _macs(values) / jobs.FROZEN_RATE["f32"]
        return [_Part("decode", images * (jobs.DECODE + jobs.RENDER)), _Part("prefix", seen)]

    return parts


_WORK: dict[str, Callable[[Mapping[str, Any]], list[_Part]]] = {
    "pretrained-vs-scratch": _pretrained_vs_scratch,
    "images-needed": _images_needed,
    "five-images-one-epoch": _five_images,
    "model-choice": _model_choice,
    "freeze-depth": _freeze_depth,
    "accuracy-against-time": _accuracy_against_time,
    "one-pass": _one_pass,
    "batchnorm": _batchnorm,
    "smallest-example": _smallest_example,
    "gradients-way": _gradients_way,
    "wrong-preparation": _wrong_preparation,
    "taps": _taps,
    "calibration": _calibration,
    "leaked-mark": _passes(lambda values: 3),
    "copies": _passes(lambda values: 0.6 * _number(values, "copies") + 0.4),
    "few-test-images": _passes(lambda values: 1),
    "imbalance": _passes(lambda values: 1),
}
