"""Translates a prefix into an OpenVINO model, layer by layer.

Only what is translated exactly is translated: any other layer, setting or dtype raises `Untranslatable`, and
the prefix then runs in Keras. A direct translation takes a fraction of a second, works for every backend of
Keras and keeps float32 weights as they are.

Keras's images are channels last; OpenVINO computes with channels first. Every value therefore remembers its
layout, and is turned only where a layer needs the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from headstart.backbones.keras.graph import Call, Graph, Key
from headstart.backbones.openvino import openvino

_openvino = openvino()
ops = _openvino.opset13

Port = Any
Shape = tuple[int | None, ...]


class Untranslatable(Exception):
    """A layer, or a setting of one, has no exact counterpart here. Not an error: Keras runs it instead."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: an OpenVINO port, and whether its channels stand second instead of last."""

    port: Port
    first: bool


Rule = Callable[[Any, list[Value]], Value]


def translate(graph: Graph, shapes: Sequence[Shape]) -> Any:
    """An OpenVINO model that computes ``graph`` in inference mode.

    Args:
        graph: all of its calls must do the same in training as in inference.
        shapes: of the inputs, Keras's layout, with a batch dimension of -1.

    Returns:
        An ``openvino.Model`` whose inputs and outputs have the order and layout of the graph's.

    Raises:
        Untranslatable: names the layer.
    """
    values: dict[Key, Value] = {}
    parameters = []
    for key, shape in zip(graph.inputs, shapes, strict=True):
        if graph.specs[key].dtype != "float32":
            raise Untranslatable(f"an input of dtype {graph.specs[key].dtype}")
        parameter = ops.parameter(list(shape), np.float32)
        parameters.append(parameter)
        values[key] = Value(parameter.output(0), first=False)
    for call in graph.calls:
        values[call.outputs[0]] = _translate_call(call, values)
    results = [ops.result(_last(values[key])) for key in graph.outputs]
    return _openvino.Model(results, parameters, "prefix")


def _translate_call(call: Call, values: Mapping[Key, Value]) -> Value:
    operation, kind = call.operation, type(call.operation).__name__
    if kind == "GetItem":
        return _get_item(call, values)
    rule = _RULES.get(kind)
    if rule is None or not type(operation).__module__.startswith("keras."):
        raise Untranslatable(f"layer '{call.name}' ({kind})")
    policy = getattr(operation, "dtype_policy", None)
    if policy is not None and (policy.compute_dtype != "float32" or policy.variable_dtype != "float32"):
        raise Untranslatable(f"layer '{call.name}' computes in {policy.compute_dtype}")
    if getattr(operation, "data_format", "channels_last") not in ("channels_last", None):
        raise Untranslatable(f"layer '{call.name}' has data_format {operation.data_format}")
    try:
        return rule(operation, _arguments(call, values))
    except Untranslatable as problem:
        raise Untranslatable(f"layer '{call.name}' ({kind}): {problem}") from problem


def _arguments(call: Call, values: Mapping[Key, Value]) -> list[Value]:
    """Tensors and numbers a call is applied to, in order."""
    extra = {name: value for name, value in call.arguments.kwargs.items() if value is not None}
    extra.pop("training", None)
    if extra or len(call.outputs) != 1:
        raise Untranslatable("called with further arguments")
    found = []
    for item in keras.tree.flatten(call.arguments.args):
        if isinstance(item, keras.KerasTensor):
            found.append(values[call.inputs[id(item)]])
        elif isinstance(item, int | float):
            found.append(Value(_constant(np.float32(item)), first=False))
        elif hasattr(item, "__array__") and hasattr(item, "shape"):  # a tensor of numbers, such as a mean
            found.append(Value(_constant(_numbers(item)), first=False))
        else:
            raise Untranslatable(f"called on a {type(item).__name__}")
    return found


# Layout and constants


def _rank(port: Port) -> int:
    return int(port.get_partial_shape().rank.get_length())


def _first(value: Value) -> Port:
    if value.first or _rank(value.port) != 4:
        return value.port
    return ops.transpose(value.port, [0, 3, 1, 2]).output(0)


def _last(value: Value) -> Port:
    return ops.transpose(value.port, [0, 2, 3, 1]).output(0) if value.first else value.port


def _constant(array: Any) -> Port:
    return ops.constant(np.asarray(array, np.float32, order="C")).output(0)


