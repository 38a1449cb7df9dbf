"""Experiments on where a training starts: which weights, how many images, which network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from headstart.backbones import load_backbone
from headstart.backbones.building import Recipe, build
from headstart.errors import BackboneError, OptionError
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.passes import Look, look, spread_of, total_per_class
from headstart.lesson.experiments.training import (
    BATCH,
    Finished,
    Model,
    first_stages,
    fit_stages,
    frozen_model,
    pixels_of,
    random_twin,
    scratch,
    trained_model,
)
from headstart.web.plots import Plot, Series, Table, Value

RATE = 0.05
"""Of both runs of a fair pair: between the training loop's 0.03 for fine-tuning and 0.1 from scratch."""

TARGET_SHARE = 0.9
"""The target is this share of what the first run reached, so that it is within reach on any images."""

RANDOM = "random weights"

_SHALLOW_STAGES = 5

_LEARNED = 2
"""A run that was right less than so many times as often as guessing is has hardly learned anything."""

_FEW = 8
"""Images on which the very large network itself is timed."""

_ITSELF_SECONDS = 15.0
"""What that may take; where less is left it is not tried."""


def pretrained_vs_scratch(work: Work) -> Outcome:
    """One network, one split, one optimizer: seconds to the same accuracy from two kinds of first weights."""
    epochs = work.number("epochs")
    found = pixels_of(work)
    network, before = found.network, found.seconds
    first_is_random = work.text("start") == RANDOM
    start = random_twin(network, seed=work.seed + 1) if first_is_random else network.module().split(0)[1]
    # Runs that differ in their first weights alone: every stage trains, one rate, norms too.
    fair = replace(scratch(epochs, seed=work.seed), learning_rate=RATE)
    first = fit_stages(
        found,
        start,
        config=fair,
        ends=work.part(0.4),
        progress=lambda done, total: work.tell("first run", done, total),
    )
    target = round(TARGET_SHARE * max(reached for _, reached in first.curve), 1)
    second = fit_stages(
        found,
        random_twin(network, seed=work.seed),
        config=replace(fair, epochs=epochs * work.number("patience")),
        ends=work.part(0.9),
        target=target,
        progress=lambda done, total: work.tell("from scratch", done, total),
    )
    reached = second.seconds_to(target)
    if reached is None:
        work.notes.append(
            f"from scratch the target was not reached in {second.epochs} epochs, so its seconds and the "
            "ratio are lower bounds"
        )
    seconds_first = before + (first.seconds_to(target) or first.seconds)
    seconds_scratch = before + (reached or second.seconds)
    name = "from other random weights" if first_is_random else "from pre-trained weights"
    runs = {name: first, "from scratch": second}
    table = Table(
        ("run", "epochs", "seconds of training to the target", "seconds in all", "test accuracy, percent"),
        tuple(
            (label, run.epochs, run.seconds_to(target), round(before + run.seconds, 3), run.accuracy)
            for label, run in runs.items()
        ),
    )
    end = round(before + max(run.seconds for run in runs.values()), 3)
    plot = Plot(
        "line",
        "Validation accuracy as training goes on",
        "seconds",
        "validation accuracy, percent",
        (
            *(Series(label, _curve(run, before=before)) for label, run in runs.items()),
            Series("target", ((0.0, target), (end, target))),
        ),
    )
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
    return Outcome(fields, table, (plot,))


def _curve(run: Finished, *, before: float) -> tuple[tuple[float, float], ...]:
    return tuple((round(before + seconds, 3), reached) for seconds, reached in run.curve)


