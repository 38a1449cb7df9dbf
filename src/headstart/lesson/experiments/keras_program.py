"""The challenge's little program in Keras, run many times: `python -m … RUNS SEED IMAGES CLASSES`.

In a process of its own: TensorFlow and PyTorch do not share one gladly, and a server should not carry either.
The first line on standard output is the network's label, every further line what one run printed.

Building the model two hundred times would take many minutes and change nothing, so it is built once, and
before each run whatever training touched is set back: the head drawn anew, the optimizer without a memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 96

WEIGHTS = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{SIDE}_no_top.h5"
"""What Keras names the file that `weights="imagenet"` downloads."""


def main(runs: int, seed: int, count: int, classes: int) -> None:
    """Prints the label, then one line per run on that many images of so many classes."""
    import keras

    keras.utils.set_random_seed(seed)
    here = _downloaded()
    print(f"MobileNetV2 in Keras with {'ImageNet' if here else 'random'} weights", flush=True)
    model = program_model(keras, weights="imagenet" if here else None, classes=classes)
    for _ in range(runs):
        start_again(model)
        images = np.random.rand(count, SIDE, SIDE, 3).astype("float32")
        labels = np.random.randint(0, classes, size=count)
        history = model.fit(images, labels, epochs=1, verbose=0)
        print(f"{history.history['accuracy'][0]:.2f}", flush=True)


def program_model(keras: Any, *, weights: str | None, classes: int) -> Any:
    """The program's model, compiled: a frozen MobileNetV2, pooling, a softmax over the classes."""
    layers = keras.layers
    base = keras.applications.MobileNetV2(input_shape=(SIDE, SIDE, 3), include_top=False, weights=weights)
    base.trainable = False
    head = layers.Dense(classes, activation="softmax")
    model = keras.Sequential([base, layers.GlobalAveragePooling2D(), head])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def start_again(model: Any) -> None:
    """As if it had just been built: a new random head, and an optimizer that has not taken a step."""
    head = model.layers[-1]
    if not head.built:
        return
    head.kernel.assign(head.kernel_initializer(head.kernel.shape, dtype=head.kernel.dtype))
    head.bias.assign(head.bias_initializer(head.bias.shape, dtype=head.bias.dtype))
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(variable * 0)


def _downloaded() -> bool:
    """Whether Keras has MobileNetV2's weights on this machine: an experiment downloads nothing."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return (home / "models" / WEIGHTS).is_file()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
