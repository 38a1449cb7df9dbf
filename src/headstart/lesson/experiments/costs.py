"""Experiments on what training costs: a step, frozen depth, one pass or many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import SECONDS, Seconds, Stopwatch, Work
from headstart.lesson.experiments.data import TURNED
from headstart.lesson.experiments.passes import Look, look, spread_of, total_per_class
from headstart.lesson.experiments.training import (
    BATCH,
    Computed,
    Finished,
    Held,
    Images,
    fit_stages,
    no_head,
    pixels_of,
    pixels_to_numbers,
    train_ridge,
)
from headstart.training.finetune import FineTuneConfig, FineTuneResult, fine_tune, run_fine_tuned
from headstart.web.plots import Plot, Series, Table, Value

_PASSES = 3
"""So often a pass through frozen stages is timed, for a median."""


def gradients_way(work: Work) -> Outcome:
    """Milliseconds of one training step, with nothing, the first and the last half of the stages frozen."""
    batch, size = work.number("batch_size"), work.number("size")
    network = load_backbone(networks.BUILTIN, size=size)
    module = network.module().split(0)[1].eval()
    stages = [stage for stage in module.children() if any(True for _ in stage.parameters())]
    half = len(stages) // 2
    inputs = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(work.seed))
    inputs = inputs.to(memory_format=torch.channels_last)
    module.to(memory_format=torch.channels_last)
    ways: dict[str, tuple[list[nn.Module], bool]] = {
        "forward pass alone": ([], False),
        "nothing frozen": (stages, True),
        "first half frozen": (stages[half:], True),
        "last half frozen": (stages[:half], True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    rounds = work.number("repeats")
    for number in range(rounds + 1):  # the first is a warm-up; taking turns, all meet the same machine
        for name, (trained, backward) in ways.items():
            module.requires_grad_(False)
            for stage in trained:
                stage.requires_grad_(True)
            seconds = _step(module, inputs, backward=backward)
            if number:
                times[name].append(1000 * seconds)
        work.tell("steps", number, rounds)
    median = {name: round(float(np.median(some)), 3) for name, some in times.items()}
    forward, whole = median["forward pass alone"], median["nothing frozen"]
    work.notes.append(
        f"medians of {rounds} steps of {batch} images at {size} px, taken in turns, on one core and of its "
        f"own time; {half} of {len(stages)} stages are a half; normalisation keeps its statistics in all"
    )
    table = Table(
        ("step", "milliseconds", "of a step with nothing frozen, percent"),
        tuple((name, value, round(100 * value / whole, 1)) for name, value in median.items()),
    )
    plot = table.plot(
        "bars", "One training step", x="what is frozen", y="milliseconds", series={"milliseconds": 1}
    )
    first, last = median["first half frozen"], median["last half frozen"]
    fields: dict[str, Value] = {
        "conclusion": f"with the first half frozen a step took {100 * first / whole:.0f} percent of the time "
        f"of one with nothing frozen, with the last half frozen {100 * last / whole:.0f} percent",
        "forward": forward,
        "step": whole,
        "backward_ratio": round((whole - forward) / forward, 2),
        "first_frozen": first,
        "last_frozen": last,
    }
    return Outcome(fields, table, (plot,))


def _step(module: nn.Module, inputs: torch.Tensor, *, backward: bool) -> float:
    """Seconds of this thread for a forward pass, and for the backward pass to whatever is trained."""
    for weight in module.parameters():
        weight.grad = None
    started = time.thread_time()  # autograd works in the caller's thread here
    if backward:
        module(inputs).sum().backward()
    else:
        with torch.inference_mode():
            module(inputs)
    return time.thread_time() - started


def freeze_depth(work: Work) -> Outcome:
    """Seconds per epoch and test accuracy against the number of frozen stages."""
    per_class, epochs = work.number("images_per_class"), work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    stages = len(network.stages)
    chosen = work.parameters["depth"]
    middle = stages // 2 if chosen is None else min(int(chosen), stages)
    evenly = np.linspace(0, stages, work.number("depths")).round().astype(int).tolist()
    depths = sorted({0, middle, stages, *evenly})
    dataset = work.images(per_class=total_per_class(per_class), default=TURNED)
    found = look(work, dataset, network, depths=depths[:-1]).limited(per_class)
    module = network.module()
    ridge = train_ridge(found)
    config = FineTuneConfig(epochs=epochs, batch_size=BATCH, patience=None, seed=work.seed)
    runs: dict[int, Finished] = {}
    for depth in work.each("depths", depths):
        if depth < stages:
            trainable, at = module.split(depth)[1], found.at(depth)
        else:
            trainable, at = nn.Identity(), _pooled(found)
        progress = partial(work.tell, f"epochs with {depth} frozen")
        runs[depth] = fit_stages(at, trainable, config=config, head=ridge, validate=False, progress=progress)
    again = {depth: runs[depth].per_epoch + _pass_seconds(found, depth=depth) for depth in depths}
    work.notes.append(
        f"every depth starts from the same head and trains {epochs} epochs of {BATCH} images a step; at "
        f"{stages} frozen stages only the head trains; the middle depth is {middle}; the best depth is that "
        f"of the highest validation accuracy, on {found.count('validation')} images, the deeper one where "
        "two are equal"
    )
    if work.data == TURNED:
        work.notes.append(
            "which way a shape points is more than the pre-trained features say, so here freezing everything "
            "has its price; digits and most photographs do not show it"
        )
    low, high = spread_of(runs[stages].accuracy, found.count("test"))
    work.notes.append(
        f"seconds per epoch are medians of {epochs} epochs, of the processor; on {found.count('test')} test "
        f"images {runs[stages].accuracy:g} percent may be anything from {low:g} to {high:g} with 95 "
        "percent confidence"
    )
    table, plots = _depths_table(runs, again)
    fields: dict[str, Value] = {
        "conclusion": _price_of_freezing(runs, interval=(low, high)),
        "stages": stages,
        "seconds_none": round(runs[0].per_epoch, 4),
        "seconds_half": round(runs[middle].per_epoch, 4),
        "seconds_all": round(runs[stages].per_epoch, 4),
        "seconds_half_again": round(again[middle], 4),
        "seconds_all_again": round(again[stages], 4),
        "accuracy_none": runs[0].accuracy,
        "accuracy_all": runs[stages].accuracy,
        "best_depth": max(depths, key=lambda depth: (runs[depth].validation_accuracy, depth)),
    }
    return Outcome(fields, table, plots)


def _depths_table(runs: dict[int, Finished], again: dict[int, float]) -> tuple[Table, tuple[Plot, Plot]]:
    """Each depth's costs and accuracy; ``again``: seconds per epoch where features are computed again."""
    table = Table(
        (
            "frozen stages",
            "processor seconds per epoch, features kept",
            "processor seconds per epoch, features computed again",
            "validation accuracy, percent",
            "test accuracy, percent",
        ),
        tuple(
            (depth, round(run.per_epoch, 4), round(again[depth], 4), run.validation_accuracy, run.accuracy)
            for depth, run in runs.items()
        ),
    )
    cost = table.plot(
        "line",
        "What an epoch costs",
        x="frozen stages",
        y="processor seconds per epoch",
        series={"features kept": 1, "features computed again": 2},
    )
    price = table.plot(
        "line",
        "What it is worth",
        x="frozen stages",
        y="accuracy, percent",
        series={"validation accuracy": 3, "test accuracy": 4},
    )
    return table, (cost, price)


