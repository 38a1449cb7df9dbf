"""The dozen lines of transfer learning in Keras, as they stand and with one line changed.

    python examples/keras_dozen_lines.py                        random weights, random images
    python examples/keras_dozen_lines.py --weights imagenet     Keras fetches its weights, or has them
    python examples/keras_dozen_lines.py --weights FILE         yours, of MobileNetV2 without its top
    python examples/keras_dozen_lines.py --images 5 --epochs 1  the smallest version

Prints the accuracy after each epoch and the time, both ways, and the second time, when the cache is filled.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import headstart.keras

CLASSES = 5

# %% What to run
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
arguments.add_argument("--weights", metavar="imagenet|FILE", default=None)
arguments.add_argument("--images", type=int, default=200)
arguments.add_argument("--epochs", type=int, default=5)
options = arguments.parse_args()

# %% Some images. Put your own here: x is float32 [N, 96, 96, 3] in -1..1, y the labels.
random = np.random.default_rng(0)
y = random.integers(0, CLASSES, options.images)
x = (random.normal(0, 0.5, (options.images, 96, 96, 3)) + y[:, None, None, None] / 4).astype("float32")


# %% The dozen lines
def build() -> keras.Model:
    """A frozen MobileNetV2 with a softmax layer."""
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(weights=options.weights, include_top=False, input_shape=(96, 96, 3))
    base.trainable = False
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(pooled)
    model = keras.Model(base.input, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def show(title: str, history: keras.callbacks.History, seconds: float) -> None:
    """One line."""
    accuracies = ", ".join(f"{value:.3f}" for value in history.history["accuracy"])
    print(f"{title:<40} accuracy {accuracies}; {seconds:.2f} s")


# %% As they stand
model = build()
start = time.perf_counter()
history = model.fit(x, y, epochs=options.epochs, verbose=0)
show("model.fit(x, y, ...)", history, time.perf_counter() - start)

# %% With one line changed
model = build()
print(headstart.keras.prefix(model, epochs=options.epochs))
for title in ("headstart.keras.fit(model, x, y, ...)", "the same again, features cached"):
    model = build()
    start = time.perf_counter()
    # cache=True, because for a single epoch it would rightly say that there is nothing to reuse
    history = headstart.keras.fit(model, x, y, epochs=options.epochs, verbose=0, cache=True)
    show(title, history, time.perf_counter() - start)
