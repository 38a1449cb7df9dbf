"""Writes a Keras model as an ONNX file, with inputs and outputs named as they are wanted."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
            with contextlib.redirect_stdout(io.StringIO()):
                model.export(str(file), format="onnx", verbose=False, input_signature=[signature])
        except ImportError as error:
            raise MissingExtra("writing a Keras model as ONNX", extra="keras") from error
        written = onnx.load(file)
    graph = written.graph
    names = {graph.input[0].name: signature.name}
    names |= {found.name: name for found, name in zip(graph.output, outputs, strict=True)}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in [*graph.input, *graph.output]:
        value.name = names.get(value.name, value.name)
    onnx.checker.check_model(written)
    path.write_bytes(written.SerializeToString())
