"""Exports by way of TensorFlow: SavedModel and TensorFlow Lite, converted from the graph by onnx2tf."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import OptionError
from headstart.exports.graphs import plain_graph

if TYPE_CHECKING:
    from headstart.exports.subject import Subject

_PROGRAM = "import sys; from onnx2tf import main; sys.exit(main())"

_OPTIONS = (
    ("-kat", "pixels"),  # the input is channels last already: leave it alone
    ("-coion",),  # names of inputs and outputs as in the graph
    ("-osd",),  # a SavedModel with signatures, so that it can be called by name
    ("-nuo",),  # no further simplifier: the graph is plain
    ("-n",),
)


def write_saved_model(subject: "Subject", folder: Path) -> None:
    """The folder `saved_model`."""
    with tempfile.TemporaryDirectory() as work:
        converted = _convert(subject, Path(work))
        names = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
        (folder / "saved_model").mkdir()
        for name in names:
            if (converted / name).exists():
                shutil.move(converted / name, folder / "saved_model" / name)


def write_tflite(subject: "Subject", folder: Path) -> None:
    """`model.tflite`, in float32."""
    with tempfile.TemporaryDirectory() as work:
        shutil.move(_convert(subject, Path(work)) / "plain_float32.tflite", folder / "model.tflite")


def _convert(subject: "Subject", work: Path) -> Path:
    """Everything that onnx2tf makes, in a new folder.

    In a process of its own: it prints a great deal, and TensorFlow need not stay in ours. The number of
    images stays free: with a fixed one onnx2tf would fetch test pictures from the network.

    Raises:
        OptionError: the converter cannot do this network.
    """
    import onnx

    onnx.save(plain_graph(subject.classifier.model), work / "plain.onnx")
    options = [word for option in _OPTIONS for word in option]
    command = [sys.executable, "-c", _PROGRAM, "-i", "plain.onnx", "-o", "made", *options]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    made = work / "made"
    if done.returncode or not (made / "saved_model.pb").exists():
        network = subject.classifier.about.get("architecture", "this network")
        raise OptionError(f"onnx2tf cannot convert {network}; take --to onnx or --to openvino")
    return made
