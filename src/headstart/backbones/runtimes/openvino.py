"""Runs a frozen part with OpenVINO on the CPU: the staged graph is cut, normalised and pooled in it."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np

from headstart.backbones.backbone import Backbone, FeatureLayer
from headstart.backbones.openvino import openvino, the_core
from headstart.backbones.runtimes.compiling import compile_cached
from headstart.backbones.runtimes.protocol import (
    Arrays,
    Pixels,
    Runtime,
    Ticket,
    check_batch,
    check_finite,
    chosen_precision,
)
from headstart.errors import OptionError
from headstart.heads.threads import thread_limit

_SMALL_SIDE = 160
"""Pixels a side of images that are run 16 at once, larger ones 8 at once."""


class OpenVinoRuntime(Runtime):
    """OpenVINO on the CPU; bfloat16 where the processor computes with it natively, else float32."""

    name = "openvino"

    def __init__(self, *, precision: str = "auto") -> None:
        self._core = the_core()
        native = has_bf16(self._core)
        self.precision = chosen_precision(precision, fast=native)
        if self.precision == "bf16" and not native:
            raise OptionError("precision bf16: this processor has no bfloat16 arithmetic; take f32 or auto")

    def best_batch_size(self, side: int) -> int:
        """Few large images, whose maps then stay in the cache; of small ones handing over costs more."""
        return 16 if side <= _SMALL_SIDE else 8

    def _compile(
        self,
        backbone: Backbone,
        *,
        cuts: tuple[int, ...],
        layers: tuple[FeatureLayer, ...],
        batch_size: int,
        outputs: tuple[str, ...],
    ) -> OpenVinoPrefix:
        """Cut, pool and compile, or load what was compiled before."""
        preprocess = backbone.preprocess
        identity = {
            "weights": backbone.weights_hash,
            "stages": [stage.name for stage in backbone.stages],
            "pixels": [batch_size, preprocess.size, *preprocess.mean, *preprocess.std],
            "depth": cuts[0],
            "outputs": outputs,
        }
        compiled = partial(
            compile_cached,
            self._core,
            settings_for(batch_size=batch_size, precision=self.precision),
            identity=identity,
            make=lambda: _prefix_model(self._core, backbone, cuts=cuts, layers=layers, batch_size=batch_size),
        )
        return OpenVinoPrefix(compiled, outputs=outputs, size=preprocess.size, batch_size=batch_size)


class OpenVinoPrefix:
    """A compiled prefix; see `FrozenPart`. In a forked process it is compiled again when it is used."""

    def __init__(
        self, compiled: Callable[[], Any], *, outputs: tuple[str, ...], size: int, batch_size: int
    ) -> None:
        self.outputs = outputs
        self._compiled, self._size, self._batch_size = compiled, size, batch_size
        self._requests = self._made()
        self._idle = list(self._requests)
        _living.add(self)

    def _made(self) -> list[Any]:
        """As many requests as run at once and one more: filling the next never waits for reading the last."""
        compiled = self._compiled()
        count = 1 if self._batch_size == 1 else compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        return [compiled.create_infer_request() for _ in range(count)]

    def leave_behind(self) -> None:
        """Forget what a forked process can neither run nor free: OpenVINO's threads did not come along."""
        for request in self._requests:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(request))  # its end would wait for them for ever
        self._requests, self._idle = [], []

    def stream(self, batches: Iterable[tuple[Ticket, Pixels]]) -> Iterator[tuple[Ticket, Arrays]]:
        """Run batches in order, several in flight; see `FrozenPart.stream`."""
        running: deque[tuple[Ticket, int, Any]] = deque()
        if not self._requests:
            self._requests = self._made()
            self._idle = list(self._requests)
        try:
            for ticket, pixels in batches:
                check_batch(pixels, size=self._size, batch_size=self._batch_size)
                if not self._idle:
                    yield self._finish(running)
                request = self._idle.pop()
                running.append((ticket, len(pixels), request))
                # A short batch leaves older pixels behind it: their results are computed and not handed out.
                request.get_input_tensor().data[: len(pixels)] = pixels
                request.start_async()
            while running:
                yield self._finish(running)
        finally:
            for _, _, request in running:
                request.wait()
                self._idle.append(request)

    def _finish(self, running: deque[tuple[Ticket, int, Any]]) -> tuple[Ticket, Arrays]:
        ticket, count, request = running[0]
        request.wait()
        arrays: Arrays = {
            name: np.array(request.get_output_tensor(position).data[:count], dtype=np.float32)
            for position, name in enumerate(self.outputs)
        }
        running.popleft()
        self._idle.append(request)
        check_finite(arrays)
        return ticket, arrays


