"""Reads tensors from PyTorch's older file format (before 1.6, a row of pickles) without PyTorch or pickle.

A pickle is a program. The few instructions that a dictionary of tensors needs are carried out here, on plain
values; all others are refused, so a file can neither call nor import anything. Python's `pickletools`
describes the instructions by the names that stand below; `torch.serialization` has the format: five pickles,
then for each storage the number of its elements in eight bytes and the elements.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BackboneError, printable
from headstart.files import MEBI, Unreadable, read_regular

Tensors = dict[str, NDArray[Any]]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The first two pickles of such a file."""

_LARGEST = 256 * MEBI
"""Bytes; the networks of `headstart.backbones.imagenet` have up to 25 million."""

_MOST_INSTRUCTIONS = 200_000
"""In one pickle; those networks need 14,000."""

_MOST_DIMENSIONS = 8

_ELEMENTS: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}

_ORDERED, _REBUILD = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"

_ALLOWED = {_ORDERED, _REBUILD, *_ELEMENTS}


@dataclass(frozen=True)
class _Name:
    """An allowed name of the table above; it stands for itself and cannot be called."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    element: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor before its numbers are known: offset, sizes and strides in elements of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The file is not read; the message is the reason alone."""


_MARK = object()


def read_pickled(path: Path) -> Tensors:
    """Tensors by name, in the file's order, as read-only arrays over the bytes of the file.

    No tensor has more elements than its storage and all of them together no more bytes than the file.

    Raises:
        BackboneError: It is no such file, is damaged, or holds more than tensors (float32, int64) by name.
    """
    try:
        data = read_regular(path, limit=_LARGEST)
        return parse_pickled(data)
    except (Unreadable, _Refused) as error:
        raise BackboneError(f"{printable(path)}: no readable file of weights: {error}") from error


def parse_pickled(data: bytes) -> Tensors:
    """What `read_pickled` gives, of bytes; `_Refused` where it cannot."""
    file = io.BytesIO(data)
    if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
        raise _Refused("it does not begin as PyTorch's older files do")
    system = _load(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("its numbers are not little-endian")
    views, keys = _load(file), _load(file)
    if not isinstance(views, dict) or not all(isinstance(view, _View) for view in views.values()):
        raise _Refused("it holds more than tensors by name")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _Refused("it has no list of storages")
    return _tensors(views, _storages(views, keys, data, start=file.tell()))


def _storages(
    views: dict[str, _View], keys: list[str], data: bytes, *, start: int
) -> dict[str, NDArray[Any]]:
    """The elements of each storage by its key; they lie one after another from ``start`` on."""
    declared = {view.storage.key: view.storage for view in views.values()}
    if len(set(keys)) != len(keys) or set(keys) != set(declared):
        raise _Refused("its tensors and its list of storages do not agree")
    if any(view.storage != declared[view.storage.key] for view in views.values()):
        raise _Refused("two tensors say different things of one storage")
    found, at = {}, start
    for key in keys:
        storage = declared[key]
        count = int.from_bytes(data[at : at + 8], "little")
        at += 8
        if count != storage.count:
            raise _Refused("a storage has another number of elements than its tensors say")
        if at + count * storage.element.itemsize > len(data):
            raise _Refused("it ends before its last number: the file is cut short")
        found[key] = np.frombuffer(data, storage.element, count, at)
        at += count * storage.element.itemsize
    if at != len(data):
        raise _Refused(f"{len(data) - at:,} bytes follow its last number")
    return found


def _tensors(views: dict[str, _View], storages: dict[str, NDArray[Any]]) -> Tensors:
    counts = [(math.prod(view.shape), view.storage) for view in views.values()]
    total = sum(count * storage.element.itemsize for count, storage in counts)
    if total > sum(storage.nbytes for storage in storages.values()):
        raise _Refused("its tensors are larger than the numbers that it has for them")
    found = {}
    for name, view in views.items():
        last = view.offset + sum(
            (size - 1) * step for size, step in zip(view.shape, view.strides, strict=True)
        )
        if 0 in view.shape or last >= view.storage.count:
            raise _Refused(f"tensor {printable(name[:80])} lies outside its storage")
        numbers = storages[view.storage.key][view.offset :]
        strides = [step * view.storage.element.itemsize for step in view.strides]
        found[name] = np.ndarray(view.shape, view.storage.element, numbers, strides=strides)
        found[name].flags.writeable = False
    return found


# ------------------------------------------------------------------------------------------ one pickle


def _load(file: io.BytesIO) -> Any:
    """The value of the pickle that begins where the file stands, which is left behind it."""
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    try:
        for _ in range(_MOST_INSTRUCTIONS):
            code = file.read(1)
            if code == b".":
                break
            if code in _STORES:
                memory[_STORES[code](file)] = stack[-1]
            elif code in _RECALLS:
                stack.append(memory[_RECALLS[code](file)])
            elif code in _LITERALS:
                stack.append(_LITERALS[code](file))
            elif code in _STEPS:
                _STEPS[code](stack)
            elif code == b"\x80":
                _whole(file, 1)  # the protocol, which says nothing that the instructions do not
            else:
                raise _refusal(code)
        else:
            raise _Refused("it has more instructions than a list of tensors needs")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _Refused("its list of tensors is damaged") from error
    if len(stack) != 1:
        raise _Refused("its list of tensors is damaged")
    return stack[0]


def _refusal(code: bytes) -> _Refused:
    if not code:
        return _Refused("it ends within its list of tensors: the file is cut short")
    return _Refused(f"it holds more than tensors (instruction 0x{code.hex()}); nothing of it is run")


def _bytes(file: io.BytesIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise _refusal(b"")
    return found


def _whole(file: io.BytesIO, count: int, *, signed: bool = False) -> int:
    return int.from_bytes(_bytes(file, count), "little", signed=signed)


def _number(count: int, *, signed: bool = False) -> Callable[[io.BytesIO], int]:
    """Reads a whole number of so many bytes."""
    return lambda file: _whole(file, count, signed=signed)


def _name(file: io.BytesIO) -> _Name:
    """A module and a name in it, a line each."""
    module, name = (file.readline().decode("ascii").removesuffix("\n") for _ in range(2))
    text = f"{module} {name}"
    if text not in _ALLOWED:
        raise _Refused(f"it asks for {printable(text[:80])!r}, which is no tensor; nothing of it is run")
    return _Name(text)


_STORES, _RECALLS = {b"q": _number(1), b"r": _number(4)}, {b"h": _number(1), b"j": _number(4)}
"""BINPUT, LONG_BINPUT; BINGET, LONG_BINGET: their places in memory."""

_LITERALS: dict[bytes, Callable[[io.BytesIO], Any]] = {
    b"(": lambda _: _MARK,
    b"N": lambda _: None,
    b"\x88": lambda _: True,
    b"\x89": lambda _: False,
    b")": lambda _: (),
    b"]": lambda _: [],
    b"}": lambda _: {},
    b"c": _name,
    b"J": _number(4, signed=True),
    b"K": _number(1),
    b"M": _number(2),
    b"\x8a": lambda file: _whole(file, _whole(file, 1), signed=True),
    b"X": lambda file: _bytes(file, _whole(file, 4)).decode(),
}
"""What goes on the stack by MARK, NONE, NEWTRUE, NEWFALSE, EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT, GLOBAL,
BININT, BININT1, BININT2, LONG1 and BINUNICODE."""


def _since_mark(stack: list[Any]) -> list[Any]:
    """What lies above the last mark, taken off the stack with it."""
    place = max(place for place, value in enumerate(stack) if value is _MARK)
    found = stack[place + 1 :]
    del stack[place:]
    return found


def _tuple(stack: list[Any]) -> None:
    stack.append(tuple(_since_mark(stack)))


def _last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError(count)
    found = stack[-count:]
    del stack[-count:]
    return found


def _tuple_of(count: int) -> Any:
    return lambda stack: stack.append(tuple(_last(stack, count)))


def _set_items(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], dict):
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):  # also because to hash a tuple in a tuple in a tuple overflows
            raise _Refused("a name in it is no text")
        stack[-1][key] = value


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise TypeError
    stack[-1].extend(items)


