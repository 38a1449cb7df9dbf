"""Writes a staged PyTorch backbone as an ONNX file with one output per stage and ``features``.

The file is made for fast execution: BatchNorm is folded into the convolution before it, and TensorFlow-style
"same" padding (whose amounts depend on the input's size) becomes the convolution's own ``auto_pad``.
"""

import contextlib
import copy
import io
import logging
import operator
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from PIL import Image
from timm.utils.model import reparameterize_model
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from headstart.backbones.onnx.nodes import averages
from headstart.backbones.staged import StagedModule
from headstart.errors import BackboneError, reason_of
from headstart.files.descriptors import standard_error_without

Array = npt.NDArray[np.float64]

OPSET = 17  # has LayerNormalization as one node; every current runtime reads it


class _AllStages(nn.Module):
    def __init__(self, staged: StagedModule) -> None:
        super().__init__()
        self.staged = staged

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.staged.outputs(image).values())


def export_staged(
    staged: StagedModule, path: Path, *, size: int, any_size: bool = False, half: bool = False
) -> Path:
    """Write the staged ONNX file and return its path.

    Args:
        staged: The backbone; it is not changed.
        path: Where the file goes. Its input is ``image``, float32 ``[N, 3, size, size]``, normalised.
        size: Pixels a side of the image to trace with.
        any_size: Leave height and width free; only right where no layer's weights or padding depend on them.
        half: Store matrices as float16 (they must be exactly representable) and widen them in the graph.
    """
    model = _trace(staged, size=size, any_size=any_size)
    _fold_batch_norms(model.graph)
    if half:
        _halve(model.graph)
    _drop_unused(model.graph)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _trace(staged: StagedModule, *, size: int, any_size: bool) -> onnx.ModelProto:
    traced = copy.deepcopy(staged).eval().requires_grad_(False)
    reparameterize_model(traced, inplace=True)  # parallel branches, as in repvgg, become one convolution
    same = _replace_same_convolutions(traced)
    for part in [module for module in traced.modules() if isinstance(module, fx.GraphModule)]:
        _fold_weights(part)
    names = [*traced.names, "features"]
    free = {0: "N", 2: "H", 3: "W"} if any_size else {0: "N"}
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns about itself being the older exporter and about Python values that tracing fixes;
        # both are meant here (sizes are fixed on purpose) and the result is checked against the module.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            with _without_graphs(), _InKnownOperations():
                torch.onnx.export(
                    _AllStages(traced),
                    (torch.zeros(2, 3, size, size),),
                    buffer,
                    input_names=["image"],
                    output_names=names,
                    dynamic_axes={
                        name: {0: "N"} if name == "features" else free for name in ["image", *names]
                    },
                    opset_version=OPSET,
                    dynamo=False,
                    training=torch.onnx.TrainingMode.PRESERVE,  # keep BatchNorm as nodes: folding it is ours
                    do_constant_folding=False,
                )
        except (RuntimeError, TypeError, ValueError) as error:
            reason = reason_of(error).partition(", scope: ")[0]
            raise BackboneError(f"cannot be written as ONNX: {reason}") from error
    model = onnx.load_from_string(buffer.getvalue())
    _set_same_padding(model.graph, same)
    return model


