"""Stages of PyTorch networks: where they end, that they compute the same, and which weights train."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from headstart.backbones import Stage, backbone_of, load_backbone
from headstart.backbones.cuts import MOST_STAGES
from headstart.backbones.cutting import cut_into_stages
from headstart.backbones.exported import check_graph
from headstart.backbones.records import graphs_folder
from headstart.backbones.tracing import export_staged
from headstart.errors import BackboneError, OptionError, ParityError
from headstart.runs import Method
from timm_models import SAID, SIZE, SMALL, one_thread, same_state, state_of, timm_model

__all__ = ["one_thread"]  # a fixture of every test

FEWER_LAYERS: dict[str, dict[str, Any]] = {  # where a family's smallest member is still slow to test
    "vit_tiny_patch16_224": {"depth": 3},
    "deit_tiny_patch16_224": {"depth": 3},
    "deit_tiny_distilled_patch16_224": {"depth": 3},
    "swin_tiny_patch4_window7_224": {"depths": (2, 2, 2, 2), "embed_dim": 48},
    "vit_small_patch16_dinov3": {
        "depth": 2,
        "embed_dim": 48,
        "num_heads": 2,
    },  # positions turned in each block
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 2},  # biases made of tables
    "hiera_tiny_224": {"stages": (1, 1, 1, 1), "embed_dim": 24},  # patches out of order
    "tiny_vit_5m_224": {"depths": (1, 1, 1, 1)},
    "maxvit_rmlp_pico_rw_256": {},
}
FAMILIES = (
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "resnet10t",
    "resnet18",
    "resnet26",
    "convnext_atto",
    "edgenext_xx_small",
    "regnetx_002",
    "repvgg_a0",
    "densenet121",
    "test_nfnet",  # weights that are standardised anew in each pass
    "test_byobnet",
    "efficientformerv2_s0",
    "hgnetv2_b0",
    *FEWER_LAYERS,
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_cut_of_every_family_computes_what_the_whole_network_computes(name: str) -> None:
    model = timm_model(name, **FEWER_LAYERS.get(name, {}))
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(image), pre_logits=True)
        staged = cut_into_stages(model, architecture=name, size=SIZE)
        assert torch.equal(staged(image), expected)
        for depth in range(len(staged.stages) + 1):
            prefix, trainable = staged.split(depth)
            activation = prefix(image)
            before = activation.clone()
            torch.testing.assert_close(trainable(activation), expected, rtol=0, atol=1e-6)
            assert torch.equal(activation, before), (
                "a trainable part must not write into the cached activation"
            )
    assert torch.equal(activation, expected), "at full depth the prefix gives the features"


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_weights_and_buffers_stay_bit_identical_while_the_tail_trains(name: str) -> None:
    staged = cut_into_stages(timm_model(name, **FEWER_LAYERS.get(name, {})), architecture=name, size=SIZE)
    whole = state_of(staged)
    prefix, trainable = staged.split(len(staged.stages) - 1)
    frozen, fine_tuned = state_of(prefix), state_of(trainable)
    together = torch.nn.Sequential(prefix, trainable).train()
    optimizer = torch.optim.SGD([p for p in together.parameters() if p.requires_grad], lr=0.1)
    together(torch.randn(2, 3, SIZE, SIZE)).square().mean().backward()
    optimizer.step()
    assert same_state(prefix, frozen)
    assert same_state(staged, whole), "splitting and training must not touch the backbone"
    assert not same_state(trainable, fine_tuned), "the step should have changed the trainable part"
    assert not any(p.requires_grad for p in prefix.parameters())


def test_split_shares_no_weight_with_the_backbone() -> None:
    staged = cut_into_stages(timm_model(SMALL), architecture=SMALL, size=SIZE)
    own = {p.data_ptr() for p in staged.parameters()}
    for depth in (0, 3, len(staged.stages)):
        prefix, trainable = staged.split(depth)
        parts = [p.data_ptr() for part in (prefix, trainable) for p in part.parameters()]
        assert not own & set(parts)
        assert len(parts) == len(set(parts))
        assert sum(p.numel() for part in (prefix, trainable) for p in part.parameters()) == sum(
            p.numel() for p in staged.parameters()
        )


def test_a_trained_tail_joins_copies_of_the_stages_before_it() -> None:
    staged = cut_into_stages(timm_model(SMALL), architecture=SMALL, size=SIZE)
    untrained = state_of(staged)
    image = torch.randn(1, 3, SIZE, SIZE)
    for depth in (0, 4, len(staged.stages)):
        prefix, trainable = staged.split(depth)
        with torch.no_grad():
            for weight in trainable.parameters():
                weight.add_(0.01)
            assert torch.equal(staged.joined(trainable, depth=depth)(image), trainable(prefix(image)))
    assert same_state(staged, untrained)
    with pytest.raises(OptionError, match="not of depth 2"):
        staged.joined(staged.split(4)[1], depth=2)


def test_depth_outside_the_stages_is_refused() -> None:
    staged = cut_into_stages(timm_model(SMALL), architecture=SMALL, size=SIZE)
    for depth in (-1, len(staged.stages) + 1):
        with pytest.raises(OptionError, match="0 to 7"):
            staged.split(depth)


class TwoBranches(torch.nn.Module):
    """Two ways from the image to the features, which nothing joins before."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([side(image).mean((2, 3)) for side in (self.left, self.right)], dim=1)


