"""Experiments on where a training starts: which weights, how many images, which network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.building import Recipe, build
from headstart.dataset import Dataset
from headstart.errors import BackboneError, OptionError
from headstart.lesson.engine.results import Outcome, Plot, Series, Table, Value
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.looking import Look, look, spread_of, total_per_class, train_head
from headstart.lesson.experiments.stages import Finished, first_stages, fit_stages
from headstart.lesson.experiments.work import Work
from headstart.training.finetune import TailConfig

RATE = 0.05
"""Of both runs of a fair pair: between the training loop's 0.03 for thawed stages and 0.1 from scratch."""

BATCH = 8
"""Images per step of runs that begin with random weights or a head of zeros: few images, yet many steps."""

TARGET_SHARE = 0.9
"""The target is this share of what the first run reached, so that it is within reach on any images."""

RANDOM = "random weights"
PRETRAINED = "pre-trained weights"

_SHALLOW_STAGES = 5

_LEARNED = 2
"""A run that was right less than so many times as often as guessing is has hardly learned anything."""

_FEW = 8
"""Images on which the very large network itself is timed."""

_ITSELF_SECONDS = 15.0
"""What that may take; where less is left it is not tried."""


def fair(epochs: int, *, seed: int) -> TailConfig:
    """Settings for runs that differ in their first weights alone: every stage trains, one rate, norms too."""
    return TailConfig(
        epochs=epochs, batch_size=BATCH, learning_rate=RATE, scratch=True, patience=None, seed=seed
    )


def scratch(epochs: int, *, seed: int) -> TailConfig:
    """Settings for training from random weights as `fit` would."""
    return TailConfig(epochs=epochs, batch_size=BATCH, scratch=True, patience=None, seed=seed)


def random_twin(network: Backbone, *, seed: int) -> nn.Module:
    """All stages of the same network with random weights, ready to train; its graph is never written.

    Raises:
        BackboneError: nobody knows how to make the network.
    """
    if network.recipe is None:
        raise BackboneError(
            f"backbone {network.name}: only its graph is left, so it cannot start from scratch"
        )
    recipe = replace(network.recipe, weights=None, seed=seed)
    return build(recipe, size=network.preprocess.size, name=network.name).split(0)[1]


def pretrained_vs_scratch(work: Work) -> Outcome:
    """One network, one split, one optimizer: seconds to the same accuracy from two kinds of first weights."""
    per_class, epochs = work.number("images_per_class"), work.number("epochs")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    first_is_random = work.text("start") == RANDOM
    start = random_twin(network, seed=work.seed + 1) if first_is_random else network.module().split(0)[1]
    config = fair(epochs, seed=work.seed)
    first = fit_stages(
        found,
        start,
        config=config,
        ends=work.part(0.4),
        progress=lambda done, total: work.tell("first run", done, total),
    )
    target = round(TARGET_SHARE * max(reached for _, reached in first.curve), 1)
    allowed = epochs * work.number("patience")
    second = fit_stages(
        found,
        random_twin(network, seed=work.seed),
        config=fair(allowed, seed=work.seed),
        ends=work.part(0.9),
        target=target,
        progress=lambda done, total: work.tell("from scratch", done, total),
    )
    seconds_first = found.seconds + (first.seconds_to(target) or first.seconds)
    reached = second.seconds_to(target)
    seconds_scratch = found.seconds + (reached or second.seconds)
    if reached is None:
        work.notes.append(
            f"from scratch the target was not reached in {second.epochs} epochs, so its seconds and the "
            "ratio are lower bounds"
        )
    name = "from other random weights" if first_is_random else "from pre-trained weights"
    fields = {
        "target_accuracy": target,
        "seconds_pretrained": round(seconds_first, 3),
        "seconds_scratch": round(seconds_scratch, 3),
        "ratio": round(seconds_scratch / seconds_first, 2),
        "accuracy_pretrained": first.accuracy,
        "accuracy_scratch": second.accuracy,
        "images": found.count("train"),
        "classes": found.classes,
    }
    rows = tuple(
        (label, run.epochs, run.seconds_to(target), round(found.seconds + run.seconds, 3), run.accuracy)
        for label, run in ((name, first), ("from scratch", second))
    )
    heading = (
        "run",
        "epochs",
        "seconds of training to the target",
        "seconds in all",
        "test accuracy, percent",
    )
    plot = Plot(
        "line",
        "Validation accuracy as training goes on",
        "seconds",
        "validation accuracy, percent",
        (
            _curve(name, found, first),
            _curve("from scratch", found, second),
            _line(target, found, first, second),
        ),
    )
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def _curve(name: str, found: Look, run: Finished) -> Series:
    return Series(name, tuple((round(found.seconds + seconds, 3), reached) for seconds, reached in run.curve))


