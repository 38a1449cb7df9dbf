"""Fuzzes the reading of PyTorch's older files: tensors no larger than the file, or a `BackboneError`.

python fuzz/weights.py [SECONDS]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from run import fuzz

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from old_weights import file_of, view, weights_file

_FILE = Path(tempfile.mkdtemp()) / "weights.pth"


def seeds() -> list[bytes]:
    """A layer as the packages have it, strides of its own, and files that are refused."""
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    layer = {f"conv.{name}": rows[0] for name in ("weight", "bias", "running_mean", "running_var")}
    return [
        weights_file({**layer, "steps": np.array(1, np.int64), "fc": rows}),
        file_of({"a": view("0", 12, [4, 3], strides=[1, 4])}, {"0": rows}),
        file_of({"a": view("0", 12, [12])}, {"0": rows}, counts={"0": 2**40}),
        file_of({"a": view("0", 12, [2**40])}, {"0": rows}),
        file_of({}, {}, content=b"cos\nsystem\n(X\x04\x00\x00\x00truetR"),
        file_of({}, {}, content=b"}r\xff\xff\xff\x7f" + b"(" * 99 + b"t" * 99),
    ]


def target(data: bytes) -> None:
    """Read the file, and look at every number of what it holds."""
    from headstart.backbones.pickled import read_pickled
    from headstart.errors import BackboneError

    _FILE.write_bytes(data)
    try:
        found = read_pickled(_FILE)
    except BackboneError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
        return
    if sum(values.nbytes for values in found.values()) > len(data):
        raise AssertionError("tensors larger than their file")
    for values in found.values():
        values.copy()


if __name__ == "__main__":
    fuzz(target, seeds(), modules=["headstart.backbones.pickled"])
