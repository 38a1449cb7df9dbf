"""Experiments on a frozen network: its layers, its confidence, its statistics, its input."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import load_backbone
from headstart.heads import LinearHead, calibrate_temperature, choose_layers, fit_ridge, fit_softmax, metrics
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.data import DIGITS
from headstart.lesson.experiments.passes import Look, accuracy_of, look, spread_of, total_per_class
from headstart.lesson.experiments.training import Computed, Images, no_head, pixels_of, pixels_to_numbers
from headstart.training.finetune import (
    FineTuneConfig,
    InputTransform,
    fine_tune,
    normalise_pixels,
    run_fine_tuned,
)
from headstart.web.plots import Plot, Series, Table, Value

_RELIABILITY_BINS = 5

_OVERFITTING_RATE = 0.1
"""A hundred times Adam's default: the head fits its few images to the last and is too sure of itself."""

_RATE = 0.2
"""Of a head that starts from zeros, which bears more than fine-tuned stages do."""

_STATISTICS = ("running_mean", "running_var")


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
    fields: dict[str, Value] = {
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
        progress=lambda row: work.tell("epochs", int(row["epoch"]), epochs),
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
    fields = {
        "error_before": table.rows[0][1],
        "error_after": table.rows[1][1],
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


def batchnorm(work: Work) -> Outcome:
    """A head on frozen stages, whose BatchNorm layers once keep their statistics and once do not."""
    found = pixels_of(work)
    fixed, drifting = (
        _train(found, drifting=way, work=work, ends=work.part(share))
        for share, way in work.each("runs", ((0.45, False), (0.9, True)))
    )
    table = Table(
        ("statistics", "largest change", "accuracy while training, percent", "test accuracy, percent"),
        (("fixed", *fixed), ("drifting", *drifting)),
    )
    work.notes.append(
        f"every weight of the network is frozen in both runs; batches of {work.number('batch_size')}; the "
        f"drift of the run with fixed statistics is {fixed[0]:g}"
    )
    work.notes.append(
        "while the statistics drift, each image is also normalised by the few others of its batch, so the "
        "head is trained on other features than the test images get: small batches make this worse"
    )
    plot = table.plot(
        "bars",
        "The same frozen network, with its statistics fixed and drifting",
        x="statistics",
        y="accuracy, percent",
        series={"while training, last epoch": 2, "test": 3},
    )
    fields = {"drift": drifting[0], "accuracy_fixed": fixed[2], "accuracy_drifting": drifting[2]}
    return Outcome(fields, table, (plot,))


def _train(found: Look, *, drifting: bool, work: Work, ends: float) -> tuple[float, float, float]:
    """A head on a network whose weights are frozen; drifting ones see each batch in training mode.

    Returns:
        The largest change of a statistic, and the accuracies while training and on the test images, percent.
    """
    frozen = found.network.module().requires_grad_(False).eval()
    before = _statistics(frozen)
    transform = pixels_to_numbers(found)

    def compute(pixels: Images) -> Images:
        with torch.no_grad():
            frozen.train(drifting)
            numbers = transform(torch.from_numpy(np.ascontiguousarray(pixels)))
            features: Images = frozen(numbers).numpy()
            return features

    config = FineTuneConfig(
        epochs=work.number("epochs"),
        batch_size=work.number("batch_size"),
        learning_rate=_RATE,
        seed=work.seed,
        precision="f32",
    )
    images = Computed(found.activations("train"), found.labels("train"), compute)
    head = no_head(found.network.dimensions, found.classes)

    def late(*_: object) -> bool:
        return time.perf_counter() >= ends

    result = fine_tune(nn.Identity(), head, images, None, config=config, progress=late, stop=late)
    after = _statistics(frozen)
    drift = max(float((after[name] - before[name]).abs().max()) for name in before)
    tests = run_fine_tuned(frozen, found.activations("test"), input_transform=transform)
    return (
        float(f"{drift:.3g}"),
        round(100 * result.history[-1]["accuracy"], 2),
        accuracy_of(result.head.logits(tests), found.labels("test")),
    )


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if name.endswith(_STATISTICS)}


def wrong_preparation(work: Work) -> Outcome:
    """One trained classifier, asked about the same test images, prepared as it expects and in other ways."""
    found = pixels_of(work)
    module, expected = found.network.module().split(0)[1], pixels_to_numbers(found)
    head = fit_ridge(
        (run_fine_tuned(module, found.activations("train"), input_transform=expected), found.labels("train")),
        classes=found.classes,
    ).head
    tests, labels = found.activations("test"), found.labels("test")
    raw = normalise_pixels((0.0, 0.0, 0.0), (1 / 255,) * 3)
    ways: tuple[tuple[str, str, Images, InputTransform], ...] = (
        ("accuracy_right", "as the weights expect", tests, expected),
        ("accuracy_reversed", "colours in reverse order", tests[..., ::-1], expected),
        ("accuracy_coarse", "at a quarter of the resolution", _coarse(tests), expected),
        ("accuracy_raw", "values from 0 to 255, neither shifted nor scaled", tests, raw),
    )
    fields: dict[str, Value] = {}
    for field, _, pixels, transform in work.each("preparations", ways):
        features = run_fine_tuned(module, np.ascontiguousarray(pixels), input_transform=transform)
        fields[field] = accuracy_of(head.logits(features), labels)
    table = Table(("prepared", "test accuracy, percent"), tuple((way[1], fields[way[0]]) for way in ways))
    right = float(fields["accuracy_right"] or 0)
    low, high = spread_of(right, len(labels))
    work.notes.append(
        f"one head, trained on well prepared images; on {len(labels)} test images its {right:g} "
        f"percent may be anything from {low:g} to {high:g} with 95 percent confidence"
    )
    if work.data == DIGITS:
        work.notes.append(
            "digits have 8 pixels a side and are enlarged, so a quarter of the resolution mostly makes them "
            "blocky; photographs lose more"
        )
    if np.array_equal(tests, tests[..., ::-1]):
        work.notes.append("these images are grey, so the order of their colours changes nothing")
    plot = table.plot(
        "bars",
        "The same classifier, the same test images",
        x="how they were prepared",
        y="test accuracy, percent",
        series={"test accuracy": 1},
    )
    return Outcome(fields, table, (plot,))


def _coarse(pixels: Images) -> Images:
    """Every fourth pixel, repeated: what enlarging a thumbnail gives."""
    rows = pixels[:, ::4, ::4]
    enlarged: Images = rows.repeat(4, axis=1).repeat(4, axis=2)[:, : pixels.shape[1], : pixels.shape[2]]
    return enlarged