def _line(target: float, found: Look, *runs: Finished) -> Series:
    end = found.seconds + max(run.seconds for run in runs)
    return Series("target", ((0.0, target), (round(end, 3), target)))


def images_needed(work: Work) -> Outcome:
    """Test accuracy against training images of each class, frozen pre-trained and from scratch."""
    few, many, epochs = (
        work.number(name) for name in ("images_per_class", "most_images_per_class", "epochs")
    )
    if few > many:
        raise OptionError(f"images_per_class {few}: expected at most most_images_per_class, which is {many}")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(many))
    found = look(work, dataset, network, depths=(0,), taps=True)
    twin = first_stages(random_twin(network, seed=work.seed), _SHALLOW_STAGES)
    counts = sorted({few, round((few * many) ** 0.5), many})
    steps = epochs * _steps(found.limited(many))
    parts = [found.limited(count) for count in counts]
    frozen = [train_head(part.at(part.stages), taps="auto", seed=work.seed) for part in parts]
    seconds = 0.8 * work.left() / len(parts)  # the same for each, so that what is cut short compares equals
    trained = []
    for number, part in enumerate(parts, 1):
        trained.append(
            fit_stages(
                part.at(0),
                twin,
                config=scratch(max(1, round(steps / _steps(part))), seed=work.seed),
                ends=time.perf_counter() + seconds,
                validate=False,
            )
        )
        work.tell("numbers of images", number, len(parts))
    if any(run.stopped for run in trained):
        work.notes.append(
            "a run from scratch was cut short to keep the bound: compare the seconds in the table before you "
            "compare the accuracies"
        )
    if trained[-1].accuracy < _LEARNED * 100 / found.classes:
        work.notes.append(
            "from scratch even the most images gave little more than guessing would: so short a training "
            "does not tell what more of them are worth"
        )
    work.notes.append(
        f"from scratch the first {_SHALLOW_STAGES} stages of the network train, which so few images can "
        f"teach more than all of them; every number of images has about {steps} steps of {BATCH} images, so "
        "that fewer images do not also mean less training"
    )
    tests = found.count("test")
    rows = tuple(
        (count, head.accuracy, run.accuracy, round(head.seconds, 3), round(run.seconds, 3), run.epochs)
        for count, head, run in zip(counts, frozen, trained, strict=True)
    )
    low, high = spread_of(frozen[0].accuracy, tests)
    work.notes.append(
        f"judged on {tests} test images: an accuracy of {frozen[0].accuracy:g} percent lies between {low:g} "
        f"and {high:g} with 95 percent confidence"
    )
    fields = {
        "few": counts[0],
        "many": counts[-1],
        "accuracy_pretrained_few": frozen[0].accuracy,
        "accuracy_pretrained_many": frozen[-1].accuracy,
        "accuracy_scratch_few": trained[0].accuracy,
        "accuracy_scratch_many": trained[-1].accuracy,
    }
    heading = (
        "training images of each class, at most",
        "test accuracy pre-trained, percent",
        "test accuracy from scratch, percent",
        "seconds for the head",
        "seconds of training from scratch",
        "epochs from scratch",
    )
    series = (
        Series("pre-trained, all frozen", tuple((row[0], row[1]) for row in rows)),
        Series("from scratch", tuple((row[0], row[2]) for row in rows)),
    )
    plot = Plot(
        "line",
        "Test accuracy against the number of images",
        "training images of each class",
        "test accuracy, percent",
        series,
    )
    return Outcome(fields, (plot,), Table(heading, rows), tuple(work.notes))