def _numbers(weight: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = np.asarray(keras.ops.convert_to_numpy(weight))
    if found.dtype != np.float32:
        raise Untranslatable(f"weights of dtype {found.dtype}")
    return found


def _channels(vector: Any, value: Value) -> Port:
    """A constant with one number per channel, shaped to meet ``value``."""
    vector = np.asarray(vector, np.float32).reshape(-1)
    return _constant(vector.reshape(-1, 1, 1) if value.first else vector)


def _image(value: Value) -> Value:
    if _rank(value.port) != 4:
        raise Untranslatable("expected images")
    return Value(_first(value), first=True)


# Activations


_ACTIVATIONS: dict[str, Callable[[Port], Any]] = {
    "relu": ops.relu,
    "relu6": lambda x: ops.clamp(x, 0.0, 6.0),
    "sigmoid": ops.sigmoid,
    "silu": ops.swish,
    "tanh": ops.tanh,
    "elu": lambda x: ops.elu(x, 1.0),
    "exponential": ops.exp,
    "softplus": ops.softplus,
    "mish": ops.mish,
    "hard_silu": ops.hswish,
    "hard_sigmoid": ops.hsigmoid,
    "gelu": lambda x: ops.gelu(x, "erf"),
}


def _activate(activation: Any, value: Value) -> Value:
    """Apply a Keras activation, given as the function it is."""
    name = getattr(activation, "__name__", "")
    if getattr(keras.activations, name, None) is not activation:
        raise Untranslatable(f"activation {activation!r}")
    if name == "linear":
        return value
    if name == "softmax":
        return Value(ops.softmax(_last(value), -1).output(0), first=False)
    if name not in _ACTIVATIONS:
        raise Untranslatable(f"activation {name}")
    return Value(_ACTIVATIONS[name](value.port).output(0), first=value.first)


def _activation(layer: Any, inputs: list[Value]) -> Value:
    return _activate(layer.activation, inputs[0])


def _relu(layer: Any, inputs: list[Value]) -> Value:
    slope, threshold = float(layer.negative_slope), float(layer.threshold)
    if slope or threshold:
        raise Untranslatable("negative_slope or threshold")
    if layer.max_value is None:
        return Value(ops.relu(inputs[0].port).output(0), first=inputs[0].first)
    return Value(ops.clamp(inputs[0].port, 0.0, float(layer.max_value)).output(0), first=inputs[0].first)


# Convolutions


def _auto_pad(layer: Any) -> str:
    pads = {"valid": "valid", "same": "same_upper"}
    if layer.padding not in pads:
        raise Untranslatable(f"padding {layer.padding}")
    return pads[layer.padding]


def _convolve(layer: Any, value: Value, kernel: Any, *, groups: int) -> Value:
    """Convolve with a kernel that OpenVINO has the layout of: O I H W, or G O/G I H W where grouped."""
    convolution = ops.group_convolution if groups > 1 else ops.convolution
    node = convolution(
        _first(value),
        _constant(kernel),
        strides=list(layer.strides),
        pads_begin=[0, 0],
        pads_end=[0, 0],
        dilations=list(layer.dilation_rate),
        auto_pad=_auto_pad(layer),
    )
    return Value(node.output(0), first=True)


def _finish(layer: Any, value: Value) -> Value:
    """Bias and activation."""
    if layer.use_bias:
        bias = _channels(_numbers(layer.bias), value)
        value = Value(ops.add(value.port, bias).output(0), first=value.first)
    return _activate(layer.activation, value)


def _conv2d(layer: Any, inputs: list[Value]) -> Value:
    kernel = _numbers(layer.kernel).transpose(3, 2, 0, 1)  # H W I O -> O I H W
    if layer.groups > 1:
        kernel = kernel.reshape(layer.groups, -1, *kernel.shape[1:])
    return _finish(layer, _convolve(layer, _image(inputs[0]), kernel, groups=layer.groups))


def _depthwise(layer: Any, value: Value, kernel: Any) -> Value:
    grouped = kernel.transpose(2, 3, 0, 1)[:, :, None]  # H W C M -> C M 1 H W
    return _convolve(layer, value, grouped, groups=max(2, grouped.shape[0]))


def _depthwise_conv2d(layer: Any, inputs: list[Value]) -> Value:
    return _finish(layer, _depthwise(layer, _image(inputs[0]), _numbers(layer.kernel)))


def _separable_conv2d(layer: Any, inputs: list[Value]) -> Value:
    value = _depthwise(layer, _image(inputs[0]), _numbers(layer.depthwise_kernel))
    kernel = _numbers(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    node = ops.convolution(value.port, _constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    return _finish(layer, Value(node.output(0), first=True))


def _dense(layer: Any, inputs: list[Value]) -> Value:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Untranslatable("quantised or LoRA weights")
    node = ops.matmul(_last(inputs[0]), _constant(_numbers(layer.kernel)), False, False)
    return _finish(layer, Value(node.output(0), first=False))


# Normalisation


def _last_axis(layer: Any, value: Value) -> None:
    axis = layer.axis if isinstance(layer.axis, Sequence) else [layer.axis]
    if [a % _rank(value.port) for a in axis] != [_rank(value.port) - 1]:
        raise Untranslatable(f"axis {layer.axis}")


def _scale_and_shift(value: Value, scale: Any, shift: Any) -> Value:
    scaled = ops.multiply(value.port, _channels(scale, value))
    return Value(ops.add(scaled, _channels(shift, value)).output(0), first=value.first)


def _batch_normalization(layer: Any, inputs: list[Value]) -> Value:
    _last_axis(layer, inputs[0])
    scale = 1.0 / np.sqrt(_numbers(layer.moving_variance).astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * _numbers(layer.gamma)
    shift = -_numbers(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _numbers(layer.beta)
    return _scale_and_shift(inputs[0], scale, shift)


def _layer_normalization(layer: Any, inputs: list[Value]) -> Value:
    _last_axis(layer, inputs[0])
    if getattr(layer, "rms_scaling", False):
        raise Untranslatable("rms_scaling")
    node = ops.mvn(_last(inputs[0]), [-1], True, float(layer.epsilon), "inside_sqrt")
    scale = _numbers(layer.gamma) if layer.scale else 1.0
    shift = _numbers(layer.beta) if layer.center else 0.0
    return _scale_and_shift(Value(node.output(0), first=False), scale, shift)


def _normalization(layer: Any, inputs: list[Value]) -> Value:
    if getattr(layer, "invert", False):
        raise Untranslatable("invert")
    _last_axis(layer, inputs[0])
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v)) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    centred = ops.subtract(inputs[0].port, _channels(mean, inputs[0]))
    return Value(ops.divide(centred, _channels(deviation, inputs[0])).output(0), first=inputs[0].first)


def _rescaling(layer: Any, inputs: list[Value]) -> Value:
    width = max(np.size(layer.scale), np.size(layer.offset))
    scale, shift = (np.broadcast_to(each, width) for each in (layer.scale, layer.offset))
    return _scale_and_shift(inputs[0], scale, shift)


def _layer_scale(layer: Any, inputs: list[Value]) -> Value:
    gamma = _channels(_numbers(layer.gamma), inputs[0])
    return Value(ops.multiply(inputs[0].port, gamma).output(0), first=inputs[0].first)


# Pooling, padding, cropping


def _pooling(pool: Callable[..., Any], **own: Any) -> Rule:
    def rule(layer: Any, inputs: list[Value]) -> Value:
        node = pool(
            _first(_image(inputs[0])),
            strides=list(layer.strides),
            pads_begin=[0, 0],
            pads_end=[0, 0],
            kernel_shape=list(layer.pool_size),
            auto_pad=_auto_pad(layer),
            **own,
        )
        return Value(node.output(0), first=True)

    return rule


def _global_pooling(reduce: Callable[..., Any]) -> Rule:
    def rule(layer: Any, inputs: list[Value]) -> Value:
        node = reduce(_first(_image(inputs[0])), [2, 3], keep_dims=bool(layer.keepdims))
        return Value(node.output(0), first=bool(layer.keepdims))

    return rule


def _zero_padding2d(layer: Any, inputs: list[Value]) -> Value:
    (top, bottom), (left, right) = layer.padding
    node = ops.pad(
        _first(_image(inputs[0])), [0, 0, top, left], [0, 0, bottom, right], "constant", _constant(0.0)
    )
    return Value(node.output(0), first=True)


def _cropping2d(layer: Any, inputs: list[Value]) -> Value:
    (top, bottom), (left, right) = layer.cropping
    far = np.iinfo(np.int32).max
    node = ops.slice(_first(_image(inputs[0])), [top, left], [-bottom or far, -right or far], [1, 1], [2, 3])
    return Value(node.output(0), first=True)


# Merging and shapes


def _merging(merge: Callable[[Port, Port], Any]) -> Rule:
    def rule(layer: Any, inputs: list[Value]) -> Value:
        first, ports = _meet(inputs)
        port = ports[0]
        for other in ports[1:]:
            port = merge(port, other).output(0)
        return Value(port, first=first)

    return rule


def _meet(inputs: list[Value]) -> tuple[bool, list[Port]]:
    """One layout for all: channels first where any value has it and the others are images or numbers."""
    first = any(value.first for value in inputs)
    if not first:
        return False, [value.port for value in inputs]
    if any(_rank(value.port) not in (0, 4) for value in inputs):
        return False, [_last(value) for value in inputs]
    return True, [_first(value) for value in inputs]


def _concatenate(layer: Any, inputs: list[Value]) -> Value:
    rank = _rank(inputs[0].port)
    if layer.axis % rank != rank - 1:
        return Value(ops.concat([_last(value) for value in inputs], layer.axis % rank).output(0), first=False)
    first, ports = _meet(inputs)
    return Value(ops.concat(ports, 1 if first else rank - 1).output(0), first=first)


def _get_item(call: Call, values: Mapping[Key, Value]) -> Value:
    """One channel, or all in reverse order: what ``preprocess_input`` takes from an image."""
    tensor, key = call.arguments.args
    port = _last(values[call.inputs[id(tensor)]])
    chosen: Any
    if key[0] is Ellipsis and len(key) == 2 and isinstance(key[1], int):
        chosen = key[1]
    elif key == (Ellipsis, slice(None, None, -1)) and tensor.shape[-1] is not None:
        chosen = list(reversed(range(tensor.shape[-1])))
    else:
        raise Untranslatable(f"layer '{call.name}' takes [{key}]")
    indices = ops.constant(np.array(chosen, np.int64))
    return Value(ops.gather(port, indices, -1).output(0), first=False)


def _stack(operation: Any, inputs: list[Value]) -> Value:
    rank = _rank(inputs[0].port) + 1
    if operation.axis % rank != rank - 1:
        raise Untranslatable(f"axis {operation.axis}")
    ports = [ops.unsqueeze(_last(value), -1).output(0) for value in inputs]
    return Value(ops.concat(ports, -1).output(0), first=False)


def _resizing(layer: Any, inputs: list[Value]) -> Value:
    if layer.interpolation != "bilinear" or layer.antialias:
        raise Untranslatable(f"interpolation {layer.interpolation}, antialias {layer.antialias}")
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        raise Untranslatable("keeps the aspect ratio")
    node = ops.interpolate(
        _first(_image(inputs[0])),
        [layer.height, layer.width],
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode="half_pixel",
        axes=ops.constant(np.array([2, 3], np.int64)),
    )
    return Value(node.output(0), first=True)


def _reshape(layer: Any, inputs: list[Value]) -> Value:
    node = ops.reshape(_last(inputs[0]), [0, *layer.target_shape], True)
    return Value(node.output(0), first=False)


def _flatten(layer: Any, inputs: list[Value]) -> Value:
    return Value(ops.reshape(_last(inputs[0]), [0, -1], True).output(0), first=False)


def _same(layer: Any, inputs: list[Value]) -> Value:
    return inputs[0]


_RULES: dict[str, Rule] = {
    "Activation": _activation,
    "Add": _merging(ops.add),
    "AveragePooling2D": _pooling(ops.avg_pool, exclude_pad=True),
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Cropping2D": _cropping2d,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_conv2d,
    "Divide": _merging(ops.divide),
    "Dropout": _same,  # a prefix holds it only where it does nothing
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling(ops.reduce_mean),
    "GlobalMaxPooling2D": _global_pooling(ops.reduce_max),
    "Identity": _same,
    "LayerNormalization": _layer_normalization,
    "LayerScale": _layer_scale,
    "MaxPooling2D": _pooling(ops.max_pool, dilations=[1, 1]),
    "Maximum": _merging(ops.maximum),
    "Minimum": _merging(ops.minimum),
    "Multiply": _merging(ops.multiply),
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Resizing": _resizing,
    "SeparableConv2D": _separable_conv2d,
    "SpatialDropout2D": _same,
    "Stack": _stack,
    "Subtract": _merging(ops.subtract),
    "TrueDivide": _merging(ops.divide),
    "ZeroPadding2D": _zero_padding2d,
}