_ABOUT_SIZES = b"In-place op on output of tensor.shape"
"""A warning of PyTorch's about sizes that tracing fixes, which is meant here."""


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Keep from the terminal what the exporter writes of sizes, and when it fails: the graph, on many lines.

    It writes to standard output, past Python, although its log is off: PyTorch asks whether it was on by the
    name of a function, which is always true (torch/onnx, ``setup_onnx_logging``).
    """
    failed = False
    torch._C._jit_set_onnx_log_output_stream("stderr")
    with standard_error_without(lambda line: failed or line.startswith(_ABOUT_SIZES)):
        try:
            yield
        except BaseException:
            failed = True
            raise


def _fold_weights(module: fx.GraphModule) -> None:
    """Compute what is made of weights alone, such as resized positions, in place."""
    known = {
        node: operator.attrgetter(str(node.target))(module) for node in module.graph.find_nodes(op="get_attr")
    }
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if node.op not in ("call_function", "call_method") or not inputs or not known.keys() >= {*inputs}:
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        function: Any = node.target
        with torch.no_grad():
            value = (
                function(*args, **kwargs)
                if node.op == "call_function"
                else getattr(args[0], str(node.target))(*args[1:], **kwargs)
            )
        if isinstance(value, torch.Tensor):
            module.register_buffer(f"folded_{node.name}", value)
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(f"folded_{node.name}")
            node.replace_all_uses_with(constant)
            module.graph.erase_node(node)
            known[constant] = value
    module.recompile()


class _InKnownOperations(TorchFunctionMode):
    """Writes functions that the exporter does not know in operations that it knows, with the same result."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known: dict[str, Any] = {
            "adaptive_avg_pool2d": _averaged,
            "avg_pool2d": _pooled,
            "fold": _folded,
            "interpolate": _resized,
        }
        rewrite = known.get(getattr(func, "__name__", ""))
        found = rewrite(*args, **(kwargs or {})) if rewrite else None
        return func(*args, **(kwargs or {})) if found is None else found


def _averaged(image: torch.Tensor, output_size: Any) -> torch.Tensor | None:
    """Adaptive pooling to several cells as matrix products."""
    rows, columns = _both(output_size)
    if not rows or not columns or (rows, columns) == (1, 1):
        return None
    height, width = (int(side) for side in image.shape[-2:])
    down, across = averages(height, rows), averages(width, columns)
    return torch.from_numpy(down.T).float() @ image @ torch.from_numpy(across).float()


def _pooled(
    image: torch.Tensor, kernel_size: Any, stride: Any = None, *args: Any, **settings: Any
) -> torch.Tensor:
    """Pooling over cells whose size the network computes of its image's, as over cells of that size."""
    steps = kernel_size if stride is None else stride
    return nn.functional.avg_pool2d(image, _both(kernel_size), _both(steps), *args, **settings)


def _resized(
    image: torch.Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> torch.Tensor | None:
    """Smooth resizing without aliasing, which is Pillow's, as matrix products."""
    del scale_factor, recompute_scale_factor  # where they say the size, it is left to the exporter
    kind = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}.get(mode)
    if not antialias or align_corners or kind is None or size is None:
        return None
    down, across = (
        torch.from_numpy(np.array(Image.fromarray(np.eye(old, dtype=np.float32)).resize((old, new), kind)))
        for old, new in zip(map(int, image.shape[-2:]), _both(size), strict=True)
    )
    return down @ image @ across.T


