"""Experiments on single steps: the gradient's way, and images that were prepared wrongly."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from headstart.backbones import load_backbone
from headstart.heads import fit_ridge
from headstart.lesson.engine.results import Outcome, Plot, Series, Table
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.data import DIGITS
from headstart.lesson.experiments.looking import accuracy_of, look, spread_of, total_per_class
from headstart.lesson.experiments.stages import Images
from headstart.lesson.experiments.work import Work
from headstart.training.finetune import InputTransform, normalise_pixels, run_tail


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
            work.notes.append(f"ended after {number} of {rounds} rounds to keep the bound")
            break
    median = {name: round(float(np.median(some)), 3) for name, some in times.items()}
    forward, whole = median["forward pass alone"], median["nothing frozen"]
    fields = {
        "forward": forward,
        "step": whole,
        "backward_ratio": round((whole - forward) / forward, 2),
        "first_frozen": median["first half frozen"],
        "last_frozen": median["last half frozen"],
    }
    work.notes.append(
        f"medians of {len(times['nothing frozen'])} steps of {batch} images at {size} px, on one core and of "
        f"its own time; {half} of {len(stages)} stages are a half; normalisation keeps its statistics in all"
    )
    shares = [(name, value, round(100 * value / whole, 1)) for name, value in median.items()]
    plot = Plot(
        "bars",
        "One training step",
        "what is frozen",
        "milliseconds",
        (Series("milliseconds", tuple((name, value) for name, value, _ in shares)),),
    )
    heading = ("step", "milliseconds", "of a step with nothing frozen, percent")
    return Outcome(fields, (plot,), Table(heading, tuple(shares)), tuple(work.notes))


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


def wrong_preparation(work: Work) -> Outcome:
    """One trained classifier, asked about the same test images, prepared as it expects and in other ways."""
    per_class = work.number("images_per_class")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(per_class))
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    module, right = network.module().split(0)[1], network.preprocess
    expected = normalise_pixels(right.mean, right.std)
    head = fit_ridge(
        (run_tail(module, found.activations("train"), input_transform=expected), found.labels("train")),
        classes=found.classes,
    ).head
    tests, labels = found.activations("test"), found.labels("test")
    raw = normalise_pixels((0.0, 0.0, 0.0), (1 / 255,) * 3)
    ways: dict[str, tuple[Images, InputTransform]] = {
        "as the weights expect": (tests, expected),
        "colours in reverse order": (tests[..., ::-1], expected),
        "at a quarter of the resolution": (_coarse(tests), expected),
        "values from 0 to 255, neither shifted nor scaled": (tests, raw),
    }
    rows = []
    for number, (name, (pixels, transform)) in enumerate(ways.items(), 1):
        features = run_tail(module, np.ascontiguousarray(pixels), input_transform=transform)
        rows.append((name, accuracy_of(head.logits(features), labels)))
        work.tell("preparations", number, len(ways))
    accuracies = [accuracy for _, accuracy in rows]
    low, high = spread_of(accuracies[0], len(labels))
    work.notes.append(
        f"one head, trained on well prepared images; on {len(labels)} test images its {accuracies[0]:g} "
        f"percent may be anything from {low:g} to {high:g} with 95 percent confidence"
    )
    if work.data == DIGITS:
        work.notes.append(
            "digits have 8 pixels a side and are enlarged, so a quarter of the resolution mostly makes them "
            "blocky; photographs lose more"
        )
    if np.array_equal(tests, tests[..., ::-1]):
        work.notes.append("these images are grey, so the order of their colours changes nothing")
    names = ("accuracy_right", "accuracy_reversed", "accuracy_coarse", "accuracy_raw")
    fields = dict(zip(names, accuracies, strict=True))
    plot = Plot(
        "bars",
        "The same classifier, the same test images",
        "how they were prepared",
        "test accuracy, percent",
        (Series("test accuracy", tuple(rows)),),
    )
    table = Table(("prepared", "test accuracy, percent"), tuple(rows))
    return Outcome(fields, (plot,), table, tuple(work.notes))


def _coarse(pixels: Images) -> Images:
    """Every fourth pixel, repeated: what enlarging a thumbnail gives."""
    rows = pixels[:, ::4, ::4]
    enlarged: Images = rows.repeat(4, axis=1).repeat(4, axis=2)[:, : pixels.shape[1], : pixels.shape[2]]
    return enlarged
