"""Runtimes: OpenVINO and PyTorch give the same numbers, in order, with bounded memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.backbones import Backbone, FeatureLayer, building, load_backbone
from headstart.backbones.runtimes import openvino as openvino_runtime
from headstart.backbones.runtimes import select
from headstart.backbones.runtimes.model import compile_model
from headstart.backbones.runtimes.openvino import has_bf16
from headstart.errors import InternalError, MissingExtra, OptionError, RunError
from headstart.files import cache_folder

pytestmark = pytest.mark.compiles
SIZE = 64
F32_TOLERANCE = 1e-4  # of the largest value: sums taken in another order
BF16_TOLERANCE = 3e-2  # of the largest value: 8 bits of mantissa, through the depth of a network
# The built-in ones inherit edge detectors that subtract neighbours of nearly the same brightness: 8 bits say
# little there (docs/runtimes.md). PyTorch shows as much in bfloat16, so it is the weights and not a runtime.
BF16_TOLERANCES = {"builtin": 6e-2}
FEATURES = (FeatureLayer("features", 1),)

Make = Callable[[str], Backbone]


def pixels(count: int, *, size: int = SIZE, seed: int = 0) -> Any:
    """Smooth colourful images, which a network tells apart better than noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 8, 8, 3)).repeat(size // 8, 1).repeat(size // 8, 2)
    return np.clip(coarse + random.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


def everything(prefix: Any, images: Any, *, batch: int) -> dict[str, Any]:
    batches = [(start, images[start : start + batch]) for start in range(0, len(images), batch)]
    results = list(prefix.stream(batches))
    assert [ticket for ticket, _ in results] == [start for start, _ in batches]
    return {name: np.concatenate([arrays[name] for _, arrays in results]) for name in prefix.outputs}


def difference(found: Any, expected: Any) -> float:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


FEWER_LAYERS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 2},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1, 1, 1], "embed_dim": 24},
}


