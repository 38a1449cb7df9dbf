"""Runs a saved classifier's complete `model.onnx`: pixels in, probabilities and, if asked, inner maps out."""

from pathlib import Path
from typing import Any

from headstart.backbones.openvino import the_core
from headstart.backbones.records import hash_file
from headstart.backbones.runtimes.compiling import compile_cached
from headstart.backbones.runtimes.openvino import OpenVinoPrefix, has_bf16, settings_for
from headstart.backbones.runtimes.protocol import FrozenPart
from headstart.errors import RunError, printable


def compile_model(
    path: Path,
    *,
    size: int,
    batch_size: int,
    precision: str,
    outputs: tuple[str, ...] = ("probabilities",),
    inner: tuple[str, ...] = (),
) -> FrozenPart:
    """Make a saved model ready for up to ``batch_size`` images at once.

    Args:
        path: an ONNX file with input ``pixels`` uint8 [N, S, S, 3] and output ``probabilities`` float32
            [N, C], and maybe more.
        size: S, pixels a side.
        batch_size: 1 is compiled for the least delay, more for throughput.
        precision: "bf16" is a wish: on a processor without it the model runs in f32.
        outputs: the graph's own, in its order.
        inner: names of tensors inside the graph that are wanted too, as further outputs in this order.

    Raises:
        RunError: it is no regular file of ONNX, or its weights lie in further files: those would decide what
            it says, and nobody looks at them.
    """
    if not path.is_file():
        raise RunError(f"{path} is damaged (not a regular file); fit again or restore it")
    core = the_core()

    def make() -> Any:
        _refuse_further_files(path)
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

    def compiled() -> Any:
        return compile_cached(core, settings, identity=identity, make=make)

    return OpenVinoPrefix(compiled, outputs=(*outputs, *inner), size=size, batch_size=batch_size)


def _refuse_further_files(path: Path) -> None:
    import onnx  # takes a moment, and what was compiled before needs no second look

    from headstart.backbones.onnx.reading import tensors_in

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's, which is no public name
        raise RunError(f"{path} is damaged (not an ONNX model); fit again or restore it") from error
    for tensor in tensors_in(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise RunError(
                f"{path}: the weights {printable(tensor.name)} lie in another file; expected a model that is "
                "complete in itself; fit again or restore it"
            )
