"""Writes an OpenVINO model (IR) as an ONNX model: the operations that networks of images are made of.

OpenVINO reads ONNX and writes none. What it computes from weights or shapes is translated like the rest;
32-bit whole numbers become those of 64 bits, which ONNX wants for shapes. Whoever uses the result compares it
with the original. Operations: https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets.html
and https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from headstart.backbones.onnx.nodes import Nodes
from headstart.backbones.openvino import openvino
from headstart.errors import BackboneError, printable

_OPSET, _IR_VERSION = 17, 8  # as of every graph that is written here

_TYPES = {
    **{"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "f64": TensorProto.DOUBLE},
    **{"i64": TensorProto.INT64, "i32": TensorProto.INT64, "boolean": TensorProto.BOOL},
    **{"u8": TensorProto.UINT8, "i8": TensorProto.INT8},
}

_LAST = 2**31 - 1
"""An end beyond every axis."""


def as_onnx(model: Any, *, name: str) -> Any:
    """The same network as an ONNX model, with the same inputs and outputs.

    Args:
        model: OpenVINO's; what is constant in it is computed.
        name: For messages.

    Raises:
        BackboneError: It has an operation, or a use of one, that is not translated; says which.
    """
    openvino()  # first: it is imported without its conversion tools
    from openvino import passes

    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())  # axes and shapes that are known are constants then
    folding.run_passes(model)
    translator = _Translator()
    inputs = [_described(port, f"input{number}") for number, port in enumerate(model.inputs)]
    for port, value in zip(model.inputs, inputs, strict=True):
        translator.names[_key(port)] = value.name
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Parameter", "Result"):
            continue
        try:
            translator.take(node, _OPERATIONS[kind] if kind in _OPERATIONS else _element_wise(kind))
        except (KeyError, ValueError, TypeError) as error:
            raise BackboneError(
                f"backbone {name}: its operation {printable(kind[:40])} "
                f"({printable(node.get_friendly_name()[:60])}) is not one that is translated from OpenVINO's "
                "form; take the ONNX file that it was made from"
            ) from error
    outputs = [_described(port, f"output{number}") for number, port in enumerate(model.outputs)]
    for port, value in zip(model.outputs, outputs, strict=True):
        value.type.tensor_type.ClearField("shape")
        source = translator.names[_key(port.get_node().input_value(0))]
        translator.add("Identity", [source], output=value.name)
    graph = helper.make_graph(translator.nodes, "network", inputs, outputs, translator.constants)
    sets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=sets, ir_version=_IR_VERSION)


def _described(port: Any, name: str) -> Any:
    found = min(port.get_names(), default=name)
    dims = [
        f"{name}_{axis}" if dim.is_dynamic else dim.get_length()
        for axis, dim in enumerate(port.get_partial_shape())
    ]
    return helper.make_tensor_value_info(found, _TYPES[port.get_element_type().get_type_name()], dims)


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()


class _Translator(Nodes):
    """Nodes and weights so far, and what each of OpenVINO's tensors is called."""

    def __init__(self) -> None:
        super().__init__("ir")
        self.names: dict[tuple[str, int], str] = {}

    def take(self, node: Any, write: Callable[[_Translator, Any, list[str]], str | list[str]]) -> None:
        """Translate one operation."""
        read = [self.names[_key(port.get_source_output())] for port in node.inputs()]
        written = write(self, node, read)
        for index, name in enumerate([written] if isinstance(written, str) else written):
            self.names[node.get_name(), index] = name

    def real(self, value: float, node: Any) -> str:
        """A number of the type of what an operation gives."""
        kind = node.get_output_element_type(0).to_dtype()
        return self.constant(np.array(value, kind))


def _constant_of(node: Any, index: int) -> NDArray[np.int64]:
    """The whole numbers of a constant input, as one row; ValueError where they are computed."""
    source = node.input_value(index).get_node()
    if source.get_type_name() != "Constant":
        raise ValueError(f"input {index} is computed")
    return np.atleast_1d(source.get_data()).astype(np.int64)


def _axis_of(node: Any, index: int) -> int:
    return int(_constant_of(node, index)[0])


