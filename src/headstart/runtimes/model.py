"""Runs a saved classifier's complete `model.onnx`: pixels in, probabilities and, if asked, inner maps out."""

from pathlib import Path
from typing import Any

from headstart.backbones.engine import openvino
from headstart.backbones.records import hash_file
from headstart.runtimes.compiling import compile_cached
from headstart.runtimes.openvino import OpenVinoPrefix, has_bf16, settings_for
from headstart.runtimes.protocol import CompiledPrefix


def compile_model(
    path: Path, *, size: int, batch_size: int, precision: str, inner: tuple[str, ...] = ()
) -> CompiledPrefix:
    """Make a saved model ready for up to ``batch_size`` images at once.

    Args:
        path: an ONNX file with input ``pixels`` uint8 [N, S, S, 3] and output ``probabilities`` float32
            [N, C].
        size: S, pixels a side.
        batch_size: 1 is compiled for the least delay, more for throughput.
        precision: "bf16" is a wish: on a processor without it the model runs in f32.
        inner: names of tensors inside the graph that are wanted too, as further outputs in this order.
    """
    core = openvino().Core()

    def make() -> Any:
        model = core.read_model(path)
        model.reshape({"pixels": [batch_size, size, size, 3]})
        if inner:
            model.add_outputs(list(inner))
        return model

    taken = "bf16" if precision == "bf16" and has_bf16(core) else "f32"
    settings = settings_for(batch_size=batch_size, precision=taken)
    identity: dict[str, Any] = {"model": hash_file(path), "pixels": [batch_size, size, size, 3]}
    if inner:
        identity["inner"] = inner
    compiled = compile_cached(core, settings, identity=identity, make=make)
    return OpenVinoPrefix(compiled, outputs=("probabilities", *inner), size=size, batch_size=batch_size)
