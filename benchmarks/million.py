"""A million images of 1,280 features through the ridge head, in constant memory.

    python benchmarks/million.py [--images 1000000] [--classes 10]

The features are drawn afresh, and alike, on every walk: nothing holds them all. First a small stream is
fitted and compared with the same features in memory; then streams of growing length are timed, each in a
process of its own, leave-one-out and calibration included. The largest memory any of them took must stay
below 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from headstart.heads import Batches, fit_ridge

WIDTH = 1280
BATCH = 8192
MEMORY_LIMIT = 1.5e9  # bytes
# Deviations between a class's mean and the origin, per dimension: makes classes overlap.
CLASS_DISTANCE = 0.06


def features(images: int, *, classes: int, stream: int = 1) -> Batches:
    """A walk over batches of features whose classes overlap; the same on every walk."""
    centres = CLASS_DISTANCE * np.random.default_rng(0).standard_normal((classes, WIDTH), dtype=np.float32)

    def walk() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, start in enumerate(range(0, images, BATCH)):
            random = np.random.default_rng((stream, number))
            labels = random.integers(0, classes, min(BATCH, images - start))
            yield random.standard_normal((len(labels), WIDTH), dtype=np.float32) + centres[labels], labels

    return walk


def assert_streaming_is_exact(classes: int) -> None:
    """The stream's head equals the one fitted on the same features in memory."""
    walk = features(4000, classes=classes)
    x, y = (np.concatenate(parts) for parts in zip(*walk(), strict=True))
    streamed, whole = fit_ridge(walk, classes=classes), fit_ridge((x, y), classes=classes)
    assert streamed.penalty == whole.penalty and streamed.loo_accuracy == whole.loo_accuracy
    np.testing.assert_allclose(streamed.head.logits(x), whole.head.logits(x), atol=1e-4)


def fit_one(images: int, classes: int) -> dict[str, float]:
    """Fits a stream in this process; seconds, bytes, left-out accuracy."""
    walk = features(images, classes=classes)
    started = time.perf_counter()
    for _ in walk():
        pass
    generating = 2 * (time.perf_counter() - started)
    started = time.perf_counter()
    fit = fit_ridge(walk, classes=classes)
    seconds = time.perf_counter() - started
    ((x, y),) = features(BATCH, classes=classes, stream=2)()
    accuracy = (fit.head.logits(x).argmax(axis=1) == y).mean()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": images,
        "seconds": seconds,
        "generating": generating,
        "bytes": kilobytes * 1024,
        "loo_accuracy": fit.loo_accuracy,
        "unseen_accuracy": float(accuracy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--one", action="store_true", help="only this number of images, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(fit_one(options.images, options.classes)))
        return
    assert_streaming_is_exact(options.classes)
    print("streamed == in memory: yes")
    print(
        f"{'images':>10} {'seconds':>8} {'of which drawing':>17} {'peak MB':>8} {'left out':>9} {'unseen':>7}"
    )
    rows = []
    for images in (options.images // 100, options.images // 10, options.images):
        command = [sys.executable, __file__, "--one", f"--images={images}", f"--classes={options.classes}"]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        print(
            f"{images:>10,} {row['seconds']:>8.1f} {row['generating']:>17.1f} {row['bytes'] / 1e6:>8.0f} "
            f"{row['loo_accuracy']:>9.4f} {row['unseen_accuracy']:>7.4f}",
            flush=True,
        )
    peak = max(row["bytes"] for row in rows)
    assert peak < MEMORY_LIMIT, f"peak memory {peak / 1e9:.2f} GB is not below {MEMORY_LIMIT / 1e9:.1f} GB"
    print(f"peak memory {peak / 1e6:.0f} MB < {MEMORY_LIMIT / 1e6:.0f} MB: yes")


if __name__ == "__main__":
    main()
