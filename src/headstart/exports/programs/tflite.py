"""TensorFlow Lite, by LiteRT."""

from pathlib import Path
from typing import Any

import numpy as np

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """`model.tflite`, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"))
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(pixels: Any) -> Any:
        rows = []
        for image in pixels:
            interpreter.set_tensor(taken, image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(given)[0])
        return np.stack(rows)

    return run
