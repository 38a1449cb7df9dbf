"""Times a few training steps on this machine."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from headstart.backbones import Backbone

Clock = Callable[[], float]

TRAINING_STEPS = 4
"""Run by `time_training` at most; the first pays for warming up and does not count."""


def time_training(
    backbone: "Backbone",
    *,
    depth: int,
    classes: int,
    batch_size: int,
    most: float = math.inf,
    clock: Clock = time.perf_counter,
) -> tuple[float, float]:
    """Seconds to get the fine-tuned stages ready and through a first step; seconds per image of later steps.

    The activations are noise: how long a step takes does not depend on what is in them. The very loop that
    will train them is timed. It is left after the second step where that makes more than ``most`` seconds in
    all, which a busy machine can.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    begun = clock()
    module = backbone.module()
    from headstart.heads import LinearHead
    from headstart.training.finetune import FineTuneConfig, fine_tune

    trainable = module.after(depth)
    size = backbone.preprocess.size
    shape = backbone.stages[depth - 1].shape if depth else (3, size, size)
    noise = _Noise(((TRAINING_STEPS + 1) * batch_size, *shape), classes)
    head = LinearHead(
        "ridge", np.zeros((backbone.dimensions, classes), np.float32), np.zeros(classes, np.float32)
    )
    ends: list[float] = []

    def stop() -> bool:
        ends.append(clock())
        return len(ends) >= TRAINING_STEPS or (len(ends) > 1 and ends[-1] - begun > most)

    config = FineTuneConfig(epochs=1, batch_size=batch_size, learning_rate=1e-6, patience=None)
    fine_tune(trainable, head, noise, None, config=config, stop=stop)
    step = statistics.median(b - a for a, b in pairwise(ends))
    return ends[0] - begun - step, step / batch_size


class _Noise:
    """Activations without images behind them."""

    views = 1

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        self.labels = np.arange(shape[0], dtype=np.int64) % classes
        self._one = np.random.default_rng(0).normal(size=shape[1:]).astype(np.float16)

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[Any]:
        """The same noise for every image."""
        return np.repeat(self._one[None], len(indices), axis=0)
