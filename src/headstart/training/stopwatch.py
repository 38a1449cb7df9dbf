"""Times decoding, a network and a few training steps on this machine, with this data."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Sample, content_hash
from headstart.data.images import View, open_image, render, shortest_side_needed
from headstart.data.preprocess import Preprocess
from headstart.errors import ImageError

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.backbones.runtimes import Runtime

Clock = Callable[[], float]

BATCHES = 3
"""In one round of `time_frozen`, after one that is not timed."""

_ROUNDS = (2, 12)
_ENOUGH = 0.15
"""Rounds are run until they took so many seconds, or the standard error of their mean is small."""

_SMALL_ERROR = 0.03

TRAINING_STEPS = 4
"""Run by `time_training` at most; the first pays for warming up and does not count."""

_WARM_UP_BATCHES = 1


def time_decoding(
    samples: Sequence[Sample],
    preprocess: Preprocess,
    *,
    views: tuple[View, ...],
    clock: Clock = time.perf_counter,
) -> tuple[float, NDArray[np.uint8]]:
    """Seconds per image to read, hash, decode and render, over all cores; and the first view's pixels.

    Returns:
        The seconds, and uint8 [n, S, S, 3] of the samples that could be read (n may be 0).
    """
    side = shortest_side_needed(preprocess, views)

    def work(sample: Sample) -> NDArray[np.uint8] | None:
        try:
            data = sample.source.read()
            content_hash(data)
            image, _ = open_image(data, shortest_side=side)
            rendered = [render(image, preprocess, view) for view in views]
            return rendered[0]
        except ImageError:
            return None

    workers = max(2, os.cpu_count() or 1)
    started = clock()
    with ThreadPoolExecutor(workers) as pool:
        found = [pixels for pixels in pool.map(work, samples) if pixels is not None]
    seconds = (clock() - started) / max(1, len(samples))
    shape = (0, preprocess.size, preprocess.size, 3)
    return seconds, np.stack(found) if found else np.zeros(shape, np.uint8)


def time_frozen(
    backbone: "Backbone",
    pixels: NDArray[np.uint8],
    *,
    runtime: "Runtime",
    layers: bool,
    batch_size: int,
    clock: Clock = time.perf_counter,
) -> tuple[float, float]:
    """Seconds to make a whole network ready, and seconds per rendered image in batches.

    One batch goes first, untimed; then rounds of batches, until their median is known well enough. A small
    network takes many, a large one is known after the first. ``pixels``, uint8 [n, S, S, 3], are repeated as
    needed.
    """
    begun = clock()
    wanted = backbone.feature_layers() if layers else backbone.feature_layers()[-1:]
    prefix = runtime.compile(backbone, depth=len(backbone.stages), layers=wanted, batch_size=batch_size)
    batch = np.resize(pixels, (batch_size, *pixels.shape[1:]))

    def feed(count: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for number in range(count):
            yield number, batch

    for _ in prefix.stream(feed(_WARM_UP_BATCHES)):
        pass
    opened = clock() - begun
    rounds: list[float] = []
    while not _known(rounds):
        started = clock()
        for _ in prefix.stream(feed(BATCHES)):
            pass
        rounds.append(clock() - started)
    return opened, statistics.median(rounds) / (BATCHES * batch_size)


def _known(rounds: Sequence[float]) -> bool:
    """Whether more rounds would hardly say more."""
    if sum(rounds) >= _ENOUGH or len(rounds) >= _ROUNDS[1]:
        return True
    if len(rounds) < _ROUNDS[0]:
        return False
    error = statistics.stdev(rounds) / len(rounds) ** 0.5
    return bool(error < _SMALL_ERROR * statistics.mean(rounds))


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
