"""Experiments on what a frozen network's layers say, and how sure a head on them is. They need no PyTorch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import load_backbone
from headstart.heads import LinearHead, calibrate_temperature, choose_layers, fit_softmax, metrics
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.passes import look, spread_of, total_per_class
from headstart.web.plots import Plot, Series, Table, Value

_RELIABILITY_BINS = 5

_OVERFITTING_RATE = 0.1
"""A hundred times Adam's default: the head fits its few images to the last and is too sure of itself."""


def taps(work: Work) -> Outcome:
    """Leave-one-out accuracy of the same head on the pooled output of each stage."""
    per_class = work.number("images_per_class")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    found = look(work, work.images(per_class=total_per_class(per_class)), network, layers=True)
    found = found.limited(per_class)
    last = network.feature_layers()[-1]
    pooled = [layer for layer in network.feature_layers() if layer.grid == 1]
    choice = choose_layers(
        {layer.name: found.features("train", layers=[layer.name]) for layer in pooled},
        found.labels("train"),
        classes=found.classes,
        last=last.name,
        seed=work.seed,
    )
    single = {entry.layers[0]: entry for entry in choice.table if len(entry.layers) == 1}
    stages = {
        layer.name: network.stages[-1] if layer == last else network.stage(layer.stage) for layer in pooled
    }
    accuracy = {name: round(100 * entry.accuracy, 2) for name, entry in single.items()}
    table = Table(
        ("stage", "positions of its map", "channels", "leave-one-out accuracy, percent"),
        tuple(
            (
                stages[layer.name].name,
                math.prod(stages[layer.name].shape[1:]),
                layer.width(network),
                accuracy[layer.name],
            )
            for layer in pooled
        ),
    )
    best = max(pooled, key=lambda layer: (single[layer.name].accuracy, -single[layer.name].error)).name
    low, high = spread_of(accuracy[best], choice.images)
    work.notes.append(
        f"leave-one-out on {choice.images} images; the best stage lies between {low:g} and {high:g} percent "
        "with 95 percent confidence, and the best of several looks a little better than it is"
    )
    plot = table.plot(
        "bars",
        "The same head on each stage's pooled output",
        x="stage",
        y="leave-one-out accuracy, percent",
        series={"accuracy": 3},
    )
    earlier = best != last.name
    said = f"the best stage was {stages[best].name}, with {accuracy[best]:.3g} percent"
    fields: dict[str, Value] = {
        "conclusion": f"{said}; the last had {accuracy[last.name]:.3g}" if earlier else f"{said}: the last",
        "best_stage": stages[best].name,
        "accuracy_best": accuracy[best],
        "accuracy_last": accuracy[last.name],
    }
    return Outcome(fields, table, (plot,))


def calibration(work: Work) -> Outcome:
    """How often a classifier was right at each level of confidence, before and after calibration."""
    epochs = work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    whole = look(work, work.images(per_class=work.number("all_images_per_class")), network)
    found = whole.limited(work.number("images_per_class"))
    fit = fit_softmax(
        found.features("train"),
        found.labels("train"),
        classes=found.classes,
        epochs=epochs,
        learning_rate=_OVERFITTING_RATE,
        seed=work.seed,
        progress=lambda row: work.tell("epochs", int(row["epoch"]), epochs, 100 * row["accuracy"]),
    )
    held_out, tests, labels = found.features("validation"), found.features("test"), found.labels("test")
    temperature = calibrate_temperature(fit.head.logits(held_out), found.labels("validation"))
    calibrated = LinearHead(fit.head.kind, fit.head.weight, fit.head.bias, temperature)
    said = {"before": fit.head.probabilities(tests), "after": calibrated.probabilities(tests)}
    classes = found.prepared.dataset.classes
    scored = {name: metrics.evaluate(each, labels, classes=classes) for name, each in said.items()}
    table = Table(
        ("calibration", "calibration error, points", "log loss, nats", "test accuracy, percent"),
        tuple(
            (
                name,
                round(100 * score.calibration_error, 2),
                round(score.log_loss, 4),
                round(100 * score.accuracy, 2),
            )
            for name, score in scored.items()
        ),
    )
    work.notes.append(
        f"the head was made too sure of itself on purpose: {epochs} epochs on {found.count('train')} images "
        "at a hundred times the usual rate; a milder training has less to correct"
    )
    work.notes.append(
        f"the temperature was chosen on {len(held_out)} validation images, the errors are those of "
        f"{len(tests)} test images; the accuracy is the same before and after, since no prediction changes"
    )
    plot = Plot(
        "line",
        "Reliability: how often it was right at each confidence",
        "confidence, percent",
        "right, percent",
        (
            *(Series(f"{name} calibration", _reliability(each, labels)) for name, each in said.items()),
            Series("calibrated perfectly", ((0.0, 0.0), (100.0, 100.0))),
        ),
    )
    before, after = (float(row[1] or 0) for row in table.rows)
    came = "brought the confidence closer to the truth" if after < before else "had nothing to correct"
    fields: dict[str, Value] = {
        "conclusion": f"one temperature {came}: the calibration error went from {before:.3g} to {after:.3g} "
        "points",
        "error_before": before,
        "error_after": after,
        "temperature": round(temperature, 3),
    }
    return Outcome(fields, table, (plot,))


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
