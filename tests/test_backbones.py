"""Backbones: ordered stages, pure splits, files and names, and loading without PyTorch."""

import json
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from headstart.backbones import (
    Backbone,
    FeatureLayer,
    Stage,
    available,
    building,
    load_backbone,
    published,
    records,
)
from headstart.backbones.builtin import BUILTIN, WEIGHTS
from headstart.errors import BackboneError, MissingExtra, MissingWeights, OptionError
from timm_models import SAID, SIZE, SMALL, one_thread, same_state, state_of, timm_model

__all__ = ["one_thread"]  # a fixture of every test

SMALL_ORIGIN = "mobilenetv3_small_050.lamb_in1k"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def write_weights(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small network's weights as safetensors, with the metadata that is asked for."""

    def write(name: str = "small.safetensors", *, change: Any = None, **metadata: str) -> Path:
        weights = {key: value.half() for key, value in timm_model(SMALL).state_dict().items()}
        weights = {key: value.contiguous() for key, value in (change(weights) if change else weights).items()}
        save_file(weights, tmp_path / name, metadata=metadata or None)
        return tmp_path / name

    return write


# ------------------------------------------------------------------------------------------ built in


def test_the_built_in_backbone_loads_and_predicts_without_pytorch() -> None:
    done = run_python(
        "import sys; from headstart.backbones import load_backbone; b = load_backbone('builtin', size=40);"
        "print(b.dimensions, sorted({'torch', 'timm', 'onnx', 'PIL'} & set(sys.modules)))"
    )
    assert done.stdout == "1280 []\n", done.stderr


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_backbone_ships_all_its_files(name: str) -> None:
    backbone = load_backbone(name)
    assert "Tiny ImageNet" in backbone.card
    assert backbone.pretrained
    staged = backbone.module()
    assert [stage.name for stage in backbone.stages] == list(staged.names)
    assert sum(s.parameters for s in backbone.stages) == sum(p.numel() for p in staged.parameters())
    shipped = load_file(WEIGHTS / f"{name}.safetensors")
    assert {value.dtype for value in shipped.values()} == {torch.float16}


@settings(max_examples=8, deadline=None)
@given(size=st.integers(32, 150))
def test_a_built_in_backbone_takes_images_of_any_size(size: int) -> None:
    backbone = load_backbone("builtin", size=size)
    with torch.no_grad():
        maps = [torch.zeros(1, 3, size, size)]
        for stage in backbone.module().stages:
            maps.append(stage(maps[-1]))
    assert [stage.shape for stage in backbone.stages] == [tuple(m.shape[1:]) for m in maps[1:]]
    assert all(stage.bytes_per_image == 2 * np.prod(stage.shape) for stage in backbone.stages)


def test_a_size_below_the_smallest_is_refused() -> None:
    with pytest.raises(OptionError, match=r"size 31: .* at least 32"):
        load_backbone("builtin", size=31)


def test_multiply_adds_are_those_of_the_layers() -> None:
    backbone = load_backbone("builtin", size=SIZE)
    staged = backbone.module()
    counted = dict.fromkeys(staged.names, 0)
    name = ""

    def count(module: torch.nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        counted[name] += output[0].numel() * module.weight[0].numel()

    for module in staged.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    image = torch.zeros(1, 3, SIZE, SIZE)
    for name, stage in zip(staged.names, staged.stages, strict=True):  # noqa: B007 (read by the hook)
        image = stage(image)
    assert {stage.name: stage.multiply_adds for stage in backbone.stages} == counted


# ------------------------------------------------------------------------------------------ values


def backbone_of(*shapes: tuple[int, ...], prefix_tokens: int = 0) -> Backbone:
    """A backbone as data alone, with stages of these shapes."""
    stages = tuple(
        Stage.from_dict(
            {
                "name": f"block{i}",
                "parameters": 1,
                "multiply_adds": 1,
                "shape": shape,
                "prefix_tokens": prefix_tokens,
            }
        )
        for i, shape in enumerate(shapes, start=1)
    )
    whole = load_backbone("builtin")
    return Backbone("x", "x", whole.preprocess, "0", True, stages, 10, whole.graph)


def test_freeze_is_a_number_a_word_or_a_stage() -> None:
    backbone = load_backbone("builtin")
    meanings = {"all": 9, "none": 0, "3": 3, 3: 3, "stem": 1, "block2": 3, "last": 9, " All ": 9}
    assert {freeze: backbone.depth(freeze) for freeze in meanings} == meanings


@pytest.mark.parametrize("freeze", ["10", -1, "block9", "", "2.5", "half"])
def test_a_freeze_that_means_nothing_is_refused(freeze: int | str) -> None:
    with pytest.raises(OptionError, match="freeze"):
        load_backbone("builtin").depth(freeze)


def test_layers_end_in_the_features_and_have_the_width_of_their_grid() -> None:
    backbone = load_backbone("builtin")
    names = [layer.name for layer in backbone.feature_layers()]
    assert names[:3] == ["stem@1x1", "stem@2x2", "block1@1x1"]
    assert names[-2:] == ["last@2x2", "features"]
    assert FeatureLayer("block5", 2).width(backbone) == 4 * 48
    assert FeatureLayer("features", 1).width(backbone) == 1280


def test_the_finest_grid_is_for_narrow_maps_that_it_divides() -> None:
    fine = [layer.name for layer in load_backbone("builtin", size=128).feature_layers() if layer.grid == 4]
    assert fine == ["block3@4x4", "block4@4x4", "block5@4x4"]  # 16, 8 and 8 cells a side; block 6 is too wide
    assert not [
        layer for layer in load_backbone("builtin", size=72).feature_layers() if layer.grid == 4
    ]  # 9, 5, 5 cells


def test_tokens_are_pooled_on_their_patch_grid_only() -> None:
    square = backbone_of((17, 8), (17, 8), prefix_tokens=1)
    assert [layer.name for layer in square.feature_layers()] == [
        "block1@1x1",
        "block1@2x2",
        "block1@4x4",
        "block2@1x1",
        "block2@2x2",
        "block2@4x4",
        "features",
    ]
    assert [layer.name for layer in backbone_of((18, 8), (18, 8), prefix_tokens=1).feature_layers()] == [
        "block1@1x1",
        "block2@1x1",
        "features",
    ]
    assert FeatureLayer("block1", 2).width(square) == 32


def test_maps_of_a_single_cell_have_no_finer_grid() -> None:
    assert [layer.name for layer in backbone_of((8, 2, 2), (8, 1, 1)).feature_layers()] == [
        "block1@1x1",
        "block1@2x2",
        "features",
    ]


def test_a_layers_name_reads_back() -> None:
    for layer in load_backbone("builtin").feature_layers():
        assert FeatureLayer.parse(layer.name) == layer
    for name in ("block5", "block5@3x3", "@2x2", "features@2x2@1x1"):
        with pytest.raises(OptionError, match="layer"):
            FeatureLayer.parse(name)


# ------------------------------------------------------------------------------------------ local files


def test_a_file_says_what_it_is_and_loads_without_pytorch_the_second_time(
    write_weights: Callable[..., Path],
) -> None:
    path = write_weights(**SAID)
    backbone = load_backbone(path, size=SIZE)
    assert backbone.architecture == SMALL
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)
    assert backbone.preprocess.std == (0.25, 0.25, 0.25)
    assert backbone.preprocess.interpolation == "bilinear"
    assert backbone.preprocess.size == SIZE
    assert backbone.notes == ()
    image = torch.randn(1, 3, SIZE, SIZE)
    expected = timm_model(SMALL).half().float()(image)
    torch.testing.assert_close(backbone.module()(image), expected, rtol=1e-5, atol=1e-5)

    done = run_python(
        "import sys; from headstart.backbones import load_backbone; b = load_backbone(sys.argv[1], size=64);"
        "print(b.weights_hash, 'torch' in sys.modules or 'timm' in sys.modules)",
        str(path),
    )
    assert done.stdout == f"{backbone.weights_hash} False\n", done.stderr


def test_a_changed_file_is_another_backbone(write_weights: Callable[..., Path]) -> None:
    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**weights, "conv_stem.weight": weights["conv_stem.weight"] * 2}

    first = load_backbone(write_weights(**SAID), size=SIZE)
    second = load_backbone(write_weights(change=change, **SAID), size=SIZE)
    assert first.weights_hash != second.weights_hash
    assert first.graph != second.graph


