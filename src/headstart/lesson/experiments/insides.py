"""Experiments on what a frozen network holds: its stages, its confidence, its statistics, its luck."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO

import numpy as np
from numpy.typing import NDArray

from headstart import metrics
from headstart.backbones import Backbone, load_backbone
from headstart.errors import InternalError, MissingExtra, UserError
from headstart.heads import LinearHead, calibrate_temperature, choose_taps, fit_softmax
from headstart.lesson.engine.results import Outcome, Plot, Series, Table, Value
from headstart.lesson.experiments import keras_program, networks
from headstart.lesson.experiments.looking import look, spread_of, total_per_class
from headstart.lesson.experiments.work import Work
from headstart.runtimes import select

_CLASSES, _IMAGES, _SIDE = keras_program.CLASSES, keras_program.IMAGES, keras_program.SIDE
"""Of the challenge's little program."""

KERAS = "Keras"

_BATCH = 50
_RELIABILITY_BINS = 5

_OVERFITTING_RATE = 0.1
"""A hundred times Adam's default: the head fits its few images to the last and is too sure of itself."""


def five_images_one_epoch(work: Work) -> Outcome:
    """The challenge's little program, run many times: how often each value was printed."""
    wanted = work.number("runs")
    label, values = _in_keras(work, wanted) if work.text("face") == KERAS else _in_headstart(work, wanted)
    printed: Counter[str] = Counter()
    for done, value in enumerate(values, 1):
        printed[value] += 1
        work.tell("runs", done, wanted)
        if work.left() <= 0:
            break
    runs = printed.total()
    if not runs:
        raise InternalError("the challenge's program did not run once within the bound")
    if runs < wanted:
        work.notes.append(f"ended after {runs} of {wanted} runs to keep the bound")
    likeliest, times = printed.most_common(1)[0]
    possible = [f"{right / _IMAGES:.2f}" for right in range(_IMAGES + 1)]
    rows = tuple(
        (value, printed[value], round(100 * printed[value] / runs, 1), round(100 * _chance(right), 1))
        for right, value in enumerate(possible)
    )
    fields: dict[str, Value] = {
        "runs": runs,
        "likeliest": likeliest,
        "likeliest_share": round(100 * times / runs, 1),
        "distinct": len(printed),
    }
    work.notes.append(
        f"the frozen network is {label}; guessing one of {_CLASSES} classes for each of {_IMAGES} images "
        "would give the last column"
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


def _in_headstart(work: Work, runs: int) -> tuple[str, Iterator[str]]:
    """The network's label, and what each run of Headstart's face prints."""
    chosen = networks.any_weights(work.text("backbone"), size=_SIDE)
    if chosen.note:
        work.notes.append(chosen.note)
    return chosen.label, _printed(chosen.network, runs, np.random.default_rng(work.seed))


def _printed(network: Backbone, runs: int, random: np.random.Generator) -> Iterator[str]:
    frozen = select().compile(network, depth=len(network.stages), taps=network.taps()[-1:], batch_size=_BATCH)
    side = network.preprocess.size
    for start in range(0, runs, _BATCH // _IMAGES):
        count = min(_BATCH // _IMAGES, runs - start)
        pixels = random.integers(0, 256, (count * _IMAGES, side, side, 3), dtype=np.uint8)
        features = next(outputs for _, outputs in frozen.stream([(0, pixels)]))[network.taps()[-1].name]
        for number in range(count):
            yield _program(features[number * _IMAGES : (number + 1) * _IMAGES], random)


def _in_keras(work: Work, runs: int) -> tuple[str, Iterator[str]]:
    """The network's label, and what each run of the Keras face prints; see `keras_program`."""
    if find_spec("keras") is None:
        raise MissingExtra("the Keras face of the program", extra="keras")
    command = [sys.executable, "-m", keras_program.__name__, str(runs), str(work.seed)]
    errors = tempfile.TemporaryFile(mode="w+", dir=work.folder)  # noqa: SIM115 (closed with the lines)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | quiet
    )
    timer = threading.Timer(max(0.0, work.left()), process.kill)
    timer.start()
    lines = _lines(process, timer, errors)
    return next(lines, "MobileNetV2 in Keras"), lines


def _lines(process: subprocess.Popen[str], timer: threading.Timer, errors: IO[str]) -> Iterator[str]:
    """What a process prints, line by line; it does not outlive its reader."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield line.strip()
        if process.wait() > 0:  # killed by the timer is below zero, and no failure
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no reason given"]
            raise UserError(f"the Keras face of the program failed: {said[-1][:300]}")
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        errors.close()


def _program(features: NDArray[np.float32], random: np.random.Generator) -> str:
    """What one run of the program prints."""
    labels = random.integers(0, _CLASSES, _IMAGES)
    seed = int(random.integers(2**31))
    fit = fit_softmax(features, labels, classes=_CLASSES, epochs=1, batch_size=_IMAGES, seed=seed)
    return f"{fit.history[0]['accuracy']:.2f}"


def _chance(right: int) -> float:
    """Probability of so many right guesses among five, each right with one in ten."""
    share = 1 / _CLASSES
    return math.comb(_IMAGES, right) * share**right * (1 - share) ** (_IMAGES - right)


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
    stages = {tap.name: network.stages[-1] if tap == last else network.stage(tap.stage) for tap in pooled}
    rows = tuple(
        (
            stages[tap.name].name,
            math.prod(stages[tap.name].shape[1:]),
            tap.width(network),
            round(100 * single[tap.name].accuracy, 2),
        )
        for tap in pooled
    )
    best = max(pooled, key=lambda tap: (single[tap.name].accuracy, -single[tap.name].error))
    fields: dict[str, Value] = {
        "best_stage": stages[best.name].name,
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
        (Series("accuracy", tuple((row[0], row[3]) for row in rows)),),
    )
    heading = ("stage", "positions of its map", "channels", "leave-one-out accuracy, percent")
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
        f"the head was made too sure of itself on purpose: {work.number('epochs')} epochs on "
        f"{found.count('train')} images at a hundred times the usual rate; a milder training has less to "
        "correct"
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
