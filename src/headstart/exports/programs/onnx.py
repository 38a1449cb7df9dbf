"""ONNX, by ONNX Runtime."""

from pathlib import Path
from typing import Any

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """`model.onnx`, on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    answer = session.get_outputs()[0].name  # probabilities, or the value

    def run(pixels: Any) -> Any:
        return session.run([answer], {"pixels": pixels})[0]

    return run
