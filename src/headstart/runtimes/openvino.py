"""Runs a prefix with OpenVINO on the CPU: the staged graph is cut, normalised and pooled inside the graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from headstart.backbones.backbone import Backbone, Tap
from headstart.errors import InternalError, OptionError
from headstart.runtimes.protocol import Arrays, Pixels, Ticket, check_batch, check_request

PRECISIONS = ("bf16", "f32")


class OpenVinoRuntime:
    """OpenVINO on the CPU; bfloat16 where the processor computes with it natively, else float32."""

    name = "openvino"

    def __init__(self, *, precision: str = "auto") -> None:
        import openvino

        self._core = openvino.Core()
        self._core.set_property({"ENABLE_MMAP": True})
        native = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision not in ("auto", *PRECISIONS):
            raise OptionError(f"precision {precision!r}: expected auto, {' or '.join(PRECISIONS)}")
        if precision == "bf16" and not native:
            raise OptionError("precision bf16: this processor has no bfloat16 arithmetic; take f32 or auto")
        self.precision = ("bf16" if native else "f32") if precision == "auto" else precision

    def compile(
        self, backbone: Backbone, *, depth: int, taps: tuple[Tap, ...], batch_size: int = 32
    ) -> OpenVinoPrefix:
        """Cut, pool and compile; see `Runtime.compile`."""
        outputs = check_request(backbone, depth=depth, taps=taps, batch_size=batch_size)
        model = _prefix_model(self._core, backbone, depth=depth, taps=taps, batch_size=batch_size)
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if batch_size == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        compiled = self._core.compile_model(model, "CPU", settings)
        return OpenVinoPrefix(compiled, outputs=outputs, size=backbone.preprocess.size, batch_size=batch_size)


class OpenVinoPrefix:
    """A compiled prefix; see `CompiledPrefix`."""

    def __init__(self, compiled: Any, *, outputs: tuple[str, ...], size: int, batch_size: int) -> None:
        self.outputs = outputs
        self._size, self._batch_size = size, batch_size
        # One request more than run at once, so that filling the next never waits for reading the last.
        count = 1 if batch_size == 1 else compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self._idle = [compiled.create_infer_request() for _ in range(count)]

    def stream(self, batches: Iterable[tuple[Ticket, Pixels]]) -> Iterator[tuple[Ticket, Arrays]]:
        """Run batches in order, several in flight; see `CompiledPrefix.stream`."""
        running: deque[tuple[Ticket, int, Any]] = deque()
        try:
            for ticket, pixels in batches:
                check_batch(pixels, size=self._size, batch_size=self._batch_size)
                if not self._idle:
                    yield self._finish(running)
                request = self._idle.pop()
                running.append((ticket, len(pixels), request))
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
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise InternalError(f"output {name}: the network's numbers overflowed; try precision f32")
        return ticket, arrays


def _prefix_model(
    core: Any, backbone: Backbone, *, depth: int, taps: tuple[Tap, ...], batch_size: int
) -> Any:
    """The staged graph from pixels, uint8 ``[batch, S, S, 3]``, to the activation and the pooled taps."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    size = backbone.preprocess.size
    staged = core.read_model(backbone.graph)
    image = staged.input("image")
    ports = {name: port.get_node().input_value(0) for port in staged.outputs for name in port.get_names()}
    wanted = []
    if depth < len(backbone.stages):
        wanted.append(ports[backbone.stages[depth - 1].name] if depth else image)
    staged.reshape({"image": [batch_size, 3, size, size]})
    wanted.extend(_pooled(ports[tap.stage], backbone, tap=tap) for tap in taps)
    model = openvino.Model(
        [openvino.opset13.result(port) for port in wanted], staged.get_parameters(), "prefix"
    )

    pixels = PrePostProcessor(model)
    tensor, steps = pixels.input().tensor(), pixels.input().preprocess()
    tensor.set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.input().model().set_layout(openvino.Layout("NCHW"))
    steps.convert_element_type(openvino.Type.f32)
    steps.mean([255 * value for value in backbone.preprocess.mean])
    steps.scale([255 * value for value in backbone.preprocess.std])
    return pixels.build()


def _pooled(port: Any, backbone: Backbone, *, tap: Tap) -> Any:
    """A map, or the patch tokens, averaged over ``tap.grid`` x ``tap.grid`` cells: ``[N, C * cells]``."""
    from openvino import opset13 as ops

    if tap.stage == "features":
        return port
    stage = backbone.stage(tap.stage)
    if len(stage.shape) == 2:
        port = ops.slice(port, [stage.prefix_tokens], [stage.shape[0]], [1], [1]).output(0)
        if tap.grid == 1:
            return ops.reduce_mean(port, [1]).output(0)
        rows, columns = stage.patch_grid or (0, 0)
        port = ops.transpose(port, [0, 2, 1]).output(0)
        port = ops.reshape(port, [0, 0, rows, columns], True).output(0)
    if tap.grid == 1:
        return ops.reduce_mean(port, [2, 3]).output(0)
    cells = ops.adaptive_avg_pool(port, [tap.grid, tap.grid])
    return ops.reshape(cells, [0, stage.channels * tap.grid * tap.grid], True).output(0)
