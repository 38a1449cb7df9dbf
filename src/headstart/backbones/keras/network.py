"""The staged ONNX file of a saved Keras model, which is written as ONNX first. Imports Keras."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.backbones.exported import check_graph
from headstart.backbones.keras.export import write_onnx
from headstart.backbones.keras.graph import Graph, needed, open_model
from headstart.backbones.onnx.export import export_network
from headstart.backbones.pixels import Pixels
from headstart.errors import BackboneError, OptionError, printable, reason_of
from headstart.files import bounded_memory

_TIMES_THE_FILE = 6
"""Keras holds the weights as it unpacks them, as it reads them, and as variables."""

_KERAS_ITSELF = 1 << 30
"""Bytes beside them, for threads and workspaces."""


def export_model(path: Path, *, key: str, size: int | None, pixels: Pixels) -> dict[str, Any]:
    """Write the staged ONNX file of a `.keras` file, check it, and say what it is.

    Raises:
        BackboneError: It cannot be opened, cut or exported, or takes no images of that size.
        ParityError: The exported graph computes something else.
    """
    model = _open(path)
    side = _side(model, size=size or pixels.size, path=path)
    try:
        network = _as_onnx(open_model(model), side=side, path=path)
    except OptionError as error:
        raise BackboneError(f"backbone {path}: {error}") from error
    return export_network(network, name=path.name, family=str(model.name), key=key, size=side, pixels=pixels)


def _open(path: Path) -> Any:
    try:
        with bounded_memory(_TIMES_THE_FILE * path.stat().st_size + _KERAS_ITSELF):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # what Keras raises for a bad file depends on what is bad in it
        raise BackboneError(
            f"backbone {printable(path)}: Keras cannot open it: {reason_of(error)}"
        ) from error


def _side(model: Any, *, size: int | None, path: Path) -> int:
    """Pixels a side: as asked, or as built."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise BackboneError(f"backbone {path}: expected one input [N, S, S, 3] (colour images), got {shape}")
    if size is not None:
        return size
    if shape[1] is None or shape[1] != shape[2]:
        raise BackboneError(
            f"backbone {path}: is built for images of {shape[1:3]}: say how many pixels, --size"
        )
    return int(shape[1])


def _as_onnx(graph: Graph, *, side: int, path: Path) -> Any:
    """The whole model as ONNX for images of a size, compared with what Keras computes."""
    graph = _scores(graph)
    images = np.random.default_rng(0).normal(0, 1, (2, side, side, 3)).astype(np.float32)
    try:
        expected = _run(graph, images)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BackboneError(
            f"backbone {path}: cannot take images of {side} px: {reason_of(error)}; try another size"
        ) from error
    signature = keras.InputSpec(shape=(None, side, side, 3), dtype="float32", name="image")
    makers = {key: call.name for call in graph.calls for key in call.outputs}
    names = [makers.get(key, "output") for key in graph.outputs]
    outputs = names if len(names) == 1 else [f"{name}.{number}" for number, name in enumerate(names)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(_module(graph), file, signature=signature, outputs=outputs)
        try:
            check_graph(file, images, dict(zip(outputs, expected, strict=True)), name=path.name)
        except RuntimeError as error:  # OpenVINO's, about an ONNX file that it cannot read
            raise BackboneError(
                f"backbone {path}: what Keras's {keras.backend.backend()} backend writes of it cannot be "
                f"read: {reason_of(error)}; try KERAS_BACKEND=tensorflow"
            ) from error
        return onnx.load(file)


def _scores(graph: Graph) -> Graph:
    """The graph up to its scores, since probabilities near 0 and 1 hide differences; its layers are ours."""
    answers = (keras.activations.softmax, keras.activations.sigmoid)
    makers = {key: call for call in graph.calls for key in call.outputs}
    outputs = []
    for key in graph.outputs:
        layer: Any = makers[key].operation if key in makers else None
        if isinstance(layer, keras.layers.Softmax) or getattr(layer, "activation", None) in answers:
            if isinstance(layer, keras.layers.Softmax | keras.layers.Activation):
                key = next(iter(makers[key].inputs.values()))
            else:
                layer.activation = keras.activations.linear
        outputs.append(key)
    return graph.part(needed(graph.calls, outputs), inputs=graph.inputs, outputs=outputs)


def _run(graph: Graph, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    found = graph.run([keras.ops.convert_to_tensor(images)], training=False)
    return [keras.ops.convert_to_numpy(keras.ops.cast(each, "float32")) for each in found]


def _module(graph: Graph) -> Any:
    """A Keras model that computes a graph for images of any size, whatever size it was built for."""

    class Module(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="opened")
            layers = dict.fromkeys(call.operation for call in graph.calls)
            self.parts = [layer for layer in layers if isinstance(layer, keras.layers.Layer)]
            self.built = True

        def call(self, image: Any) -> Any:
            return tuple(keras.ops.cast(each, "float32") for each in graph.run([image], training=False))

    return Module()