def random_weights(name: str, folder: Path) -> Path:
    """A file with random weights of a small network."""
    torch.manual_seed(0)
    kwargs = FEWER_LAYERS.get(name, {})
    size = {"img_size": SIZE} if kwargs else {}
    model = timm.create_model(name, num_classes=0, **kwargs, **size)
    about = {
        "architecture": name,
        "timm_kwargs": json.dumps(kwargs),
        "mean": "0.5,0.4,0.5",
        "std": "0.25,0.3,0.2",
    }
    save_file(model.state_dict(), folder / f"{name}.safetensors", metadata=about)
    return folder / f"{name}.safetensors"


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Exported backbones by name, shared by the tests of this file."""
    patch = pytest.MonkeyPatch()
    made: dict[str, Backbone] = {}
    folder = tmp_path_factory.mktemp("graphs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(name: str) -> Backbone:
        if name not in made:
            with patch.context() as context:
                context.setenv("HEADSTART_CACHE", str(folder))
                file = "builtin" if name == "builtin" else random_weights(name, folder)
                made[name] = load_backbone(file, size=SIZE)
        return made[name]

    yield make
    torch.set_num_threads(threads)


def depths(backbone: Backbone) -> tuple[int, ...]:
    count = len(backbone.stages)
    return (0, 1, count // 2, count) if backbone.name == "builtin" else (count // 2, count)


# ------------------------------------------------------------------------------------------ agreement


@pytest.mark.parametrize(
    "name",
    ["builtin", "mobilenetv3_small_050", "repvgg_a0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"],
)
def test_both_runtimes_agree_on_every_output_at_every_kind_of_depth(backbones: Make, name: str) -> None:
    backbone = backbones(name)
    images = pixels(3)
    for depth in depths(backbone):
        layers = backbone.feature_layers()
        prefixes = [
            select(runtime, precision="f32").compile(backbone, depth=depth, layers=layers, batch_size=2)
            for runtime in ("openvino", "torch")
        ]
        first, second = (everything(prefix, images, batch=2) for prefix in prefixes)
        assert ("activation" in first) == (depth < len(backbone.stages))
        assert list(first) == list(second)
        for output in first:
            assert difference(first[output], second[output]) <= F32_TOLERANCE, (depth, output)
        for layer in layers:
            assert first[layer.name].shape == (3, layer.width(backbone))


@pytest.mark.parametrize("name", ["builtin", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_bfloat16_stays_within_its_tolerance_and_finds_the_same_class(
    backbones: Make, name: str, runtime: str
) -> None:
    from headstart.backbones.openvino import openvino

    if runtime == "openvino" and not has_bf16(openvino().Core()):
        pytest.skip("this processor has no bfloat16 arithmetic")
    backbone = backbones(name)
    images = pixels(24, seed=3)
    everyone: tuple[FeatureLayer, ...] = (backbone.feature_layers()[3], *FEATURES)
    exact, rough = (
        everything(
            select(runtime, precision=precision).compile(
                backbone, depth=len(backbone.stages), layers=everyone, batch_size=8
            ),
            images,
            batch=8,
        )
        for precision in ("f32", "bf16")
    )
    tolerance = BF16_TOLERANCES.get(name, BF16_TOLERANCE)
    for output in exact:
        error = difference(rough[output], exact[output])
        assert 0 < error <= tolerance, output
    # A head of nearest means of three groups, as a trained one would be: its margins are above the noise.
    means = np.stack([exact["features"][group::3].mean(0) for group in range(3)])
    means -= means.mean(0)
    logits, noisy = (features["features"] @ means.T for features in (exact, rough))
    best = np.sort(logits, 1)
    clear = best[:, -1] - best[:, -2] > tolerance * np.abs(logits - logits.mean(0)).max()
    assert clear.sum() >= 12
    assert (logits.argmax(1) == noisy.argmax(1))[clear].all()


def test_both_runtimes_find_the_same_class_with_a_fixed_head(backbones: Make) -> None:
    backbone = backbones("builtin")
    images = pixels(32, seed=1)
    head = np.random.default_rng(0).normal(size=(backbone.dimensions, 10))
    classes = [
        (everything(prefix, images, batch=16)["features"] @ head).argmax(1)
        for prefix in (
            select(runtime, precision="f32").compile(
                backbone, depth=len(backbone.stages), layers=FEATURES, batch_size=16
            )
            for runtime in ("openvino", "torch")
        )
    ]
    np.testing.assert_array_equal(classes[0], classes[1])


def test_a_cut_goes_on_to_the_same_features_in_the_tail(backbones: Make) -> None:
    backbone = backbones("builtin")
    staged = backbone.module()
    images = pixels(2)
    for depth in (0, 4, 8):
        prefix = select("openvino", precision="f32").compile(
            backbone, depth=depth, layers=FEATURES, batch_size=2
        )
        found = everything(prefix, images, batch=2)
        if depth:
            assert found["activation"].shape == (2, *backbone.stages[depth - 1].shape)
        _, trainable = staged.split(depth)
        with torch.no_grad():
            features = trainable(torch.from_numpy(found["activation"])).numpy()
        assert difference(features, found["features"]) <= F32_TOLERANCE


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_grid_averages_overlapping_cells_where_the_side_is_odd(backbones: Make, runtime: str) -> None:
    backbone = load_backbone("builtin", size=72)  # block 4 gives 5 x 5 cells
    prefix = select(runtime, precision="f32").compile(
        backbone, depth=5, layers=(FeatureLayer("block4", 1), FeatureLayer("block4", 2)), batch_size=1
    )
    found = everything(prefix, pixels(1, size=72), batch=1)
    image = found["activation"]
    assert image.shape[2:] == (5, 5)
    cells = [image[:, :, y : y + 3, x : x + 3].mean((2, 3)) for y in (0, 2) for x in (0, 2)]
    assert difference(found["block4@2x2"], np.stack(cells, 2).reshape(1, -1)) <= 1e-5
    assert difference(found["block4@1x1"], image.mean((2, 3))) <= 1e-5


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_the_finest_grid_averages_whole_cells(backbones: Make, runtime: str) -> None:
    backbone = load_backbone("builtin", size=128)  # block 4 gives 8 x 8 cells
    prefix = select(runtime, precision="f32").compile(
        backbone, depth=5, layers=(FeatureLayer("block4", 4),), batch_size=1
    )
    found = everything(prefix, pixels(1, size=128), batch=1)
    image = found["activation"]
    cells = image.reshape(1, image.shape[1], 4, 2, 4, 2).mean((3, 5))
    assert difference(found["block4@4x4"], cells.reshape(1, -1)) <= 1e-5


def test_normalisation_is_the_backbones_own(backbones: Make) -> None:
    backbone = backbones("builtin")
    other = replace(
        backbone, preprocess=replace(backbone.preprocess, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    )
    images = pixels(1)
    expected = (images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    for runtime in ("openvino", "torch"):
        prefix = select(runtime, precision="f32").compile(other, depth=0, layers=(), batch_size=1)
        found = everything(prefix, images, batch=1)["activation"]
        np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_further_cuts_come_out_of_the_same_pass(backbones: Make) -> None:
    backbone = backbones("builtin")
    for runtime in ("openvino", "torch"):
        chosen = select(runtime, precision="f32")
        together = chosen.compile(backbone, depth=6, layers=FEATURES, batch_size=2, also=(2, 4))
        found = everything(together, pixels(2), batch=2)
        assert list(found) == ["activation", "activation-4", "activation-2", "features"]
        for name, depth in (("activation", 6), ("activation-4", 4), ("activation-2", 2)):
            alone = chosen.compile(backbone, depth=depth, layers=(), batch_size=2)
            assert (
                difference(found[name], everything(alone, pixels(2), batch=2)["activation"]) <= F32_TOLERANCE
            )
        with pytest.raises(OptionError, match="cut 6"):
            chosen.compile(backbone, depth=6, layers=(), also=(6,))


# ------------------------------------------------------------------------------------------ streaming


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_batches_of_any_length_come_back_in_order(backbones: Make, runtime: str) -> None:
    backbone = backbones("builtin")
    prefix = select(runtime, precision="f32").compile(backbone, depth=9, layers=FEATURES, batch_size=5)
    images = pixels(40)
    lengths = [5, 1, 4, 5, 2, 3, 5, 5, 1, 5, 4]
    starts = np.cumsum([0, *lengths[:-1]])
    batches = ((object(), images[s : s + n]) for s, n in zip(starts, lengths, strict=True))
    found = np.concatenate([arrays["features"] for _, arrays in prefix.stream(batches)])
    single = select(runtime, precision="f32").compile(backbone, depth=9, layers=FEATURES, batch_size=1)
    assert difference(found, everything(single, images, batch=1)["features"]) <= F32_TOLERANCE
    assert list(prefix.stream([])) == []


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_the_callers_array_may_be_refilled_and_results_are_kept(backbones: Make, runtime: str) -> None:
    prefix = select(runtime, precision="f32").compile(
        backbones("builtin"), depth=9, layers=FEATURES, batch_size=2
    )
    images = pixels(16)
    buffer = np.empty_like(images[:2])

    def refilled() -> Iterator[tuple[int, Any]]:
        for start in range(0, 16, 2):
            buffer[:] = images[start : start + 2]
            yield start, buffer

    found = np.concatenate([arrays["features"] for _, arrays in list(prefix.stream(refilled()))])
    assert difference(found, everything(prefix, images, batch=2)["features"]) <= 1e-6


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_memory_is_bounded_because_few_batches_are_in_flight(backbones: Make, runtime: str) -> None:
    prefix = select(runtime).compile(backbones("builtin"), depth=9, layers=FEATURES, batch_size=1)
    taken = 0

    def counted() -> Iterator[tuple[int, Any]]:
        nonlocal taken
        for taken in range(1, 60):
            yield taken, images

    images = pixels(1)
    ahead = [taken - ticket for ticket, _ in prefix.stream(counted())]
    assert len(ahead) == 59
    assert max(ahead) <= 8


def test_a_stream_may_be_left_early_and_the_prefix_used_again(backbones: Make) -> None:
    prefix = select().compile(backbones("builtin"), depth=9, layers=FEATURES, batch_size=2)
    images = pixels(8)
    stream = prefix.stream([(i, images[i : i + 2]) for i in range(0, 8, 2)])
    next(stream)
    stream.close()
    assert everything(prefix, images, batch=2)["features"].shape == (8, 1280)


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (np.zeros((1, SIZE, SIZE, 3), np.float32), "expected uint8"),
        (np.zeros((1, 3, SIZE, SIZE), np.uint8), rf"\[n, {SIZE}, {SIZE}, 3\]"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), "expected uint8"),
        (np.zeros((3, SIZE, SIZE, 3), np.uint8), "1 to 2 images, got 3"),
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), "got 0"),
    ],
)
def test_a_batch_it_was_not_compiled_for_is_refused(
    backbones: Make, runtime: str, batch: Any, reason: str
) -> None:
    prefix = select(runtime).compile(backbones("builtin"), depth=9, layers=FEATURES, batch_size=2)
    with pytest.raises(OptionError, match=reason):
        list(prefix.stream([(0, batch)]))
    assert everything(prefix, pixels(2), batch=2)["features"].shape == (2, 1280), "still usable"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"depth": 10, "layers": FEATURES}, "0 to 9"),
        ({"depth": 9, "layers": ()}, "no layer"),
        ({"depth": 9, "layers": (FeatureLayer("block9", 1),)}, "block9"),
        ({"depth": 9, "layers": FEATURES, "batch_size": 0}, "batch size 0"),
    ],
)
def test_an_impossible_prefix_is_refused(backbones: Make, request_: dict[str, Any], reason: str) -> None:
    for runtime in ("openvino", "torch"):
        with pytest.raises(OptionError, match=reason):
            select(runtime).compile(backbones("builtin"), **request_)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_overflow_is_an_error_and_not_a_feature(backbones: Make, runtime: str) -> None:
    backbone = backbones("builtin")
    wild = replace(backbone, preprocess=replace(backbone.preprocess, std=(1e-39, 1e-39, 1e-39)))
    prefix = select(runtime).compile(wild, depth=0, layers=(), batch_size=1)
    with pytest.raises(InternalError, match=r"output activation: .*overflowed"):
        list(prefix.stream([(0, pixels(1))]))


def test_unknown_runtimes_and_precisions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="openvino or torch"):
        select("onnxruntime")
    for runtime in ("openvino", "torch"):
        with pytest.raises(OptionError, match="bf16 or f32"):
            select(runtime, precision="int8")
    monkeypatch.setattr(openvino_runtime, "has_bf16", lambda core: False)
    assert select().precision == "f32"
    with pytest.raises(OptionError, match="no bfloat16"):
        select("openvino", precision="bf16")


def test_without_pytorch_its_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"headstart\[torch\]"):
        select("torch")


# ------------------------------------------------------------------------------------------ start-up


def compiled_files() -> list[Any]:
    return sorted((cache_folder() / "compiled").glob("*.blob"))


def test_what_was_compiled_once_is_loaded(backbones: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_and_run(layers: tuple[FeatureLayer, ...] = FEATURES) -> dict[str, Any]:
        prefix = select().compile(backbones("builtin"), depth=9, layers=layers, batch_size=2)
        return everything(prefix, pixels(2), batch=2)

    first = compile_and_run()
    assert len(compiled_files()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(openvino_runtime, "_prefix_model", None)  # compiling anew would fail
        np.testing.assert_array_equal(compile_and_run()["features"], first["features"])
        with pytest.raises(TypeError):
            compile_and_run((FeatureLayer("block3", 2),))
    other = compile_and_run((FeatureLayer("block3", 2),))
    assert other.keys() == {"block3@2x2"}
    assert len(compiled_files()) == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut short": lambda content: content[:-1],
    "shifted": lambda content: b"x" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_compiled_file_is_compiled_anew(backbones: Make, damage: Callable[[bytes], bytes]) -> None:
    def run() -> Any:
        prefix = select().compile(backbones("builtin"), depth=9, layers=FEATURES, batch_size=1)
        return everything(prefix, pixels(1), batch=1)["features"]

    first = run()
    (file,) = compiled_files()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    np.testing.assert_array_equal(run(), first)
    assert file.read_bytes() != damage(whole)


def test_old_compiled_files_make_room(backbones: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.backbones.runtimes import compiling

    def make(layer: str) -> None:
        select().compile(backbones("builtin"), depth=9, layers=(FeatureLayer(layer, 1),), batch_size=1)

    make("block1")
    (oldest,) = compiled_files()
    monkeypatch.setattr(compiling, "_MOST_BYTES", oldest.stat().st_size)
    make("block2")
    assert len(compiled_files()) == 1
    assert oldest not in compiled_files()


def onnx_model(*, where: str) -> Any:
    """A model with a tensor that says that its numbers lie in another file: an initialiser, or deeper."""
    import onnx
    from onnx import TensorProto, helper

    outside = helper.make_tensor("outside", TensorProto.FLOAT, [1], [1.0])
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="weights.bin")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("c", 1, [1])])
    nodes = {
        "initializer": [],
        "attribute": [constant],
        "subgraph": [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)],
        "function": [],
    }
    graph = helper.make_graph(
        nodes[where], "g", [], [], initializer=[outside] if where == "initializer" else []
    )
    opset = [helper.make_opsetid("", 18)]
    functions = [helper.make_function("d", "f", [], ["c"], [constant], opset)] if where == "function" else []
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, functions=functions)
    return model


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph", "function"])
def test_a_model_whose_weights_lie_in_another_file_is_refused_wherever_they_are_named(
    tmp_path: Path, where: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_model(where=where).SerializeToString())
    with pytest.raises(RunError, match="weights outside lie in another file"):
        compile_model(file, size=8, batch_size=1, precision="f32")
    assert not list((cache_folder() / "compiled").glob("*.blob"))


def test_a_model_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(RunError, match="not a regular file"):
        compile_model(tmp_path / "model.onnx", size=8, batch_size=1, precision="f32")


def test_predicting_imports_neither_pytorch_nor_openvinos_conversion_tools() -> None:
    code = (
        "import sys, numpy as np\n"
        "from headstart.backbones import load_backbone\n"
        "from headstart.backbones.runtimes import select\n"
        "b = load_backbone('builtin')\n"
        "p = select().compile(b, depth=9, layers=b.feature_layers()[-1:], batch_size=1)\n"
        "((_, out),) = p.stream([(0, np.zeros((1, 128, 128, 3), np.uint8))])\n"
        "unwanted = {'torch', 'timm', 'onnx', 'openvino.tools.ovc', 'openvino_telemetry'}\n"
        "print(out['features'].shape, sorted(unwanted & set(sys.modules)))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "(1, 1280) []\n", done.stderr
