"""Experiments on what a frozen network holds: its stages, its confidence, its statistics, its luck."""

from __future__ import annotations

from collections import Counter
from math import comb

import numpy as np
from numpy.typing import NDArray

from headstart import metrics
from headstart.backbones import load_backbone
from headstart.heads import LinearHead, calibrate_temperature, choose_taps, fit_softmax
from headstart.lessons.experiments import networks
from headstart.lessons.experiments.looking import look, spread_of, total_per_class
from headstart.lessons.experiments.results import Outcome, Plot, Series, Table, Value
from headstart.lessons.experiments.work import Work
from headstart.runtimes import select

_CLASSES, _IMAGES, _SIDE = 10, 5, 96
"""Of the challenge's little program."""

_BATCH = 50
_RELIABILITY_BINS = 5

_OVERFITTING_RATE = 0.01
"""Ten times Adam's default: the head fits its few training images to the last and is too sure of itself."""


def five_images_one_epoch(work: Work) -> Outcome:
    """The challenge's little program, run many times: how often each value was printed."""
    runs = work.number("runs")
    chosen = networks.load(work.text("backbone"), size=_SIDE)
    if chosen.note:
        work.notes.append(chosen.note)
    network = chosen.network
    random = np.random.default_rng(work.seed)
    frozen = select().compile(network, depth=len(network.stages), taps=network.taps()[-1:], batch_size=_BATCH)
    side = network.preprocess.size
    printed: Counter[str] = Counter()
    for start in range(0, runs, _BATCH // _IMAGES):
        count = min(_BATCH // _IMAGES, runs - start)
        pixels = random.integers(0, 256, (count * _IMAGES, side, side, 3), dtype=np.uint8)
        features = next(outputs for _, outputs in frozen.stream([(0, pixels)]))[network.taps()[-1].name]
        for number in range(count):
            five = features[number * _IMAGES : (number + 1) * _IMAGES]
            printed[_program(five, random)] += 1
        work.tell("runs", start + count, runs)
    likeliest, times = printed.most_common(1)[0]
    values = [f"{right / _IMAGES:.2f}" for right in range(_IMAGES + 1)]
    rows = tuple(
        (value, printed[value], round(100 * printed[value] / runs, 1), round(100 * _chance(right), 1))
        for right, value in enumerate(values)
    )
    fields: dict[str, Value] = {
        "runs": runs,
        "likeliest": likeliest,
        "likeliest_share": round(100 * times / runs, 1),
        "distinct": len(printed),
    }
    work.notes.append(
        f"the frozen network is {chosen.label}; guessing one of {_CLASSES} classes for each of {_IMAGES} "
        "images would give the last column"
    )
    plot = Plot(
        "bars",
        "What the program printed",
        "printed accuracy",
        "share of the runs, percent",
        (
            Series("measured", tuple((row[0], row[2]) for row in rows)),
            Series("pure guessing", tuple((row[0], row[3]) for row in rows)),
        ),
    )
    heading = ("printed", "runs", "share, percent", "pure guessing, percent")
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def _program(features: NDArray[np.float32], random: np.random.Generator) -> str:
    """What one run of the program prints."""
    labels = random.integers(0, _CLASSES, _IMAGES)
    seed = int(random.integers(2**31))
    fit = fit_softmax(features, labels, classes=_CLASSES, epochs=1, batch_size=_IMAGES, seed=seed)
    return f"{fit.history[0]['accuracy']:.2f}"


def _chance(right: int) -> float:
    """Probability of so many right guesses among five, each right with one in ten."""
    share = 1 / _CLASSES
    return comb(_IMAGES, right) * share**right * (1 - share) ** (_IMAGES - right)


def taps(work: Work) -> Outcome:
    """Leave-one-out accuracy of the same head on the pooled output of each stage."""
    per_class = work.number("images_per_class")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    found = look(work, work.images(per_class=total_per_class(per_class)), network, taps=True)
    found = found.limited(per_class)
    last = network.taps()[-1]
    pooled = [tap for tap in network.taps() if tap.grid == 1]
    choice = choose_taps(
        {tap.name: found.features("train", taps=[tap.name]) for tap in pooled},
        found.labels("train"),
        classes=found.classes,
        last=last.name,
        seed=work.seed,
    )
    single = {entry.taps[0]: entry for entry in choice.table if len(entry.taps) == 1}
    stages = {tap.name: tap.stage if tap != last else network.stages[-1].name for tap in pooled}
    rows = tuple(
        (stages[tap.name], tap.width(network), round(100 * single[tap.name].accuracy, 2)) for tap in pooled
    )
    best = max(pooled, key=lambda tap: (single[tap.name].accuracy, -single[tap.name].error))
    fields: dict[str, Value] = {
        "best_stage": stages[best.name],
        "accuracy_best": round(100 * single[best.name].accuracy, 2),
        "accuracy_last": round(100 * single[last.name].accuracy, 2),
    }
    low, high = spread_of(round(100 * single[best.name].accuracy, 2), choice.images)
    work.notes.append(
        f"leave-one-out on {choice.images} images; the best stage lies between {low:g} and {high:g} percent "
        "with 95 percent confidence, and the best of several looks a little better than it is"
    )
    plot = Plot(
        "bars",
        "The same head on each stage's pooled output",
        "stage",
        "leave-one-out accuracy, percent",
        (Series("accuracy", tuple((row[0], row[2]) for row in rows)),),
    )
    heading = ("stage", "numbers an image", "leave-one-out accuracy, percent")
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def calibration(work: Work) -> Outcome:
    """How often a classifier was right at each level of confidence, before and after calibration."""
    per_class = work.number("images_per_class")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    whole = look(work, work.images(per_class=work.number("all_images_per_class")), network)
    found = whole.limited(per_class)
    fit = fit_softmax(
        found.features("train"),
        found.labels("train"),
        classes=found.classes,
        epochs=work.number("epochs"),
        learning_rate=_OVERFITTING_RATE,
        seed=work.seed,
        standardise=True,
        progress=lambda row: work.tell("epochs", int(row["epoch"]), work.number("epochs")),
    )
    held_out, tests = found.features("validation"), found.features("test")
    temperature = calibrate_temperature(fit.head.logits(held_out), found.labels("validation"))
    calibrated = LinearHead(fit.head.kind, fit.head.weight, fit.head.bias, temperature)
    labels = found.labels("test")
    scored = {
        name: metrics.evaluate(head.probabilities(tests), labels, classes=found.prepared.dataset.classes)
        for name, head in (("before", fit.head), ("after", calibrated))
    }
    fields = {
        "error_before": round(100 * scored["before"].calibration_error, 2),
        "error_after": round(100 * scored["after"].calibration_error, 2),
        "temperature": round(temperature, 3),
    }
    rows = tuple(
        (
            name,
            round(100 * score.calibration_error, 2),
            round(score.log_loss, 4),
            round(100 * score.accuracy, 2),
        )
        for name, score in scored.items()
    )
    work.notes.append(
        f"the temperature was chosen on {len(held_out)} validation images, the errors are those of "
        f"{len(tests)} test images; the accuracy is the same before and after, since no prediction changes"
    )
    plot = Plot(
        "line",
        "Said and done: how often it was right at each confidence",
        "confidence, percent",
        "right, percent",
        (
            Series("before calibration", _reliability(fit.head.probabilities(tests), labels)),
            Series("after calibration", _reliability(calibrated.probabilities(tests), labels)),
            Series("honest", ((0.0, 0.0), (100.0, 100.0))),
        ),
    )
    heading = ("calibration", "calibration error, points", "log loss, nats", "test accuracy, percent")
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def _reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[tuple[float, float], ...]:
    """(mean confidence, share right) of groups of equal size, the least confident first, percent."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(_RELIABILITY_BINS, len(labels)))
    return tuple(
        (round(100 * float(confidence[group].mean()), 1), round(100 * float(right[group].mean()), 1))
        for group in groups
    )
