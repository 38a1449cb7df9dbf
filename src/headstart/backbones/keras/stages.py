"""Makes ordered stages and a staged ONNX file of a saved Keras model. Imports Keras."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from headstart.backbones import records
from headstart.backbones.exported import check_graph
from headstart.backbones.keras.export import write_onnx
from headstart.backbones.keras.graph import Call, Graph, Key, apply, needed, open_model
from headstart.backbones.openvino import measure
from headstart.backbones.pixels import Pixels
from headstart.errors import BackboneError, OptionError, printable, reason_of
from headstart.files import bounded_memory, whole

_AFTER_HEAD = ("Activation", "Softmax", "Dropout", "Flatten", "Reshape", "Identity")
"""What may stand behind the layer that gives one number per class."""


@dataclass(frozen=True)
class _Neck:
    """A place in the graph where one tensor carries everything on."""

    position: int  # how many calls come before
    key: Key
    channels: int
    side: int


@dataclass(frozen=True, eq=False)
class Staged:
    """A Keras model as ordered groups of calls.

    Attributes:
        graph: Image to features, without the head.
        cuts: Per stage how many of the graph's calls come before its end; what follows the last makes the
            features of its map.
        head: The layer that was left out, or an empty string.
    """

    graph: Graph
    cuts: tuple[int, ...]
    head: str

    @property
    def names(self) -> tuple[str, ...]:
        """``stem``, then ``block1`` and so on."""
        return ("stem", *(f"block{number}" for number in range(1, len(self.cuts))))

    def groups(self) -> list[Sequence[Call]]:
        """The calls of every stage; the last one's include those behind its map."""
        ends = [0, *self.cuts[:-1], len(self.graph.calls)]
        return [self.graph.calls[start:end] for start, end in pairwise(ends)]


def export_model(path: Path, *, key: str, size: int | None, pixels: Pixels) -> dict[str, Any]:
    """Write the staged ONNX file of a `.keras` file, check it, and say what it is.

    Raises:
        BackboneError: It cannot be opened, cut or exported, or takes no images of that size.
        ParityError: The exported graph computes something else.
    """
    model = _open(path)
    side = _side(model, size=size or pixels.size, path=path)
    images = np.random.default_rng(0).normal(0, 1, (2, 3, side, side)).astype(np.float32)
    try:
        staged = stages_of(open_model(model), _channels_last(images))
    except OptionError as error:
        raise BackboneError(f"backbone {path}: {error}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise BackboneError(
            f"backbone {path}: cannot take images of {side} px: {reason_of(error)}; try another size"
        ) from error
    module = _module(staged, pixels)
    graph = records.graphs_folder() / f"{key}-{side}.onnx"
    try:
        with whole(graph) as draft:
            _write_checked(module, draft, staged=staged, images=images)
    except RuntimeError as error:  # OpenVINO's, about an ONNX file that it cannot read
        raise BackboneError(
            f"backbone {path}: what Keras's {keras.backend.backend()} backend writes of it cannot be read: "
            f"{reason_of(error)}; try KERAS_BACKEND=tensorflow"
        ) from error
    measured, dimensions = measure(graph, stages=staged.names, size=side)
    own = [{"parameters": _parameters(calls), "prefix_tokens": 0} for calls in staged.groups()]
    return {
        "graph": graph.name,
        "recipe": None,
        "family": str(model.name),
        "preprocess": pixels.preprocess(side).to_dict(),
        "pretrained": True,
        "dimensions": dimensions,
        "stages": [{**fact, **numbers} for fact, numbers in zip(measured, own, strict=True)],
        "notes": _notes(staged, pixels, path=path),
    }


def _notes(staged: Staged, pixels: Pixels, *, path: Path) -> list[str]:
    notes = [pixels.note] if pixels.note else []
    if staged.head:
        notes.append(f"{path.name}: left out its head, from layer '{staged.head}' on")
    return notes


def _open(path: Path) -> Any:
    try:
        with bounded_memory(_TIMES_THE_FILE * path.stat().st_size + _KERAS_ITSELF):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # what Keras raises for a bad file depends on what is bad in it
        raise BackboneError(
            f"backbone {printable(path)}: Keras cannot open it: {reason_of(error)}"
        ) from error


_TIMES_THE_FILE = 6
"""Keras holds the weights as it unpacks them, as it reads them, and as variables."""

_KERAS_ITSELF = 1 << 30
"""Bytes beside them, for threads and workspaces."""


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


