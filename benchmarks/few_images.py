"""What pre-training is worth with few images: frozen against the same network from random weights.

    python benchmarks/few_images.py DATA/flowers [--draws 3] [--backbone builtin]

Twenty training images of each class are drawn from `train/`; all of `val/` judges. From random weights every
stage trains, with each of several numbers of epochs and learning rates; the best on the same validation
images counts, which favours that side. Seconds are whole fits, features computed afresh. Then the digits of
scikit-learn: 300 training images, the default head, judged by all others. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import digits

EPOCHS = (20, 60, 120)
LEARNING_RATES = (1e-3, 3e-3)
PER_CLASS = 20
DIGITS = 300  # training images


@dataclass(frozen=True)
class Outcome:
    """One fit: validation accuracy from 0 to 1, seconds of the whole call, what it was."""

    accuracy: float
    seconds: float
    what: str


def draw(source: Path, target: Path, *, per_class: int, seed: int) -> Path:
    """A data set of `per_class` training images of each class and all validation images, as links."""
    random = np.random.default_rng(seed)
    for folder in sorted((source / "train").iterdir()):
        files = sorted(folder.iterdir())
        place = target / "train" / folder.name
        place.mkdir(parents=True)
        for i in random.choice(len(files), per_class, replace=False):
            (place / files[i].name).symlink_to(files[i].resolve())
    (target / "val").symlink_to((source / "val").resolve())
    return target


def timed(dataset: Path, *, out: Path, what: str, **options: object) -> Outcome:
    """Fit with nothing cached."""
    import headstart

    os.environ["HEADSTART_CACHE"] = str(out / "cache")
    started = time.perf_counter()
    _, run = headstart.fit(dataset, test=0, out=out / "run", **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    accuracy = run.evaluation["validation"]["accuracy"]
    return Outcome(accuracy, seconds, what)


def flowers(source: Path, *, backbone: str, draws: int, size: int | None) -> None:
    """Frozen against scratch on a few images per class."""
    frozen, scratch = [], []
    print("| draw | frozen | seconds | best from scratch | seconds | points | ratio of seconds |")
    print("|--:|--:|--:|---|--:|--:|--:|")
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            dataset = draw(source, root / "data", per_class=PER_CLASS, seed=seed)
            timed(dataset, out=root / "warm", what="warm up", backbone=backbone, size=size)
            ours = timed(dataset, out=root / "frozen", what="frozen", backbone=backbone, size=size)
            theirs = max(
                (
                    timed(
                        dataset,
                        out=root / f"scratch-{epochs}-{rate}",
                        what=f"{epochs} epochs at {rate}",
                        backbone=backbone,
                        size=size,
                        scratch=True,
                        epochs=epochs,
                        learning_rate=rate,
                    )
                    for epochs, rate in product(EPOCHS, LEARNING_RATES)
                ),
                key=lambda outcome: outcome.accuracy,
            )
        frozen.append(ours)
        scratch.append(theirs)
        print(
            f"| {seed} | {ours.accuracy:.1%} | {ours.seconds:.2f} | {theirs.accuracy:.1%} ({theirs.what}) "
            f"| {theirs.seconds:.1f} | {100 * (ours.accuracy - theirs.accuracy):+.1f} "
            f"| {theirs.seconds / ours.seconds:.0f} |",
            flush=True,
        )
    gain = 100 * (mean(o.accuracy for o in frozen) - mean(o.accuracy for o in scratch))
    ratio = mean(o.seconds for o in scratch) / mean(o.seconds for o in frozen)
    print(f"\nmean: {gain:+.1f} points (target +20), {ratio:.0f} times less time (target 10)\n")


def scans(*, backbone: str, draws: int, size: int | None) -> None:
    """Digits from 300 training images, judged by all others; the default head chooses its layers."""
    accuracies = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        digits.write(root / "all")
        for seed in range(draws):
            files = sorted((root / "all").glob("*/*.png"))
            chosen = np.random.default_rng(seed).permutation(len(files))
            for rank, i in enumerate(chosen):
                side = "train" if rank < DIGITS else "val"
                target = root / f"draw{seed}" / side / files[i].parent.name
                target.mkdir(parents=True, exist_ok=True)
                (target / files[i].name).symlink_to(files[i])
            outcome = timed(
                root / f"draw{seed}", out=root / "fit", what="digits", backbone=backbone, size=size
            )
            accuracies.append(outcome.accuracy)
            print(f"digits, {DIGITS} training images, draw {seed}: {outcome.accuracy:.1%}", flush=True)
    print(f"mean: {mean(accuracies):.1%} (target 97 %)")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", choices=("flowers", "digits"))
    options = parser.parse_args()
    if options.only != "digits":
        flowers(options.folder, backbone=options.backbone, draws=options.draws, size=options.size)
    if options.only != "flowers":
        scans(backbone=options.backbone, draws=options.draws, size=options.size)


if __name__ == "__main__":
    main()
