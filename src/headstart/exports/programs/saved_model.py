"""TensorFlow's SavedModel, by TensorFlow."""

from pathlib import Path
from typing import Any

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """The folder `saved_model`."""
    import tensorflow

    loaded = tensorflow.saved_model.load(str(folder / "saved_model"))

    def run(pixels: Any) -> Any:
        signature = loaded.signatures["serving_default"]  # works only while `loaded` is alive
        (probabilities,) = signature(pixels=tensorflow.constant(pixels)).values()
        return probabilities.numpy()

    return run
