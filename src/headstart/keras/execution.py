"""Runs a prefix on arrays: OpenVINO where it computes the same as Keras, else Keras itself.

Which of the two is decided by a probe: a few of the user's images go through both, and OpenVINO is taken only
if no value differs by more than `TOLERANCE` of the largest. Everything is float32, as training is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.backbones.keras.graph import Graph, Key, apply
from headstart.backbones.openvino import openvino, the_core
from headstart.errors import OptionError
from headstart.keras.cutting import Cut, without

Array = NDArray[Any]

TOLERANCE = 1e-4
"""Of a tensor's largest magnitude. Reordered float32 sums differ by about a tenth of this."""

BATCH = 32
PROBE = 4
"""Images that are computed both ways before OpenVINO is trusted."""

_UNKNOWN_SIDE = 64
"""Of a made-up image, where the model takes any size."""


class KerasRunner:
    """Keras's own forward pass, in batches of one size so that it is compiled once.

    That size should be the training's: on PyTorch, what is computed for an image depends in its last digits
    on how many are computed with it.
    """

    def __init__(self, graph: Graph, *, dtype_policy: Any, batch: int = BATCH) -> None:
        self.name = f"keras {keras.__version__} {keras.backend.backend()}"
        self._batch = batch
        self._model = _prefix_model(graph, dtype_policy=dtype_policy)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The prefix's outputs for n images, each [n, …], from its inputs, each [n, …]."""
        count = len(arrays[0])
        parts = []
        for start in range(0, count, self._batch):
            rows = [_padded(array[start : start + self._batch], min(self._batch, count)) for array in arrays]
            outputs = keras.tree.flatten(self._model.predict_on_batch(rows))
            parts.append([np.asarray(output)[: min(self._batch, count - start)] for output in outputs])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _prefix_model(graph: Graph, *, dtype_policy: Any) -> Any:
    class Prefix(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="headstart_prefix", dtype=dtype_policy)
            self._convert_input_args = False  # each layer casts its own inputs, as in the user's model
            self._allow_non_tensor_positional_args = True  # they are converted below
            self.built = True

        def call(self, inputs: Any) -> Any:
            tensors = map(keras.ops.convert_to_tensor, keras.tree.flatten(inputs))
            return graph.run(list(tensors), training=False)

    return Prefix()


