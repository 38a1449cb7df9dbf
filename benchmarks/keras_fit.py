"""`headstart.keras.fit` against ``model.fit``: the same losses first, then how many times as fast.

    python benchmarks/keras_fit.py                 MobileNetV2, 96 x 96, 2,000 images, 10 epochs
    python benchmarks/keras_fit.py --images 200 --epochs 3     a quick look

Weights are random and made lively: every batch normalisation gets the statistics of a batch, so features
differ from image to image as those of a trained network do. Both sides run in one process, one after the
other, from the same seed; the first call of ours starts with an empty cache.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp(prefix="headstart-benchmark-")

import keras

import headstart.keras

SIDE, CLASSES, BATCH = 96, 10, 32
LAST_TWO_BLOCKS = ("block_15", "block_16", "Conv_1")
LOSS_TOLERANCE = 1e-4
"""Relative, per epoch: float32 sums in another order."""


def main() -> None:
    """Print three ratios, after asserting equal losses."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--images", type=int, default=2000)
    arguments.add_argument("--epochs", type=int, default=10)
    options = arguments.parse_args()
    x, y = images(options.images)
    for title, fine_tuned in (("all frozen", ()), ("last two blocks fine-tuned", LAST_TWO_BLOCKS)):
        theirs, ours = model(fine_tuned), model(fine_tuned)
        print(headstart.keras.prefix(ours, epochs=options.epochs))
        expected, slow = timed(theirs.fit, x, y, options.epochs)
        found, fast = timed(lambda *a, m=ours, **k: headstart.keras.fit(m, *a, **k), x, y, options.epochs)
        assert found.headstart.cached, found.headstart.reason
        difference = worst(found, expected)
        print(f"{title}: losses {expected.history['loss'][0]:.6f} .. {expected.history['loss'][-1]:.6f}")
        print(f"{title}: losses differ by at most {difference:.2g}, relative ({found.headstart.runtime})")
        assert difference < LOSS_TOLERANCE, "the losses are not equal"
        _, again = timed(lambda *a, m=ours, **k: headstart.keras.fit(m, *a, **k), x, y, options.epochs)
        print(f"{title}: model.fit {slow:.1f} s, first call {fast:.1f} s, second call {again:.2f} s")
        print(f"{title}: first call {slow / fast:.1f} times as fast, second {slow / again:.1f} times\n")


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 images in -1..1 with a little of their class in them, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count)
    shades = rng.normal(0, 0.3, (CLASSES, 1, 1, 3))
    pixels = rng.normal(0, 0.4, (count, SIDE, SIDE, 3)) + shades[labels]
    return pixels.clip(-1, 1).astype(np.float32), labels


def model(fine_tuned: tuple[str, ...]) -> Any:
    """MobileNetV2 with a softmax head, compiled with Adam; the same weights every time."""
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    enliven(base)
    for layer in base.layers:
        layer.trainable = layer.name.startswith(fine_tuned) if fine_tuned else False
    features = keras.layers.GlobalAveragePooling2D()(base.output)
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(features)
    whole = keras.Model(base.input, outputs)
    whole.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return whole


def enliven(base: Any) -> None:
    """Give batch normalisations the statistics of 64 images, so that random weights keep signals alive."""
    norms = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    base(images(64)[0], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def timed(fit: Callable[..., Any], x: np.ndarray, y: np.ndarray, epochs: int) -> tuple[Any, float]:
    """The history, and wall-clock seconds."""
    keras.utils.set_random_seed(1)
    start = time.perf_counter()
    history = fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return history, time.perf_counter() - start


def worst(found: Any, expected: Any) -> float:
    """The largest relative difference of a loss."""
    ours, theirs = np.array(found.history["loss"]), np.array(expected.history["loss"])
    return float(np.abs(ours / theirs - 1).max())


if __name__ == "__main__":
    main()
