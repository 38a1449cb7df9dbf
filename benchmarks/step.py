"""A training step of `fine_tune`, from the feature cache, against the bare PyTorch loop on tensors in memory.

Both train the same stages from the same head on the same batches: channels last, bf16 where the processor has
it, AdamW, gradients clipped. Their losses must agree before a time is printed. They run in turns; seconds are
of the clock and of the processor.

    python benchmarks/step.py ../shared/data/flowers --size 128 --rounds 3

Needs the extra ``torch``.
"""

import argparse
import copy
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import read_dataset
from headstart.data.images import CENTRE
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.heads import LinearHead, fit_ridge
from headstart.training.devices import device_of, precision_of
from headstart.training.finetune import FineTuneConfig, fine_tune, parameter_groups, schedule

LOSS_TOLERANCE = {"f32": 1e-3, "bf16": 2e-2}
"""Relative; the loops add up in another order, which bf16 makes visible."""


class Cached:
    """Reads what the extraction stored."""

    views = 1

    def __init__(self, extraction: Any, labels: NDArray[np.int64]) -> None:
        self.extraction, self.labels = extraction, labels

    def read(self, indices: NDArray[np.int64], *, views: Any) -> NDArray[Any]:
        """Activations of these images."""
        found: NDArray[Any] = self.extraction.activations(indices, view=CENTRE)
        return found


def bare(
    trainable: nn.Module, head: LinearHead, maps: torch.Tensor, labels: torch.Tensor, config: FineTuneConfig
) -> list[float]:
    """The loop that a PyTorch user writes; the mean loss of each epoch."""
    device = device_of(config.device)
    half = precision_of(config.precision, trainable, device=device) == "bf16"
    dense = nn.Linear(*head.weight.shape)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(config.head_scale * head.weight.T / head.temperature))
        dense.bias.copy_(torch.from_numpy(config.head_scale * head.bias / head.temperature))
    model = nn.Sequential(copy.deepcopy(trainable), dense).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(model[0], dense, config=config))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    steps = config.epochs * -(-len(labels) // config.batch_size)
    losses, step = [], 0
    for epoch in range(1, config.epochs + 1):
        order = np.random.default_rng((config.seed, epoch)).permutation(len(labels))
        total = 0.0
        for batch in torch.from_numpy(order).split(config.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step, steps=steps, warm_up=config.warm_up)
            inputs = maps[batch].float().contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            total += float(loss.detach()) * len(batch)
            step += 1
        losses.append(total / len(labels))
    return losses


def spent(job: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a job returns, its seconds by the clock and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found = job()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return found, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """One line per depth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--last", default="2,3", help="how many of the last stages are trained")
    parser.add_argument("--images", type=int, default=512, help="at most so many, so that steps are equal")
    options = parser.parse_args()
    dataset = read_dataset(options.folder)
    every = np.random.default_rng(0).permutation(len(dataset))[: options.images]
    backbone = load_backbone(options.backbone, size=options.size)
    print("depth  precision  bare ms/step (processor)  ours ms/step (processor)  bare / ours (processor)")
    for last in map(int, options.last.split(",")):
        depth = len(backbone.stages) - last
        with tempfile.TemporaryDirectory() as folder:
            extraction = extract(
                tuple(dataset.samples[i] for i in every),
                backbone,
                spec=FeatureSpec(depth=depth, views=(CENTRE,)),
                runtime=select("openvino"),
                cache=FeatureCache(Path(folder)),
            )
            compare(extraction, dataset.labels[every], backbone, depth=depth, options=options)


def compare(
    extraction: Any, labels: NDArray[np.int64], backbone: Any, *, depth: int, options: argparse.Namespace
) -> None:
    """Run both sides in turns and print the line."""
    config = FineTuneConfig(epochs=options.epochs, patience=None)
    trainable, images = backbone.module().after(depth), range(len(labels))
    head = fit_ridge((extraction.features(images, view=CENTRE), labels), classes=int(labels.max()) + 1).head
    maps = torch.from_numpy(extraction.activations(images, view=CENTRE))
    data, truth = Cached(extraction, labels), torch.from_numpy(labels)
    steps = options.epochs * -(-len(labels) // config.batch_size)
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for _ in range(1 + options.rounds):
        losses, *of_bare = spent(lambda: bare(trainable, head, maps, truth, config))
        result, *of_ours = spent(lambda: fine_tune(trainable, head, data, None, config=config))
        own = [row["loss"] for row in result.history]
        if not np.allclose(losses, own, rtol=LOSS_TOLERANCE[result.precision]):
            raise SystemExit(f"depth {depth}: losses {losses} and {own}: not the same training")
        times["bare"].append((of_bare[0], of_bare[1]))
        times["ours"].append((of_ours[0], of_ours[1]))
    wall, processor = (
        {side: [each[kind] for each in found[1:]] for side, found in times.items()} for kind in (0, 1)
    )
    shown = [
        " (".join(f"{1000 * statistics.median(kind[side]) / steps:.1f}" for kind in (wall, processor)) + ")"
        for side in ("bare", "ours")
    ]
    ratios = [
        statistics.median(a / b for a, b in zip(kind["bare"], kind["ours"], strict=True))
        for kind in (wall, processor)
    ]
    print(
        f"{depth:5}  {result.precision:9}  {shown[0]:>24}  {shown[1]:>24}  {ratios[0]:.2f} ({ratios[1]:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