def test_a_files_classifier_is_left_out(write_weights: Callable[..., Path]) -> None:
    def with_classifier(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**weights, "classifier.weight": torch.zeros(7, 1024), "classifier.bias": torch.zeros(7)}

    backbone = load_backbone(write_weights(change=with_classifier, **SAID), size=SIZE)
    assert backbone.dimensions == 1024


def test_without_its_own_mean_and_std_a_file_takes_the_architectures_and_says_so(
    write_weights: Callable[..., Path],
) -> None:
    backbone = load_backbone(write_weights(architecture=SMALL), size=SIZE)
    configuration = timm.get_pretrained_cfg(SMALL)
    assert backbone.preprocess.mean == configuration.mean
    assert backbone.preprocess.crop_fraction == configuration.crop_pct
    assert len(backbone.notes) == 1
    assert "mean and std" in backbone.notes[0]


def test_a_pytorch_file_needs_an_architecture_and_may_carry_it(tmp_path: Path) -> None:
    state = timm_model(SMALL).state_dict()
    plain, wrapped = tmp_path / "plain.pth", tmp_path / "wrapped.pth"
    torch.save(state, plain)
    torch.save({"arch": SMALL, "state_dict": {f"module.{k}": v for k, v in state.items()}}, wrapped)
    with pytest.raises(BackboneError, match="does not say its architecture"):
        load_backbone(plain, size=SIZE)
    named = load_backbone(plain, size=SIZE, architecture=SMALL)
    carried = load_backbone(wrapped, size=SIZE)
    image = torch.randn(1, 3, SIZE, SIZE)
    assert torch.equal(named.module()(image), carried.module()(image))


