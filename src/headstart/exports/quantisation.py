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

from headstart.errors import OptionError
from headstart.exports.graphs import plain_graph, save_onnx, save_openvino
from headstart.exports.subject import Images, Subject

CALIBRATION_IMAGES = 300
"""NNCF's own default: the ranges of activations settle well before."""


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
    """

    images: int
    accuracy: float
    original: float
    points: float
    standard_error: float
    agreement: float
    calibration_images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def quantise(subject: Subject, folder: Path, *, to: str, calibration: Images) -> None:
    """Write the eight-bit model of a format that has one.

    The first and last layers are treated like all others; weights per channel, activations per tensor.
    """
    nncf = _nncf()
    plain = plain_graph(subject.classifier.model)
    transformer = any(node.op_type == "LayerNormalization" for node in plain.graph.node)
    model: Any = plain
    if to == "openvino":
        from headstart.backbones.engine import openvino

        model = openvino().Core().read_model(plain.SerializeToString())
    batches = [calibration.pixels[i : i + 1] for i in range(len(calibration))]
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars where results belong
        quantised = nncf.quantize(
            model,
            nncf.Dataset(batches, lambda pixels: {"pixels": pixels}),
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: many here follow no ReLU
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
    if to == "openvino":
        save_openvino(quantised, folder)
    else:
        save_onnx(quantised, subject, folder)


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
    nncf.set_log_level(logging.ERROR)
    return nncf


def cost(
    found: NDArray[np.float32], original: NDArray[np.float32], *, labels: NDArray[np.int64], calibration: int
) -> Int8Cost:
    """Compare probabilities [N, C] of the eight-bit export with the original's."""
    predicted, before = found.argmax(1), original.argmax(1)
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
            f"int8 costs {found.points:.1f} points of accuracy ({found.original:.1%} to {found.accuracy:.1%} "
            f"on {found.images} held-out images), more than the {most:g} allowed; allow more with "
            f"--int8-cost, hold out more images, or export without --int8"
        )
