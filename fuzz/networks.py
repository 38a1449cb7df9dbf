"""Fuzzes the reading of ONNX, OpenVINO and safetensors files: a backbone or a `BackboneError`, no other file.

python fuzz/networks.py [SECONDS]
"""

import json
import os
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from run import fuzz

sys.path.append(str(Path(__file__).parent.parent / "tests"))

_FOLDER = Path(tempfile.mkdtemp()).resolve()
_BESIDE = _FOLDER / "beside"
os.environ["HEADSTART_CACHE"] = str(_FOLDER / "cache")

_CODE = tuple({os.path.realpath(path) for path in (*sys.path, sys.prefix, sys.base_prefix) if path})


def seeds() -> list[bytes]:
    """Small networks of both kinds, with weights inside, beside and elsewhere; tensors with metadata."""
    from onnx_models import cnn, vit, with_weights_elsewhere

    _BESIDE.mkdir(exist_ok=True)
    (_FOLDER / "secret.bin").write_bytes(b"secret" * 9999)
    small = cnn(metadata={"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"})
    places = ("weights.bin", "../secret.bin", str(_FOLDER / "secret.bin"), "/etc/passwd", "./weights.bin")
    header: dict[str, Any] = {
        "__metadata__": {"architecture": "resnet10t", "timm_kwargs": '{"stem_width": 32}', "mean": "0,0,0"},
        "conv1.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    text = json.dumps(header).encode()
    return [
        *(
            each.SerializeToString()
            for each in (small, vit(blocks=1), vit(blocks=1, batch=1), cnn(last=True))
        ),
        _openvino_form(small),
        *(with_weights_elsewhere(small, _BESIDE, place).SerializeToString() for place in places),
        struct.pack("<Q", len(text)) + text + np.arange(6, dtype=np.float32).tobytes(),
    ]


def _openvino_form(model: Any) -> bytes:
    """The text of a network in OpenVINO's form, its weights beside it."""
    from headstart.backbones.openvino import openvino

    ov = openvino()
    ov.save_model(ov.Core().read_model(model.SerializeToString()), _BESIDE / "model.xml")
    return (_BESIDE / "model.xml").read_bytes()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Nothing is run, and nothing opened but the file's folder, our cache and Python's own code."""
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
        os.write(2, f"{event} {arguments}\n".encode())
        os._exit(77)
    if event == "open" and isinstance(arguments[0], str | bytes):
        place = os.path.realpath(os.fsdecode(arguments[0]))
        if not place.startswith((str(_BESIDE), str(_FOLDER / "cache"), "/proc/", *_CODE)):
            traceback.print_stack()
            os.write(2, f"opened {place}\n".encode())
            os._exit(77)


def target(data: bytes) -> None:
    """Load the file as a backbone; a header of safetensors is read as far as it says what it is."""
    from headstart.backbones import load_backbone
    from headstart.backbones.checkpoints import read_checkpoint
    from headstart.backbones.local import origin_of
    from headstart.errors import BackboneError, OptionError, ParityError

    tensors = data[8:9] == b"{"
    kind = "model.xml" if data[:2] == b"<?" else "model.onnx"
    path = _BESIDE / ("weights.safetensors" if tensors else kind)
    path.write_bytes(data)
    try:
        if tensors:
            origin_of(path, architecture=None)
            read_checkpoint(path)
        else:
            load_backbone(path, preprocess="imagenet")
    except (BackboneError, OptionError, ParityError) as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
    for file in (_FOLDER / "cache" / "graphs").glob("*"):
        file.unlink()


if __name__ == "__main__":
    found = seeds()
    for seed in found:
        target(seed)  # imports all that it needs
    os.chdir(_BESIDE)  # steps below an opened folder are told by their name alone
    sys.addaudithook(_watch)
    fuzz(target, found, modules=["headstart.backbones.onnx.reading", "headstart.backbones.local"])