_PLAIN = {
    **{"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div", "Power": "Pow", "Sqrt": "Sqrt"},
    **{"Exp": "Exp", "Log": "Log", "Erf": "Erf", "Relu": "Relu", "PRelu": "PRelu", "Sigmoid": "Sigmoid"},
    **{"Tanh": "Tanh", "Abs": "Abs", "Negative": "Neg", "Minimum": "Min", "Maximum": "Max", "Floor": "Floor"},
    **{"Ceiling": "Ceil", "Select": "Where", "HSwish": "HardSwish", "SoftPlus": "Softplus", "Sin": "Sin"},
    **{
        "Cos": "Cos",
        "FloorMod": "Mod",
        "Equal": "Equal",
        "Less": "Less",
        "Greater": "Greater",
        "Tile": "Tile",
    },
    **{"ShapeOf": "Shape", "Broadcast": "Expand"},
}
"""Operations with the same inputs on both sides and nothing to set."""


def _element_wise(kind: str) -> Callable[[_Translator, Any, list[str]], str]:
    operator = _PLAIN[kind]
    return lambda translator, _, read: translator.add(operator, read[:3])


def _stored(translator: _Translator, node: Any, read: list[str]) -> str:
    del read
    values = node.get_data()
    if node.get_element_type().get_type_name() not in _TYPES:
        raise ValueError("a type that is not translated")
    return translator.constant(values.astype(np.int64) if values.dtype == np.int32 else values)


def _converted(translator: _Translator, node: Any, read: list[str]) -> str:
    return translator.add("Cast", read, to=_TYPES[node.get_attributes()["destination_type"]])