_living: WeakSet[OpenVinoPrefix] = WeakSet()


def _leave_all_behind() -> None:
    for prefix in tuple(_living):
        prefix.leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_behind)


def has_bf16(core: Any) -> bool:
    """Whether this processor computes with bfloat16 natively."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def settings_for(*, batch_size: int, precision: str) -> dict[str, Any]:
    """OpenVINO's settings: the least delay for single images, else the most images a second."""
    limit = thread_limit()
    return {
        "PERFORMANCE_HINT": "LATENCY" if batch_size == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": precision,
        **({} if limit is None else {"INFERENCE_NUM_THREADS": limit}),
    }


def _prefix_model(
    core: Any, backbone: Backbone, *, cuts: tuple[int, ...], layers: tuple[FeatureLayer, ...], batch_size: int
) -> Any:
    """The staged graph from pixels, uint8 ``[batch, S, S, 3]``, to the maps at the cuts and the layers."""
    ov = openvino()
    size = backbone.preprocess.size
    staged = core.read_model(backbone.graph)
    ports = {name: port.get_node().input_value(0) for port in staged.outputs for name in port.get_names()}
    staged.reshape({"image": [batch_size, 3, size, size]})
    wanted = [
        ports[backbone.stages[cut - 1].name] if cut else staged.input("image")
        for cut in cuts
        if cut < len(backbone.stages)
    ]
    wanted.extend(_pooled(ov.opset13, ports[layer.stage], backbone, layer=layer) for layer in layers)
    model = ov.Model([ov.opset13.result(port) for port in wanted], staged.get_parameters(), "prefix")

    pixels = ov.preprocess.PrePostProcessor(model)
    pixels.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.input().model().set_layout(ov.Layout("NCHW"))
    steps = pixels.input().preprocess().convert_element_type(ov.Type.f32)
    steps.mean([255 * value for value in backbone.preprocess.mean])
    steps.scale([255 * value for value in backbone.preprocess.std])
    return pixels.build()


def _pooled(ops: Any, port: Any, backbone: Backbone, *, layer: FeatureLayer) -> Any:
    """A map, or the patch tokens, averaged over ``layer.grid`` x ``layer.grid`` cells: ``[N, C * cells]``."""
    if layer.stage == "features":
        return port
    stage = backbone.stage(layer.stage)
    if len(stage.shape) == 2:
        port = ops.slice(port, [stage.prefix_tokens], [stage.shape[0]], [1], [1]).output(0)
        if layer.grid == 1:
            return ops.reduce_mean(port, [1]).output(0)
        port = ops.transpose(port, [0, 2, 1]).output(0)
        port = ops.reshape(port, [0, 0, *(stage.patch_grid or ())], True).output(0)
    # Adaptive pooling is plain pooling, with windows that overlap by one where a side is odd, on grids of 1
    # and 2 and wherever the grid divides the side; no other layer is offered. The plain operation keeps the
    # layout that convolutions leave: all layers cost 11 %, were 38 %.
    sides = stage.patch_grid or ()
    window, stride = [-(-side // layer.grid) for side in sides], [side // layer.grid for side in sides]
    cells = ops.avg_pool(port, stride, [0, 0], [0, 0], window, True)
    return ops.reshape(cells, [0, stage.channels * layer.grid * layer.grid], True).output(0)
