"""The printed accuracy of the dozen lines on five random images: the same distribution both ways?

    python benchmarks/keras_distribution.py                 200 runs of MobileNetV2, 96 x 96
    python benchmarks/keras_distribution.py --runs 20       a quick look

MobileNetV2, frozen, pooling, ten-way softmax, Adam, five random images, one epoch. Every run draws new random
labels and a new random head; both ways get the same ones, and the same seed, so each value must be equal.
Then ours runs on with other seeds, so that two independent series can be compared as distributions are.
The model is built once and its head drawn anew, which gives the same program and saves 400 constructions.
"""

import argparse
import os
import tempfile
from collections import Counter
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp(prefix="headstart-benchmark-")

import keras
from scipy.stats import chi2_contingency

import headstart.keras

SIDE, CLASSES, IMAGES = 96, 10, 5
SIGNIFICANT = 0.01
"""Below this probability of the counts, the distributions would be called different."""


def main() -> None:
    """Assert equality run by run, then compare the counts of two independent series."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--runs", type=int, default=200)
    runs = arguments.parse_args().runs
    x = np.random.default_rng(0).uniform(-1, 1, (IMAGES, SIDE, SIDE, 3)).astype(np.float32)
    model = build()
    theirs = [printed(model, x, seed=seed, fit=keras.Model.fit) for seed in range(runs)]
    ours = [printed(model, x, seed=seed, fit=cached) for seed in range(runs)]
    equal = sum(one == other for one, other in zip(theirs, ours, strict=True))
    print(f"run by run, same seed: {equal} of {runs} printed accuracies are equal")
    assert equal == runs, "a printed accuracy differs"
    others = [printed(model, x, seed=seed, fit=cached) for seed in range(runs, 2 * runs)]
    show("model.fit", theirs)
    show("headstart.keras.fit, same seeds", ours)
    show("headstart.keras.fit, other seeds", others)
    values = sorted({*theirs, *others})
    table = [[series.count(value) for value in values] for series in (theirs, others)]
    found = chi2_contingency(table)
    print(f"model.fit against other seeds of ours: chi-squared {found.statistic:.2f}, p = {found.pvalue:.3f}")
    assert found.pvalue > SIGNIFICANT, "the distributions differ"


def build() -> Any:
    """The dozen lines, with random weights."""
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    for layer in base.layers:
        layer.trainable = False
    features = keras.layers.GlobalAveragePooling2D()(base.output)
    outputs = keras.layers.Dense(CLASSES, activation="softmax", name="head")(features)
    model = keras.Model(base.input, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def printed(model: Any, x: np.ndarray, *, seed: int, fit: Any) -> float:
    """What the program prints, with labels and a head drawn from ``seed``."""
    labels = np.random.default_rng(seed).integers(0, CLASSES, IMAGES)
    keras.utils.set_random_seed(seed)
    head = model.get_layer("head")
    head.kernel.assign(head.kernel_initializer.clone()(head.kernel.shape))
    head.bias.assign(np.zeros(CLASSES))
    for variable in model.optimizer.variables:
        if variable is not model.optimizer.learning_rate:
            variable.assign(np.zeros(variable.shape))
    history = fit(model, x, labels, epochs=1, verbose=0)
    return float(history.history["accuracy"][0])


def cached(model: Any, *arguments: Any, **named: Any) -> Any:
    """`headstart.keras.fit`, told to cache although one epoch reuses nothing."""
    history = headstart.keras.fit(model, *arguments, cache=True, **named)
    assert history.headstart.cached, history.headstart.reason
    return history


def show(title: str, values: list[float]) -> None:
    """One line: how often each accuracy was printed."""
    counts = ", ".join(f"{value:.1f} {count} times" for value, count in sorted(Counter(values).items()))
    print(f"{title:<34} {counts}")


if __name__ == "__main__":
    main()