def _price_of_freezing(runs: dict[int, Finished], *, interval: tuple[float, float]) -> str:
    """Whether training more stages was worth its seconds, as far as the test images can tell."""
    frozen_all = max(runs)
    best = max(runs, key=lambda depth: (runs[depth].validation_accuracy, depth))
    everything, nothing = runs[0].accuracy, runs[frozen_all].accuracy
    said = (
        f"with nothing frozen it was right on {everything:.3g} percent of the test images, with everything "
        f"frozen on {nothing:.3g}"
    )
    low, high = interval
    if everything > high:
        said += ": freezing everything had a price"
    elif everything < low:
        said += ": training everything cost accuracy as well as time"
    else:
        said += ", a difference that so few images cannot tell from chance: freezing had no price that shows"
    return f"{said}; most accurate on the validation images was {best} of {frozen_all} stages frozen"


@dataclass(frozen=True)
class _Pooled(Look):
    """A look whose activations are the last vectors: what trains is the head alone."""

    def activations(self, split: str) -> Images:
        return self.features(split)

    def cached(self, split: str) -> Held:
        return Held(self.features(split), self.labels(split))


def _pooled(found: Look) -> Look:
    at = found.at(found.stages)
    return _Pooled(at.network, at.prepared, at.runtime, at.seconds)


