"""Makes a staged ONNX file of an ONNX model: chooses its output, cuts it into stages, checks it."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from headstart.backbones import records
from headstart.backbones.cuts import Staging, staging_of
from headstart.backbones.exported import TOLERANCE, check_graph
from headstart.backbones.onnx.nodes import names_read, needed
from headstart.backbones.onnx.reading import IR_SUFFIX, read_ir, read_model
from headstart.backbones.onnx.staging import as_features, as_stage, staged_model
from headstart.backbones.openvino import the_core
from headstart.backbones.pixels import Pixels
from headstart.errors import BackboneError, ParityError, printable, reason_of
from headstart.files import bounded_memory, whole

_COLOURS = 3

_MOST_OPERATIONS = 1_000_000
"""That the functions inside a file may open up to."""

_BATCH = 2
"""Images that a network is looked at and checked with; that it takes two at once is not said by one."""

_PREFERRED = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
"""Outputs as Hugging Face names them, the best first; of others the one that most is computed for."""

_TIMES_THE_FILE, _OPENVINO_ITSELF = 8, 2 << 30
"""Bytes that reading, compiling and running may take."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def export_model(path: Path, *, key: str, size: int | None, pixels: Pixels) -> dict[str, Any]:
    """Write the staged ONNX file of an ONNX file, check it, and say what it is.

    Raises:
        BackboneError: It is unreadable, no image network, or takes no images of that size.
        ParityError: The staged graph computes something else.
    """
    of_ir = path if path.suffix == IR_SUFFIX else None
    return export_network(read_model(path), name=path.name, key=key, size=size, pixels=pixels, of_ir=of_ir)


def export_network(
    model: Any,
    *,
    name: str,
    key: str,
    size: int | None,
    pixels: Pixels,
    family: str = "",
    of_ir: Path | None = None,
) -> dict[str, Any]:
    """Write the staged ONNX file of an ONNX model, check it, and say what it is; see `export_model`.

    Args:
        model: It may be changed.
        name: Of the file that it comes from, for messages.
        key: Of the graph that is written.
        size: Pixels a side; None for its own.
        pixels: What it wants its images to be.
        family: What it says it is; empty for what its graph says.
        of_ir: The file in OpenVINO's form that it was translated from.
    """
    shown = printable(name)
    model = _of_one_output(_inlined(model, shown), shown)
    try:
        with bounded_memory(_TIMES_THE_FILE * model.ByteSize() + _OPENVINO_ITSELF):
            record = _export(model, shown, key=key, size=size, pixels=pixels, of_ir=of_ir)
    except (RuntimeError, ValueError, TypeError, MemoryError, onnx.checker.ValidationError) as error:
        reason = f"OpenVINO cannot read or run it: {_reason(error)}"
        if isinstance(error, MemoryError) or "alloc" in str(error):
            reason = "takes more memory than its size explains; refused"
        raise BackboneError(f"backbone {shown}: {reason}") from error
    return {**record, "family": printable((family or model.graph.name)[:60]) or Path(name).stem}