class OpenVinoRunner:
    """A translated prefix on the CPU, several batches in flight."""

    def __init__(self, model: Any, *, batch: int) -> None:
        self.name = openvino_name()
        self._batch = batch
        model.reshape(
            {i: [batch, *list(port.get_partial_shape())[1:]] for i, port in enumerate(model.inputs)}
        )
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        compiled = the_core().compile_model(model, "CPU", settings)
        self._shapes = [tuple(port.shape)[1:] for port in compiled.outputs]
        # One request more than run at once, so that filling the next never waits for reading the last.
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1
        self._queue = openvino().AsyncInferQueue(compiled, count)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `KerasRunner.run`; what it gives is float32."""
        outputs = [np.empty((len(arrays[0]), *shape), np.float32) for shape in self._shapes]

        def keep(request: Any, start: int) -> None:
            for i, output in enumerate(outputs):
                rows = output[start : start + self._batch]
                rows[:] = request.get_output_tensor(i).data[: len(rows)]

        self._queue.set_callback(keep)
        for start in range(0, len(arrays[0]), self._batch):
            rows = [_padded(array[start : start + self._batch], self._batch) for array in arrays]
            self._queue.start_async(dict(enumerate(rows)), start)
        self._queue.wait_all()
        return outputs


Runner = KerasRunner | OpenVinoRunner


def openvino_name() -> str:
    """The runtime and its version, as the cache knows it."""
    return "openvino " + str(openvino().get_version()).split("-")[0]


def _padded(rows: Array, size: int) -> Array:
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def reference(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """What Keras computes for a few images, layer by layer."""
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    return [np.asarray(keras.ops.convert_to_numpy(out)) for out in graph.run(tensors, training=False)]


def openvino_runner(
    graph: Graph, arrays: Sequence[Array], *, expected: Sequence[Array], batch: int = BATCH
) -> OpenVinoRunner | None:
    """OpenVINO, where it computes what Keras does; None where only Keras will do.

    Args:
        graph: the prefix.
        arrays: a few images.
        expected: what `reference` gives for them.
        batch: images to run at once.
    """
    translated = _translated(graph, arrays, batch=batch)
    if translated is not None and _agree(translated.run(arrays), expected):
        return translated
    return None


def _translated(graph: Graph, arrays: Sequence[Array], *, batch: int) -> OpenVinoRunner | None:
    from headstart.keras.translation import Untranslatable, translate

    try:
        model = translate(graph, [(-1, *array.shape[1:]) for array in arrays])
        return OpenVinoRunner(model, batch=batch)
    except (Untranslatable, RuntimeError):  # RuntimeError: OpenVINO's own refusals
        return None


def _agree(found: Sequence[Array], expected: Sequence[Array]) -> bool:
    for ours, theirs in zip(found, expected, strict=True):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype or not np.isfinite(theirs).all():
            return False
        if np.abs(ours - theirs).max(initial=0.0) > TOLERANCE * np.abs(theirs).max(initial=0.0):
            return False
    return True


def without_surprises(cut: Cut, arrays: Sequence[Array]) -> Cut:
    """Watch layers whose code is not Keras's, and move the cut in front of those that cannot be cached.

    What they do in training cannot be read, so it is tried: twice in training mode and once in inference, on
    a few images (made-up ones, for a source that cannot be looked into). A layer that gives three times the
    same is taken at its word.
    """
    for _ in range(len(cut.own_code)):
        surprises = _surprises(cut, arrays)
        if not surprises:
            break
        cut = without(cut, surprises)
    return cut


def made_up(graph: Graph) -> list[Array]:
    """Inputs to try layers on where the data cannot be looked at: noise, from small values to pixels'."""
    rng = np.random.default_rng(0)
    found = []
    for key in graph.inputs:
        shape = [size or _UNKNOWN_SIDE for size in graph.specs[key].shape[1:]]
        scales = np.geomspace(1, 255, PROBE).reshape(PROBE, *[1] * len(shape))
        found.append((rng.uniform(0, 1, (PROBE, *shape)) * scales).astype(graph.specs[key].dtype))
    return found


def _surprises(cut: Cut, arrays: Sequence[Array]) -> dict[str, str]:
    graph = cut.prefix
    tensors: dict[Key, Any] = {
        key: keras.ops.convert_to_tensor(array) for key, array in zip(graph.inputs, arrays, strict=True)
    }
    for call in graph.calls:
        outputs = apply(call, tensors, training=False)
        if call.name in cut.own_code:
            for _ in range(2):
                again = apply(call, tensors, training=True)
                if not all(_equal(a, b) for a, b in zip(outputs, again, strict=True)):
                    return {call.name: "it computes something else in training, or at random"}
            if getattr(call.operation, "losses", None):
                return {call.name: "it adds to the loss"}
        tensors.update(zip(call.outputs, outputs, strict=True))
    return {}


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), equal_nan=True)


def check_inputs(arrays: Sequence[Array], graph: Graph) -> list[Array]:
    """The inputs in the dtype and rank that the model wants, as Keras itself would turn them.

    Raises:
        OptionError: a shape does not fit.
    """
    if len(arrays) != len(graph.inputs):
        raise OptionError(f"x: expected {len(graph.inputs)} inputs, got {len(arrays)}")
    found = []
    for array, key in zip(arrays, graph.inputs, strict=True):
        spec = graph.specs[key]
        if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
            array = array[..., None]
        elif array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        fits = array.ndim == len(spec.shape) and all(
            want in (None, size) for want, size in zip(spec.shape[1:], array.shape[1:], strict=True)
        )
        if not fits:
            raise OptionError(f"x: the model's input '{spec.name}' wants {spec.shape}, got {array.shape}")
        found.append(array.astype(spec.dtype, copy=False))
    return found
