"""Experiments on a frozen network that is not what it seems: moving statistics, wrongly prepared images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from headstart.errors import InternalError
from headstart.heads import fit_ridge
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import keras_batchnorm
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.passes import Look, accuracy_of, spread_of
from headstart.lesson.experiments.training import Computed, Images, no_head, pixels_of, pixels_to_numbers
from headstart.training.finetune import (
    FineTuneConfig,
    InputTransform,
    fine_tune,
    normalise_pixels,
    run_fine_tuned,
)
from headstart.web.plots import Table, Value

_RATE = 0.2
"""Of a head that starts from zeros, which bears more than fine-tuned stages do."""

_STATISTICS = ("running_mean", "running_var")


def batchnorm(work: Work) -> Outcome:
    """A head on frozen stages, whose BatchNorm layers once keep their statistics and once do not."""
    found = pixels_of(work)
    fixed, drifting = (_train(found, drifting=way, work=work) for way in (False, True))
    in_keras = _drift_in_keras(work)
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
    said = (
        f"in PyTorch the statistics of the frozen layers moved by up to {drifting[0]:.3g} in training mode "
        f"and by {fixed[0]:.3g} in evaluation mode"
    )
    if in_keras is None:
        said += "; Keras is not installed here, so its side was not measured"
    else:
        said += f"; in Keras those of a layer with trainable=False moved by {in_keras:.3g}"
    fields: dict[str, Value] = {
        "conclusion": said,
        "drift": drifting[0],
        "drift_keras": in_keras,
        "accuracy_fixed": fixed[2],
        "accuracy_drifting": drifting[2],
    }
    return Outcome(fields, table, (plot,))


def _drift_in_keras(work: Work) -> float | None:
    """The largest change of a statistic in a layer of Keras that is not to train; None without Keras."""
    if find_spec("keras") is None:
        return None
    work.tell("Keras", 0, 1)
    command = [sys.executable, "-m", keras_batchnorm.__name__, str(work.seed)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"KERAS_BACKEND": "torch"},
            capture_output=True,
            text=True,
            timeout=max(1.0, work.left()),
        )
        drift = float(json.loads(done.stdout.splitlines()[-1])["False"])
    except subprocess.TimeoutExpired:
        work.tell("Keras", 0, 1)  # which says why it ends
        raise
    except (IndexError, KeyError, ValueError):
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise InternalError(f"Keras could not be measured: {said[-1][:300]}") from None
    work.tell("Keras", 1, 1)
    return float(f"{drift:.3g}")


def _train(found: Look, *, drifting: bool, work: Work) -> tuple[float, float, float]:
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
        scratch=True,
        seed=work.seed,
        precision="f32",
    )
    images = Computed(found.activations("train"), found.labels("train"), compute)
    head = no_head(found.network.dimensions, found.classes)

    phase = "statistics drifting" if drifting else "statistics fixed"

    def after_epoch(row: dict[str, float]) -> None:
        work.tell(phase, int(row["epoch"]), config.epochs, 100 * row["accuracy"])

    result = fine_tune(nn.Identity(), head, images, None, config=config, progress=after_epoch)
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
    fields: dict[str, Value] = {"conclusion": ""}
    for field, _, pixels, transform in work.each("preparations", ways):
        features = run_fine_tuned(module, np.ascontiguousarray(pixels), input_transform=transform)
        fields[field] = accuracy_of(head.logits(features), labels)
    table = Table(("prepared", "test accuracy, percent"), tuple((way[1], fields[way[0]]) for way in ways))
    right = float(fields["accuracy_right"] or 0)
    low, high = spread_of(right, len(labels))
    costs = (f"{way[1]}, {_cost(right - float(fields[way[0]] or 0))}" for way in ways[1:])
    fields["conclusion"] = f"the wrong ways cost: {'; '.join(costs)}"
    work.notes.append(
        f"one head, trained on well prepared images; on {len(labels)} test images its {right:g} "
        f"percent may be anything from {low:g} to {high:g} with 95 percent confidence"
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


def _cost(points: float) -> str:
    return f"{points:.3g} points" if points > 0 else "nothing here"


def _coarse(pixels: Images) -> Images:
    """Every fourth pixel, repeated: what enlarging a thumbnail gives."""
    rows = pixels[:, ::4, ::4]
    enlarged: Images = rows.repeat(4, axis=1).repeat(4, axis=2)[:, : pixels.shape[1], : pixels.shape[2]]
    return enlarged