def _reason(error: BaseException) -> str:
    """The last line of OpenVINO's reasons says what is wrong; those before it say where in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1].strip()[:200]) if lines else reason_of(error)


def _export(
    model: Any, shown: str, *, key: str, size: int | None, pixels: Pixels, of_ir: Path | None
) -> dict[str, Any]:
    side, note = _side(model.graph.input[0], size=size, pixels=pixels, shown=shown)
    batch = _set_dimensions(model, side)
    if of_ir is not None:
        _check_translation(model, of_ir, batch=batch or 1)
    staging = _staging(model, side=side, fixed=batch, shown=shown)
    staged = staged_model(model, staging, side=side, blue_first=pixels.blue_first)
    onnx.checker.check_model(staged)
    graph = records.graphs_folder() / f"{key}-{side}.onnx"
    with whole(graph) as draft:
        draft.write_bytes(staged.SerializeToString())
        images = np.random.default_rng(0).normal(0, 1, (_BATCH, _COLOURS, side, side)).astype(np.float32)
        ordered = images[:, ::-1] if pixels.blue_first else images
        check_graph(draft, images, _expected(model, staging, ordered, batch=batch or 1), name=shown)
    return {
        "graph": graph.name,
        "recipe": None,
        "preprocess": pixels.preprocess(side).to_dict(),
        "pretrained": True,
        "dimensions": staging.features.channels,
        "stages": _stages(staging),
        "notes": [*filter(None, (pixels.note, note, _about(staging, shown)))],
    }


def _about(staging: Staging, shown: str) -> str:
    """In one sentence what the features are."""
    found = staging.features
    of = f"the {found.pooling} of {printable(found.tensor[:60])} ({' x '.join(map(str, found.shape))})"
    said = f"{found.channels:,} numbers" + (f", {of}" if found.pooling else "")
    left_out = (
        f", which the classifier {printable(staging.classifier[:60])} reads" if staging.classifier else ""
    )
    return f"{shown}: its features are {said}{left_out}; cut into {len(staging.stages)} stages"


def _stages(staging: Staging) -> list[dict[str, Any]]:
    """Records of the stages; what is behind the last one counts to it."""
    ends = [*staging.stages[:-1], staging.features]
    found, work, weights = [], 0, 0
    for name, cut, end in zip(staging.names, staging.stages, ends, strict=True):
        shape = [*cut.shape, 1, 1] if cut.layout == "NC" else list(cut.shape)
        own = {"multiply_adds": end.multiply_adds - work, "parameters": end.parameters - weights}
        found.append({"name": name, "shape": shape, "prefix_tokens": cut.prefix_tokens, **own})
        work, weights = end.multiply_adds, end.parameters
    return found


# ------------------------------------------------------------------------------ what goes in and out


def _inlined(model: Any, shown: str) -> Any:
    """Local functions opened up, as everything here looks at operations alone."""
    if not model.functions:
        return model
    from onnx import inliner

    functions = {(each.domain, each.name): each.node for each in model.functions}

    @cache
    def operations(name: tuple[str, str]) -> int:
        inner = functions.get(name)
        return 1 if inner is None else sum(operations((node.domain, node.op_type)) for node in inner)

    try:
        if sum(operations((node.domain, node.op_type)) for node in model.graph.node) <= _MOST_OPERATIONS:
            return inliner.inline_local_functions(model)
    except RecursionError:
        pass
    raise BackboneError(f"backbone {shown}: its functions open up to more operations than a network has")


def _of_one_output(model: Any, shown: str) -> Any:
    """The part of a model that leads from its image to the output that says most of it."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in stored}
    images = [name for name, value in inputs.items() if _is_image(value)]
    if len(images) != 1:
        found = ", ".join(f"{name} {_sides(value)}" for name, value in inputs.items())
        raise BackboneError(
            f"backbone {shown}: expected one input of colour images, [N, 3, S, S] or [N, S, S, 3] of real "
            f"numbers; found {printable(found[:200]) or 'none'}"
        )
    others = inputs.keys() - set(images)
    parts = {value.name: needed(graph.node, [value.name]) for value in graph.output}
    reads = {name: {each for node in nodes for each in names_read(node)} for name, nodes in parts.items()}
    of_image = [name for name in parts if images[0] in reads[name] and not reads[name] & others]
    if not of_image:
        raise BackboneError(f"backbone {shown}: none of its outputs is computed of the image alone")
    most = max(of_image, key=lambda name: len(parts[name]))
    output = next((name for name in _PREFERRED if name in of_image), most)
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = graph.name
    part.graph.node.extend(parts[output])
    part.graph.input.append(inputs[images[0]])
    part.graph.output.extend(value for value in graph.output if value.name == output)
    part.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in reads[output])
    return part


