"""What Keras does with a BatchNorm layer that is not to train, measured: `python -m … SEED`.

In a process of its own, as Keras keeps the backend that it began with. Standard output ends in a line of
JSON: the largest change of a moving statistic while the rest of the model trained, by `trainable`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

IMAGES, SIDE, BATCH = 32, 16, 4


def main(seed: int) -> None:
    """Prints the drift of a frozen and of a trained layer's statistics."""
    import keras

    keras.utils.set_random_seed(seed)
    print(json.dumps({str(trainable): drift(keras, trainable=trainable) for trainable in (False, True)}))


def drift(keras: Any, *, trainable: bool) -> float:
    """The largest change of a moving statistic in one epoch of `fit`."""
    layers = keras.layers
    layer = layers.BatchNormalization()
    layer.trainable = trainable
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Conv2D(8, 3), layer, layers.Flatten(), layers.Dense(2)]
    )
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    statistics = (layer.moving_mean, layer.moving_variance)
    before = [np.array(keras.ops.convert_to_numpy(each)) for each in statistics]
    random = np.random.default_rng(0)
    images = random.random((IMAGES, SIDE, SIDE, 3), dtype=np.float32)
    model.fit(images, random.integers(0, 2, IMAGES), batch_size=BATCH, epochs=1, verbose=0)
    after = [keras.ops.convert_to_numpy(each) for each in statistics]
    return max(float(np.abs(new - old).max()) for new, old in zip(after, before, strict=True))


if __name__ == "__main__":
    main(int(sys.argv[1]))