def images_needed(work: Work) -> Outcome:
    """Test accuracy against training images of each class, frozen pre-trained and from scratch."""
    few, many, epochs = (
        work.number(name) for name in ("images_per_class", "most_images_per_class", "epochs")
    )
    if few > many:
        raise OptionError(f"images_per_class {few}: expected at most most_images_per_class, which is {many}")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    found = look(work, work.images(per_class=total_per_class(many)), network, depths=(0,), layers=True)
    twin = first_stages(random_twin(network, seed=work.seed), _SHALLOW_STAGES)
    steps = epochs * _steps(found.limited(many))
    counts = sorted({few, round((few * many) ** 0.5), many})
    parts = [found.limited(count) for count in counts]
    frozen = [
        frozen_model(part.at(part.stages), f"{count} images", layers="auto", seed=work.seed)
        for count, part in zip(counts, parts, strict=True)
    ]
    seconds = 0.8 * work.left() / len(parts)  # the same for each, so that what is cut short compares equals
    trained = [
        fit_stages(
            part.at(0),
            twin,
            config=scratch(max(1, round(steps / _steps(part))), seed=work.seed),
            ends=time.perf_counter() + seconds,
            validate=False,
        )
        for part in work.each("numbers of images", parts)
    ]
    if any(run.stopped for run in trained):
        work.notes.append(
            "a run from scratch was cut short to stay within the time limit: compare the seconds in the "
            "table before you compare the accuracies"
        )
    if trained[-1].accuracy < _LEARNED * 100 / found.classes:
        work.notes.append(
            "from scratch even the most images gave little more than guessing would: so short a training "
            "does not tell what more of them are worth"
        )
    low, high = spread_of(frozen[0].accuracy, found.count("test"))
    work.notes += [
        f"from scratch the first {_SHALLOW_STAGES} stages of the network train, which so few images can "
        f"teach more than all of them; every number of images has about {steps} steps of {BATCH} images, so "
        "that fewer images do not also mean less training",
        f"judged on {found.count('test')} test images: an accuracy of {frozen[0].accuracy:g} percent lies "
        f"between {low:g} and {high:g} with 95 percent confidence",
    ]
    table = Table(
        (
            "training images of each class, at most",
            "test accuracy pre-trained, percent",
            "test accuracy from scratch, percent",
            "seconds for the head",
            "seconds of training from scratch",
            "epochs from scratch",
        ),
        tuple(
            (
                count,
                model.accuracy,
                run.accuracy,
                round(model.seconds - found.seconds, 3),
                round(run.seconds, 3),
                run.epochs,
            )
            for count, model, run in zip(counts, frozen, trained, strict=True)
        ),
    )
    plot = table.plot(
        "line",
        "Test accuracy against the number of images",
        x="training images of each class",
        y="test accuracy, percent",
        series={"pre-trained, all frozen": 1, "from scratch": 2},
    )
    fields = {
        "few": counts[0],
        "many": counts[-1],
        "accuracy_pretrained_few": frozen[0].accuracy,
        "accuracy_pretrained_many": frozen[-1].accuracy,
        "accuracy_scratch_few": trained[0].accuracy,
        "accuracy_scratch_many": trained[-1].accuracy,
    }
    return Outcome(fields, table, (plot,))


def _steps(found: Look) -> int:
    """Steps of an epoch from scratch."""
    return -(-found.count("train") // BATCH)


def model_choice(work: Work) -> Outcome:
    """Four ways to start, side by side on the same few images."""
    per_class, size, epochs = (work.number(name) for name in ("images_per_class", "size", "epochs"))
    dataset = work.images(per_class=total_per_class(per_class))
    small = networks.load(work.text("backbone"), size=size)
    large = networks.load(work.text("large"), size=size)
    work.notes += [chosen.note for chosen in (small, large) if chosen.note]
    same = small.network.weights_hash == large.network.weights_hash and small.label == large.label
    models: list[Model] = []
    for name, chosen in (("small", small), ("large", large)):
        label = f"{name}, pre-trained ({chosen.label})"
        if models and same:
            models.append(replace(models[0], name=label))
            work.notes.append(f"both the small and the large network are {small.label}: trained once")
        else:
            seen = look(work, dataset, chosen.network).limited(per_class)
            models.append(frozen_model(seen, label, seed=work.seed))
        work.tell("models", len(models), 4)
    found = pixels_of(work, dataset)
    whole = random_twin(found.network, seed=work.seed)
    shallow = first_stages(whole, _SHALLOW_STAGES)
    for share, name, trainable in (
        (0.45, "small, from scratch", whole),
        (0.9, "shallower, from scratch", shallow),
    ):
        run = fit_stages(found, trainable, config=scratch(epochs, seed=work.seed), ends=work.part(share))
        models.append(trained_model(work, name, run, before=found.seconds, trainable=trainable))
        work.tell("models", len(models), 4)
    work.notes += [
        f"the shallower network is the first {_SHALLOW_STAGES} stages of the small one; from scratch both "
        f"train {epochs} epochs of {_steps(found)} steps, and longer might bring them further",
        f"the pre-trained ones took their seconds to read and pass over all {len(dataset.samples)} images, "
        "those held out too, and for the head",
    ]
    rows: list[tuple[Value, ...]] = [
        (each.name, each.accuracy, each.seconds, each.weights) for each in models
    ]
    plot = Plot(
        "dots",
        "Four ways to start",
        "seconds",
        "test accuracy, percent",
        tuple(Series(each.name, ((each.seconds, each.accuracy),)) for each in models),
    )
    if large.note and work.text("itself") == "yes" and work.left() > _ITSELF_SECONDS:
        rows += _itself(work.text("large"), size=networks.moderate_size(size), images=len(dataset.samples))
    fields: dict[str, Value] = {
        "images": found.count("train"),
        "large_name": large.label,
        "seconds_small": models[0].seconds,
        "seconds_large": models[1].seconds,
        "accuracy_small": models[0].accuracy,
        "accuracy_large": models[1].accuracy,
        "accuracy_scratch": models[2].accuracy,
        "accuracy_shallow": models[3].accuracy,
    }
    table = Table(("start", "test accuracy, percent", "seconds", "weights"), tuple(rows))
    return Outcome(fields, table, (plot,))


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
    label = (
        f"{name} itself at {size} px, with random weights: one pass over all {images} images, estimated "
        f"from {_FEW}"
    )
    yield label, None, round(seconds, 3), sum(weight.numel() for weight in module.parameters())
