"""Writes the staged ONNX file of what is an ONNX model already: one output per stage and `features`.

The model is cut at tensors of its own, which `headstart.backbones.cuts` finds; nothing is computed in another
way. What is in front of the image and behind the cuts (a layout, half precision, pooling) becomes nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from headstart.backbones.cuts import Cut, Staging
from headstart.backbones.onnx.nodes import Nodes, names_read, needed

INPUT = "image"

_PREFIX = "network/"
"""In front of every name that the model has, so that no stage, nor anything added later, meets one."""


def staged_model(
    model: Any, staging: Staging, *, side: int, any_size: bool = False, blue_first: bool = False
) -> Any:
    """A new ONNX model from ``image``, float32 [N, 3, S, S] normalised, to each stage and ``features``.

    Args:
        model: An ONNX model with one input, an image of either layout, whose batch is free.
        staging: Its stages, by names of its tensors.
        side: Pixels a side.
        any_size: Leave height and width free.
        blue_first: Whether the model itself reads blue, green, red.
    """
    inner = onnx.compose.add_prefix(model, _PREFIX)
    builder = _Builder("cut")
    builder.image(inner.graph.input[0], blue_first=blue_first)
    before, builder.nodes = builder.nodes, []
    for name, cut in zip(staging.names, staging.stages, strict=True):
        builder.stage(cut, name=name)
    builder.features(staging.features)
    sides: list[int | str] = ["H", "W"] if any_size else [side, side]
    outputs = [_described(name, *cut.shape) for name, cut in zip(staging.names, staging.stages, strict=True)]
    graph = helper.make_graph(
        needed([*before, *inner.graph.node, *builder.nodes], [*staging.names, "features"]),
        "staged",
        [_described(INPUT, 3, *sides)],
        [_free(value) for value in outputs] if any_size else outputs,
    )
    graph.output.append(_described("features", staging.features.channels))
    used = {name for node in graph.node for name in names_read(node)}
    graph.initializer.extend(
        tensor for tensor in [*inner.graph.initializer, *builder.constants] if tensor.name in used
    )
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def as_stage(values: NDArray[Any], cut: Cut) -> NDArray[np.float32]:
    """What the staged model gives for a cut, of the values of its tensor, [N, …]."""
    values = values.astype(np.float32)
    if cut.layout == "NHWC":
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values.reshape(len(values), -1, 1, 1) if cut.layout == "NC" else values


def as_features(values: NDArray[Any], cut: Cut) -> NDArray[np.float32]:
    """What the staged model's features are, of the values of the tensor that they are made of, [N, …]."""
    stage = as_stage(values, cut)
    if cut.layout != "NTC":
        return np.asarray(stage.mean((2, 3)))
    return stage[:, 0] if cut.prefix_tokens else np.asarray(stage.mean(1))


class _Builder(Nodes):
    """What stands in front of a network and behind its cuts."""

    def image(self, value: Any, *, blue_first: bool) -> None:
        """``image`` as the model's own input."""
        kind, name = value.type.tensor_type, INPUT
        if blue_first:
            name = self.add("Gather", [name, self.constant(np.array([2, 1, 0]))], axis=1)
        if kind.shape.dim[1].dim_value != 3:
            name = self.add("Transpose", [name], perm=[0, 2, 3, 1])
        self.add("Cast", [name], to=kind.elem_type, output=value.name)

    def stage(self, cut: Cut, *, name: str) -> None:
        """A cut's tensor as a stage's output."""
        found = self.add("Cast", [_PREFIX + cut.tensor], to=TensorProto.FLOAT)
        if cut.layout == "NHWC":
            self.add("Transpose", [found], perm=[0, 3, 1, 2], output=name)
        elif cut.layout == "NC":
            self.add("Reshape", [found, self.constant(np.array([0, -1, 1, 1]))], output=name)
        else:
            self.add("Identity", [found], output=name)

    def features(self, cut: Cut) -> None:
        """``features`` of a cut's tensor, see `headstart.backbones.cuts.Cut.pooling`."""
        found = self.add("Cast", [_PREFIX + cut.tensor], to=TensorProto.FLOAT)
        if cut.layout == "NTC" and cut.prefix_tokens:
            self.add("Gather", [found, self.constant(np.array(0))], axis=1, output="features")
            return
        if cut.layout != "NC":
            if cut.layout != "NCHW":
                found = self.add(
                    "Transpose", [found], perm=[0, 2, 1] if cut.layout == "NTC" else [0, 3, 1, 2]
                )
            found = self.add("GlobalAveragePool", [found])
        self.add("Flatten", [found], axis=1, output="features")


def _described(name: str, *sides: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides])


def _free(value: Any) -> Any:
    """A described map whose height and width depend on the image's; of tokens their number does."""
    dims = value.type.tensor_type.shape.dim
    for position, dim in enumerate(dims):
        if (len(dims) == 4 and position > 1) or (len(dims) == 3 and position == 1):
            dim.dim_param = f"{value.name}_{position}"
    return value
