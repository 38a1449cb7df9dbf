"""The experiment on frozen BatchNorm layers that keep updating their statistics."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.lesson.engine.results import Outcome, Plot, Series, Table
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.looking import Look, accuracy_of, look, total_per_class
from headstart.lesson.experiments.stages import Computed, Images, no_head, pixels_to_numbers
from headstart.lesson.experiments.work import Work
from headstart.training.finetune import TailConfig, run_tail, train_tail

_RATE = 0.2
"""Of a head that starts from zeros, which bears more than thawed stages do."""

_STATISTICS = ("running_mean", "running_var")


def batchnorm(work: Work) -> Outcome:
    """A head on frozen stages, whose BatchNorm layers once keep their statistics and once do not."""
    per_class, epochs = work.number("images_per_class"), work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    runs = {}
    for number, drifting in enumerate((False, True)):
        runs[drifting] = _train(
            found, drifting=drifting, epochs=epochs, work=work, ends=work.part(0.45 * (number + 1))
        )
        work.tell("runs", number + 1, 2)
    fixed, drifted = runs[False], runs[True]
    fields = {
        "drift": float(f"{drifted.drift:.3g}"),
        "accuracy_fixed": fixed.accuracy,
        "accuracy_drifting": drifted.accuracy,
    }
    rows = tuple(
        (name, float(f"{run.drift:.3g}"), run.training, run.accuracy)
        for name, run in (("fixed", fixed), ("drifting", drifted))
    )
    work.notes.append(
        f"every weight of the network is frozen in both runs; batches of {work.number('batch_size')}; the "
        f"drift of the run with fixed statistics is {fixed.drift:g}"
    )
    work.notes.append(
        "while the statistics drift, each image is also normalised by the few others of its batch, so the "
        "head is trained on other features than the test images get: small batches make this worse"
    )
    heading = ("statistics", "largest change", "accuracy while training, percent", "test accuracy, percent")
    plot = Plot(
        "bars",
        "The same frozen network, with its statistics fixed and drifting",
        "statistics",
        "accuracy, percent",
        (
            Series("while training, last epoch", tuple((row[0], row[2]) for row in rows)),
            Series("test", tuple((row[0], row[3]) for row in rows)),
        ),
    )
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


class _Run:
    """One of the two trainings: drift, accuracy while training and on the test images, percent."""

    def __init__(self, drift: float, training: float, accuracy: float) -> None:
        self.drift, self.training, self.accuracy = drift, training, accuracy


def _train(found: Look, *, drifting: bool, epochs: int, work: Work, ends: float) -> _Run:
    """A head on a network whose weights are frozen; drifting ones see each batch in training mode."""
    frozen = found.network.module().requires_grad_(False).eval()
    before = _statistics(frozen)
    transform = pixels_to_numbers(found)

    def compute(pixels: Images) -> Images:
        with torch.no_grad():
            frozen.train(drifting)
            numbers = transform(torch.from_numpy(np.ascontiguousarray(pixels)))
            features: Images = frozen(numbers).numpy()
            return features

    config = TailConfig(
        epochs=epochs,
        batch_size=work.number("batch_size"),
        learning_rate=_RATE,
        seed=work.seed,
        precision="f32",
    )
    images = Computed(found.activations("train"), found.labels("train"), compute)
    head = no_head(found.network.dimensions, found.classes)

    def late(*_: object) -> bool:
        return time.perf_counter() >= ends

    result = train_tail(nn.Identity(), head, images, None, config=config, progress=late, stop=late)
    after = _statistics(frozen)
    drift = max(float((after[name] - before[name]).abs().max()) for name in before)
    tests = run_tail(frozen, found.activations("test"), input_transform=transform)
    return _Run(
        drift,
        round(100 * result.history[-1]["accuracy"], 2),
        accuracy_of(result.head.logits(tests), found.labels("test")),
    )


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if name.endswith(_STATISTICS)}
