"""Keras's own applications: do the losses of `headstart.keras.fit` equal those of ``model.fit``?

    python benchmarks/keras_applications.py [NAME ...]      all eleven, or some of them

Random weights, the smallest images that each takes, 24 of them, two epochs of Adam, everything frozen but a
softmax layer. Prints a Markdown table: what computed the features, the largest relative difference of a loss.
"""

import os
import sys
import tempfile
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp(prefix="headstart-benchmark-")

import keras

import headstart.keras

SMALLEST = {
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "ResNet50": 32,
    "ResNet152": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "Xception": 71,
    "VGG16": 32,
    "NASNetMobile": 32,
    "ConvNeXtTiny": 32,
}
"""Pixels a side."""

CLASSES, IMAGES = 3, 24
LOSS_TOLERANCE = 1e-4
"""Relative, per epoch: float32 sums in another order."""


def main() -> None:
    """One row per application; fails if a loss differs."""
    print(f"| keras {keras.__version__} on {keras.backend.backend()} | cached | by | losses differ by |")
    print("|---|--:|---|--:|", flush=True)
    for name in sys.argv[1:] or SMALLEST:
        x, y = images(SMALLEST[name])
        theirs, ours = model(name, x), model(name, x)
        cut = headstart.keras.prefix(ours, epochs=2)
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "verbose": 0}
        keras.utils.set_random_seed(1)
        expected = theirs.fit(x, y, **settings)
        keras.utils.set_random_seed(1)
        found = headstart.keras.fit(ours, x, y, cache=True, **settings)
        assert found.headstart.cached, found.headstart.reason
        losses, reference = (np.array(history.history["loss"]) for history in (found, expected))
        difference = float(np.abs(losses / reference - 1).max())
        runtime = found.headstart.runtime.split()[0]
        print(f"| {name} | {cut.layers[0]} of {cut.layers[1]} | {runtime} | {difference:.1g} |", flush=True)
        assert difference < LOSS_TOLERANCE, "the losses are not equal"
        keras.utils.clear_session()


def images(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a little of the class in it, and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    pixels = rng.normal(0, 1, (IMAGES, side, side, 3)) + labels[:, None, None, None] * 0.3
    return pixels.astype(np.float32), labels


def model(name: str, x: np.ndarray) -> Any:
    """An application with a softmax layer; the same weights every time."""
    keras.utils.set_random_seed(7)
    application = getattr(keras.applications, name)
    base = application(weights=None, include_top=False, input_shape=x.shape[1:])
    norms = [layer for layer in base._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:  # the statistics of x, because random weights alone let signals die or explode
        layer.momentum = 0.0
    base(x, training=True)
    for layer in norms:
        layer.momentum = 0.99
    base.trainable = False
    inputs = keras.Input(x.shape[1:])
    features = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
    whole = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(features))
    whole.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return whole


if __name__ == "__main__":
    main()
