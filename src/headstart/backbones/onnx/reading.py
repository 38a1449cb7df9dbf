"""Reads an ONNX model that a stranger may have written: complete, bounded, from its own folder alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from headstart.backbones.checkpoints import open_weights
from headstart.backbones.onnx.ir import as_onnx
from headstart.backbones.openvino import the_core
from headstart.errors import BackboneError, printable, reason_of
from headstart.files import Unreadable, read_regular

MOST_BYTES = 2**31 - 2**20
"""Of a network with its weights: ONNX files, which ours are, hold 2 GB."""

IR_SUFFIX = ".xml"
"""Of OpenVINO's own form, whose weights lie in a file of the same name that ends in ``.bin``."""

_OLDEST_OPSET = 9

_MOST_XML = 2**28


def read_model(path: Path) -> Any:
    """The model, with the weights that lie in further files put into it.

    Raises:
        BackboneError: it is no ONNX model, is too large or too old, or its further files are missing, damaged
            or not beside it.
    """
    if path.suffix == IR_SUFFIX:
        return as_onnx(read_ir(path), name=printable(path.name))
    model = parse(path)
    further: dict[str, bytes] = {}
    room, taken = MOST_BYTES - model.ByteSize(), 0
    for tensor in tensors_in(model):
        if not _is_elsewhere(tensor):
            continue
        location = _location(tensor, path)
        if location not in further:
            further[location] = _read_beside(path, location, limit=room)
            room -= len(further[location])
        taken += _fill(tensor, further[location], path=path)
        if taken > sum(map(len, further.values())):  # the same bytes for many tensors
            raise BackboneError(f"backbone {printable(path)}: takes more memory than its files explain")
    return model


def read_ir(path: Path) -> Any:
    """The OpenVINO model of an ``.xml`` file and the ``.bin`` file beside it.

    Raises:
        BackboneError: one of them is missing or no such file.
    """
    shown = printable(path)
    try:
        text = read_regular(path, limit=_MOST_XML)
    except Unreadable as error:
        raise BackboneError(f"backbone {shown}: {error}") from error
    weights = _read_beside(path, path.with_suffix(".bin").name, limit=MOST_BYTES)
    try:
        model = the_core().read_model(text, weights)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BackboneError(f"backbone {shown}: no OpenVINO model (IR), or a damaged one") from error
    if len(model.inputs) != 1:
        raise BackboneError(f"backbone {shown}: expected one input, images; found {len(model.inputs)}")
    return model


def parse(path: Path) -> Any:
    """The model as its file has it: weights in further files are only named."""
    os.close(open_weights(path))  # a pipe, a web page or a pointer is named before anything waits for it
    shown = printable(path)
    try:
        data = read_regular(path, limit=MOST_BYTES)
    except Unreadable as error:
        raise BackboneError(f"backbone {shown}: {error}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's, which is no public name
        raise BackboneError(f"backbone {shown}: no ONNX model, or a damaged one") from error
    if not model.graph.node or not model.graph.output or not _is_text(model):
        raise BackboneError(f"backbone {shown}: no ONNX model, or a damaged one")
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise BackboneError(
            f"backbone {shown}: has opset {opset}; {_OLDEST_OPSET} is the oldest that is read"
        )
    if model.graph.sparse_initializer:
        raise BackboneError(f"backbone {shown}: has sparse weights; write them dense")
    if unbounded := _operations(model) & _WITHOUT_END:
        raise BackboneError(
            f"backbone {shown}: has the operation {min(unbounded)}, which may never end; export it without"
        )
    return model


_WITHOUT_END = frozenset({"Loop", "Scan", "SequenceMap"})


def _operations(message: Any) -> set[str]:
    """Types of all operations, those in subgraphs and functions included."""
    if message.DESCRIPTOR.name == "TensorProto":
        return set()
    found = {message.op_type} if message.DESCRIPTOR.name == "NodeProto" else set[str]()
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                found |= _operations(each)
    return found


def files_and_metadata(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the files that a model lies in, its own first, and what it says of itself."""
    if path.suffix == IR_SUFFIX:
        return [path.name, path.with_suffix(".bin").name], {}
    model = parse(path)
    return [path.name, *further_files(model, path)], {each.key: each.value for each in model.metadata_props}


def further_files(model: Any, path: Path) -> list[str]:
    """Names, beside the model, of the files that its weights lie in."""
    return sorted({_location(tensor, path) for tensor in tensors_in(model) if _is_elsewhere(tensor)})


def folder_of(path: Path) -> Path:
    """The folder that nothing outside is read of: the model's, or its repository's in a Hugging Face cache.

    There, files are links from ``snapshots`` to ``blobs`` of the same repository.
    """
    for above in path.absolute().parents:
        if above.name.startswith("models--") and (above / "snapshots") in path.absolute().parents:
            return above
    return path.absolute().parent


def tensors_in(message: Any) -> Iterator[Any]:
    """Every tensor in an ONNX message, wherever it is: initialisers, attributes, subgraphs, functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from tensors_in(each)


def _is_text(message: Any) -> bool:
    """Whether every name in an ONNX message is text; protobuf hands out others as bytes."""
    for field, value in message.ListFields():
        several = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if field.type == field.TYPE_STRING and not all(isinstance(each, str) for each in several):
            return False
        if field.message_type is not None and not all(map(_is_text, several)):
            return False
    return True


def _is_elsewhere(tensor: Any) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data)


def _location(tensor: Any, path: Path) -> str:
    """The name of a tensor's file, which must lie beside the model."""
    location = _facts(tensor).get("location", "")
    first, *more = location.replace("\\", "/").split("/")
    if not first or ":" in first or ".." in (first, *more) or "\0" in location:
        raise BackboneError(
            f"backbone {printable(path)}: its weights lie in {printable(location[:80])!r}; expected a file "
            "beside the model"
        )
    return location


def _facts(tensor: Any) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _read_beside(path: Path, location: str, *, limit: int) -> bytes:
    folder = folder_of(path)
    try:
        return read_regular(path.absolute().parent / location, limit=max(limit, 0), below=folder)
    except Unreadable as error:
        raise BackboneError(
            f"backbone {printable(path)}: its weights lie in {printable(location[:80])}, which cannot be "
            f"read: {error}; put that file beside the model"
        ) from error


def _fill(tensor: Any, data: bytes, *, path: Path) -> int:
    """Put a tensor's numbers into it; how many bytes they are. What its file does not have is refused."""
    facts = _facts(tensor)
    try:
        offset = int(facts.get("offset", "0"))
        expected = _bytes_of(tensor)
        length = int(facts.get("length", expected))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _damaged(tensor, path, reason_of(error)) from error
    if offset < 0 or length != expected or offset + length > len(data):
        raise _damaged(tensor, path, f"{length:,} bytes from {offset:,} on, of {len(data):,}")
    tensor.raw_data = data[offset : offset + length]
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return length


def _bytes_of(tensor: Any) -> int:
    """Bytes of a tensor of its type and shape; two numbers of four bits share one."""
    if any(side < 0 for side in tensor.dims) or tensor.data_type == TensorProto.STRING:
        raise ValueError("no such numbers")
    count: int = prod(tensor.dims)
    if tensor.data_type in _HALF_BYTES:
        return (count + 1) // 2
    return count * int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


_HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4)


def _damaged(tensor: Any, path: Path, reason: str) -> BackboneError:
    return BackboneError(
        f"backbone {printable(path)}: the weights {printable(tensor.name[:80])} are not in their file "
        f"({printable(reason)[:100]}); it is damaged or of another model"
    )
