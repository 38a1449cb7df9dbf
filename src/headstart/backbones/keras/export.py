"""Writes a Keras model as an ONNX file, with inputs and outputs named as they are wanted."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from headstart.errors import MissingExtra


def write_onnx(model: Any, path: Path, *, signature: Any, outputs: Sequence[str]) -> None:
    """Export with Keras, check, and write in one step.

    Args:
        model: A Keras model with one input.
        path: Where the file goes.
        signature: A ``keras.InputSpec`` of the input, with its name.
        outputs: The outputs' names, in the model's order.

    Raises:
        MissingExtra: What writes ONNX files is not installed.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of the writer, about NumPy and about optimisations that it could not make.
        warnings.simplefilter("ignore")
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
        file = Path(folder) / "model.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()), _expressible(model):
                model.export(str(file), format="onnx", verbose=False, input_signature=[signature])
        except ImportError as error:
            extra = "jax" if keras.backend.backend() == "jax" else "keras"
            raise MissingExtra("writing a Keras model as ONNX", extra=extra) from error
        written = onnx.load(file)
    graph = written.graph
    names = {graph.input[0].name: signature.name}
    names |= {found.name: name for found, name in zip(graph.output, outputs, strict=True)}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in [*graph.input, *graph.output]:
        value.name = names.get(value.name, value.name)
    _replace_erfc(graph)
    onnx.checker.check_model(written)
    path.write_bytes(written.SerializeToString())


def _replace_erfc(graph: Any) -> None:
    """ONNX has no ``Erfc``, which TensorFlow's GELU uses and its writer passes on: it is ``1 - Erf``."""
    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        nodes.append(onnx.helper.make_node("Erf", [x], [f"{y}/erf"]))
        nodes.append(onnx.helper.make_node("Sub", ["headstart/one", f"{y}/erf"], [y]))
    if len(nodes) > len(graph.node):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(1.0, np.float32), "headstart/one"))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


@contextlib.contextmanager
def _expressible(model: Any) -> Iterator[None]:
    """Let a few layers compute in a way that the writer of ONNX files knows, with the same result.

    TensorFlow's takes the statistics of a Normalization for further inputs, and does not know the compiled
    function that Keras calls for convolutions in groups. PyTorch's writes no weights that could train.
    """
    before: list[tuple[Any, str, Any]] = []
    if keras.backend.backend() == "torch":
        for tensor in (weight.value for weight in model.weights):
            before.append((tensor, "requires_grad", tensor.requires_grad))
            tensor.requires_grad = False
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Normalization:
            for name in ("mean", "variance"):
                value = getattr(layer, name)
                before.append((layer, name, value))
                setattr(layer, name, np.asarray(keras.ops.convert_to_numpy(value)))
        elif type(layer) is keras.layers.Conv2D and layer.groups > 1:
            before.append((layer, "convolution_op", None))
            layer.convolution_op = _in_groups(layer)
    try:
        yield
    finally:
        for layer, name, value in before:
            if value is None:
                delattr(layer, name)  # the class has the method
            else:
                setattr(layer, name, value)


def _in_groups(layer: Any) -> Any:
    """What ``Conv2D.convolution_op`` computes where there are several groups."""
    settings = {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "data_format": layer.data_format,
    }

    def convolve(inputs: Any, kernel: Any) -> Any:
        height, width, per_group, outputs = kernel.shape
        if per_group == 1 and layer.data_format == "channels_last":
            depthwise = keras.ops.reshape(kernel, (height, width, layer.groups, outputs // layer.groups))
            return keras.ops.depthwise_conv(inputs, depthwise, **settings)
        axis = -1 if layer.data_format == "channels_last" else 1
        parts = keras.ops.split(inputs, layer.groups, axis=axis)
        kernels = keras.ops.split(kernel, layer.groups, axis=-1)
        return keras.ops.concatenate(
            [keras.ops.conv(part, own, **settings) for part, own in zip(parts, kernels, strict=True)],
            axis=axis,
        )

    return convolve
