"""How good frozen features are: the linear probe that selects checkpoints.

Two sources, neither of which the student was trained on: pictures of Tiny ImageNet's validation part (some of
its classes), and, where DATA has it, the *training* part of the flowers. Accuracy is cross-validated, so the
flowers' validation part stays unseen until the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from views import normalise

PENALTIES = (100.0, 300.0, 1000.0, 3000.0, 10000.0)  # of a ridge on standardised features


def ridge_logits(train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, penalty: float) -> np.ndarray:
    """Scores [m, C] of a ridge regression on one-hot labels; features [n, D] and [m, D] are standardised."""
    mean, spread = train.mean(0), train.std(0) + 1e-6
    a, b = (train - mean) / spread, (test - mean) / spread
    targets = np.eye(labels.max() + 1)[labels]
    dual = np.linalg.solve(a @ a.T + penalty * np.eye(len(a)), targets - targets.mean(0))
    return (b @ a.T) @ dual + targets.mean(0)


def cross_validated(features: np.ndarray, labels: np.ndarray, *, folds: int = 5, repeats: int = 2) -> float:
    """The best penalty's accuracy, averaged over `repeats` shuffles of `folds` folds."""
    random = np.random.default_rng(0)
    parts = [np.array_split(random.permutation(len(labels)), folds) for _ in range(repeats)]
    accuracies = []
    for penalty in PENALTIES:
        right = 0
        for split in parts:
            for k, test in enumerate(split):
                train = np.concatenate([s for j, s in enumerate(split) if j != k])
                scores = ridge_logits(features[train], labels[train], features[test], penalty=penalty)
                right += int((scores.argmax(1) == labels[test]).sum())
        accuracies.append(right / (repeats * len(labels)))
    return max(accuracies)


def features_of(forward: Callable[[Tensor], Tensor], pixels: np.ndarray) -> np.ndarray:
    """Pooled features float32 [N, D] of uint8 [N, S, S, 3], 50 images at a time."""
    with torch.inference_mode():
        parts = [forward(normalise(pixels[i : i + 50])).numpy() for i in range(0, len(pixels), 50)]
    return np.concatenate(parts)


def read_folder(folder: Path, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All photographs of a folder of class folders, centre-cropped: uint8 [N, size, size, 3], int64 [N]."""
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    pixels, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            side = min(image.size)
            left, top = ((length - side) // 2 for length in image.size)
            box = (left, top, left + side, top + side)
            pixels.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box)))
            labels.append(label)
    return np.stack(pixels), np.array(labels)


@dataclass(frozen=True)
class ProbeSet:
    """One source of the probe: uint8 [N, S, S, 3] and labels."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray


def enlarge(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bicubic copies of uint8 [N, H, W, 3] at size x size."""
    resized = (Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in pixels)
    return np.stack([np.asarray(p) for p in resized])


def probe_sets(
    pixels: np.ndarray, labels: np.ndarray, *, flowers: Path | None, size: int, classes: int = 40
) -> list[ProbeSet]:
    """Every fifth of Tiny ImageNet's validation classes, 25 pictures each, and the flowers' training part."""
    chosen = np.unique(labels)[:: max(1, len(np.unique(labels)) // classes)]
    indices = np.concatenate([np.flatnonzero(labels == c)[:25] for c in chosen])
    compact = np.searchsorted(chosen, labels[indices])
    sets = [ProbeSet("tiny", enlarge(pixels[indices], size), compact)]
    if flowers is not None and flowers.is_dir():
        sets.append(ProbeSet("flowers", *read_folder(flowers, size=size)))
    return sets


def probe(forward: Callable[[Tensor], Tensor], sets: list[ProbeSet]) -> dict[str, float]:
    """Cross-validated accuracy on each set, and their mean as "mean"."""
    scores = {s.name: cross_validated(features_of(forward, s.pixels), s.labels) for s in sets}
    return {**scores, "mean": float(np.mean(list(scores.values())))}