class Trap:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_a_pytorch_file_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "bare.pth"):
        with pytest.raises(BackboneError, match="more than weights"):
            load_backbone(tmp_path / name, architecture=SMALL)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not weights at all, whatever the name says"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(BackboneError) as caught:
        load_backbone(path, architecture=SMALL)
    assert "damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_in_one_line(write_weights: Callable[..., Path]) -> None:
    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del weights["conv_head.weight"]
        return {**weights, "surplus": torch.zeros(1), "conv_stem.weight": torch.zeros(16, 3, 5, 5)}

    with pytest.raises(BackboneError) as caught:
        load_backbone(write_weights(change=change, **SAID), size=SIZE)
    message = str(caught.value)
    assert "1 missing (conv_head.weight)" in message
    assert "1 unexpected (surplus)" in message
    assert "1 of another shape (conv_stem.weight (16, 3, 5, 5) instead of (16, 3, 3, 3))" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("field", "value"), [("timm_kwargs", "pad_type=same"), ("mean", "half"), ("interpolation", "guessing")]
)
def test_unusable_metadata_is_refused(write_weights: Callable[..., Path], field: str, value: str) -> None:
    with pytest.raises((BackboneError, OptionError), match=r"guessing|metadata"):
        load_backbone(write_weights(**{**SAID, field: value}))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BackboneError, match=r"nowhere\.pth: no such file"):
        load_backbone("nowhere.pth")