def stages_of(graph: Graph, images: NDArray[np.float32]) -> Staged:
    """Cut a graph into stages, its classification head left out.

    A stage ends at the last tensor of each image size that alone carries everything on and has no more
    channels than any later one: where inverted bottlenecks widen their tensors is no place to cut.

    Args:
        graph: One input, one output.
        images: A few, [n, S, S, 3], which go through it to see every tensor's shape.

    Raises:
        OptionError: Nowhere in it one map carries everything on.
    """
    if len(graph.outputs) != 1:
        raise OptionError(f"expected a model with one output, got {len(graph.outputs)}")
    tensors: dict[Key, Any] = {graph.inputs[0]: keras.ops.convert_to_tensor(images)}
    for call in graph.calls:
        tensors.update(zip(call.outputs, apply(call, tensors, training=False), strict=True))
    features, head = _without_head(graph, tensors)
    body = graph.part(needed(graph.calls, [features]), inputs=graph.inputs, outputs=[features])
    shapes = {key: tuple(int(side) for side in tensor.shape) for key, tensor in tensors.items()}
    cuts = _cuts(_necks(body, shapes), body)
    if not cuts or len(shapes[features]) not in (2, 4):
        raise OptionError(
            "nowhere in the model one map [N, H, W, C] carries everything on, so it has no stages"
        )
    return Staged(body, cuts, head)


def _without_head(graph: Graph, tensors: dict[Key, Any]) -> tuple[Key, str]:
    """What the classification head reads, and its layer's name; the output, if there is no head."""
    makers = {key: call for call in graph.calls for key in call.outputs}
    key = graph.outputs[0]
    while key in makers and type(makers[key].operation).__name__ in _AFTER_HEAD:
        key = next(iter(makers[key].inputs.values()))
    call = makers.get(key)
    kind = type(call.operation).__name__ if call else ""
    classifies = len(tensors[graph.outputs[0]].shape) == 2
    pointwise = kind == "Conv2D" and tuple(tensors[key].shape[1:3]) == (1, 1)
    if call is None or not (classifies and (kind == "Dense" or pointwise)):
        return graph.outputs[0], ""
    return next(iter(call.inputs.values())), call.name


def _necks(graph: Graph, shapes: dict[Key, tuple[int, ...]]) -> list[_Neck]:
    """Every place where a single map is all that later calls read."""
    last_read = {key: position for position, call in enumerate(graph.calls) for key in call.inputs.values()}
    last_read[graph.outputs[0]] = len(graph.calls)
    alive = set(graph.inputs)
    found = []
    for position, call in enumerate(graph.calls):
        alive = {key for key in alive | set(call.outputs) if last_read.get(key, -1) > position}
        if len(alive) == 1:
            (key,) = alive
            shape = shapes[key]
            if len(shape) == 4 and shape[1] == shape[2]:
                found.append(_Neck(position + 1, key, channels=shape[3], side=shape[1]))
    return found


def _cuts(necks: Sequence[_Neck], graph: Graph) -> tuple[int, ...]:
    fewest = float("inf")
    ends: dict[int, int] = {}  # side -> position
    for neck in reversed(necks):
        if neck.channels <= fewest:
            ends.setdefault(neck.side, neck.position)
        fewest = min(fewest, neck.channels)
    cuts: list[int] = []
    for position in sorted(ends.values()):
        since = graph.calls[cuts[-1] if cuts else 0 : position]
        if any(len(weight.shape) > 1 for call in since for weight in getattr(call.operation, "weights", ())):
            cuts.append(position)  # padding or pooling alone is no stage
    return tuple(cuts)


def _parameters(calls: Sequence[Call]) -> int:
    """Numbers that could train, frozen or not."""
    found = {
        id(variable): int(np.prod(variable.shape))
        for call in calls
        if isinstance(call.operation, keras.layers.Layer)
        for layer in call.operation._flatten_layers()
        for variable in layer._trainable_variables
    }
    return sum(found.values())


def _channels_last(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _module(staged: Staged, pixels: Pixels) -> Any:
    """A Keras model from ``image``, normalised [N, 3, S, S], to the maps [N, C, H, W] and the features."""
    graph = staged.graph
    maps = [graph.calls[cut - 1].outputs[0] for cut in staged.cuts]
    whole = graph.part(graph.calls, inputs=graph.inputs, outputs=[*maps, graph.outputs[0]])

    class Module(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="staged")
            layers = dict.fromkeys(call.operation for call in graph.calls)
            self.parts = [layer for layer in layers if isinstance(layer, keras.layers.Layer)]
            self.built = True

        def call(self, image: Any) -> Any:
            x = keras.ops.transpose(image, (0, 2, 3, 1))
            if pixels.blue_first:
                x = keras.ops.flip(x, axis=-1)
            *found, features = (keras.ops.cast(y, "float32") for y in whole.run([x], training=False))
            if len(features.shape) == 4:
                features = keras.ops.mean(features, axis=(1, 2))
            return (*(keras.ops.transpose(y, (0, 3, 1, 2)) for y in found), features)

    return Module()


def _write_checked(module: Any, path: Path, *, staged: Staged, images: NDArray[np.float32]) -> None:
    side = images.shape[-1]
    outputs = [*staged.names, "features"]
    signature = keras.InputSpec(shape=(None, 3, side, side), dtype="float32", name="image")
    write_onnx(module, path, signature=signature, outputs=outputs)
    expected = (keras.ops.convert_to_numpy(y) for y in module(keras.ops.convert_to_tensor(images)))
    check_graph(path, images, dict(zip(outputs, expected, strict=True)), name=path.name)
