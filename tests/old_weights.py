"""Files of weights in PyTorch's older format, written without PyTorch, and what may be wrong with them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {
    "protocol_version": PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}

NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def whole(value: Any) -> bytes:
    """A plain value's own instructions, without the first and the last of a pickle."""
    return pickle.dumps(value, protocol=2)[2:-1]


def storage(key: str, count: int, *, kind: str = "torch\nFloatStorage") -> bytes:
    return b"(" + whole("storage") + f"c{kind}\n".encode() + whole(key) + whole("cpu") + whole(count) + b"NtQ"


def view(
    key: str,
    count: int,
    shape: Sequence[int],
    *,
    kind: str = "torch\nFloatStorage",
    offset: Any = 0,
    strides: Sequence[int] | None = None,
) -> bytes:
    """The instructions that make a tensor."""
    if strides is None:
        strides = [int(np.prod(shape[position + 1 :])) for position in range(len(shape))]
    parts = [whole(offset), whole(tuple(shape)), whole(tuple(strides)), b"\x89", NO_HOOKS]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(key, count, kind=kind) + b"".join(parts) + b"tR"


def file_of(
    views: Mapping[str, bytes],
    storages: Mapping[str, np.ndarray],
    *,
    magic: Any = MAGIC,
    system: Any = SYSTEM,
    content: bytes | None = None,
    counts: Mapping[str, int] | None = None,
) -> bytes:
    """A file of tensors by name; ``counts`` are what storages say of themselves where that is not true."""
    if content is None:
        items = b"".join(whole(name) + made for name, made in views.items())
        content = NO_HOOKS + b"(" + items + b"u"
    head = b"".join(pickle.dumps(value, protocol=2) for value in (magic, PROTOCOL, system))
    numbers = b"".join(
        (counts or {}).get(key, values.size).to_bytes(8, "little") + values.tobytes()
        for key, values in storages.items()
    )
    return head + b"\x80\x02" + content + b"." + pickle.dumps(list(storages), protocol=2) + numbers


def weights_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A file of these tensors, float32 or int64."""
    kinds = {"f": "torch\nFloatStorage", "i": "torch\nLongStorage"}
    views = {
        name: view(name, values.size, values.shape, kind=kinds[values.dtype.kind])
        for name, values in tensors.items()
    }
    return file_of(views, tensors)
