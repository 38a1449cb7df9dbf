"""Exports that are the run's own graph: ONNX and OpenVINO, and the plain form that converters understand."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from headstart.exports.subject import Subject


def write_onnx(subject: "Subject", folder: Path) -> None:
    """`model.onnx`: the run's graph, with its labels in the file's metadata."""
    import onnx

    model = onnx.load(subject.classifier.model)
    save_onnx(model, subject, folder)


def save_onnx(model: Any, subject: "Subject", folder: Path) -> None:
    """Write an ONNX model with the classifier's labels and preprocessing in its metadata."""
    import onnx

    facts = {
        "classes": json.dumps(subject.classifier.classes, ensure_ascii=False),
        "preprocess": json.dumps(subject.classifier.preprocess.to_dict()),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


def write_openvino(subject: "Subject", folder: Path) -> None:
    """`model.xml` and `model.bin`, weights in float32."""
    from headstart.backbones.openvino import the_core

    save_openvino(the_core().read_model(subject.classifier.model), folder)


def save_openvino(model: Any, folder: Path) -> None:
    """Write an OpenVINO model as it is: half-precision weights would cost the exactness that is checked."""
    from headstart.backbones.openvino import openvino

    openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)


def plain_graph(path: Path) -> Any:
    """A saved model's probabilities, with everything that does not depend on the pixels as a stored constant.

    Backbones may store weights in half precision and widen them in the graph. Quantisers look for a layer's
    weights right beside it, and converters guess the layout of every product, so both want them computed.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    from headstart.classifier.onnx_graph import SavedGraph

    model = SavedGraph.read(path).alone()
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        inputs = {name: known[name] for name in node.input if name in known}
        if len(inputs) < len({name for name in node.input if name}):
            nodes.append(node)
            continue
        taken = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for name, v in inputs.items()
        ]
        given = [helper.make_tensor_value_info(name, 0, None) for name in node.output]
        alone = helper.make_model(
            helper.make_graph([node], "constant", taken, given), opset_imports=list(model.opset_import)
        )
        known |= dict(
            zip(node.output, map(np.asarray, ReferenceEvaluator(alone).run(None, inputs)), strict=True)
        )
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(value, name) for name, value in known.items() if name in used]
    graph = helper.make_graph(
        nodes, model.graph.name, list(model.graph.input), list(model.graph.output), constants
    )
    plain = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    plain = onnx.shape_inference.infer_shapes(plain)
    onnx.checker.check_model(plain)
    return plain
