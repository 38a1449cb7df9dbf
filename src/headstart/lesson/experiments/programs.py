"""The lesson's two programs, run as a learner would: what they print."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones import Backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset
from headstart.errors import InternalError, MissingExtra, UserError
from headstart.heads import fit_softmax
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import keras_program, networks
from headstart.lesson.experiments.context import SECONDS, Stopwatch, Work
from headstart.web.plots import Plot, Series, Table, Value

PROGRAM = """\
import headstart

classifier, run = headstart.fit("photos/")
print(run.accuracy["test"])
for prediction in classifier.predict("photos/"):
    print(prediction.label, prediction.path)
"""
"""As the mode *learn* shows it."""

_SHOWN = 8
"""Lines of the output that a page shows."""

_SIDE = keras_program.SIDE
"""Pixels of the challenge's little program."""

KERAS = "Keras"

_BATCH = 50


def smallest_example(work: Work) -> Outcome:
    """The program's output and seconds, on a folder of images, from an empty cache."""
    dataset = work.images(per_class=work.number("images_per_class"))
    _write(dataset, work.folder / "photos")
    places = {"HEADSTART_HOME": str(work.folder / "home"), "HEADSTART_CACHE": str(work.folder / "cache")}
    work.tell("program", 0, 1)
    watch = Stopwatch()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=work.folder,
            env=os.environ | places,
            capture_output=True,
            text=True,
            timeout=max(1.0, work.left()),
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            "the program did not end within the time limit; run it on fewer images of each class"
        ) from None
    seconds = watch.seconds()
    work.tell("program", 1, 1)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise UserError(f"the program failed: {said[-1][:300]}")
    shown = [*lines[:_SHOWN], *(["…"] if len(lines) > _SHOWN else [])]
    accuracy = round(100 * float(lines[0]), 2)
    fields: dict[str, Value] = {
        "conclusion": f"{len(dataset.samples)} images, {seconds.processor:.3g} processor seconds, right on "
        f"{accuracy:.3g} percent of images that it had not seen",
        "accuracy": accuracy,
        "seconds": round(seconds.processor, 2),
        "images": len(dataset.samples),
        "predictions": len(lines) - 1,
    }
    work.notes.append(
        "the first line is the accuracy on test images; the seconds are those of the whole process, from an "
        "empty cache; labels are asked for all images, those it was trained on too"
    )
    printed = Plot(
        "text",
        "What the program printed",
        "line",
        "",
        (Series("printed", tuple((line, float(number)) for number, line in enumerate(shown, 1))),),
    )
    table = Table(
        ("images", "test accuracy, percent", *SECONDS), ((len(dataset.samples), accuracy, *seconds.row),)
    )
    return Outcome(fields, table, (printed,))


def _write(dataset: Dataset, folder: Path) -> None:
    """The images as a folder with one folder per class."""
    for number, sample in enumerate(dataset.samples):
        place = folder / dataset.classes[sample.label]
        place.mkdir(parents=True, exist_ok=True)
        content = sample.source.read()
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(place / f"{number:04}.png")
        else:
            (place / f"{number:04}{Path(sample.name).suffix or '.jpg'}").write_bytes(content)


