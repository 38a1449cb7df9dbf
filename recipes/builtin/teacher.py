"""The teacher's answers, computed once per view and stored.

A record holds, for one picture in one view, the teacher's maps at `networks.HINTS`, each averaged down to a
small grid, in half precision (24 KB for MobileNetV2 1.0). The last map, the pooled vector and the class
distribution follow from the last of them by the teacher's own final layer: cheap to compute, large to store.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from networks import HINTS, Staged
from torch import Tensor
from views import View, batch_of_views

log = logging.getLogger("teacher")
GRIDS = (8, 4, 4, 4, 4)  # side of the stored map at each hint
CHUNK = 2000  # pictures between two marks of progress
BATCH = 50  # pictures per inference request

Forward = Callable[[Tensor], list[np.ndarray]]


@dataclass(frozen=True)
class Layout:
    """Where each map lies in a record of float16 numbers."""

    channels: tuple[int, ...]
    grids: tuple[int, ...] = GRIDS

    @property
    def sizes(self) -> list[int]:
        """Numbers per map."""
        return [c * g * g for c, g in zip(self.channels, self.grids, strict=True)]

    def unpack(self, records: np.ndarray) -> list[Tensor]:
        """Records float16 [n, sum of sizes] as float32 maps [n, C, g, g], channels-last in memory."""
        maps, start = [], 0
        for c, g, size in zip(self.channels, self.grids, self.sizes, strict=True):
            part = torch.from_numpy(records[:, start : start + size]).float()
            maps.append(part.view(-1, g, g, c).permute(0, 3, 1, 2))
            start += size
        return maps


def in_openvino(network: Staged, *, size: int, streams: int = 2) -> Forward:
    """The network's maps by OpenVINO (bfloat16 where the processor has it), for up to BATCH images.

    The function may be called from `streams` threads at once: each request runs on one core.
    """
    import openvino as ov

    shape = (BATCH, 3, size, size)
    model = ov.convert_model(network.eval(), example_input=torch.zeros(shape), input=[shape])
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams}
    compiled = ov.compile_model(model, "CPU", settings)
    own = threading.local()

    def forward(images: Tensor) -> list[np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        missing = BATCH - len(images)
        padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else images
        answers = own.request.infer([padded.contiguous().numpy()])
        return [np.asarray(answers[i])[: len(images)] for i in range(len(HINTS))]

    return forward


def in_torch(network: Staged) -> Forward:
    """The network's maps by PyTorch in float32."""
    network.eval()

    def forward(images: Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            return [m.numpy() for m in network(images)]

    return forward


class TeacherStore:
    """One file of records per view, filled in order and resumed after a stop.

    `folder` names the teacher, its input size and the seed of the views, so that a change of any of them
    starts a new folder and never mixes answers.
    """

    def __init__(
        self, folder: Path, *, layout: Layout, forward: Forward, size: int, threads: int = 2
    ) -> None:
        self.folder, self.layout, self._forward, self._size = folder, layout, forward, size
        self._threads = threads
        self._open: dict[int, np.ndarray] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def _record(self, images: Tensor) -> np.ndarray:
        parts = []
        for answer, grid in zip(self._forward(images), self.layout.grids, strict=True):
            small = F.adaptive_avg_pool2d(torch.from_numpy(answer).float(), grid)
            parts.append(small.permute(0, 2, 3, 1).flatten(1))
        return torch.cat(parts, dim=1).half().numpy()

    def fill(self, number: int, view: View, pictures: np.ndarray) -> None:
        """Compute what is missing of one view; a stop loses at most CHUNK pictures' work."""
        path, progress = self.folder / f"view{number}.npy", self.folder / f"view{number}.json"
        done = json.loads(progress.read_text())["done"] if progress.exists() else 0
        count = len(view.flips)
        if done >= count:
            return
        shape = (count, sum(self.layout.sizes))
        if not path.exists():
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape).flush()
        records = np.load(path, mmap_mode="r+")
        started, first = time.monotonic(), done

        def answer(begin: int) -> None:
            indices = np.arange(begin, min(count, begin + BATCH))
            records[indices] = self._record(batch_of_views(pictures, view, indices, size=self._size))

        with ThreadPoolExecutor(self._threads) as pool:
            while done < count:
                stop = min(count, done + CHUNK)
                list(pool.map(answer, range(done, stop, BATCH)))
                done = stop
                records.flush()
                progress.write_text(json.dumps({"done": done}))
                rate = (done - first) / (time.monotonic() - started)
                log.info("teacher view %d: %d/%d, %.0f images/s", number, done, count, rate)

    def read(self, number: int, indices: np.ndarray) -> list[Tensor]:
        """The teacher's maps for some pictures of a filled view, as float32 [n, C, g, g]."""
        if number not in self._open:
            self._open[number] = np.load(self.folder / f"view{number}.npy", mmap_mode="r")
        order = np.argsort(indices)  # in the file's order: the disk reads forward
        records = np.empty((len(indices), sum(self.layout.sizes)), dtype=np.float16)
        records[order] = self._open[number][indices[order]]
        return self.layout.unpack(records)