def _folded(
    patches: torch.Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> torch.Tensor:
    """Overlapping patches [N, C x cells, L] added up to maps, as a transposed convolution of each channel."""
    sides, kernel, steps = _both(output_size), _both(kernel_size), _both(stride)
    around, apart = _both(padding), _both(dilation)
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(apart, kernel, around, strict=True)]
    grid = [(side - far) // step + 1 for side, far, step in zip(sides, reach, steps, strict=True)]
    left = [(side - far) % step for side, far, step in zip(sides, reach, steps, strict=True)]
    cells = kernel[0] * kernel[1]
    channels = int(patches.shape[1]) // cells
    one_cell = np.tile(np.eye(cells, dtype=np.float32).reshape(cells, 1, *kernel), (channels, 1, 1, 1))
    return nn.functional.conv_transpose2d(
        patches.reshape(-1, channels * cells, *grid),
        torch.from_numpy(one_cell),
        stride=steps,
        padding=around,
        output_padding=_both(left),
        groups=channels,
        dilation=apart,
    )


def _both(sides: Any) -> tuple[int, int]:
    """Rows and columns, of which one number may say both."""
    rows, columns = (sides, sides) if isinstance(sides, int) else sides
    return int(rows or 0), int(columns or 0)


def _replace_same_convolutions(module: nn.Module, prefix: str = "staged.") -> set[str]:
    """Swap timm's "same" convolutions for plain ones, in place; return the names of their weights.

    The padding given here is symmetric and only right in the size of its result; `_set_same_padding` mends
    it.
    """
    from timm.layers.conv2d_same import Conv2dSame

    same: set[str] = set()
    for parent_name, parent in module.named_modules():
        for name, child in list(parent.named_children()):
            if not isinstance(child, Conv2dSame):
                continue
            plain = nn.Conv2d(
                child.in_channels,
                child.out_channels,
                _both(child.kernel_size),
                stride=_both(child.stride),
                padding=_both(
                    [d * (k - 1) // 2 for d, k in zip(child.dilation, child.kernel_size, strict=True)]
                ),
                dilation=_both(child.dilation),
                groups=child.groups,
                bias=child.bias is not None,
                device="meta",  # no weights of its own, so no random numbers are drawn for them
            )
            plain.weight, plain.bias = child.weight, child.bias
            setattr(parent, name, plain.eval())
            same.add(f"{prefix}{parent_name}.{name}.weight")
    return same


def _set_same_padding(graph: onnx.GraphProto, weights: set[str]) -> None:
    found = 0
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            kept = [attribute for attribute in node.attribute if attribute.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])
            found += 1
    if found != len(weights):
        raise BackboneError(
            f"of {len(weights)} convolutions with 'same' padding {found} were found in the graph"
        )


def _fold_batch_norms(graph: onnx.GraphProto) -> None:
    """Turn Conv -> BatchNormalization into one Conv: weights scaled per output channel, a bias added.

    The scaling is a node of the graph that every runtime folds into a constant when it compiles. So the
    weights themselves are stored as they are, and halving them loses nothing more.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    scalings, folded = [], set()
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv":
            continue
        if readers[node.input[0]] > 1 or conv.input[1] not in constants:
            continue
        scale, shift = _batch_norm_line(node, constants)
        if len(conv.input) == 3:
            shift = shift + scale * numpy_helper.to_array(constants[conv.input[2]])
        weight, name = conv.input[1], node.output[0]
        column = scale.reshape(-1, *[1] * (len(constants[weight].dims) - 1))
        graph.initializer.append(numpy_helper.from_array(column.astype(np.float32), f"{name}.scale"))
        graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), f"{name}.bias"))
        scalings.append(
            helper.make_node("Mul", [weight, f"{name}.scale"], [f"{name}.weight"], f"{name}.scaling")
        )
        conv.input[:] = [conv.input[0], f"{name}.weight", f"{name}.bias"]
        conv.output[0] = name
        folded.add(name)
    kept = [n for n in graph.node if n.op_type != "BatchNormalization" or n.output[0] not in folded]
    _set_nodes(graph, [*scalings, *kept])


def _batch_norm_line(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Array, Array]:
    """Scale and shift of the line that a BatchNorm in eval mode is, per channel, in double precision."""
    gamma, beta, mean, variance = (
        numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:5]
    )
    epsilon = next(attribute.f for attribute in node.attribute if attribute.name == "epsilon")
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _halve(graph: onnx.GraphProto) -> None:
    """Store every matrix that loses nothing by it as float16, widened by a Cast where it is read."""
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or sum(size > 1 for size in tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        halved = values.astype(np.float16)
        if not np.array_equal(halved.astype(np.float32), values):
            raise BackboneError(
                f"weight {tensor.name}: not representable in half precision; round the module first"
            )
        casts.append(
            helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        graph.initializer.append(numpy_helper.from_array(halved, f"{tensor.name}.half"))
        graph.initializer.remove(tensor)
    _set_nodes(graph, [*casts, *graph.node])


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