def five_images_one_epoch(work: Work) -> Outcome:
    """The challenge's little program, run many times: how often each value was printed."""
    wanted, images, classes = (work.number(name) for name in ("runs", "images", "classes"))
    label, values = _in_keras(work, wanted) if work.text("face") == KERAS else _in_headstart(work, wanted)
    printed: Counter[str] = Counter()
    for done, value in enumerate(values, 1):
        printed[value] += 1
        work.tell("runs", done, wanted)
    runs = printed.total()
    if runs < wanted:
        work.tell("runs", runs, wanted)  # which says so where the limit ended it
        raise InternalError(f"the challenge's program ran {runs} of {wanted} times within the time limit")
    likeliest, times = printed.most_common(1)[0]
    possible = [f"{right / images:.2f}" for right in range(images + 1)]
    table = Table(
        ("printed", "runs", "share, percent", "pure guessing, percent"),
        tuple(
            (value, printed[value], round(100 * printed[value] / runs, 1), round(100 * by_chance, 1))
            for value, by_chance in zip(possible, _chances(images, classes), strict=True)
        ),
    )
    work.notes.append(
        f"the frozen network is {label}; guessing one of {classes} classes for each of {images} images "
        "would give the last column"
    )
    plot = table.plot(
        "bars",
        "What the program printed",
        x="printed accuracy",
        y="share of the runs, percent",
        series={"measured": 2, "pure guessing": 3},
    )
    fields: dict[str, Value] = {
        "conclusion": f"{likeliest} was printed most often, in {100 * times / runs:.3g} percent of the runs",
        "runs": runs,
        "likeliest": likeliest,
        "likeliest_share": round(100 * times / runs, 1),
        "distinct": len(printed),
    }
    return Outcome(fields, table, (plot,))


def _in_headstart(work: Work, runs: int) -> tuple[str, Iterator[str]]:
    """The network's label, and what each run of Headstart's face prints."""
    chosen = networks.any_weights(work.text("backbone"), size=_SIDE)
    if chosen.note:
        work.notes.append(chosen.note)
    return chosen.label, _printed(chosen.network, runs, work)


def _printed(network: Backbone, runs: int, work: Work) -> Iterator[str]:
    random, images = np.random.default_rng(work.seed), work.number("images")
    frozen = select().compile(
        network, depth=len(network.stages), layers=network.feature_layers()[-1:], batch_size=_BATCH
    )
    side = network.preprocess.size
    for start in range(0, runs, _BATCH // images):
        count = min(_BATCH // images, runs - start)
        pixels = random.integers(0, 256, (count * images, side, side, 3), dtype=np.uint8)
        features = next(outputs for _, outputs in frozen.stream([(0, pixels)]))[
            network.feature_layers()[-1].name
        ]
        for number in range(count):
            yield _program(features[number * images : (number + 1) * images], random, work.number("classes"))


def _in_keras(work: Work, runs: int) -> tuple[str, Iterator[str]]:
    """The network's label, and what each run of the Keras face prints; see `keras_program`."""
    if find_spec("keras") is None:
        raise MissingExtra("the Keras face of the program", extra="keras")
    numbers = (runs, work.seed, work.number("images"), work.number("classes"))
    command = [sys.executable, "-m", keras_program.__name__, *map(str, numbers)]
    errors = tempfile.TemporaryFile(mode="w+", dir=work.folder)  # noqa: SIM115 (closed with the lines)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | quiet
    )
    timer = threading.Timer(max(0.0, work.left()), process.kill)
    timer.start()
    lines = _lines(process, timer, errors)
    return next(lines, "MobileNetV2 in Keras"), lines


def _lines(process: subprocess.Popen[str], timer: threading.Timer, errors: IO[str]) -> Iterator[str]:
    """What a process prints, line by line; it does not outlive its reader."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield line.strip()
        if process.wait() > 0:  # killed by the timer is below zero, and no failure
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no reason given"]
            raise UserError(f"the Keras face of the program failed: {said[-1][:300]}")
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        errors.close()


def _program(features: NDArray[np.float32], random: np.random.Generator, classes: int) -> str:
    """What one run of the program prints."""
    labels = random.integers(0, classes, len(features))
    seed = int(random.integers(2**31))
    fit = fit_softmax(features, labels, classes=classes, epochs=1, batch_size=len(features), seed=seed)
    return f"{fit.history[0]['accuracy']:.2f}"


def _chances(images: int, classes: int) -> list[float]:
    """Probability of every number of right guesses, from none, each right with one in so many classes."""
    share = 1 / classes
    return [
        math.comb(images, right) * share**right * (1 - share) ** (images - right)
        for right in range(images + 1)
    ]
