"""The one graph: pooling as a matrix, and every layer as the runtime computes it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones import Backbone, Stage, load_backbone
from headstart.backbones.runtimes import select
from headstart.backbones.runtimes.model import compile_model
from headstart.classifier.onnx_graph import compose, pooling_matrix
from headstart.heads import LinearHead

SIZE = 72  # odd maps on the way down: 36, 18, 9, 5, 3


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("builtin", size=SIZE)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2]), st.integers(0, 999))
@settings(deadline=None)
def test_pooling_is_pytorchs_adaptive_average(height: int, width: int, grid: int, seed: int) -> None:
    import torch

    if min(height, width) < grid:
        return
    maps = np.random.default_rng(seed).normal(size=(2, 3, height, width)).astype(np.float32)
    stage = Stage("any", 0, 0, (3, height, width))
    found = maps.reshape(2, 3, -1) @ pooling_matrix(stage, grid=grid)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps), grid).numpy()
    np.testing.assert_allclose(found, expected.reshape(2, 3, -1), atol=1e-5)


def test_tokens_in_front_of_the_patches_are_left_out() -> None:
    tokens = np.arange(5 * 2, dtype=np.float32).reshape(5, 2)  # one class token, 2 x 2 patches
    stage = Stage("block1", 0, 0, (5, 2), prefix_tokens=1)
    np.testing.assert_allclose(tokens.T @ pooling_matrix(stage, grid=1), tokens[1:].mean(axis=0)[:, None])
    np.testing.assert_allclose(tokens.T @ pooling_matrix(stage, grid=2), tokens[1:].T)


def test_every_layer_in_the_graph_is_what_the_runtime_pools(backbone: Backbone, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    runtime = select("openvino", precision="f32")
    prefix = runtime.compile(
        backbone, depth=len(backbone.stages), layers=backbone.feature_layers(), batch_size=4
    )
    (_, outputs), *_ = prefix.stream([(None, pixels)])
    random = np.random.default_rng(1)
    for layer in backbone.feature_layers():
        width = layer.width(backbone)
        weight = random.normal(size=(width, 3)).astype(np.float32) / np.float32(np.sqrt(width))
        head = LinearHead("ridge", weight, np.zeros(3, np.float32), 1.0)
        (tmp_path / "model.onnx").write_bytes(compose(backbone, layers=[layer], head=head))
        model = compile_model(tmp_path / "model.onnx", size=SIZE, batch_size=4, precision="f32")
        (_, found), *_ = model.stream([(None, pixels)])
        np.testing.assert_allclose(
            found["probabilities"], head.probabilities(outputs[layer.name]), atol=1e-3, err_msg=layer.name
        )


def test_the_temperature_is_inside_the_graph(backbone: Backbone, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    weight = np.random.default_rng(1).normal(size=(backbone.dimensions, 2)).astype(np.float32)
    spread = []
    for temperature in (0.5, 50.0):
        head = LinearHead("ridge", weight, np.zeros(2, np.float32), temperature)
        (tmp_path / "model.onnx").write_bytes(
            compose(backbone, layers=backbone.feature_layers()[-1:], head=head)
        )
        model = compile_model(tmp_path / "model.onnx", size=SIZE, batch_size=2, precision="f32")
        (_, found), *_ = model.stream([(None, pixels)])
        spread.append(np.ptp(found["probabilities"], axis=1).mean())
    assert spread[0] > spread[1]


def test_stages_that_no_layer_needs_are_dropped(backbone: Backbone) -> None:
    from headstart.backbones import FeatureLayer

    def size(stage: str) -> int:
        layer = FeatureLayer(stage, 1)
        head = LinearHead(
            "ridge", np.zeros((layer.width(backbone), 2), np.float32), np.zeros(2, np.float32), 1.0
        )
        return len(compose(backbone, layers=[layer], head=head))

    assert size(backbone.stages[1].name) < 0.1 * size("features")