def _steps(found: Look) -> int:
    """Steps of an epoch from scratch."""
    return -(-found.count("train") // BATCH)


@dataclass(frozen=True)
class _Start:
    """One of the four ways to start, as it came out."""

    label: str
    accuracy: float
    seconds: float
    parameters: int


def model_choice(work: Work) -> Outcome:
    """Four ways to start, side by side on the same few images."""
    per_class = work.number("images_per_class")
    dataset = work.images(per_class=total_per_class(per_class))
    small = networks.load(work.text("backbone"), size=work.number("size"))
    large = networks.load(work.text("large"), size=work.number("size"))
    work.notes += [chosen.note for chosen in (small, large) if chosen.note]
    frozen, images = _frozen(work, small, dataset=dataset, per_class=per_class)
    work.tell("models", 1, 4)
    same = small.network.weights_hash == large.network.weights_hash and small.label == large.label
    heavy = frozen if same else _frozen(work, large, dataset=dataset, per_class=per_class)[0]
    if same:
        work.notes.append(f"both the small and the large network are {small.label}: trained once")
    work.tell("models", 2, 4)
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    whole = random_twin(network, seed=work.seed)
    untrained = []
    for number, (label, tail) in enumerate(
        (("small, from scratch", whole), ("shallower, from scratch", first_stages(whole, _SHALLOW_STAGES)))
    ):
        run = fit_stages(
            found,
            tail,
            config=scratch(work.number("epochs"), seed=work.seed),
            ends=work.part(0.45 + 0.45 * number),
        )
        if run.stopped:
            work.notes.append(f"{label}: stopped after {run.epochs} epochs to keep the bound")
        parameters = sum(weight.numel() for weight in tail.parameters())
        untrained.append(_Start(label, run.accuracy, round(found.seconds + run.seconds, 3), parameters))
        work.tell("models", 3 + number, 4)
    work.notes.append(
        f"the shallower network is the first {_SHALLOW_STAGES} stages of the small one; from scratch both "
        f"train {work.number('epochs')} epochs of {_steps(found)} steps, and longer might bring them further"
    )
    work.notes.append(
        f"the pre-trained ones took their seconds to read and pass over all {len(dataset.samples)} images, "
        "those held out too, and for the head"
    )
    starts = (frozen, heavy, *untrained)
    fields: dict[str, Value] = {
        "images": images,
        "large_name": large.label,
        "seconds_small": frozen.seconds,
        "seconds_large": heavy.seconds,
        "accuracy_small": frozen.accuracy,
        "accuracy_large": heavy.accuracy,
        "accuracy_scratch": untrained[0].accuracy,
        "accuracy_shallow": untrained[1].accuracy,
    }
    names = (f"small, pre-trained ({small.label})", f"large, pre-trained ({large.label})")
    labels = (*names, *(start.label for start in untrained))
    pairs = list(zip(labels, starts, strict=True))
    plot = Plot(
        "dots",
        "Four ways to start",
        "seconds",
        "test accuracy, percent",
        tuple(Series(label, ((start.seconds, start.accuracy),)) for label, start in pairs),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (label, start.accuracy, start.seconds, start.parameters) for label, start in pairs
    )
    if large.note and work.text("itself") == "yes" and work.left() > _ITSELF_SECONDS:
        size = networks.moderate_size(work.number("size"))
        rows += tuple(_itself(work.text("large"), size=size, images=len(dataset.samples)))
    table = Table(("start", "test accuracy, percent", "seconds", "weights"), rows)
    return Outcome(fields, (plot,), table, tuple(work.notes))


def _itself(name: str, *, size: int, images: int) -> Iterator[tuple[Value, ...]]:
    """What a network whose weights are not here would take for one pass: time does not depend on weights.

    Args:
        name: timm's.
        size: pixels a side that it would see if its weights were here.
        images: as many as the other networks passed over, those held out too.
    """
    try:
        built = build(Recipe(name, {}, weights=None), size=size, name=name)
    except BackboneError:  # a file, or a name that nobody knows
        return
    module = built.split(0)[1].eval()
    few = torch.rand(_FEW, 3, size, size)
    with torch.inference_mode():
        module(few)
        started = time.perf_counter()
        module(few)
        seconds = (time.perf_counter() - started) / _FEW * images
    weights = sum(weight.numel() for weight in module.parameters())
    yield (
        f"{name} itself at {size} px, with random weights: one pass over all {images} images, reckoned from "
        f"{_FEW}",
        None,
        round(seconds, 3),
        weights,
    )


def _frozen(work: Work, chosen: networks.Chosen, *, dataset: Dataset, per_class: int) -> tuple[_Start, int]:
    """A pre-trained network, frozen whole, with a new head."""
    found = look(work, dataset, chosen.network).limited(per_class)
    head = train_head(found, seed=work.seed)
    parameters = sum(stage.parameters for stage in chosen.network.stages)
    seconds = round(found.seconds + head.seconds, 3)
    return _Start(chosen.label, head.accuracy, seconds, parameters), found.count("train")
