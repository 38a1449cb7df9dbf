"""Experiments on what training costs: a step, frozen depth, one pass or many, accuracy against time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset
from headstart.heads import LinearHead, fit_ridge
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.passes import Look, look, total_per_class
from headstart.lesson.experiments.training import (
    Computed,
    Finished,
    Held,
    Images,
    Model,
    fit_stages,
    frozen_model,
    no_head,
    pixels_of,
    pixels_to_numbers,
    random_twin,
    scratch,
    trained_model,
)
from headstart.training.finetune import FineTuneConfig, FineTuneResult, fine_tune, run_fine_tuned
from headstart.web.plots import Plot, Series, Table, Value

_THAWED = 2
"""Last stages that a fine-tuned model trains: where fine-tuning pays most for its time."""

_PASSES = 3
"""So often a pass through frozen stages is timed: one alone may meet a busy moment."""

_FROZEN = 5
"""So many of the finished models, the first, are pre-trained and frozen whole: they differ in computation."""


def gradients_way(work: Work) -> Outcome:
    """Milliseconds of one training step, with nothing, the first and the last half of the stages frozen.

    On one core, and of its own time: what else the machine does must not be taken for arithmetic.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _gradients_way(work)
    finally:
        torch.set_num_threads(threads)


def _gradients_way(work: Work) -> Outcome:
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
        if number and work.left() <= 0:
            work.notes.append(f"ended after {number} of {rounds} rounds to stay within the time limit")
            break
    median = {name: round(float(np.median(some)), 3) for name, some in times.items()}
    forward, whole = median["forward pass alone"], median["nothing frozen"]
    work.notes.append(
        f"medians of {len(times['nothing frozen'])} steps of {batch} images at {size} px, on one core and of "
        f"its own time; {half} of {len(stages)} stages are a half; normalisation keeps its statistics in all"
    )
    table = Table(
        ("step", "milliseconds", "of a step with nothing frozen, percent"),
        tuple((name, value, round(100 * value / whole, 1)) for name, value in median.items()),
    )
    plot = table.plot(
        "bars", "One training step", x="what is frozen", y="milliseconds", series={"milliseconds": 1}
    )
    fields = {
        "forward": forward,
        "step": whole,
        "backward_ratio": round((whole - forward) / forward, 2),
        "first_frozen": median["first half frozen"],
        "last_frozen": median["last half frozen"],
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
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=depths[:-1]).limited(per_class)
    module = network.module()
    ridge = train_ridge(found)
    config = FineTuneConfig(epochs=epochs, patience=None, seed=work.seed)
    runs: dict[int, Finished] = {}
    for depth in work.each("depths", depths):
        if depth < stages:
            trainable, at = module.split(depth)[1], found.at(depth)
        else:
            trainable, at = nn.Identity(), _pooled(found)
        ends = work.part(0.9 / (len(depths) - len(runs)))
        runs[depth] = fit_stages(at, trainable, config=config, ends=ends, head=ridge, validate=False)
    if any(run.stopped for run in runs.values()):
        work.notes.append("a depth was cut short to stay within the time limit; its seconds per epoch stand")
    again = {depth: runs[depth].per_epoch + _pass_seconds(found, depth=depth) for depth in depths}
    work.notes.append(
        f"every depth starts from the same head and trains {epochs} epochs; at {stages} frozen stages only "
        f"the head trains; the middle depth is {middle}; the best depth is that of the highest validation "
        f"accuracy, on {found.count('validation')} images, the deeper one where two are equal"
    )
    table = Table(
        (
            "frozen stages",
            "seconds per epoch, features kept",
            "seconds per epoch, features computed again",
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
        y="seconds per epoch",
        series={"features kept": 1, "features computed again": 2},
    )
    price = table.plot(
        "line",
        "What it is worth",
        x="frozen stages",
        y="accuracy, percent",
        series={"validation accuracy": 3, "test accuracy": 4},
    )
    fields = {
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
    return Outcome(fields, table, (cost, price))


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


def train_ridge(found: Look) -> LinearHead:
    """The closed-form head of the frozen network, from which every depth starts."""
    return fit_ridge((found.features("train"), found.labels("train")), classes=found.classes).head


def _pass_seconds(found: Look, *, depth: int) -> float:
    """Seconds of the training images' way through the frozen stages, without a cache once an epoch.

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
        started = time.perf_counter()
        run_fine_tuned(frozen, pixels, batch_size=32, input_transform=transform)
        passes.append(time.perf_counter() - started)
    return float(np.median(passes))


def one_pass(work: Work) -> Outcome:
    """The same training of a head, with its features computed once and with them computed in every epoch."""
    epochs = work.number("epochs")
    found = pixels_of(work)
    pixels, labels = found.activations("train"), found.labels("train")
    compute = prefix_of(found)
    compute(pixels[:2])
    again, seconds_again, ran = _train(
        Computed(pixels, labels, compute), found, epochs=epochs, work=work, ends=work.part(0.7)
    )
    if ran < epochs:
        work.notes.append(f"ended after {ran} of {epochs} epochs to stay within the time limit")
    if work.text("keep") == "yes":
        started = time.perf_counter()
        kept = Held(_in_batches(compute, pixels), labels)
        passing = time.perf_counter() - started
        once, training, _ = _train(kept, found, epochs=epochs, most=ran, work=work)
        seconds_once = passing + training
    else:
        once, seconds_once = again, seconds_again
        work.notes.append("features were not kept: both sides are the same run")
    tests = _in_batches(compute, found.activations("test"))
    difference = np.abs(once.head.probabilities(tests) - again.head.probabilities(tests)).max()
    table = Table(
        ("features", "seconds", "seconds per epoch"),
        tuple(
            (name, round(seconds, 3), round(seconds / ran, 4))
            for name, seconds in (
                ("computed once", seconds_once),
                ("computed in every epoch", seconds_again),
            )
        ),
    )
    plot = Plot(
        "bars",
        f"{ran} epochs of a head on {len(labels)} images",
        "features",
        "seconds",
        tuple(Series(str(name), ((str(name), float(seconds or 0)),)) for name, seconds, _ in table.rows),
    )
    fields = {
        "epochs": ran,
        "seconds_once": round(seconds_once, 3),
        "seconds_every_epoch": round(seconds_again, 3),
        "ratio": round(seconds_again / seconds_once, 2),
        "difference": float(f"{float(difference):.2g}"),
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


def _train(
    images: Held | Computed,
    found: Look,
    *,
    epochs: int,
    work: Work,
    most: int | None = None,
    ends: float = math.inf,
) -> tuple[FineTuneResult, float, int]:
    """A head trained on features that are held, or computed as they are read; seconds; epochs.

    The schedule is that of ``epochs``, also where the training ends after ``most`` or at ``ends``: two
    trainings that end after the same epoch have the same result.
    """
    config = FineTuneConfig(epochs=epochs, learning_rate=0.03, seed=work.seed, precision="f32")
    done: list[float] = []

    def after(row: dict[str, float]) -> bool:
        done.append(row["epoch"])
        work.tell("epochs", len(done), epochs)
        another = (time.perf_counter() - started) / len(done)
        return len(done) == most or time.perf_counter() + another >= ends

    started = time.perf_counter()
    head = no_head(found.network.dimensions, found.classes)
    result = fine_tune(nn.Identity(), head, images, None, config=config, progress=after)
    return result, time.perf_counter() - started, len(done)


def accuracy_against_time(work: Work) -> Outcome:
    """Finished models, the front that none of them beats, one that is beaten, and the learner's choice."""
    per_class, epochs, size = (work.number(name) for name in ("images_per_class", "reference_epochs", "size"))
    dataset = work.images(per_class=total_per_class(per_class))
    small, large = networks.BUILTIN, networks.BUILTIN_LARGE
    jobs: tuple[Callable[[float], Model], ...] = (
        lambda ends: _frozen(work, dataset, small, size=size // 2),
        lambda ends: _frozen(work, dataset, small, size=size),
        lambda ends: _frozen(work, dataset, small, size=size, layers="all"),
        lambda ends: _frozen(work, dataset, large, size=size, layers="all"),
        lambda ends: _frozen(work, dataset, large, size=2 * size),
        lambda ends: _tuned(work, dataset, networks.load(small, size=size), epochs=epochs, ends=ends),
        lambda ends: _from_scratch(work, dataset, size=size, epochs=epochs, ends=ends),
        lambda ends: _own(work, dataset),
    )
    models: list[Model] = []
    for job in work.each("models", jobs):
        models.append(job(work.part(0.8 / max(1, len(jobs) - 1 - len(models)))))
    own = models.pop()
    front = _front(models)
    fast, slow = front[0], front[-1]
    beaten, winner = _beaten(models[:_FROZEN])
    if fast is slow:
        work.notes.append(f"here {fast.name} is both the fastest and the most accurate: there was no trade")
    work.notes.append(
        f"your choice was right on {own.validation_accuracy:g} percent of the validation images: compare "
        "your choices by this number, as each look at the test images wears them out"
    )
    fields: dict[str, Value] = {
        "fast_name": fast.name,
        "slow_name": slow.name,
        "fast_accuracy": fast.accuracy,
        "slow_accuracy": slow.accuracy,
        "fast_seconds": fast.seconds,
        "slow_seconds": slow.seconds,
        "scratch_seconds": models[-1].seconds,
        "accuracy": own.accuracy,
        "validation_accuracy": own.validation_accuracy,
        "seconds": own.seconds,
        "beaten_name": beaten.name if beaten else None,
        "beaten_by": winner.name if winner else None,
    }
    judged = [(model, "yes" if model in front else "no") for model in models] + [(own, "not asked")]
    table = Table(
        ("model", "validation accuracy, percent", "test accuracy, percent", "seconds", "on the front"),
        tuple(
            (model.name, model.validation_accuracy, model.accuracy, model.seconds, on_front)
            for model, on_front in judged
        ),
    )
    plot = Plot(
        "dots",
        "Finished models, and the front that none of them beats",
        "seconds",
        "test accuracy, percent",
        (
            *(Series(model.name, ((model.seconds, model.accuracy),)) for model in (*models, own)),
            Series("front", tuple((model.seconds, model.accuracy) for model in front)),
        ),
    )
    return Outcome(fields, table, (plot,))


def _front(models: list[Model]) -> list[Model]:
    """Those that no other beats, the fastest first."""
    front: list[Model] = []
    for model in sorted(models, key=lambda model: (model.seconds, -model.accuracy)):
        if not front or model.accuracy > front[-1].accuracy:
            front.append(model)
    return front


def _beaten(models: list[Model]) -> tuple[Model | None, Model | None]:
    """The slowest model that another beats on both counts, and the most accurate of those that do."""
    for model in sorted(models, key=lambda model: -model.seconds):
        better = [m for m in models if m.seconds < model.seconds and m.accuracy > model.accuracy]
        if better:
            return model, max(better, key=lambda m: m.accuracy)
    return None, None


def _frozen(work: Work, dataset: Dataset, name: str, *, size: int, layers: str = "last") -> Model:
    """A head on the last vector, or on what every stage says: richer features."""
    chosen = networks.load(name, size=size)
    found = look(work, dataset, chosen.network, layers=layers != "last")
    label = f"{chosen.label}, all frozen" + (", every stage read" if layers == "all" else "")
    return frozen_model(found, label, layers=layers, seed=work.seed)


def _tuned(
    work: Work,
    dataset: Dataset,
    chosen: networks.Chosen,
    *,
    epochs: int,
    ends: float,
    depth: int | None = None,
    views: int = 1,
) -> Model:
    """The stages behind the cut trained, from the closed-form head on."""
    network = chosen.network
    cut = len(network.stages) - _THAWED if depth is None else depth
    found = look(work, dataset, network, depths=(cut,), views=views)
    config = FineTuneConfig(epochs=epochs, patience=None, seed=work.seed)
    started = time.perf_counter()
    head = train_ridge(found)
    before = found.seconds + time.perf_counter() - started
    trainable = network.module().split(cut)[1]
    run = fit_stages(found, trainable, config=config, ends=ends, head=head)
    name = f"{chosen.label}, {cut} of {len(network.stages)} frozen"
    return trained_model(work, name, run, before=before, trainable=trainable)


def _from_scratch(work: Work, dataset: Dataset, *, size: int, epochs: int, ends: float) -> Model:
    chosen = networks.load(networks.BUILTIN, size=size)
    found = look(work, dataset, chosen.network, depths=(0,), pooled=False)
    trainable = random_twin(chosen.network, seed=work.seed)
    run = fit_stages(found, trainable, config=scratch(epochs, seed=work.seed), ends=ends)
    name = f"{chosen.label}, from scratch"
    return trained_model(work, name, run, before=found.seconds, trainable=trainable)


def _own(work: Work, dataset: Dataset) -> Model:
    """The configuration that the learner chose."""
    chosen = networks.load(work.text("backbone"), size=work.number("size"))
    if chosen.note:
        work.notes.append(chosen.note)
    stages, views = len(chosen.network.stages), work.number("views")
    depth = {"all": stages, "half": stages // 2, "none": 0}[work.text("depth")]
    if depth < stages:
        epochs, ends = work.number("epochs"), work.part(0.9)
        model = _tuned(work, dataset, chosen, epochs=epochs, ends=ends, depth=depth, views=views)
        return replace(model, name=f"your choice: {model.name}")
    work.notes.append(
        "with all frozen the head is computed at once, so the epochs of your choice were not used"
    )
    found = look(work, dataset, chosen.network, views=views)
    label = f"your choice: {chosen.label}, all frozen, {views} {'view' if views == 1 else 'views'}"
    return frozen_model(found, label, seed=work.seed)
