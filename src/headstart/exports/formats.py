"""The formats that an export can have: what each needs, writes and promises."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headstart.errors import MissingExtra, OptionError
from headstart.exports import graphs, networks, tensorflow
from headstart.exports.subject import Subject

Write = Callable[[Subject, Path], None]

_SAME = 1e-3
"""Largest difference of a probability that float32 in another order of operations explains. Measured on 200
photographs it is below 1e-5 (docs/benchmarks.md); a head that sharpens its probabilities multiplies it."""

SAME_NUMBERS = 2e-2
"""Largest difference of a predicted number from the original's, in the spread of those that were trained on:
its head adds up the rounding of a thousand columns, which nothing squeezes between 0 and 1."""


@dataclass(frozen=True)
class ExportFormat:
    """One format.

    Attributes:
        name: what `--to` takes.
        write: puts the model's files into a folder.
        modules: what must be importable to write it and to check it.
        extra: the extra of Headstart that brings them.
        runtime: what `predict.py` needs beside NumPy and Pillow.
        tolerance: largest difference of a probability from the original's in float32.
        quantises: whether `--int8` can be had.
    """

    name: str
    write: Write
    modules: tuple[str, ...]
    extra: str
    runtime: tuple[str, ...]
    tolerance: float = _SAME
    quantises: bool = False

    def require(self, *, int8: bool) -> None:
        """Refuse what this format or this installation cannot do.

        Raises:
            OptionError: int8 in a format that has none here.
            MissingExtra: something is not installed.
        """
        if int8 and not self.quantises:
            able = " and ".join(f.name for f in FORMATS.values() if f.quantises)
            raise OptionError(f"--int8 is for {able}; for {self.name} leave it out")
        if any(find_spec(module) is None for module in self.modules):
            raise MissingExtra(f"export --to {self.name}", extra=self.extra)
        if int8 and find_spec("nncf") is None:
            raise MissingExtra("export --int8", extra="export")


_TENSORFLOW = ("onnx2tf", "tensorflow", "tf_keras", "onnxruntime")

FORMATS: dict[str, ExportFormat] = {
    form.name: form
    for form in (
        ExportFormat("onnx", graphs.write_onnx, ("onnxruntime",), "export", ("onnxruntime",), quantises=True),
        ExportFormat("openvino", graphs.write_openvino, (), "export", ("openvino",), quantises=True),
        ExportFormat(
            "safetensors",
            networks.write_safetensors,
            ("torch", "timm"),
            "torch",
            ("torch", "timm", "safetensors"),
        ),
        ExportFormat("torchscript", networks.write_torchscript, ("torch", "timm"), "torch", ("torch",)),
        ExportFormat(
            "tflite",
            tensorflow.write_tflite,
            (*_TENSORFLOW, "ai_edge_litert"),
            "tflite",
            ("ai-edge-litert",),
        ),
        ExportFormat("saved_model", tensorflow.write_saved_model, _TENSORFLOW, "tflite", ("tensorflow",)),
    )
}


def find_format(name: str) -> ExportFormat:
    """The format of that name.

    Raises:
        OptionError: there is none.
    """
    if name not in FORMATS:
        raise OptionError(f"--to {name!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
