"""Small ONNX models of images, written by hand: a CNN with skips and a ViT, with a classifier or without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones import load_backbone
from headstart.backbones.backbone import Backbone
from headstart.backbones.openvino import openvino

SIDE = 32


class Writer:
    """Nodes and weights of a graph, as an exporter would write them."""

    def __init__(self, *, seed: int = 0) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(seed)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def constant(self, values: Any) -> str:
        name = f"weight{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def conv(self, x: str, before: int, after: int, *, stride: int = 1, kernel: int = 3) -> str:
        pad = kernel // 2
        weight, bias = self.weight(after, before, kernel, kernel), self.weight(after)
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=[pad] * 4)

    def dense(self, x: str, before: int, after: int) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(before, after)), self.weight(after))

    def model(
        self,
        outputs: Mapping[str, Any],
        *,
        side: int | str = SIDE,
        batch: int | str = "N",
        kind: int = TensorProto.FLOAT,
        last: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        shape = [batch, side, side, 3] if last else [batch, 3, side, side]
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("pixel_values", kind, shape)],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, dict(metadata or {}))
        return model


def cnn(*, classes: int = 7, last: bool = False, **settings: Any) -> Any:
    """Three image sizes, two residual blocks; scores of ``classes``, or features where there are none."""
    w = Writer(seed=1)
    x = w.add("Transpose", "pixel_values", perm=[0, 3, 1, 2]) if last else "pixel_values"
    x = w.add("MaxPool", w.add("Relu", w.conv(x, 3, 8)), kernel_shape=[2, 2], strides=[2, 2])
    for before, after in ((8, 12), (12, 20)):
        inner = w.conv(w.add("Relu", w.conv(x, before, after, stride=2)), after, after)
        x = w.add("Relu", w.add("Add", inner, w.conv(x, before, after, stride=2, kernel=1)))
    x = w.add("Flatten", w.add("GlobalAveragePool", x), output="" if classes else "embedding")
    if classes:
        weight, bias = w.weight(classes, 20), w.weight(classes)
        w.add("Gemm", x, weight, bias, transB=1, output="logits")
    return w.model({"logits" if classes else "embedding": None}, last=last, **settings)


def vit(*, blocks: int = 4, classes: int = 0, batch: int | str = "N", **settings: Any) -> Any:
    """Patches of 8 px, a class token, attention with two heads; tokens, or scores of the class token."""
    width = 24
    w, tokens, fixed = Writer(seed=2), (SIDE // 8) ** 2, isinstance(batch, int)
    count = batch if fixed else 0
    grid = w.add("Conv", "pixel_values", w.weight(width, 3, 8, 8), strides=[8, 8])
    flat = w.add("Reshape", grid, w.constant(np.array([count, width, tokens], np.int64)))
    x = w.add("Transpose", flat, perm=[0, 2, 1])
    token = w.weight(1, 1, width)
    if not fixed:
        number = w.add("Gather", w.add("Shape", x), w.constant(np.array([0], np.int64)))
        rest = w.constant(np.array([1, width], np.int64))
        token = w.add("Expand", token, w.add("Concat", number, rest, axis=0))
    x = w.add("Add", w.add("Concat", token, x, axis=1), w.weight(1, tokens + 1, width))
    for _ in range(blocks):
        x = _block(w, x, width, count=count)
    ones = w.constant(np.ones(width, np.float32))
    x = w.add("LayerNormalization", x, ones, w.weight(width), axis=-1, output="last_hidden_state")
    if classes:
        first = w.add("Gather", x, w.constant(np.array(0, np.int64)), axis=1)
        weight, bias = w.weight(classes, width), w.weight(classes)
        w.add("Gemm", first, weight, bias, transB=1, output="logits")
    return w.model({"logits" if classes else "last_hidden_state": None}, batch=batch, **settings)


def _block(w: Writer, x: str, width: int, *, count: int) -> str:
    """Attention with two heads, then two dense layers, each beside a skip."""
    shape = w.constant(np.array([count, -1, 2, width // 2], np.int64))
    ones = w.constant(np.ones(width, np.float32))
    normed = w.add("LayerNormalization", x, ones, w.weight(width), axis=-1)
    q, k, v = (w.add("Reshape", w.dense(normed, width, width), shape) for _ in range(3))
    q, v = (w.add("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
    k = w.add("Transpose", k, perm=[0, 2, 3, 1])
    scores = w.add("Mul", w.add("MatMul", q, k), w.constant(np.float32(1 / np.sqrt(width // 2))))
    mixed = w.add("Transpose", w.add("MatMul", w.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    joined = w.add("Reshape", mixed, w.constant(np.array([count, -1, width], np.int64)))
    x = w.add("Add", x, w.dense(joined, width, width))
    normed = w.add("LayerNormalization", x, ones, w.weight(width), axis=-1)
    return w.add("Add", x, w.dense(w.add("Relu", w.dense(normed, width, 2 * width)), 2 * width, width))


def with_weights_elsewhere(model: Any, folder: Path, location: str = "weights.bin") -> Any:
    """The same model with its weights in one file beside it, as far as ``location`` says so."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    data = b""
    for tensor in model.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(data)), ("length", len(raw))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
        data += raw
    (folder / "weights.bin").write_bytes(data)
    return model


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(model: Any, path: str | Path = "model.onnx") -> Path:
    found = Path(path).absolute()
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_bytes(model.SerializeToString())
    return found


def loaded(model: Any, **settings: Any) -> Backbone:
    return load_backbone(saved(model), **{"preprocess": "imagenet", **settings})


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 1, (count, 3, SIDE, SIDE)).astype(np.float32)


def outputs_of(backbone: Backbone, values: np.ndarray) -> dict[str, np.ndarray]:
    core = openvino().Core()
    graph = core.read_model(backbone.graph)
    graph.reshape({"image": list(values.shape)})
    found = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(values)
    return {name: found[name] for name in [*(stage.name for stage in backbone.stages), "features"]}
