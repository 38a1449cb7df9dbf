"""Small Keras models with frozen parts, and training them both ways, for the tests of the Keras room."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs headstart[keras]")

import headstart.keras as subject  # noqa: E402

ONNX_WRITER = {"tensorflow": "tf2onnx", "torch": "torch", "jax": "jax2onnx"}[keras.backend.backend()]
"""What Keras writes ONNX files with, on the backend that the tests run on (``make test-keras-backends``)."""

layers = keras.layers
SIDE, IMAGES, CLASSES = 16, 48, 3


def images(count: int = IMAGES, *, side: int = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.normal(0, 1, (count, side, side, 3)) + labels[:, None, None, None] * 0.3
    return pixels.astype(np.float32), labels


def base(*, side: int = SIDE) -> Any:
    """A small network with batch normalisation and a residual."""
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn1")(x)
    first = layers.ReLU(6.0, name="relu1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="conv2")(first)
    x = layers.BatchNormalization(name="bn2")(x)
    x = layers.Add(name="add")([first, x])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(12, 3, activation="relu", name="conv3")(x)
    return keras.Model(inputs, x, name="base")


def classifier(*, fine_tune: tuple[str, ...] = (), dropout: float = 0.0, optimizer: Any = "adam") -> Any:
    """A frozen `base` with a head, compiled; the same weights every time."""
    keras.utils.set_random_seed(7)
    inner = base()
    for layer in inner.layers:
        layer.trainable = layer.name in fine_tune
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(inner(inputs, training=False))
    x = layers.Dropout(dropout)(x)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(x))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def tiny(optimizer: Any = "adam") -> Any:
    """The smallest model with a frozen part: quick to compile."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(4, 3, strides=4, activation="relu", trainable=False)(inputs)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def both_ways(
    make: Callable[[], Any],
    *data: Any,
    tolerance: float = 1e-4,
    weights: float = 1e-3,
    cache: bool | str = "auto",
    runtime: str = "auto",
    **settings: Any,
) -> tuple[Any, Any, Any]:
    """Train through ``model.fit`` and `fit`; their histories must agree. Returns both, and ours."""
    settings = {"epochs": 3, "batch_size": 16, "verbose": 0, **settings}
    theirs, ours = make(), make()
    keras.utils.set_random_seed(1)
    expected = theirs.fit(*data, **settings)
    keras.utils.set_random_seed(1)
    found = subject.fit(ours, *data, cache=cache, runtime=runtime, **settings)
    assert found.headstart.cached, found.headstart.reason
    assert found.epoch == expected.epoch
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=tolerance, atol=1e-6, err_msg=name)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=weights)
    return ours, theirs, found
