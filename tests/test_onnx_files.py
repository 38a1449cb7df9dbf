"""ONNX files that strangers bring: weights beside them, memory, functions, loops, damage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from headstart import load_backbone
from headstart.errors import BackboneError
from onnx_models import Writer, cnn, images, loaded, outputs_of, place, saved, with_weights_elsewhere

__all__ = ["place"]  # a fixture of every test


def test_weights_in_a_file_beside_it_are_its_own(place: Path) -> None:
    whole = outputs_of(loaded(cnn()), images())["features"]
    backbone = loaded(with_weights_elsewhere(cnn(), place))
    assert np.array_equal(outputs_of(backbone, images())["features"], whole)
    before = backbone.weights_hash
    data = bytearray((place / "weights.bin").read_bytes())
    data[3] ^= 1
    (place / "weights.bin").write_bytes(data)
    assert loaded(with_weights_elsewhere(cnn(), place / "..")).weights_hash != before


def elsewhere(place: Path, location: str) -> Path:
    """A model in a folder of its own whose weights lie somewhere else."""
    folder = place / "inside"
    folder.mkdir(exist_ok=True)
    model = with_weights_elsewhere(cnn(), place, location)
    return saved(model, folder / "model.onnx")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "a/../../weights.bin", "/etc/hostname", "..\\weights.bin", "C:w", ""]
)
def test_weights_in_another_folder_are_not_read(place: Path, location: str) -> None:
    with pytest.raises(BackboneError, match="expected a file beside the model"):
        load_backbone(elsewhere(place, location), preprocess="imagenet")


def test_a_link_that_leaves_its_folder_is_not_followed(place: Path) -> None:
    path = elsewhere(place, "weights.bin")
    (path.parent / "weights.bin").symlink_to(place / "weights.bin")
    with pytest.raises(BackboneError, match="cannot be read: not in its folder, or not there"):
        load_backbone(path, preprocess="imagenet")


def changed_weights(model: Any, **facts: int | str) -> Any:
    for entry in model.graph.initializer[0].external_data:
        if entry.key in facts:
            entry.value = str(facts[entry.key])
    return model


@pytest.mark.parametrize(
    "facts", [{"offset": -1}, {"offset": 10**12}, {"length": 3}, {"offset": "x"}, {"length": 10**30}]
)
def test_weights_that_their_file_does_not_have_are_refused(place: Path, facts: Mapping[str, Any]) -> None:
    with pytest.raises(BackboneError, match="are not in their file"):
        loaded(changed_weights(with_weights_elsewhere(cnn(), place), **facts))


def test_one_piece_of_a_file_for_many_tensors_is_refused(place: Path) -> None:
    model = with_weights_elsewhere(cnn(), place)
    largest = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    for number in range(40):
        again = model.graph.initializer.add()
        again.CopyFrom(largest)
        again.name = f"again{number}"
    with pytest.raises(BackboneError, match="takes more memory than its files explain"):
        loaded(model)


def huge(operator: str) -> Any:
    """A small file that asks for far more numbers than any machine holds."""
    w, x = Writer(), "pixel_values"
    sides = w.constant(np.array([1, 3, 10**6, 10**6], np.int64))
    if operator == "ConstantOfShape":
        x = w.add("Add", x, w.add("ReduceMean", w.add(operator, sides), keepdims=1))
    else:
        x = w.add(operator, x, w.constant(np.array([1, 1, 10**5, 10**5], np.int64)))
    w.add("Flatten", w.add("GlobalAveragePool", w.conv(x, 3, 8)), output="out")
    return w.model({"out": None})


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Tile"])
def test_a_small_file_that_asks_for_all_memory_is_refused_in_a_line(operator: str) -> None:
    with pytest.raises(BackboneError, match="takes more memory than its size explains; refused"):
        loaded(huge(operator))


def with_functions(calls: Mapping[str, list[str]]) -> Any:
    """A network whose first operation is a function of the file, which calls others."""
    w = Writer()
    w.nodes.append(helper.make_node("F0", ["pixel_values"], ["first"], domain="own"))
    w.add("Flatten", w.add("GlobalAveragePool", w.conv("first", 3, 8)), output="out")
    model = w.model({"out": None})
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.opset_import.append(sets[1])
    for name, inner in calls.items():
        chain = ["a", *(f"t{number}" for number in range(1, len(inner))), "b"]
        nodes = [
            helper.make_node(call, [chain[at]], [chain[at + 1]], domain="own" if call.startswith("F") else "")
            for at, call in enumerate(inner)
        ]
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, sets))
    return model


def test_functions_of_a_file_are_opened_up_unless_they_have_no_end() -> None:
    assert loaded(with_functions({"F0": ["Relu", "Neg"]})).dimensions == 8
    doubling = {f"F{number}": [f"F{number + 1}"] * 2 for number in range(40)} | {"F40": ["Relu"]}
    for endless in ({"F0": ["F0"]}, doubling):
        with pytest.raises(BackboneError, match="open up to more operations than a network has"):
            loaded(with_functions(endless))


def test_a_loop_is_refused_by_name() -> None:
    w = Writer()
    facts = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("i", 7), ("c", 9), ("a", 1))]
    after = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("c2", 9), ("a2", 1))]
    inner = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Sin", ["a"], ["a2"])]
    body = helper.make_graph(inner, "body", facts, after)
    often, on = w.constant(np.array(2**40, np.int64)), w.constant(np.array(True))
    x = w.add("Loop", often, on, "pixel_values", body=body)
    w.add("Flatten", w.add("GlobalAveragePool", w.conv(x, 3, 8)), output="out")
    with pytest.raises(BackboneError, match="has the operation Loop, which may never end"):
        loaded(w.model({"out": None}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no ONNX model"),
        (b"\x00" * 100, "no ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html><html>", "a web page"),
    ],
)
def test_what_is_no_onnx_model_is_refused_in_a_line(content: bytes, reason: str) -> None:
    Path("model.onnx").write_bytes(content)
    with pytest.raises(BackboneError, match=reason):
        load_backbone("model.onnx", preprocess="imagenet")


def test_a_missing_file_is_a_line() -> None:
    with pytest.raises(BackboneError, match=r"backbone gone\.onnx: no such file of weights"):
        load_backbone("gone.onnx", preprocess="imagenet")


def test_damaged_files_are_backbones_or_a_line(place: Path) -> None:
    whole, rng = bytearray(cnn().SerializeToString()), np.random.default_rng(3)
    for _ in range(12):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = int(rng.integers(256))
        Path("model.onnx").write_bytes(data)
        try:
            load_backbone("model.onnx", preprocess="imagenet")
        except BackboneError as error:
            assert "\n" not in str(error)
