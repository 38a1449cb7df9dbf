"""Eight-bit exports: post-training quantisation by NNCF, and what it costs in accuracy."""

import contextlib
import importlib
import io
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.openvino import the_core
from headstart.classifier.onnx_graph import PREFIX
from headstart.errors import OptionError
from headstart.exports.graphs import plain_graph, save_onnx, save_openvino
from headstart.exports.subject import Images, Subject
from headstart.heads.decisions import decide
from headstart.runs.formatting import percent

CALIBRATION_IMAGES = 300
"""NNCF's own default: the ranges of activations settle well before."""

_RUNGS = (3, 6, 12)
"""How many of the first layers stay in float32, tried in turn. With `builtin` 85 of 100 labels survive eight
bits everywhere but in the head, 93 with the first three layers in float32, 94 with six or 24."""

_AGREEING = 0.98
"""Share of training images whose label must stay the same: those that do not are near a border anyhow."""

_BATCH = 50
_WEIGHTED = ("Convolution", "GroupConvolution", "Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Int8Cost:
    """What eight bits cost on the run's held-out images.

    Attributes:
        images: how many.
        accuracy: of the export.
        original: of the classifier in float32, on the same images.
        points: percentage points lost (negative: gained).
        standard_error: of the points, from the images on which the two differ.
        agreement: share of images with the same label.
        calibration_images: training images that set the ranges.
        float_layers: of the network's first layers that stay in float32, as the head does.
    """

    images: int
    accuracy: float
    original: float
    points: float
    standard_error: float
    agreement: float
    calibration_images: int
    float_layers: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def quantise(subject: Subject, folder: Path, *, to: str, calibration: Images) -> int:
    """Write the eight-bit model of a format that has one: weights per channel, activations per tensor.

    The head stays in float32: it reads layers of unlike scale through one tensor, and has few weights. Of the
    network's first layers as many stay in float32 as the training images' labels need to stay what they are:
    an error that is made there goes through everything else, and few weights lie there.

    Returns:
        How many of the first layers stay in float32.
    """
    nncf = _nncf()
    plain = plain_graph(subject.classifier.model)
    costs = subject.exact.cost_matrix
    original = subject.exact.probabilities(calibration.pixels)
    tried: list[tuple[float, int, Any]] = []
    for layers in _RUNGS:
        found = _quantised(nncf, plain, to=to, calibration=calibration, float_layers=layers)
        said = _probabilities(found, calibration, to=to)
        tried.append((float(np.abs(said - original).mean()), layers, found))
        if (decide(said, costs) == decide(original, costs)).mean() >= _AGREEING:
            break
    _, layers, quantised = min(tried, key=lambda each: each[0])
    if to == "openvino":
        save_openvino(quantised, folder)
    else:
        save_onnx(quantised, subject, folder)
    return layers


def _quantised(nncf: ModuleType, plain: Any, *, to: str, calibration: Images, float_layers: int) -> Any:
    transformer = any(node.op_type == "LayerNormalization" for node in plain.graph.node)
    model: Any = plain
    if to == "openvino":
        model = the_core().read_model(plain.SerializeToString())
        folding = importlib.import_module("openvino.passes")  # else NNCF sees no biases to correct
        passes = folding.Manager()
        passes.register_pass(folding.ConstantFolding())
        passes.run_passes(model)
    names = _layers(model, to=to)
    batches = [calibration.pixels[i : i + 1] for i in range(len(calibration))]
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars where results belong
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda pixels: {"pixels": pixels}),
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: many here follow no ReLU
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(
                names=names[:float_layers], patterns=[f"{PREFIX}/.*"], validate=False
            ),
        )


def _layers(model: Any, *, to: str) -> list[str]:
    """Names of the network's layers with weights, from the input on, as NNCF knows them."""
    if to == "openvino":
        named = [(each.get_type_name(), each.get_friendly_name()) for each in model.get_ordered_ops()]
    else:
        named = [(node.op_type, node.name) for node in model.graph.node]
    return [name for kind, name in named if kind in _WEIGHTED and not name.startswith(f"{PREFIX}/")]


def _probabilities(model: Any, images: Images, *, to: str) -> NDArray[np.float32]:
    """What a quantised model says, [N, C], run as its users will run it."""
    batches = [images.pixels[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    if to == "openvino":
        compiled = the_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.concatenate([compiled(batch)[0] for batch in batches])
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {"pixels": batch})[0] for batch in batches])


def _nncf() -> ModuleType:
    """NNCF without its usage statistics: it reports to its makers where it can import the reporter."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a graphics card
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter)
    if "nncf" not in sys.modules:
        sys.modules[reporter] = None  # type: ignore[assignment]  # how Python marks a module as not importable
    try:
        nncf = importlib.import_module("nncf")
    finally:
        if before is not None:
            sys.modules[reporter] = before
        elif sys.modules.get(reporter, 0) is None:
            del sys.modules[reporter]
    # Not nncf.set_log_level: it also silences every handler at its logger, and some are not NNCF's own.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def cost(
    found: NDArray[np.float32],
    original: NDArray[np.float32],
    *,
    labels: NDArray[np.int64],
    calibration: int,
    costs: NDArray[np.float64] | None = None,
) -> Int8Cost:
    """Compare probabilities [N, C] of the eight-bit export with the original's, by what is called."""
    predicted, before = decide(found, costs), decide(original, costs)
    lost = (before == labels).astype(float) - (predicted == labels).astype(float)
    return Int8Cost(
        images=len(labels),
        accuracy=float((predicted == labels).mean()),
        original=float((before == labels).mean()),
        points=100 * float(lost.mean()),
        standard_error=100 * float(lost.std() / np.sqrt(len(lost))),
        agreement=float((predicted == before).mean()),
        calibration_images=calibration,
    )


def refuse_if_too_dear(found: Int8Cost, *, most: float) -> None:
    """Raise where eight bits cost more than was allowed.

    Raises:
        OptionError: with what it costs and the ways out.
    """
    if found.points > most + 1e-9:
        raise OptionError(
            f"int8 costs {found.points:.1f} points of accuracy ({percent(found.original)} to "
            f"{percent(found.accuracy)} on {found.images} held-out images), more than the {most:g} "
            f"allowed; allow more with --int8-cost, hold out more images, or export without --int8"
        )
