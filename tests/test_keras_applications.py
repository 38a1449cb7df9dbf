"""Keras's own applications train equally, and the dozen lines print the same distribution."""

import os
from typing import Any

import numpy as np
import pytest

from headstart.keras.cutting import cut_model
from headstart.keras.translation import translate
from keras_models import CLASSES, both_ways, images, keras, layers, subject

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and TensorFlow, not ours


# Keras's own applications

HEAVY = pytest.mark.skipif(not os.environ.get("HEADSTART_SLOW"), reason="set HEADSTART_SLOW=1 to run it")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("MobileNetV2", 32),
        ("MobileNetV3Small", 32),
        pytest.param("EfficientNetB0", 32, marks=HEAVY),
        ("ResNet50", 32),
        pytest.param("ResNet152", 32, marks=HEAVY),
        pytest.param("DenseNet121", 32, marks=HEAVY),
        pytest.param("InceptionV3", 75, marks=HEAVY),
        pytest.param("Xception", 71, marks=HEAVY),
        pytest.param("VGG16", 32, marks=HEAVY),
        pytest.param("NASNetMobile", 32, marks=HEAVY),
        pytest.param("ConvNeXtTiny", 32, marks=HEAVY),
    ],
)
def test_applications_of_keras_train_equally(name: str, side: int) -> None:
    x, y = images(24, side=side)

    def make() -> Any:
        keras.utils.set_random_seed(7)
        application = getattr(keras.applications, name)
        inner = application(weights=None, include_top=False, input_shape=(side, side, 3))
        enliven(inner, x)
        inner.trainable = False
        inputs = keras.Input((side, side, 3))
        features = layers.GlobalAveragePooling2D()(inner(inputs, training=False))
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(features))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    made = [make()]
    translate(cut_model(made[0]).prefix, [(-1, side, side, 3)])  # raises where a layer is unknown
    # EfficientNet's dropped connections end its prefix so early that "auto" would not cache.
    _, _, history = both_ways(
        lambda: made.pop() if made else make(), x, y, epochs=2, batch_size=8, cache=True
    )
    assert history.headstart.computed == 24


def enliven(model: Any, x: np.ndarray) -> None:
    """Give batch normalisations the statistics of ``x``: random weights alone let signals die or explode."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    for layer in norms:
        layer.momentum = 0.99


def test_the_dozen_lines_on_five_random_images_print_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (5, 32, 32, 3)).astype(np.float32)
    keras.utils.set_random_seed(0)
    inner = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    enliven(inner, x)
    inner.trainable = False
    pooled = layers.GlobalAveragePooling2D()(inner.output)
    model = keras.Model(inner.input, layers.Dense(10, activation="softmax", name="head")(pooled))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    printed: tuple[list[float], list[float]] = ([], [])
    for seed in range(4):
        kernel = rng.normal(0, 0.05, model.get_layer("head").kernel.shape)
        model.get_layer("head").set_weights([kernel, np.zeros(10)])
        said = model.predict(x, verbose=0).argmax(1)
        y = np.where(np.arange(5) < seed, said, (said + 1) % 10)  # as many right as the seed says
        for values, fit in ((printed[0], keras.Model.fit), (printed[1], subject.fit)):
            model.get_layer("head").set_weights([kernel, np.zeros(10)])
            keras.utils.set_random_seed(seed)
            extra = {"cache": True} if fit is subject.fit else {}
            values.append(fit(model, x, y, epochs=1, verbose=0, **extra).history["accuracy"][0])
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == 4
