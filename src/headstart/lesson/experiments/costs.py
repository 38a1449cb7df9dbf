"""Experiments on what training costs: frozen depth, one pass or many, accuracy against time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from headstart.backbones import load_backbone
from headstart.dataset import Dataset
from headstart.heads import LinearHead, fit_ridge
from headstart.lesson.engine.results import Outcome, Plot, Series, Table, Value
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.looking import Headed, Look, look, total_per_class, train_head
from headstart.lesson.experiments.stages import (
    Computed,
    Finished,
    Held,
    Images,
    fit_stages,
    no_head,
    pixels_to_numbers,
)
from headstart.lesson.experiments.starts import random_twin, scratch
from headstart.lesson.experiments.work import Work
from headstart.runtimes import select
from headstart.training.finetune import TailConfig, TailResult, run_tail, train_tail

_THAWED = 2
"""Last stages that a thawed model trains: where thawing pays most for its time."""

_PASSES = 3
"""So often a pass through frozen stages is timed: one alone may meet a busy moment."""

_FROZEN = 5
"""So many of the finished models, the first, are pre-trained and frozen whole: they differ in computation."""


def freeze_depth(work: Work) -> Outcome:
    """Seconds per epoch and test accuracy against the number of frozen stages."""
    per_class, epochs = work.number("images_per_class"), work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    stages = len(network.stages)
    chosen = work.parameters["depth"]
    middle = stages // 2 if chosen is None else min(int(chosen), stages)
    wanted = {0, middle, stages, *np.linspace(0, stages, work.number("depths")).round().astype(int).tolist()}
    depths = sorted(wanted)
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=depths[:-1]).limited(per_class)
    module = network.module()
    ridge = train_ridge(found)
    config = TailConfig(epochs=epochs, patience=None, seed=work.seed)
    runs = {}
    for number, depth in enumerate(depths):
        if depth < stages:
            tail, at = module.split(depth)[1], found.at(depth)
        else:
            tail, at = nn.Identity(), _pooled(found)
        runs[depth] = fit_stages(
            at, tail, config=config, ends=work.part(0.9 / (len(depths) - number)), head=ridge, validate=False
        )
        work.tell("depths", number + 1, len(depths))
    if any(run.stopped for run in runs.values()):
        work.notes.append("a depth was cut short to keep the bound; its seconds per epoch stand")
    again = {depth: runs[depth].per_epoch + _pass_seconds(found, depth=depth) for depth in depths}
    best = max(depths, key=lambda depth: (runs[depth].validation_accuracy, depth))
    fields = {
        "stages": stages,
        "seconds_none": round(runs[0].per_epoch, 4),
        "seconds_half": round(runs[middle].per_epoch, 4),
        "seconds_all": round(runs[stages].per_epoch, 4),
        "seconds_half_again": round(again[middle], 4),
        "seconds_all_again": round(again[stages], 4),
        "accuracy_none": runs[0].accuracy,
        "accuracy_all": runs[stages].accuracy,
        "best_depth": best,
    }
    rows = tuple(
        (depth, round(run.per_epoch, 4), round(again[depth], 4), run.validation_accuracy, run.accuracy)
        for depth, run in runs.items()
    )
    heading = (
        "frozen stages",
        "seconds per epoch, features kept",
        "seconds per epoch, features computed again",
        "validation accuracy, percent",
        "test accuracy, percent",
    )
    work.notes.append(
        f"every depth starts from the same head and trains {epochs} epochs; at {stages} frozen stages only "
        f"the head trains; the middle depth is {middle}; the best depth is that of the highest validation "
        f"accuracy, on {found.count('validation')} images, the deeper one where two are equal"
    )
    cost = Plot(
        "line",
        "What an epoch costs",
        "frozen stages",
        "seconds per epoch",
        (
            Series("features kept", tuple((row[0], row[1]) for row in rows)),
            Series("features computed again", tuple((row[0], row[2]) for row in rows)),
        ),
    )
    price = Plot(
        "line",
        "What it is worth",
        "frozen stages",
        "accuracy, percent",
        (
            Series("validation accuracy", tuple((row[0], row[3]) for row in rows)),
            Series("test accuracy", tuple((row[0], row[4]) for row in rows)),
        ),
    )
    return Outcome(fields, (cost, price), Table(heading, rows), tuple(work.notes))


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
    run_tail(frozen, pixels[:2], batch_size=32, input_transform=transform)
    passes = []
    for _ in range(_PASSES):
        started = time.perf_counter()
        run_tail(frozen, pixels, batch_size=32, input_transform=transform)
        passes.append(time.perf_counter() - started)
    return float(np.median(passes))


def one_pass(work: Work) -> Outcome:
    """The same training of a head, with its features computed once and with them computed in every epoch."""
    per_class, epochs = work.number("images_per_class"), work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    pixels, labels = found.activations("train"), found.labels("train")
    compute = prefix_of(found)
    compute(pixels[:2])
    again, seconds_again, ran = _train(
        Computed(pixels, labels, compute), found, epochs=epochs, work=work, ends=work.part(0.7)
    )
    if ran < epochs:
        work.notes.append(f"ended after {ran} of {epochs} epochs to keep the bound")
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
    fields = {
        "epochs": ran,
        "seconds_once": round(seconds_once, 3),
        "seconds_every_epoch": round(seconds_again, 3),
        "ratio": round(seconds_again / seconds_once, 2),
        "difference": float(f"{float(difference):.2g}"),
    }
    pairs = (("computed once", seconds_once), ("computed in every epoch", seconds_again))
    plot = Plot(
        "bars",
        f"{ran} epochs of a head on {len(labels)} images",
        "features",
        "seconds",
        tuple(Series(name, ((name, round(seconds, 3)),)) for name, seconds in pairs),
    )
    rows = tuple((name, round(seconds, 3), round(seconds / ran, 4)) for name, seconds in pairs)
    table = Table(("features", "seconds", "seconds per epoch"), rows)
    return Outcome(fields, (plot,), table, tuple(work.notes))


def prefix_of(found: Look) -> Callable[[Images], Images]:
    """The frozen network as a function from pixels uint8 [n, S, S, 3] to float32 features [n, D]."""
    network = found.network
    compiled = select(precision="f32").compile(
        network, depth=len(network.stages), taps=network.taps()[-1:], batch_size=32
    )
    name = network.taps()[-1].name

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
) -> tuple[TailResult, float, int]:
    """A head trained on features that are held, or computed as they are read; seconds; epochs.

    The schedule is that of ``epochs``, also where the training ends after ``most`` or at ``ends``: two
    trainings that end after the same epoch have the same result.
    """
    config = TailConfig(epochs=epochs, learning_rate=0.03, seed=work.seed, precision="f32")
    done: list[float] = []

    def after(row: dict[str, float]) -> bool:
        done.append(row["epoch"])
        work.tell("epochs", len(done), epochs)
        another = (time.perf_counter() - started) / len(done)
        return len(done) == most or time.perf_counter() + another >= ends

    started = time.perf_counter()
    head = no_head(found.network.dimensions, found.classes)
    result = train_tail(nn.Identity(), head, images, None, config=config, progress=after)
    return result, time.perf_counter() - started, len(done)


@dataclass(frozen=True)
class _Model:
    """A finished model: accuracies in percent, seconds from the images to the end of training."""

    name: str
    accuracy: float
    validation_accuracy: float
    seconds: float


def accuracy_against_time(work: Work) -> Outcome:
    """Finished models, the front that none of them beats, one that is beaten, and the learner's choice."""
    per_class, epochs, size = (work.number(name) for name in ("images_per_class", "reference_epochs", "size"))
    dataset = work.images(per_class=total_per_class(per_class))
    small, large = networks.BUILTIN, networks.BUILTIN_LARGE
    jobs: list[Callable[[float], _Model]] = [
        lambda ends: _frozen(work, dataset, small, size=size // 2),
        lambda ends: _frozen(work, dataset, small, size=size),
        lambda ends: _frozen(work, dataset, small, size=size, taps="all"),
        lambda ends: _frozen(work, dataset, large, size=size, taps="all"),
        lambda ends: _frozen(work, dataset, large, size=2 * size),
        lambda ends: _thawed(work, dataset, size=size, epochs=epochs, ends=ends),
        lambda ends: _from_scratch(work, dataset, size=size, epochs=epochs, ends=ends),
    ]
    models = []
    for number, job in enumerate(jobs):
        models.append(job(work.part(0.8 / (len(jobs) - number))))
        work.tell("models", number + 1, len(jobs) + 1)
    own = _own(work, dataset)
    work.tell("models", len(jobs) + 1, len(jobs) + 1)
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
    rows = tuple(
        (model.name, model.validation_accuracy, model.accuracy, model.seconds, on_front)
        for model, on_front in judged
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
    heading = ("model", "validation accuracy, percent", "test accuracy, percent", "seconds", "on the front")
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def _front(models: list[_Model]) -> list[_Model]:
    """Those that no other beats, the fastest first."""
    front: list[_Model] = []
    for model in sorted(models, key=lambda model: (model.seconds, -model.accuracy)):
        if not front or model.accuracy > front[-1].accuracy:
            front.append(model)
    return front


def _beaten(models: list[_Model]) -> tuple[_Model | None, _Model | None]:
    """The slowest model that another beats on both counts, and the most accurate of those that do."""
    for model in sorted(models, key=lambda model: -model.seconds):
        better = [m for m in models if m.seconds < model.seconds and m.accuracy > model.accuracy]
        if better:
            return model, max(better, key=lambda m: m.accuracy)
    return None, None


def _frozen(work: Work, dataset: Dataset, name: str, *, size: int, taps: str = "last") -> _Model:
    """A head on the last vector, or on what every stage says: richer features."""
    chosen = networks.load(name, size=size)
    found = look(work, dataset, chosen.network, taps=taps != "last")
    head = train_head(found, taps=taps, seed=work.seed)
    label = f"{chosen.label}, all frozen" + (", every stage read" if taps == "all" else "")
    return _headed(label, found, head)


def _headed(label: str, found: Look, head: Headed) -> _Model:
    return _Model(label, head.accuracy, head.validation_accuracy, round(found.seconds + head.seconds, 3))


def _thawed(work: Work, dataset: Dataset, *, size: int, epochs: int, ends: float) -> _Model:
    return _tuned(work, dataset, networks.load(networks.BUILTIN, size=size), epochs=epochs, ends=ends)


def _tuned(
    work: Work,
    dataset: Dataset,
    chosen: networks.Chosen,
    *,
    epochs: int,
    ends: float,
    depth: int | None = None,
    views: int = 1,
) -> _Model:
    """The stages behind the cut trained, from the closed-form head on."""
    network = chosen.network
    cut = len(network.stages) - _THAWED if depth is None else depth
    found = look(work, dataset, network, depths=(cut,), views=views)
    config = TailConfig(epochs=epochs, patience=None, seed=work.seed)
    started = time.perf_counter()
    head = train_ridge(found)
    fitted = time.perf_counter() - started
    run = fit_stages(found, network.module().split(cut)[1], config=config, ends=ends, head=head)
    name = f"{chosen.label}, {cut} of {len(network.stages)} frozen"
    return _trained(work, name, run, seconds=found.seconds + fitted)


def _from_scratch(work: Work, dataset: Dataset, *, size: int, epochs: int, ends: float) -> _Model:
    chosen = networks.load(networks.BUILTIN, size=size)
    found = look(work, dataset, chosen.network, depths=(0,), pooled=False)
    tail = random_twin(chosen.network, seed=work.seed)
    run = fit_stages(found, tail, config=scratch(epochs, seed=work.seed), ends=ends)
    return _trained(work, f"{chosen.label}, from scratch", run, seconds=found.seconds)


def _trained(work: Work, name: str, run: Finished, *, seconds: float) -> _Model:
    """A model that was trained, with the seconds that passed before its training."""
    if run.stopped:
        work.notes.append(f"{name}: stopped after {run.epochs} epochs to keep the bound")
    return _Model(name, run.accuracy, run.validation_accuracy, round(seconds + run.seconds, 3))


def _own(work: Work, dataset: Dataset) -> _Model:
    """The configuration that the learner chose."""
    chosen = networks.load(work.text("backbone"), size=work.number("size"))
    if chosen.note:
        work.notes.append(chosen.note)
    stages, views = len(chosen.network.stages), work.number("views")
    depth = {"all": stages, "half": stages // 2, "none": 0}[work.text("depth")]
    if depth < stages:
        model = _tuned(
            work,
            dataset,
            chosen,
            epochs=work.number("epochs"),
            ends=work.part(0.9),
            depth=depth,
            views=views,
        )
        return replace(model, name=f"your choice: {model.name}")
    work.notes.append(
        "with all frozen the head is computed at once, so the epochs of your choice were not used"
    )
    found = look(work, dataset, chosen.network, views=views)
    label = f"your choice: {chosen.label}, all frozen, {views} {'view' if views == 1 else 'views'}"
    return _headed(label, found, train_head(found, seed=work.seed))