def _reduce(stack: list[Any]) -> None:
    """An empty ordered dictionary, or a tensor: all that may be made of a name and its arguments."""
    made, arguments = _last(stack, 2)
    if made == _Name(_ORDERED) and arguments == ():
        stack.append({})
    elif made == _Name(_REBUILD):
        stack.append(_view(*arguments))
    else:
        raise _Refused("it holds more than tensors; nothing of it is run")


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """Of ``_rebuild_tensor_v2``: what follows (gradients, hooks) says nothing of the numbers."""
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not whole or len(shape) > _MOST_DIMENSIONS or not isinstance(storage, _Storage):
        raise TypeError
    if not all(type(number) is int and 0 <= number <= storage.count for number in (offset, *shape, *strides)):
        raise _Refused("a tensor lies outside its storage")
    return _View(storage, offset, shape, strides)


def _storage(stack: list[Any]) -> None:
    """Made of ``("storage", type, key, device, count, view)``; a view is None in all but the oldest files."""
    (parts,) = _last(stack, 1)
    kind, element, key, device, count, view = parts
    if not (isinstance(element, _Name) and element.text in _ELEMENTS and isinstance(key, str)):
        raise _Refused("a tensor has elements of an unknown type")
    if (kind, device, view) != ("storage", "cpu", None) or type(count) is not int or count < 0:
        raise _Refused("a storage is described in an unknown way")
    stack.append(_Storage(key, _ELEMENTS[element.text], count))


def _build(stack: list[Any]) -> None:
    """Attributes of a dictionary, PyTorch's versions of modules: left out."""
    _last(stack, 1)
    if not isinstance(stack[-1], dict):
        raise TypeError


_STEPS: dict[bytes, Callable[[list[Any]], None]] = {
    b"t": _tuple,
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"s": lambda stack: _set_items(stack, _last(stack, 2)),
    b"u": lambda stack: _set_items(stack, _since_mark(stack)),
    b"a": lambda stack: _append(stack, _last(stack, 1)),
    b"e": lambda stack: _append(stack, _since_mark(stack)),
    b"R": _reduce,
    b"Q": _storage,
    b"b": _build,
}
"""TUPLE, TUPLE1, TUPLE2, TUPLE3, SETITEM, SETITEMS, APPEND, APPENDS, REDUCE, BINPERSID, BUILD."""