def test_position_embeddings_follow_the_size(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(
        timm_model("vit_tiny_patch16_224").state_dict(),
        path,
        metadata={"architecture": "vit_tiny_patch16_224"},
    )
    backbone = load_backbone(path, size=96)
    assert backbone.stages[0].shape == (1 + 6 * 6, 192)
    assert backbone.stages[0].prefix_tokens == 1
    with pytest.raises(BackboneError, match="pos_embed"):
        load_backbone(path, size=8)  # less than one patch


# ------------------------------------------------------------------------------------------ timm names


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, on a machine that must not use the network."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put_into_cache(folder: Path, name: str) -> Path:
    repository = folder / f"models--timm--{name}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    save_file(timm_model(name.split(".")[0]).state_dict(), snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


def test_a_timm_name_takes_weights_from_the_cache_and_its_own_preprocessing(hub_cache: Path) -> None:
    file = put_into_cache(hub_cache, SMALL_ORIGIN)
    backbone = load_backbone(SMALL, size=SIZE)
    data = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(SMALL).to_dict())
    assert backbone.preprocess.mean == data["mean"]
    assert backbone.preprocess.crop_fraction == data["crop_pct"]
    assert backbone.preprocess.interpolation == data["interpolation"]
    assert load_backbone(SMALL).preprocess.size == data["input_size"][-1]
    image = torch.randn(1, 3, SIZE, SIZE)
    assert torch.equal(backbone.module()(image), timm_model(SMALL)(image))
    assert file in [info.where for info in available()]

    done = run_python(
        "import sys; from headstart.backbones import load_backbone;"
        f"b = load_backbone('{SMALL}', size={SIZE}); print(b.weights_hash, 'timm' in sys.modules)"
    )
    assert done.stdout == f"{backbone.weights_hash} False\n", done.stderr


def test_missing_weights_name_the_three_ways_out(hub_cache: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        load_backbone(SMALL)
    message = str(caught.value)
    assert f"hf download timm/{SMALL_ORIGIN} model.safetensors" in message
    assert str(hub_cache) in message
    assert "a local file of weights or of ONNX" in message
    assert "'builtin'" in message


def test_a_hub_that_never_answers_ends_in_an_error_soon(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and says nothing
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(published, "_REACH_SECONDS", 0.3)
        start = time.monotonic()
        with pytest.raises(MissingWeights, match="cannot be reached"):
            load_backbone(SMALL)
        assert time.monotonic() - start < 60  # left to itself it tries for minutes


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("mobilnetv2_100", "mobilenetv2_100"), ("buildin", "builtin"), ("resnet18.a9_in1k", "resnet18.a")],
)
def test_an_unknown_name_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(BackboneError, match=f"did you mean .*{nearest}"):
        load_backbone(name)


def test_without_timm_a_name_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    for ask in (lambda: load_backbone("resnet18"), lambda: load_backbone("builtin").module()):
        with pytest.raises(MissingExtra, match=r"headstart\[torch\]"):
            ask()


# ------------------------------------------------------------------------------------------ random weights


def test_random_weights_follow_their_seed_and_leave_other_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_backbone("builtin", size=SIZE, pretrained=False, seed=1)
    module = first.module()
    assert torch.equal(torch.rand(3), expected)
    again, other = (load_backbone("builtin", size=SIZE, pretrained=False, seed=seed) for seed in (1, 2))
    assert first.weights_hash == again.weights_hash != other.weights_hash
    assert first.weights_hash != load_backbone("builtin").weights_hash
    assert not first.pretrained
    assert same_state(again.module(), state_of(module))
    assert not same_state(other.module(), state_of(module))


# ------------------------------------------------------------------------------------------ records


def test_a_record_reads_back(tmp_path: Path) -> None:
    records.write_record(tmp_path / "record.json", {"a": 1})
    assert records.read_record(tmp_path / "record.json") == {"format": records.FORMAT, "a": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format": -1})])
def test_a_record_that_cannot_be_used_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert records.read_record(tmp_path / "record.json") is None