def _sides(value: Any) -> list[int]:
    """Sizes of each axis, 0 where one is free."""
    return [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


def _kind(value: Any) -> int:
    """ONNX's number of a value's type."""
    return int(value.type.tensor_type.elem_type)


def _is_image(value: Any) -> bool:
    sides = _sides(value)
    return len(sides) == 4 and _kind(value) in _FLOATS and (sides[1] in (_COLOURS, 0) or sides[3] == _COLOURS)


def _is_last(image: Any) -> bool:
    """Whether an image's channels are its last axis."""
    sides = _sides(image)
    return sides[3] == _COLOURS and sides[1] != _COLOURS


def _side(image: Any, *, size: int | None, pixels: Pixels, shown: str) -> tuple[int, str]:
    """Pixels a side: the file's own where they are fixed, else as asked or as said of its pixels; a note."""
    sides = _sides(image)
    height, width = sides[1:3] if _is_last(image) else sides[2:]
    if height != width:
        raise BackboneError(f"backbone {shown}: takes images of {height} x {width}; expected squares")
    if height and size not in (None, height):
        raise BackboneError(
            f"backbone {shown}: takes images of {height} px alone; leave --size out, or export it anew"
        )
    side = height or size or pixels.size
    if not side:
        raise BackboneError(
            f"backbone {shown}: takes images of any size, and nothing says of which it should; give --size"
        )
    differs = height and pixels.size not in (None, height)
    return side, f"{shown} takes images of {height} px, not of {pixels.size}" if differs else ""


def _set_dimensions(model: Any, side: int) -> int:
    """Fix height and width, and free the batch; how many images it was fixed to, or 0."""
    (image,), (output,) = model.graph.input, model.graph.output
    dims = image.type.tensor_type.shape.dim
    fixed = int(dims[0].dim_value)
    shape = ("N", side, side, _COLOURS) if _is_last(image) else ("N", _COLOURS, side, side)
    for dim, value in zip(dims, shape, strict=True):
        dim.Clear()
        setattr(dim, "dim_param" if value == "N" else "dim_value", value)
    output.type.tensor_type.ClearField("shape")
    if fixed:
        _free_batch(model, image.name, fixed=fixed)
    return fixed


def _free_batch(model: Any, image: str, *, fixed: int) -> None:
    """Let the batch that a file fixes be any: where an image's tensors are reshaped, or joined by weights."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        value = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and value:
            constants[node.output[0]] = value[0]
    of_image, nodes = {image}, []
    for node in graph.node:
        if of_image & names_read(node) and node.op_type not in ("Shape", "Size"):
            of_image.update(node.output)
            if node.op_type == "Reshape" and node.input[1] in constants:
                shape = numpy_helper.to_array(constants[node.input[1]]).copy()
                if shape.size and shape[0] == fixed:
                    shape[0] = 0 if (shape == -1).any() else -1
                    graph.initializer.append(numpy_helper.from_array(shape, f"{node.output[0]}/free"))
                    node.input[1] = f"{node.output[0]}/free"
            elif node.op_type == "Concat" and onnx.helper.get_node_attr_value(node, "axis") != 0:
                data = next(name for name in node.input if name in of_image)
                for position, name in enumerate(node.input):
                    if name not in of_image:  # as a class token
                        node.input[position] = f"{node.output[0]}/{position}"
                        nodes += _repeated(name, like=data, output=node.input[position])
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    for name, number in (("first", 0), ("second", 1), ("end", 9)):
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), f"axis/{name}"))


def _repeated(name: str, *, like: str, output: str) -> list[Any]:
    """Operations that give a tensor of weights as often as another has images."""
    steps = [
        ("Shape", [like], "images"),
        ("Gather", [f"{output}/images", "axis/first"], "count"),
        ("Shape", [name], "all"),
        ("Slice", [f"{output}/all", "axis/second", "axis/end"], "rest"),
        ("Concat", [f"{output}/count", f"{output}/rest"], "shape"),
    ]
    made = [onnx.helper.make_node(kind, read, [f"{output}/{end}"]) for kind, read, end in steps]
    made[-1].attribute.append(onnx.helper.make_attribute("axis", 0))
    return [*made, onnx.helper.make_node("Expand", [name, f"{output}/shape"], [output])]


# ------------------------------------------------------------------------------ cutting and checking


def _staging(model: Any, *, side: int, fixed: int, shown: str) -> Staging:
    core = the_core()
    image = model.graph.input[0]
    shape = [_BATCH if dim.dim_param else int(dim.dim_value) for dim in image.type.tensor_type.shape.dim]
    try:
        graph = core.read_model(model.SerializeToString())
        graph.reshape({image.name: shape})
    except RuntimeError as error:
        several = f", or not {_BATCH} at once, as it was exported for {fixed}: export it with a free batch"
        raise BackboneError(
            f"backbone {shown}: takes no images of {side} px{several if fixed else ''}: {_reason(error)}"
        ) from error
    for node in graph.get_ordered_ops():  # OpenVINO looks at none of these, and reads on behind their end
        if node.get_type_name() == "Reshape" and not _keeps_count(node):
            raise BackboneError(f"backbone {shown}: takes no images of {side} px; try another size")
    try:
        staging = staging_of(graph)
    except BackboneError as error:
        raise BackboneError(f"backbone {shown}: {error}") from error
    if unnamed := [cut for cut in (*staging.stages, staging.features) if not cut.tensor]:
        raise BackboneError(f"backbone {shown}: a tensor {unnamed[0].shape} to cut at has no name")
    return staging


def _check_translation(model: Any, path: Path, *, batch: int) -> None:
    """Compare what was made of an OpenVINO model with itself."""
    core, image = the_core(), model.graph.input[0]
    values = np.random.default_rng(1).normal(0, 1, [batch, *_sides(image)[1:]])
    found = []
    for graph in (read_ir(path), core.read_model(model.SerializeToString())):
        graph.reshape({graph.inputs[0]: list(values.shape)})
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = compiled(values.astype(onnx.helper.tensor_dtype_to_np_dtype(_kind(image))))
        names = [min(port.get_names(), default="") for port in graph.outputs]
        place = names.index(model.graph.output[0].name) if len(names) > 1 else 0
        found.append(np.asarray(results[place], np.float64))
    error = np.abs(found[0] - found[1]).max() / max(np.abs(found[0]).max(), 1e-12)
    if not error <= TOLERANCE:
        raise ParityError(f"backbone {printable(path)}: written as ONNX it differs by {error:.1e}")


def _keeps_count(node: Any) -> bool:
    """Whether a reshaped tensor has as many numbers as before, where that is known."""
    before, after = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    if before.is_dynamic or after.is_dynamic:
        return True
    return bool(prod(node.get_input_shape(0)) == prod(node.get_output_shape(0)))


def _expected(
    model: Any, staging: Staging, images: NDArray[np.float32], *, batch: int
) -> dict[str, NDArray[np.float32]]:
    """What the staged graph should give: what the model itself computes, for one image after the other.

    Args:
        model: Sides are fixed, the batch is free.
        staging: Of it.
        images: Their channels in the model's own order.
        batch: That the model surely takes; one image fills it.
    """
    image, tensors = model.graph.input[0], [*(cut.tensor for cut in staging.stages), staging.features.tensor]
    core = the_core()
    graph = core.read_model(model.SerializeToString())
    graph.reshape({image.name: [batch, *_sides(image)[1:]]})
    missing = set(tensors) - {name for port in graph.outputs for name in port.get_names()}
    graph.add_outputs(sorted(missing))
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kind = onnx.helper.tensor_dtype_to_np_dtype(_kind(image))
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in tensors}
    for each in images:
        shaped = np.repeat((each.transpose(1, 2, 0) if _is_last(image) else each)[None], batch, axis=0)
        results = compiled(np.ascontiguousarray(shaped.astype(kind)))
        for name, values in found.items():
            values.append(np.array(results[name])[:1])
    joined = {name: np.concatenate(values) for name, values in found.items()}
    ends = zip(staging.names, staging.stages, strict=True)
    expected = {stage: as_stage(joined[cut.tensor], cut) for stage, cut in ends}
    return expected | {"features": as_features(joined[staging.features.tensor], staging.features)}