def _pass_seconds(found: Look, *, depth: int) -> float:
    """Processor seconds of the training images' way through the frozen stages, without a cache once an epoch.

    The median of a few passes, as the seconds of an epoch are the median of its epochs.
    """
    if depth == 0:
        return 0.0
    frozen = found.network.module().split(depth)[0]
    at = found.at(0)
    transform = pixels_to_numbers(at)
    pixels = at.activations("train")
    run_fine_tuned(frozen, pixels[:2], batch_size=32, input_transform=transform)
    passes = []
    for _ in range(_PASSES):
        watch = Stopwatch()
        run_fine_tuned(frozen, pixels, batch_size=32, input_transform=transform)
        passes.append(watch.seconds().processor)
    return float(np.median(passes))


def one_pass(work: Work) -> Outcome:
    """The same training of a head, with its features computed once and with them computed in every epoch."""
    epochs = work.number("epochs")
    found = pixels_of(work)
    pixels, labels = found.activations("train"), found.labels("train")
    compute = prefix_of(found)
    compute(pixels[:2])
    again, seconds_again = _train(Computed(pixels, labels, compute), found, work=work)
    if work.text("keep") == "yes":
        watch = Stopwatch()
        kept = Held(_in_batches(compute, pixels), labels)
        passing = watch.seconds()
        once, training = _train(kept, found, work=work)
        seconds_once = passing + training
    else:
        once, seconds_once = again, seconds_again
        work.notes.append("features were not kept: both sides are the same run")
    tests = _in_batches(compute, found.activations("test"))
    difference = float(np.abs(once.head.probabilities(tests) - again.head.probabilities(tests)).max())
    ratio = seconds_again.processor / seconds_once.processor
    table = Table(
        ("features", *SECONDS, "processor seconds per epoch"),
        tuple(
            (name, *seconds.row, round(seconds.processor / epochs, 4))
            for name, seconds in (
                ("computed once", seconds_once),
                ("computed in every epoch", seconds_again),
            )
        ),
    )
    plot = Plot(
        "bars",
        f"{epochs} epochs of a head on {len(labels)} images",
        "features",
        "processor seconds",
        tuple(Series(str(row[0]), ((str(row[0]), float(row[1] or 0)),)) for row in table.rows),
    )
    fields: dict[str, Value] = {
        "conclusion": f"{epochs} epochs took {seconds_once.processor:.3g} s with features kept and "
        f"{seconds_again.processor:.3g} s with features computed again in each",
        "epochs": epochs,
        "seconds_once": round(seconds_once.processor, 3),
        "seconds_every_epoch": round(seconds_again.processor, 3),
        "ratio": round(ratio, 2),
        "difference": float(f"{difference:.2g}"),
    }
    return Outcome(fields, table, (plot,))


def prefix_of(found: Look) -> Callable[[Images], Images]:
    """The frozen network as a function from pixels uint8 [n, S, S, 3] to float32 features [n, D]."""
    network = found.network
    compiled = select(precision="f32").compile(
        network, depth=len(network.stages), layers=network.feature_layers()[-1:], batch_size=32
    )
    name = network.feature_layers()[-1].name

    def compute(pixels: Images) -> Images:
        return next(outputs[name] for _, outputs in compiled.stream([(0, pixels)]))

    return compute


def _in_batches(compute: Callable[[Images], Images], pixels: Images, *, size: int = 32) -> Images:
    return np.concatenate([compute(pixels[i : i + size]) for i in range(0, len(pixels), size)])


def _train(images: Held | Computed, found: Look, *, work: Work) -> tuple[FineTuneResult, Seconds]:
    """A head trained on features that are held, or computed as they are read; and what that took."""
    epochs = work.number("epochs")
    config = FineTuneConfig(epochs=epochs, learning_rate=0.03, scratch=True, seed=work.seed, precision="f32")
    watch = Stopwatch()
    head = no_head(found.network.dimensions, found.classes)

    def after(row: dict[str, float]) -> None:
        work.tell("epochs", int(row["epoch"]), epochs, 100 * row["accuracy"])

    result = fine_tune(nn.Identity(), head, images, None, config=config, progress=after)
    return result, watch.seconds()
