"""OpenVINO's own format, by OpenVINO."""

from pathlib import Path
from typing import Any

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """`model.xml` and `model.bin`, on the processor, in float32 where weights are not integers."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    names = {name for each in model.outputs for name in each.names}
    answer = "value" if "value" in names else "probabilities"

    def run(pixels: Any) -> Any:
        return model({"pixels": pixels})[answer]

    return run
