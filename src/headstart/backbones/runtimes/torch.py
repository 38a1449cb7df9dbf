"""Runs a frozen part with PyTorch: on an NVIDIA GPU where there is one, else on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from headstart.backbones.backbone import Backbone, FeatureLayer, Stage
from headstart.backbones.runtimes.protocol import (
    Arrays,
    Pixels,
    Runtime,
    Ticket,
    check_batch,
    check_finite,
    chosen_precision,
)
from headstart.backbones.staged import FrozenStages, StagedModule

_IN_FLIGHT_ON_GPU = 2  # batches queued before the oldest is read back


class TorchRuntime(Runtime):
    """PyTorch; bfloat16 autocast by default on GPUs that have it, float32 on the CPU."""

    name = "torch"

    def __init__(self, *, precision: str = "auto", device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.precision = chosen_precision(precision, fast=fast)

    def _compile(
        self,
        backbone: Backbone,
        *,
        cuts: tuple[int, ...],
        layers: tuple[FeatureLayer, ...],
        batch_size: int,
        outputs: tuple[str, ...],
    ) -> TorchPrefix:
        """Move the stages that are needed to the device."""
        network = _Outputs(backbone, backbone.module(), cuts=cuts, layers=layers).to(self.device)
        if self.device.type == "cpu" or self.precision == "bf16":
            network = network.to(memory_format=torch.channels_last)
        return TorchPrefix(
            network, self, outputs=outputs, size=backbone.preprocess.size, batch_size=batch_size
        )


class TorchPrefix:
    """A frozen part on a device; see `FrozenPart`."""

    def __init__(
        self,
        network: nn.Module,
        runtime: TorchRuntime,
        *,
        outputs: tuple[str, ...],
        size: int,
        batch_size: int,
    ) -> None:
        self.outputs = outputs
        self._network, self._device = network, runtime.device
        self._size, self._batch_size = size, batch_size
        self._bf16 = runtime.precision == "bf16"

    def stream(self, batches: Iterable[tuple[Ticket, Pixels]]) -> Iterator[tuple[Ticket, Arrays]]:
        """Run batches in order; see `FrozenPart.stream`."""
        running: deque[tuple[Ticket, tuple[torch.Tensor, ...]]] = deque()
        most = _IN_FLIGHT_ON_GPU if self._device.type == "cuda" else 1
        for ticket, pixels in batches:
            check_batch(pixels, size=self._size, batch_size=self._batch_size)
            running.append((ticket, self._run(pixels)))
            if len(running) == most:
                yield self._finish(running)
        while running:
            yield self._finish(running)

    def _run(self, pixels: Pixels) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            # A copy, since the caller may refill the array while a GPU still reads it.
            image = torch.tensor(pixels).to(self._device).permute(0, 3, 1, 2)
            results: tuple[torch.Tensor, ...] = self._network(image)
        return results

    def _finish(self, running: deque[tuple[Ticket, tuple[torch.Tensor, ...]]]) -> tuple[Ticket, Arrays]:
        ticket, results = running.popleft()
        arrays: Arrays = {
            name: result.float().contiguous().cpu().numpy()
            for name, result in zip(self.outputs, results, strict=True)
        }
        check_finite(arrays)
        return ticket, arrays


class _Outputs(nn.Module):
    """Pixels, uint8 ``[N, 3, S, S]``, to the activation (below full depth) and the pooled layers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        staged: StagedModule,
        *,
        cuts: tuple[int, ...],
        layers: tuple[FeatureLayer, ...],
    ) -> None:
        super().__init__()
        count = len(backbone.stages)
        names = [stage.name for stage in backbone.stages]
        positions = [names.index(layer.stage) + 1 for layer in layers if layer.stage != "features"]
        reads_features = any(layer.stage == "features" for layer in layers)
        self.cuts, self.layers, self.stages = cuts, layers, backbone.stages
        self.reaches_features = reads_features
        deepest = count if reads_features else max(*cuts, *positions, 0)
        self.prefix = FrozenStages.of(staged.stages[:deepest])
        self.pool = FrozenStages.of([staged.pool])
        for name, values in (("mean", backbone.preprocess.mean), ("std", backbone.preprocess.std)):
            self.register_buffer(name, 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = (pixels.float() - self.mean) / self.std
        maps = {"": x}
        for stage, layers in zip(self.stages, self.prefix, strict=False):
            x = layers(x)
            maps[stage.name] = x
        results = [
            maps[self.stages[cut - 1].name if cut else ""] for cut in self.cuts if cut < len(self.stages)
        ]
        features = self.pool(x) if self.reaches_features else x
        by_name = {stage.name: stage for stage in self.stages}
        for layer in self.layers:
            is_last = layer.stage == "features"
            results.append(
                features if is_last else pooled(maps[layer.stage], by_name[layer.stage], grid=layer.grid)
            )
        return tuple(results)


def pooled(values: torch.Tensor, stage: Stage, *, grid: int) -> torch.Tensor:
    """A stage's map, or its patch tokens, averaged over ``grid`` x ``grid`` cells: ``[N, C * cells]``."""
    if len(stage.shape) == 2:
        values = values[:, stage.prefix_tokens :]
        if grid == 1:
            return values.mean(1)
        rows, columns = stage.patch_grid or (1, -1)
        values = values.transpose(1, 2).reshape(len(values), -1, rows, columns)
    return nn.functional.adaptive_avg_pool2d(values, grid).flatten(1)
