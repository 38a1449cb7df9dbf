"""PyTorch's older files: their tensors are read without PyTorch, and everything else is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones.pickled import read_pickled
from headstart.errors import BackboneError
from old_weights import SYSTEM, file_of, view, weights_file, whole

FOUR = np.arange(4, dtype=np.float32)
TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.bias": FOUR,
    "steps": np.array(7, dtype=np.int64),
}


def read(folder: Path, data: bytes) -> dict[str, Any]:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return read_pickled(path)


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(BackboneError) as refused:
        read(folder, data)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_tensors_come_by_name_in_the_files_order(tmp_path: Path) -> None:
    found = read(tmp_path, weights_file(TENSORS))
    assert list(found) == list(TENSORS)
    for name, values in TENSORS.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
        assert not found[name].flags.writeable


def test_what_pytorch_writes_reads_as_pytorch_reads_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    state = module.state_dict()
    state["0.weight"] = state["0.weight"].permute(0, 1, 3, 2)  # strides of its own, as the packages have
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    found = read_pickled(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    hostile = pickle.dumps(Touch(tmp_path / "ran"), protocol=protocol)
    assert "nothing of it is run" in refusal(tmp_path, hostile)
    inside = file_of({}, {}, content=whole(Touch(tmp_path / "ran")))
    assert "nothing of it is run" in refusal(tmp_path, inside)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cbuiltins\neval\n", "'builtins eval'"),
        (b"ctorch._utils\n_rebuild_tensor\n", "_rebuild_tensor"),
        (b"ctorch\nload\n", "'torch load'"),
        (b"ctorch\nFloatStorage\n)R", "more than tensors"),
        (b"ccollections\nOrderedDict\n)\x81", "instruction 0x81"),
        (b"(icollections\nOrderedDict\n", "instruction 0x69"),
        (b"\x8c\x05posix\x8c\x06system\x93", "instruction 0x8c"),
        (b"\x82\x01", "instruction 0x82"),
        (b"V1\n", "instruction 0x56"),
        (b"S'\\y'\n", "instruction 0x53"),
        (b"]}b", "damaged"),
        (b"}(((ttK\x01u", "a name in it is no text"),
        (b"(" * 10 + b"t" * 10, "more than tensors by name"),
        (b"K\x01", "more than tensors by name"),
        (b"}" * 2, "damaged"),
        (b"h\x07", "damaged"),
        (b"0", "instruction 0x30"),
        (b"}(X\x01\x00\x00\x00aK\x01u", "more than tensors by name"),
        (b"}r\xff\xff\xff\xff", "do not agree"),  # a place in memory far behind all others costs nothing
    ],
)
def test_what_is_no_tensor_by_name_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path, file_of({}, {"0": FOUR}, content=content))


def test_more_instructions_than_a_network_needs_are_refused(tmp_path: Path) -> None:
    assert "instructions" in refusal(tmp_path, file_of({}, {}, content=b")" * 300_000))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("torch\nHalfStorage", "HalfStorage"),
        ("torch\nQInt8Storage", "QInt8Storage"),
        ("collections\nOrderedDict", "unknown type"),
    ],
)
def test_elements_of_unknown_types_are_refused(tmp_path: Path, kind: str, said: str) -> None:
    assert said in refusal(tmp_path, file_of({"a": view("0", 4, [4], kind=kind)}, {"0": FOUR}))


@pytest.mark.parametrize(
    "tensor",
    [
        view("0", 4, [5]),
        view("0", 4, [2, 3]),
        view("0", 4, [4], offset=1),
        view("0", 4, [4], offset=-1),
        view("0", 4, [4], offset=True),
        view("0", 4, [4], strides=[2]),
        view("0", 4, [4], strides=[-1]),
        view("0", 4, [2**62, 4]),
        view("0", 4, [0]),
        view("0", 4, [4, 4], strides=[0, 1]),
        view("0", 4, [4], strides=[1, 1]),
        view("0", 4, [1] * 9),
        view("0", 5, [4]),
        view("0", 2**62, [2**62]),
        view("0", -4, [4]),
        view("0", 10**40, [4]),
        view("1", 4, [4]),
    ],
)
def test_sizes_that_the_file_does_not_have_are_refused(tmp_path: Path, tensor: bytes) -> None:
    assert refusal(tmp_path, file_of({"a": tensor}, {"0": FOUR}))


def test_many_large_views_of_one_storage_are_refused(tmp_path: Path) -> None:
    views = {str(number): view("0", 4, [4]) for number in range(100)}
    assert "larger" in refusal(tmp_path, file_of(views, {"0": FOUR}))


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": 1},
        {"system": {**SYSTEM, "little_endian": False}},
        {"system": []},
        {"counts": {"0": 3}},
        {"counts": {"0": 2**62}},
    ],
)
def test_a_head_or_a_count_that_is_not_true_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert refusal(tmp_path, file_of({"a": view("0", 4, [4])}, {"0": FOUR}, **changed))


def test_two_sayings_of_one_storage_are_refused(tmp_path: Path) -> None:
    views = {"a": view("0", 4, [4]), "b": view("0", 2, [2])}
    assert "different things" in refusal(tmp_path, file_of(views, {"0": FOUR}))


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -17])
def test_a_file_that_is_cut_short_or_too_long_is_refused(tmp_path: Path, cut: int) -> None:
    assert refusal(tmp_path, weights_file(TENSORS)[:cut])
    assert "follow" in refusal(tmp_path, weights_file(TENSORS) + b"\0")


def test_newer_files_pipes_and_web_pages_are_refused(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04" + bytes(60), b"<!doctype html>", b"", b"\x80"):
        assert "no readable file of weights" in refusal(tmp_path, content)
    with pytest.raises(BackboneError, match="No such file"):
        read_pickled(tmp_path / "missing.pth")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BackboneError, match="not a regular file"):
            read_pickled(tmp_path / "pipe")


WHOLE = weights_file(TENSORS)


@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 8), st.binary(max_size=8)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, damages: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(WHOLE)
    for place, length, new in damages:
        data[place : place + length] = new
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(data)
    try:
        found = read_pickled(path)
    except BackboneError as error:
        assert "\n" not in str(error)
    else:
        assert sum(values.nbytes for values in found.values()) <= len(data)
