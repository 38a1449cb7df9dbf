"""The smallest example of the lesson, run as a learner would: in a process of its own, and what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.dataset import Dataset
from headstart.errors import UserError
from headstart.lesson.engine.results import Outcome, Plot, Series, Table
from headstart.lesson.experiments.work import Work

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


def smallest_example(work: Work) -> Outcome:
    """The program's output and seconds, on a folder of images, from an empty cache."""
    dataset = work.images(per_class=work.number("images_per_class"))
    _write(dataset, work.folder / "photos")
    places = {"HEADSTART_HOME": str(work.folder / "home"), "HEADSTART_CACHE": str(work.folder / "cache")}
    work.tell("program", 0, 1)
    started = time.perf_counter()
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
            "the program did not end within the bound; run it on fewer images of each class"
        ) from None
    seconds = time.perf_counter() - started
    work.tell("program", 1, 1)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise UserError(f"the program failed: {said[-1][:300]}")
    shown = [*lines[:_SHOWN], *(["…"] if len(lines) > _SHOWN else [])]
    accuracy = round(100 * float(lines[0]), 2)
    fields = {
        "accuracy": accuracy,
        "seconds": round(seconds, 2),
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
    heading = ("images", "test accuracy, percent", "seconds")
    table = Table(heading, ((len(dataset.samples), accuracy, round(seconds, 2)),))
    return Outcome(fields, (printed,), table, tuple(work.notes))


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
