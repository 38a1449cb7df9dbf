"""Runs a saved classifier's complete `model.onnx`: pixels in, probabilities out."""

from pathlib import Path

from headstart.runtimes.openvino import OpenVinoPrefix
from headstart.runtimes.protocol import CompiledPrefix


def compile_model(path: Path, *, size: int, batch_size: int, precision: str) -> CompiledPrefix:
    """Make a saved model ready for up to ``batch_size`` images at once.

    Args:
        path: an ONNX file with input ``pixels`` uint8 [N, S, S, 3] and output ``probabilities`` float32 [N, C].
        size: S, pixels a side.
        batch_size: 1 is compiled for the least delay, more for throughput.
        precision: "bf16" is a wish: on a processor without it the model runs in f32.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({"pixels": [batch_size, size, size, 3]})
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if batch_size == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" and native else "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    return OpenVinoPrefix(compiled, outputs=("probabilities",), size=size, batch_size=batch_size)
