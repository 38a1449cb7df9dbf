"""Training from cached activations against the same recipe that runs the frozen stages in every epoch.

For every depth both sides train the same tail from the same start on the same batches; their losses must
agree before anything is timed as a result. What the skipped work implies is computed from three separate
measurements: the prefix forward over all images (P), one epoch of the trainable part on activations in memory
    (T) and decoding (D). For E epochs:

    implied speed-up = (D + E (P + T)) / (D + P + E T)

and the figure of merit is achieved / implied.

    python benchmarks/depth.py ../shared/data/flowers/val --backbone builtin --size 96 --epochs 5

Needs the extra ``torch``.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import CENTRE, open_image, render, shortest_side_needed
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.heads import LinearHead
from headstart.training.finetune import FineTuneConfig, FineTuneResult, fine_tune, normalise_pixels

LOSS_TOLERANCE = 1e-3
BATCH = 32


class Uncached:
    """Runs the frozen stages on the pixels each time that a batch is read."""

    views = 1

    def __init__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], prefix: nn.Module, normalise: Any
    ) -> None:
        self.pixels, self.labels, self.prefix, self.normalise = pixels, labels, prefix, normalise

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[np.float32]:
        """Activations of these images, computed now."""
        with torch.inference_mode():
            images = self.normalise(torch.from_numpy(self.pixels[indices]))
            found: NDArray[np.float32] = self.prefix(
                images.contiguous(memory_format=torch.channels_last)
            ).numpy()
        return found


class Cached:
    """Reads what the extraction stored."""

    views = 1

    def __init__(self, extraction: Any, labels: NDArray[np.int64]) -> None:
        self.extraction, self.labels = extraction, labels

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[Any]:
        """Activations of these images, from the feature cache."""
        found: NDArray[Any] = self.extraction.activations(indices, view=CENTRE)
        return found


class InMemory:
    """Activations held in one array: what the trainable part costs when reading is free."""

    views = 1

    def __init__(self, array: NDArray[Any], labels: NDArray[np.int64]) -> None:
        self.array, self.labels = array, labels

    def read(self, indices: NDArray[np.int64], *, views: Sequence[int]) -> NDArray[Any]:
        """A slice."""
        return self.array[indices]


def main() -> None:
    """One line per depth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    dataset = read_dataset(options.folder)
    backbone = load_backbone(options.backbone, size=options.size)
    print(f"{len(dataset)} images, {options.backbone} at {options.size} px, {options.epochs} epochs, float32")
    print("depth  uncached s  cached s  achieved  implied  achieved / implied  loss difference")
    for depth in range(1, len(backbone.stages)):
        measure(dataset, backbone, depth=depth, epochs=options.epochs)


def measure(dataset: Dataset, backbone: Backbone, *, depth: int, epochs: int) -> None:
    """Time both sides at one depth and print the line."""
    prefix, trainable = backbone.module().split(depth)
    prefix = prefix.to(memory_format=torch.channels_last)
    normalise = normalise_pixels(backbone.preprocess.mean, backbone.preprocess.std)
    shape = (backbone.dimensions, len(dataset.classes))
    weight = np.random.default_rng(0).normal(0, 0.01, shape).astype(np.float32)
    head = LinearHead("softmax", weight, np.zeros(shape[1], np.float32), 1.0)
    config = FineTuneConfig(epochs=epochs, batch_size=BATCH, precision="f32", patience=None)

    started = time.perf_counter()
    pixels = decode(dataset, backbone)
    decoding = time.perf_counter() - started
    uncached_data = Uncached(pixels, dataset.labels, prefix, normalise)
    uncached, spent = timed(lambda: fine_tune(trainable, head, uncached_data, None, config=config))
    uncached_seconds = decoding + spent

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        extraction = extract(
            dataset.samples,
            backbone,
            spec=FeatureSpec(depth=depth, views=(CENTRE,), pooled=False),
            runtime=select("torch", precision="f32"),
            cache=FeatureCache(Path(folder)),
        )
        data = Cached(extraction, dataset.labels)
        cached = fine_tune(trainable, head, data, None, config=config)
        cached_seconds = time.perf_counter() - started
        array = extraction.activations(range(len(dataset)), view=CENTRE)
    difference = largest_loss_difference(uncached, cached)
    if not difference < LOSS_TOLERANCE:
        raise SystemExit(
            f"depth {depth}: losses differ by {difference:.2g}, so this is not the same training"
        )

    every = np.arange(len(dataset))
    _, forward = timed(
        lambda: [uncached_data.read(every[i : i + BATCH], views=()) for i in range(0, len(every), BATCH)]
    )
    memory = InMemory(array, dataset.labels)
    _, trainable_seconds = timed(lambda: fine_tune(trainable, head, memory, None, config=config))
    implied = (decoding + epochs * forward + trainable_seconds) / (decoding + forward + trainable_seconds)
    achieved = uncached_seconds / cached_seconds
    print(
        f"{depth:5} {uncached_seconds:11.1f} {cached_seconds:9.1f} {achieved:9.2f} {implied:8.2f} "
        f"{achieved / implied:19.2f} {difference:16.1e}",
        flush=True,
    )


def decode(dataset: Dataset, backbone: Backbone) -> NDArray[np.uint8]:
    """Every image as the network sees it, uint8 [N, S, S, 3]."""
    side = shortest_side_needed(backbone.preprocess, (CENTRE,))
    images = (open_image(sample.source.read(), shortest_side=side)[0] for sample in dataset.samples)
    return np.stack([render(image, backbone.preprocess, CENTRE) for image in images])


def timed(job: Any) -> tuple[Any, float]:
    """What a job returns, and its seconds."""
    started = time.perf_counter()
    return job(), time.perf_counter() - started


def largest_loss_difference(first: FineTuneResult, second: FineTuneResult) -> float:
    """Between the epochs' training losses, relative."""
    pairs = zip(first.history, second.history, strict=True)
    return max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in pairs)


if __name__ == "__main__":
    main()