class Counting(torch.nn.Module):
    """Reads the number of images, a size and a weight in its own code, in front of a block and behind it."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        blocks = [torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)) for _ in range(blocks)]
        self.patches, self.blocks = torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.ModuleList(blocks)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, image: torch.Tensor, *, scale: float = 0.5) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        count, patches, _ = x.shape
        if patches > 4:
            x = torch.cat([self.token.expand(count, -1, -1), x], dim=1)
        for block in self.blocks:
            x = x + block(x)
            x = x.reshape(count, patches + 1, -1) * scale + self.token
        return x[:, 0]


class Quarters(torch.nn.Module):
    """Pools over cells whose size it computes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        cells = (image.shape[-2] // 2, image.shape[-1] // 2)
        return functional.avg_pool2d(image, cells, cells)


class UnevenCells(torch.nn.Module):
    """Does what ONNX has no operation for: pools five cells of a side to two and three, and others."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 4), (4, 6), (6, 8)]
        blocks = [
            torch.nn.Sequential(torch.nn.Conv2d(low, high, 1), torch.nn.Conv2d(high, high, 3, padding=1))
            for low, high in sizes
        ]
        self.blocks, self.last = torch.nn.Sequential(*blocks), torch.nn.AdaptiveAvgPool2d((2, 3))
        self.quarters = Quarters()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(image, 3, padding=1, stride=2)
        image = image + functional.fold(patches * 0.1, (5, 5), kernel_size=3, padding=1, stride=2)
        sharper = functional.interpolate(image, size=(9, 7), mode="bicubic", antialias=True)
        smaller = functional.interpolate(sharper, size=(5, 5), mode="bilinear", antialias=True)
        found = self.blocks(smaller)
        return torch.cat([self.last(found).flatten(1), self.quarters(found).flatten(1)], 1)


def test_pooling_to_uneven_cells_patches_and_smooth_resizing_are_in_the_graph(tmp_path: Path) -> None:
    staged = cut_into_stages(UnevenCells().eval(), architecture="cells", size=5).eval()
    graph = export_staged(staged, tmp_path / "cells.onnx", size=5)
    image = torch.randn(3, 3, 5, 5)
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in staged.outputs(image).items()}
    assert expected["features"].shape == (3, 8 * (6 + 4))
    check_graph(graph, image.numpy(), expected, name="cells")
    with pytest.raises(ParityError, match="features differ"):
        check_graph(graph, image.numpy(), {"features": expected["features"] * 1.01}, name="cells")


def test_a_transformer_of_2025_loads_from_its_file_and_keeps_its_prefix_tokens_apart(tmp_path: Path) -> None:
    name = "vit_small_patch16_dinov3"
    model = timm_model(name, **FEWER_LAYERS[name])
    about = {**SAID, "architecture": name, "timm_kwargs": json.dumps(FEWER_LAYERS[name])}
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        tmp_path / "a.safetensors",
        about,
    )
    backbone = load_backbone(tmp_path / "a.safetensors", size=SIZE)
    assert [(stage.shape, stage.prefix_tokens) for stage in backbone.stages] == [((21, 48), 5)] * 3
    assert backbone.stages[0].patch_grid == (4, 4)
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        frozen, trainable = backbone.module().split(2)
        torch.testing.assert_close(trainable(frozen(image)), model(image))


class Bessel(UnevenCells):
    """Computes what ONNX cannot say."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(self.blocks(image)).mean((2, 3))


def test_what_onnx_cannot_say_is_one_line_and_no_graph(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    staged = cut_into_stages(Bessel().eval(), architecture="bessel", size=5).eval()
    with pytest.raises(BackboneError, match=r"cannot be written as ONNX: .*bessel_j0") as refused:
        export_staged(staged, tmp_path / "a.onnx", size=5)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


def test_two_branches_that_meet_in_the_features_are_one_stage(tmp_path: Path) -> None:
    model, image = TwoBranches().eval(), torch.randn(3, 3, SIZE, SIZE)
    staged = cut_into_stages(model, architecture="two", size=SIZE)
    assert staged.names == ("stem",)
    graph = export_staged(staged, tmp_path / "two.onnx", size=SIZE)
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(staged.after(0)(image), expected)
    whole = {"stem": expected.numpy()[..., None, None], "features": expected.numpy()}
    check_graph(graph, image.numpy(), whole, name="two")


class NoVector(TwoBranches):
    """Gives a map."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.left(image)


def test_a_network_without_a_vector_of_features_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"'map': cannot be cut .* gives no vector"):
        cut_into_stages(NoVector().eval(), architecture="map", size=SIZE)


def test_sizes_and_weights_that_a_network_reads_itself_are_right_behind_every_cut() -> None:
    model = Counting().eval()
    staged = cut_into_stages(model, architecture="counting", size=32)
    assert staged.names == ("stem", "block1", "block2", "block3")
    assert staged.prefix_tokens == (1, 1, 1, 1)
    for count in (1, 3):  # the graph was recorded with two
        images = torch.randn(count, 3, 32, 32)
        with torch.no_grad():
            for depth in range(5):
                frozen, trainable = staged.split(depth)
                torch.testing.assert_close(trainable(frozen(images)), model(images))


def test_neighbouring_blocks_are_joined_where_there_are_many() -> None:
    model, images = Counting(blocks=20).eval(), torch.randn(3, 3, 32, 32)
    staged = cut_into_stages(model, architecture="many", size=32)
    assert staged.names == ("stem", *(f"block{number}" for number in range(1, 9)))
    counts = [fact["parameters"] for fact in staged.facts()]
    assert max(counts) <= 3 * min(counts), "of alike blocks no stage should have most"
    separate = cut_into_stages(model, architecture="many", size=32, most=21)
    assert len(separate.names) == 21
    with torch.no_grad():
        for each, depth in ((staged, 4), (separate, 15)):
            frozen, trainable = each.split(depth)
            torch.testing.assert_close(trainable(frozen(images)), model(images))


def test_a_run_from_when_every_block_was_a_stage_has_its_stages_still(tmp_path: Path) -> None:
    name, kwargs = "vit_tiny_patch16_224", {"depth": 10, "embed_dim": 48, "num_heads": 2}
    weights = {key: value.contiguous() for key, value in timm_model(name, **kwargs).state_dict().items()}
    file = tmp_path / "a.safetensors"
    save_file(weights, file, {**SAID, "architecture": name, "timm_kwargs": json.dumps(kwargs)})
    today = load_backbone(file, size=SIZE)
    run = Method(backbone=str(file), size=SIZE, stages=11, depth=7)
    then = backbone_of(run)
    assert (len(today.stages), len(then.stages)) == (MOST_STAGES, 11)
    assert then.weights_hash != today.weights_hash, "stages of one name are cached apart"
    assert backbone_of(replace(run, stages=0)) == backbone_of(replace(run, stages=MOST_STAGES)) == today
    frozen, trainable = then.module().split(7)
    assert [*dict(trainable.named_children())] == ["block7", "block8", "block9", "block10", "pool"]
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(trainable(frozen(image)), today.module()(image))

    (record,) = graphs_folder().glob(f"{today.graph.stem.partition('-')[0]}-*.json")
    older = json.loads(record.read_text())
    older["stages"] = [stage.to_dict() for stage in then.stages]  # as an earlier version left it
    record.write_text(json.dumps(older))
    assert load_backbone(file, size=SIZE) == today


class Windows(Counting):
    """Computes on windows, of which several belong to an image: no place to cut."""

    def forward(self, image: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        x = torch.relu(self.patches(image))
        windows = x.reshape(len(x) * 4, 4, 8)
        for block in self.blocks:
            windows = windows + block(windows)
        return windows.reshape(len(x), 128) * scale


def test_several_windows_of_an_image_are_no_place_to_cut() -> None:
    staged = cut_into_stages(Windows().eval(), architecture="windows", size=32)
    assert staged.names == ("stem",)
    with torch.no_grad():
        assert len(staged.stages[0](torch.randn(3, 3, 32, 32))) == 3


class Meeting(Counting):
    """While it is followed it computes another network in a thread, and waits until another is followed."""

    def __init__(self, *, here: threading.Event, there: threading.Event) -> None:
        super().__init__()
        self.here, self.there, self.plain = here, there, [torch.nn.Linear(2, 2)]

    def forward(self, image: torch.Tensor, *, scale: float = 0.5) -> torch.Tensor:
        if isinstance(image, torch.fx.Proxy):
            self.here.set()
            self.there.wait(0.2)
            with ThreadPoolExecutor(1) as pool:
                assert isinstance(pool.submit(self.plain[0], torch.ones(1, 2)).result(), torch.Tensor)
        return super().forward(image, scale=scale)


def test_networks_are_cut_while_others_are_cut_and_computed() -> None:
    call, one, two = torch.nn.Module.__call__, threading.Event(), threading.Event()
    models = [Meeting(here=one, there=two).eval(), Meeting(here=two, there=one).eval()]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cut_into_stages, model, architecture="meeting", size=32) for model in models]
        assert [job.result().names[-1] for job in jobs] == ["block3", "block3"]
    assert torch.nn.Module.__call__ is call, "what follows networks should have put the class back"


def test_patches_out_of_order_have_no_grid() -> None:
    def facts(name: str) -> list[dict[str, Any]]:
        staged = cut_into_stages(timm_model(name, **FEWER_LAYERS[name]), architecture=name, size=SIZE)
        return [{**fact, "in_rows": staged.in_rows(SIZE)} for fact in staged.facts()]

    assert {fact["in_rows"] for fact in facts("hiera_tiny_224")} == {False}
    found = facts("vit_small_patch16_dinov3")
    assert {(fact["in_rows"], fact["prefix_tokens"]) for fact in found} == {(True, 5)}
    name = "vit_small_patch16_dinov3"
    few = timm.create_model(name, num_classes=0, img_size=32, **FEWER_LAYERS[name]).eval()
    staged = cut_into_stages(few, architecture=name, size=32)  # 2 x 2 patches and 5 others: 9, a square too
    assert staged.prefix_tokens == (5, 5, 5)
    stage = Stage("stem", 1, 1, (17, 8), prefix_tokens=1, in_rows=False)
    assert (stage.patch_grid, Stage.from_dict(stage.to_dict())) == (None, stage)


def test_weights_that_older_versions_trained_are_put_where_they_belong() -> None:
    name = "vit_tiny_patch16_224"
    staged = cut_into_stages(timm_model(name, **FEWER_LAYERS[name]), architecture=name, size=SIZE)
    older = {
        "block2": {f"0.{key}": value + 1 for key, value in staged.stages[2].state_dict().items()},
        "pool": {f"shell.{key}": value + 1 for key, value in staged.pool.state_dict().items()},
    }
    for part, weights in older.items():
        staged.load_part(part, weights)
        module = staged.pool if part == "pool" else staged.stages[2]
        assert same_state(module, {key.partition(".")[2]: value for key, value in weights.items()})
    with pytest.raises(RuntimeError, match="Missing key"):
        staged.load_part("block2", {"0.another.weight": torch.zeros(1)})
