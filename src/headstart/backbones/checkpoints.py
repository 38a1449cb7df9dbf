"""Reads files of weights that a stranger may have written: tensors by name, and nothing that runs.

PyTorch files are read with ``weights_only=True`` and under a bound of memory; training checkpoints that wrap
the weights, and the prefixes that wrappers of a network put before its names, are taken off.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headstart.errors import BackboneError, printable, reason_of
from headstart.files import HEADROOM, Unreadable, bounded_memory, open_regular

_INSIDE = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "weights",
)  # fmt: skip
"""Where training checkpoints keep the weights, averaged ones first."""

_INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What `torch.compile`, sharding and checkpointing put before the names below any module."""

_WRAPPERS = ("module.", "model.", "backbone.", "net.", "network.", "encoder.", "student.", "base_model.")
"""What data-parallel and training wrappers usually call the network inside."""

_TIMES_THE_FILE = 4
"""Float16 weights become float32; beside them is room for one more copy."""


def open_weights(path: Path) -> int:
    """A descriptor of a regular file of weights; refused by its first bytes where it can be none.

    Raises:
        BackboneError: it is missing, no regular file, a web page, or the pointer of Git LFS.
    """
    try:
        descriptor = open_regular(path)
    except (OSError, Unreadable, ValueError) as error:
        raise BackboneError(
            f"backbone {printable(path)}: no such file of weights, or not readable ({reason_of(error)})"
        ) from error
    if reason := _why_no_weights(_head(descriptor)):
        os.close(descriptor)
        raise BackboneError(f"{printable(path)}: is {reason}")
    return descriptor


def _head(descriptor: int) -> bytes:
    """The first bytes of an open file, which is left at its beginning."""
    head = os.read(descriptor, 64)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return head


def _why_no_weights(head: bytes) -> str | None:
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the weights themselves; fetch them with: git lfs pull"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page and not a file of weights; the download went wrong, so fetch it again"
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Tensors by name, and the architecture if the file names one, of a ``.safetensors`` or PyTorch file.

    Raises:
        BackboneError: the file holds no named tensors, or takes more memory than its size explains.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    descriptor = open_weights(path)
    shown = printable(path)
    size = os.fstat(descriptor).st_size
    try:
        if path.suffix == ".safetensors":
            return load_file(path), None
        with (
            os.fdopen(os.dup(descriptor), "rb") as file,
            warnings.catch_warnings(),
            bounded_memory(_TIMES_THE_FILE * size + HEADROOM),
        ):
            warnings.simplefilter("ignore")  # what it cannot read it refuses; its doubts before that say less
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise _too_much(path) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError, RecursionError) as error:
        if "alloc" in str(error):
            raise _too_much(path) from None
        raise BackboneError(f"{shown}: no readable file of weights: {reason_of(error)}") from error
    except Exception as error:
        # What a damaged or hostile pickle makes the unpickler raise can be anything; nothing in it was run.
        if type(error).__name__ != "UnpicklingError":
            raise BackboneError(f"{shown}: no readable file of weights: {reason_of(error)}") from error
        os.lseek(descriptor, 0, os.SEEK_SET)
        if not _head(descriptor).startswith((b"\x80", b"PK")):
            raise BackboneError(
                f"{shown}: no readable file of weights: it begins as no file of PyTorch's does"
            ) from error
        raise BackboneError(
            f"{shown}: holds more than weights, and running code from a file is refused; "
            f"save only the tensors: torch.save(model.state_dict(), PATH)"
        ) from error
    finally:
        os.close(descriptor)
    return _unwrap(content, path=path, size=size)


def _too_much(path: Path) -> BackboneError:
    return BackboneError(f"{printable(path)}: takes more memory than its size explains; refused")


def _unwrap(content: Any, *, path: Path, size: int) -> tuple[dict[str, Any], str | None]:
    import torch

    architecture = None
    if isinstance(content, dict):
        named = content.get("architecture", content.get("arch"))
        architecture = named if isinstance(named, str) else None
        for key in _INSIDE:
            if isinstance(content.get(key), dict):
                content = content[key]
                break
        weights = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        # Views of one storage, as many and as large as one likes, become memory when they are converted.
        if sum(value.numel() * value.element_size() for value in weights.values()) > 2 * size + HEADROOM:
            raise _too_much(path)
        if weights:
            return weights, architecture
    raise BackboneError(
        f"{printable(path)}: expected tensors by name (a state_dict), got {type(content).__name__}"
    )


def without_prefix(weights: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """The tensors of the network that has these names, without what wrappers put before them.

    Args:
        weights: tensors by the names that the file gives them.
        wanted: the names that the network itself has.

    Raises:
        BackboneError: several networks of that kind are in the file.
    """
    plain = {_without_infixes(name): value for name, value in weights.items()}
    names = set(wanted)
    if names & plain.keys():
        return plain
    shared: dict[str, int] = {}
    for name in plain:
        for place in (index + 1 for index, letter in enumerate(name) if letter == "."):
            if name[place:] in names:
                shared[name[:place]] = shared.get(name[:place], 0) + 1
    if not shared:  # names of another author, which timm may know how to translate
        return _without_wrappers(plain)
    most = max(shared.values())
    found = sorted(prefix for prefix, count in shared.items() if count == most)
    if len(found) > 1:
        shown = " and ".join(printable(prefix) for prefix in found[:3])
        raise BackboneError(
            f"the file holds several such networks, below the prefixes {shown}; save the tensors of one"
        )
    return {name.removeprefix(found[0]): value for name, value in plain.items() if name.startswith(found[0])}


def _without_infixes(name: str) -> str:
    for infix in _INFIXES:
        name = name.replace(infix, "")
    return name


def _without_wrappers(weights: dict[str, Any]) -> dict[str, Any]:
    """Take off each usual wrapper's prefix that all names have."""
    while weights:
        first = next(iter(weights))
        prefix = next((each for each in _WRAPPERS if first.startswith(each)), None)
        if prefix is None or not all(name.startswith(prefix) for name in weights):
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