_AUTO_PAD = {"same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}


def _window(node: Any) -> dict[str, Any]:
    """Strides, dilations and padding of what slides over a map."""
    found = node.get_attributes()
    settings: dict[str, Any] = {"strides": list(found["strides"])}
    if "dilations" in found:
        settings["dilations"] = list(found["dilations"])
    if automatic := _AUTO_PAD.get(found["auto_pad"]):
        return settings | {"auto_pad": automatic}
    return settings | {"pads": [*found["pads_begin"], *found["pads_end"]]}


def _convolved(translator: _Translator, node: Any, read: list[str]) -> str:
    groups = 1
    if node.get_type_name() == "GroupConvolution":  # weights [G, O / G, I / G, …]
        groups, each, *rest = node.get_input_shape(1)
        shape = translator.constant(np.array([groups * each, *rest], np.int64))
        read = [read[0], translator.add("Reshape", [read[1], shape])]
    return translator.add("Conv", read, group=int(groups), **_window(node))


def _pooled(translator: _Translator, node: Any, read: list[str]) -> str:
    found = node.get_attributes()
    settings = _window(node) | {"kernel_shape": list(found["kernel"])}
    if found["rounding_type"] != "floor":
        settings["ceil_mode"] = 1
    if node.get_type_name() == "MaxPool":
        return translator.add("MaxPool", read, **settings)
    return translator.add("AveragePool", read, count_include_pad=int(not found["exclude-pad"]), **settings)


def _multiplied(translator: _Translator, node: Any, read: list[str]) -> str:
    found = node.get_attributes()
    for index, side in enumerate("ab"):
        if found[f"transpose_{side}"]:
            rank = node.get_input_partial_shape(index).rank.get_length()
            order = [*range(rank - 2), rank - 1, rank - 2]
            read[index] = translator.add("Transpose", [read[index]], perm=order)
    return translator.add("MatMul", read)


def _normalised(translator: _Translator, node: Any, read: list[str]) -> str:
    """Mean-variance normalisation, written out; OpenVINO finds it again when it compiles."""
    found, axes = node.get_attributes(), _constant_of(node, 1).tolist()
    mean = translator.add("ReduceMean", read[:1], axes=axes)
    centred = translator.add("Sub", [read[0], mean])
    if not found["normalize_variance"]:
        return centred
    squared = translator.add("Mul", [centred, centred])
    variance = translator.add("ReduceMean", [squared], axes=axes)
    epsilon = translator.real(found["eps"], node)
    if str(found["eps_mode"]).lower().startswith("inside"):
        spread = translator.add("Sqrt", [translator.add("Add", [variance, epsilon])])
    else:
        spread = translator.add("Add", [translator.add("Sqrt", [variance]), epsilon])
    return translator.add("Div", [centred, spread])


def _reduced(translator: _Translator, node: Any, read: list[str]) -> str:
    kept, operator = int(node.get_attributes()["keep_dims"]), node.get_type_name()
    if operator == "ReduceSum":
        return translator.add(operator, read, keepdims=kept)
    return translator.add(operator, read[:1], axes=_constant_of(node, 1).tolist(), keepdims=kept)


def _gelu(translator: _Translator, node: Any, read: list[str]) -> str:
    """https://arxiv.org/abs/1606.08415, by the error function or by its approximation."""
    x = read[0]
    if str(node.get_attributes()["approximation_mode"]).upper() == "ERF":
        share = translator.add("Erf", [translator.add("Mul", [x, translator.real(1 / sqrt(2), node)])])
    else:
        cubed = translator.add("Pow", [x, translator.real(3, node)])
        bent = translator.add("Add", [x, translator.add("Mul", [cubed, translator.real(0.044715, node)])])
        share = translator.add("Tanh", [translator.add("Mul", [bent, translator.real(sqrt(2 / pi), node)])])
    half = translator.add("Mul", [x, translator.real(0.5, node)])
    return translator.add("Mul", [half, translator.add("Add", [share, translator.real(1, node)])])


def _swish(translator: _Translator, node: Any, read: list[str]) -> str:
    del node
    steep = translator.add("Mul", read) if len(read) > 1 else read[0]
    return translator.add("Mul", [read[0], translator.add("Sigmoid", [steep])])


def _attended(translator: _Translator, node: Any, read: list[str]) -> str:
    """``softmax(q k' * scale + mask) v``."""
    if node.get_attributes()["causal"] or len(read) > 5:
        raise ValueError("causal")
    query, key, value, *more = read
    rank = node.get_input_partial_shape(1).rank.get_length()
    turned = translator.add("Transpose", [key], perm=[*range(rank - 2), rank - 1, rank - 2])
    scale = 1 / sqrt(node.get_input_partial_shape(0)[rank - 1].get_length())
    by = more[1] if len(more) > 1 else translator.real(scale, node)
    scores = translator.add("Mul", [translator.add("MatMul", [query, turned]), by])
    if more:
        scores = translator.add("Add", [scores, more[0]])
    return translator.add("MatMul", [translator.add("Softmax", [scores], axis=-1), value])


def _split(translator: _Translator, node: Any, read: list[str]) -> list[str]:
    axis, count = _axis_of(node, 1), len(node.outputs())
    wanted = [f"ir/{len(translator.nodes)}-split-{index}" for index in range(count)]
    sizes = [int(port.get_partial_shape()[axis].get_length()) for port in node.outputs()]
    lengths = translator.constant(np.array(sizes, np.int64))
    translator.nodes.append(helper.make_node("Split", [read[0], lengths], wanted, axis=axis))
    return wanted


def _gathered(translator: _Translator, node: Any, read: list[str]) -> str:
    if node.get_attributes()["batch_dims"]:
        raise ValueError("batch_dims")
    return translator.add("Gather", read[:2], axis=_axis_of(node, 2))


def _strided_slice(translator: _Translator, node: Any, read: list[str]) -> str:
    found, begin, end = node.get_attributes(), _constant_of(node, 1).copy(), _constant_of(node, 2).copy()
    if any(found["new_axis_mask"]) or any(found["ellipsis_mask"]):
        raise ValueError("new axes")
    step = _constant_of(node, 3).copy() if len(read) > 3 else np.ones_like(begin)
    gone = [axis for axis, shrunk in enumerate(found["shrink_axis_mask"]) if shrunk]
    for axis in range(len(begin)):
        if axis in gone:
            end[axis], step[axis] = (begin[axis] + 1 if begin[axis] != -1 else _LAST), 1
            continue
        if axis < len(found["begin_mask"]) and found["begin_mask"][axis]:
            begin[axis] = 0 if step[axis] > 0 else _LAST
        if axis < len(found["end_mask"]) and found["end_mask"][axis]:
            end[axis] = _LAST if step[axis] > 0 else -_LAST
    rows = [translator.constant(row) for row in (begin, end, np.arange(len(begin)), step)]
    cut = translator.add("Slice", [read[0], *rows])
    return translator.add("Squeeze", [cut, translator.constant(np.array(gone, np.int64))]) if gone else cut


def _rolled(translator: _Translator, node: Any, read: list[str]) -> str:
    """What leaves a tensor at the end of an axis comes in at its beginning."""
    found = read[0]
    for by, axis in zip(_constant_of(node, 1).tolist(), _constant_of(node, 2).tolist(), strict=True):
        start, middle, end, along = (
            translator.constant(np.array([place], np.int64)) for place in (-_LAST, -by, _LAST, axis)
        )
        if by:
            behind = translator.add("Slice", [found, middle, end, along])
            before = translator.add("Slice", [found, start, middle, along])
            found = translator.add("Concat", [behind, before], axis=axis)
    return found


def _sliced(translator: _Translator, node: Any, read: list[str]) -> str:
    del node
    data, start, stop, step, *axes = read
    if not axes:
        raise ValueError("no axes")
    return translator.add("Slice", [data, start, stop, axes[0], step])


def _padded(translator: _Translator, node: Any, read: list[str]) -> str:
    mode = str(node.get_attributes()["pad_mode"]).lower()
    sides = translator.add("Concat", read[1:3], axis=0)
    return translator.add("Pad", [read[0], sides, *read[3:]], mode=mode)


def _shaped(translator: _Translator, node: Any, read: list[str]) -> str:
    return translator.add("Reshape", read, allowzero=int(not node.get_attributes()["special_zero"]))


def _batch_normed(translator: _Translator, node: Any, read: list[str]) -> str:
    return translator.add("BatchNormalization", read, epsilon=float(node.get_attributes()["epsilon"]))


def _hard_sigmoid(translator: _Translator, node: Any, read: list[str]) -> str:
    slope, shift = (float(node.input_value(index).get_node().get_data().item()) for index in (1, 2))
    return translator.add("HardSigmoid", read[:1], alpha=slope, beta=shift)


def _with(operator: str, *settings: str) -> Callable[[_Translator, Any, list[str]], str]:
    """The same operation with some of its settings, which have the same names on both sides."""

    def write(translator: _Translator, node: Any, read: Sequence[str]) -> str:
        found = node.get_attributes()
        return translator.add(operator, read, **{name: found[name] for name in settings})

    return write


_OPERATIONS: dict[str, Callable[[_Translator, Any, list[str]], str | list[str]]] = {
    "Constant": _stored,
    "Convert": _converted,
    "Convolution": _convolved,
    "GroupConvolution": _convolved,
    "MaxPool": _pooled,
    "AvgPool": _pooled,
    "MatMul": _multiplied,
    "MVN": _normalised,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), _reduced),
    "Gelu": _gelu,
    "Swish": _swish,
    "ScaledDotProductAttention": _attended,
    "Split": _split,
    "VariadicSplit": _split,
    "Gather": _gathered,
    "StridedSlice": _strided_slice,
    "Slice": _sliced,
    "Roll": _rolled,
    "Pad": _padded,
    "Reshape": _shaped,
    "BatchNormInference": _batch_normed,
    "Softmax": _with("Softmax", "axis"),
    "Concat": _with("Concat", "axis"),
    "Elu": _with("Elu", "alpha"),
    "Squeeze": lambda translator, _, read: translator.add("Squeeze", read),
    "Unsqueeze": lambda translator, _, read: translator.add("Unsqueeze", read),
    "Transpose": lambda translator, node, read: translator.add(
        "Transpose", read[:1], perm=_constant_of(node, 1).tolist()
    ),
    "Clamp": lambda translator, node, read: translator.add(
        "Clip", [*read, *(translator.real(node.get_attributes()[end], node) for end in ("min", "max"))]
    ),
    "HardSigmoid": _hard_sigmoid,
    "HSigmoid": lambda translator, _, read: translator.add("HardSigmoid", read, alpha=1 / 6, beta=0.5),
}
