"""Files of weights from strangers: wrappers are taken off, and what is no weights is named."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest

from headstart.backbones.building import Recipe, make_model
from headstart.backbones.checkpoints import read_checkpoint, without_prefix
from headstart.backbones.local import load_local, origin_of
from headstart.backbones.published import known_name
from headstart.errors import BackboneError, reason_of

torch = pytest.importorskip("torch", reason="needs the extra torch")
timm = pytest.importorskip("timm", reason="needs the extra torch")
safetensors = pytest.importorskip("safetensors.torch")

SMALL = "mobilenetv3_small_050"
WANTED = ("conv.weight", "blocks.0.weight", "blocks.1.weight", "classifier.bias")


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "module.{}",
        "model.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "model._orig_mod.backbone.{}",
        "learner.visual.trunk.{}",
    ],
)
def test_the_prefixes_of_wrappers_are_taken_off(wrap: str) -> None:
    weights = {wrap.format(name): number for number, name in enumerate(WANTED)}
    beside = {} if wrap.removeprefix("_orig_mod.") == "{}" else {"criterion.margin": 9, "steps": 9}
    assert without_prefix(weights | beside, WANTED) == dict(zip(WANTED, range(4), strict=True))


def test_blocks_that_were_compiled_one_by_one_are_found() -> None:
    weights = {name.replace("blocks.", "blocks._orig_mod."): 0 for name in WANTED}
    assert without_prefix(weights, WANTED).keys() == set(WANTED)


def test_two_networks_of_a_kind_in_one_file_are_asked_about() -> None:
    weights = {f"{owner}.{name}": 0 for owner in ("student", "teacher") for name in WANTED}
    with pytest.raises(BackboneError, match=r"student\. and teacher\."):
        without_prefix(weights, WANTED)


def test_names_of_another_author_lose_the_usual_wrappers_alone() -> None:
    assert without_prefix({"module.model.features.0": 1, "module.model.head": 2}, WANTED) == {
        "features.0": 1,
        "head": 2,
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page"),
    ],
)
def test_what_a_failed_download_left_is_named(tmp_path: Path, content: bytes, said: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=said):
        load_local(path, size=None, architecture=SMALL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipes_and_devices_are_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "endless.safetensors").symlink_to("/dev/zero")
    for name in ("pipe.pth", "endless.safetensors"):
        with pytest.raises(BackboneError, match="not a regular file"):
            load_local(tmp_path / name, size=None, architecture=SMALL)


def says(path: Path, **metadata: str) -> Path:
    """A file of one small tensor that says so much of itself."""
    safetensors.save_file({"a": torch.zeros(1)}, path, metadata={"architecture": SMALL, **metadata})
    return path


@pytest.mark.parametrize(
    "kwargs",
    [
        {"checkpoint_path": "/etc/passwd"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "other.bin"}},
        {"pretrained_cfg_overlay": {"file": "other.bin"}},
        {"cache_dir": "/tmp"},
        {"features_only": True},
        {"scriptable": True},
        {"exportable": True},
        {"pad_type": "../same"},
        {"embed_dim": 10**9},
        {"depth": 100_000},
        {"depths": [1] * 1000},
        {"pad_type": {"a": "b"}},
        {"drop_rate": float("inf")},
        {"\x1b[31mred": 1},
    ],
)
def test_what_a_file_says_becomes_no_argument_but_plain_ones_of_an_architecture(
    tmp_path: Path, kwargs: dict[str, Any]
) -> None:
    path = says(tmp_path / "odd.safetensors", timm_kwargs=json.dumps(kwargs))
    with pytest.raises(BackboneError, match="timm_kwargs") as refused:
        origin_of(path, architecture=None)
    assert str(refused.value).isprintable()


def test_plain_arguments_of_an_architecture_are_taken(tmp_path: Path) -> None:
    kwargs = {"pad_type": "same", "num_classes": 1001, "drop_path_rate": 0.1, "act_layer": "relu"}
    path = says(tmp_path / "plain.safetensors", timm_kwargs=json.dumps(kwargs))
    assert origin_of(path, architecture=None).recipe.timm_kwargs == {
        "pad_type": "same",
        "drop_path_rate": 0.1,
        "act_layer": "relu",
    }


@pytest.mark.parametrize("field", ["timm_kwargs", "preprocess"])
def test_deep_json_in_a_file_is_refused_in_a_line(tmp_path: Path, field: str) -> None:
    path = says(tmp_path / "deep.safetensors", **{field: '{"a":' * 100_000})
    with pytest.raises(BackboneError, match="metadata"):
        origin_of(path, architecture=None)


@pytest.mark.parametrize("name", ["vit_gigantic_patch14_224", "resnet152"])
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path: Path, name: str) -> None:
    path = says(tmp_path / "small.safetensors")
    with pytest.raises(BackboneError, match=f"do not fit {name}"):
        make_model(Recipe(name, {}, path), size=224, name=name)


def bytearray_of(size: int) -> bytes:
    """A pickle, of what PyTorch takes for safe, that makes so many bytes out of nothing."""
    return b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + struct.pack("<q", size)[:5] + b"\x85R."


def save_legacy(path: Path, content: bytes) -> None:
    """A file of PyTorch's older format: magic number, version and system first, then the pickle."""
    numbers = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(each, protocol=2) for each in numbers) + content)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="bounds of memory are Linux's")
def test_a_pickle_that_makes_gigabytes_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    save_legacy(path, bytearray_of(3 << 30))
    with pytest.raises(BackboneError, match="takes more memory"):
        read_checkpoint(path)


def test_views_that_are_far_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "views.pth"
    torch.save({str(number): torch.zeros(1).expand(1 << 28) for number in range(4)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(BackboneError, match="takes more memory"):
        read_checkpoint(path)


@pytest.mark.parametrize("old", ["tf_efficientnet_b0_ns", "vit_base_patch16_224_in21k"])
def test_names_that_timm_changed_lead_to_todays(old: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        today = known_name(old)
    assert today != old and timm.get_pretrained_cfg(today) is not None


@pytest.mark.parametrize("text", ["", " \n", "first\nsecond"])
def test_an_error_of_somebody_elses_is_one_line_even_where_it_says_nothing(text: str) -> None:
    assert reason_of(AssertionError(text)) == ("first" if text.strip() else "AssertionError")
