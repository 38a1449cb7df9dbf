"""An ONNX file as a backbone: what it is cut into, what its pixels are, and what is never read or run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from headstart import fit, load, load_backbone
from headstart.backbones import available, published
from headstart.backbones.backbone import Backbone
from headstart.backbones.openvino import openvino
from headstart.backbones.pixels import asked_pixels
from headstart.curation.images import network_of
from headstart.errors import BackboneError, MissingExtra, MissingWeights, OptionError
from headstart.training.evaluation import evaluate
from headstart.training.planning import plan
from made_images import write_noise
from onnx_models import (
    SIDE,
    Writer,
    cnn,
    images,
    loaded,
    outputs_of,
    place,
    saved,
    vit,
    with_weights_elsewhere,
)

__all__ = ["place"]  # a fixture of every test

ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which the graphs are compared with")

ASKED = "0.5,0.4,0.3/0.2,0.25,0.3"


def by_onnxruntime(model: Any, values: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a model."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = [node.output[0] for node in model.graph.node]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    return dict(zip(names, session.run(names, {"pixel_values": values}), strict=True))


def origin(backbone: Backbone, output: str) -> str:
    """The file's own tensor that an output of the staged graph is made of."""
    makers = {name: node for node in onnx.load(backbone.graph).graph.node for name in node.output}
    while not output.startswith("network/"):
        output = makers[output].input[0]
    return output.removeprefix("network/")


def as_it_was(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    if values.ndim == 4 and like.shape[-1] != values.shape[-1]:
        values = values.transpose(0, 3, 1, 2)
    return values.reshape(like.shape)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of noise around a colour each."""
    return write_noise(tmp_path / "photos", side=SIDE)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (cnn(), [(8, 16, 16), (12, 8, 8), (20, 4, 4)]),
        (cnn(last=True), [(8, 16, 16), (12, 8, 8), (20, 4, 4)]),
        (vit(classes=5), [(17, 24)] * 7),
        (vit(classes=5, batch=1), [(17, 24)] * 7),
    ],
    ids=["cnn", "channels last", "vit", "fixed batch"],
)
def test_all_outputs_equal_what_onnxruntime_computes(model: Any, shapes: list[tuple[int, ...]]) -> None:
    backbone = loaded(model)
    found = outputs_of(backbone, images())
    last = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 3
    shaped = images().transpose(0, 2, 3, 1) if last else images()
    each = [by_onnxruntime(model, np.ascontiguousarray(image[None])) for image in shaped]
    assert [stage.shape for stage in backbone.stages] == shapes
    for name, values in found.items():
        expected = np.concatenate([computed[origin(backbone, name)] for computed in each])
        assert np.abs(as_it_was(expected, values) - values).max() <= 1e-3 * np.abs(values).max(), name
    weight, bias = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer[-2:])
    scores = np.concatenate([computed["logits"] for computed in each])
    assert np.abs(found["features"] @ weight.T + bias - scores).max() <= 1e-3 * np.abs(scores).max()


def exported(name: str) -> Any:
    """What PyTorch's exporter writes by default of a small network of timm: for one image alone."""
    import io
    import warnings

    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    torch.manual_seed(0)
    network, file = timm.create_model(name, num_classes=5).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        side = network.pretrained_cfg["input_size"][-1]
        names = {"input_names": ["pixel_values"], "output_names": ["logits"]}
        torch.onnx.export(
            network, (torch.zeros(1, 3, side, side),), file, dynamo=False, opset_version=17, **names
        )
    return onnx.load_from_string(file.getvalue()), network, side


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_what_pytorch_exports_is_cut_between_its_blocks_and_its_head_says_the_same(name: str) -> None:
    import torch

    model, network, side = exported(name)
    backbone = loaded(model)
    assert len(backbone.stages) >= 5
    values = np.random.default_rng(3).normal(0, 1, (4, 3, side, side)).astype(np.float32)
    features = outputs_of(backbone, values)["features"]
    head = network.get_classifier()
    with torch.no_grad():
        expected = network(torch.from_numpy(values)).numpy()
        scores = head(torch.from_numpy(features)).numpy()
    assert np.abs(scores - expected).max() <= 1e-3 * np.abs(expected).max()
    assert (scores.argmax(1) == expected.argmax(1)).all()


def test_a_transformer_without_classifier_gives_its_class_token() -> None:
    backbone = loaded(vit())
    assert backbone.stages[-1].prefix_tokens == 1
    tokens = by_onnxruntime(vit(), images())["last_hidden_state"]
    assert np.allclose(outputs_of(backbone, images())["features"], tokens[:, 0], rtol=1e-3, atol=1e-4)
    assert "the class token of last_hidden_state (17 x 24)" in backbone.notes[-1]


def test_half_precision_and_double_are_computed_as_they_are_and_handed_out_as_float32() -> None:
    for kind, dtype in ((TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)):
        model = cnn(kind=kind)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
        found = outputs_of(loaded(model), images())["features"]
        expected = outputs_of(loaded(cnn()), images())["features"]
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_a_run_with_it_answers_as_its_head_on_onnxruntimes_features(
    photos: Path, place: Path, name: str
) -> None:
    model = cnn() if name == "cnn" else vit(classes=5)
    asked = f"{ASKED}:crop=1"
    _, run = fit(photos, backbone=saved(model), preprocess=asked, layers="last", out=place / "run")
    Path("model.onnx").unlink()  # the run has all of it
    classifier = load(run.path)
    files = sorted(photos.glob("*/*.png"))
    said = [answer.label for answer in classifier.predict(files)]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    mean, std = (np.array([float(each) for each in part.split(",")]) for part in ASKED.split("/"))
    normal = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    features = by_onnxruntime(model, normal)[model.graph.node[-1].input[0]]
    from safetensors.numpy import load_file

    head = load_file(run.path / "model.safetensors")
    scores = features @ head["head.weight"] + head["head.bias"]
    assert said == [classifier.classes[row] for row in scores.argmax(1)]
    assert evaluate(classifier, photos)[0].accuracy > 0.5
    assert run.config.preprocess == asked


def test_it_works_without_pytorch_and_timm(photos: Path) -> None:
    saved(cnn())
    program = (
        "import sys; sys.modules['torch'] = sys.modules['timm'] = None\n"
        "from headstart import fit\n"
        f"_, run = fit({str(photos)!r}, backbone='model.onnx', preprocess='imagenet', out='run')\n"
        "print(run.config.stages)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "3", done.stderr


# ------------------------------------------------------------------------------------------- pixels


def test_without_any_word_on_its_pixels_the_ways_out_are_named() -> None:
    with pytest.raises(BackboneError, match=r"nothing says what its pixels are.*--preprocess MEAN/STD"):
        load_backbone(saved(cnn()))


def config(**fields: Any) -> dict[str, Any]:
    return {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3, "size": 32, **fields}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"crop_mode": "squash", "crop_fraction": 1.0, "interpolation": "bicubic"}),
        ({"size": {"height": 32, "width": 32}, "resample": 2}, {"interpolation": "bilinear"}),
        (
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
            {"crop_mode": "center", "crop_fraction": 0.8},
        ),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, {"crop_mode": "center", "crop_fraction": 0.875}),
        ({"do_normalize": False}, {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}),
        (
            {"do_rescale": False, "image_mean": [255.0, 0, 51], "image_std": [51.0, 51, 51]},
            {"mean": [1.0, 0.0, 0.2], "std": [0.2, 0.2, 0.2]},
        ),
        ({"include_top": True}, {"mean": [0.5, 0.4, 0.3], "std": [0.04, 0.0625, 0.09]}),  # EfficientNet's
    ],
)
def test_pixels_come_from_the_processor_of_its_makers(
    place: Path, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    (place / "preprocessor_config.json").write_text(json.dumps(config(**fields)))
    backbone = load_backbone(saved(cnn()))
    found = backbone.preprocess.to_dict()
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value) if key in ("mean", "std", "crop_fraction") else value)
    assert backbone.notes[0] == "pixels as preprocessor_config.json beside model.onnx says"


def test_a_processor_that_names_no_filter_is_said_and_one_that_is_unusable_is_refused(place: Path) -> None:
    file = place / "preprocessor_config.json"
    file.write_text(json.dumps(config(resample=None)))
    assert "it names no filter: took bicubic" in load_backbone(saved(cnn())).notes[0]
    for bad in (
        {"size": {"height": 32, "width": 48}},
        {"image_std": [0, 1, 1]},
        {"image_mean": "x"},
        {"resample": 9},
    ):
        file.write_text(json.dumps(config(**bad)))
        with pytest.raises(BackboneError, match="says nothing usable of pixels"):
            load_backbone(saved(cnn()))
    file.write_text("[" * 10_000)
    with pytest.raises(BackboneError, match="says nothing usable of pixels"):
        load_backbone(saved(cnn()))


@pytest.mark.parametrize(
    ("metadata", "mean", "turned"),
    [
        ({"mean": "(0.5, 0.4, 0.3)", "std": "0.2,0.25,0.3", "crop_pct": "0.9"}, (0.5, 0.4, 0.3), False),
        ({"preprocess": json.dumps({"mean": [0.5] * 3, "std": [0.5] * 3})}, (0.5,) * 3, False),
        ({"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_0_1"}, (0.0,) * 3, True),
    ],
)
def test_pixels_come_from_its_metadata(
    metadata: dict[str, str], mean: tuple[float, ...], turned: bool
) -> None:
    backbone = load_backbone(saved(cnn(metadata=metadata)))
    assert backbone.preprocess.mean == mean
    given = images()[:, ::-1] if turned else images()
    expected = by_onnxruntime(cnn(), np.ascontiguousarray(given))["flatten16"]
    assert np.allclose(outputs_of(backbone, images())["features"], expected, rtol=1e-3, atol=1e-4)


def test_what_is_asked_for_counts_before_what_is_said_beside_it(place: Path) -> None:
    (place / "preprocessor_config.json").write_text(json.dumps(config()))
    found = load_backbone(
        saved(cnn()), preprocess="clip:crop=0.9:interpolation=lanczos:mode=squash"
    ).preprocess
    assert found.mean == (0.48145466, 0.4578275, 0.40821073)
    assert (found.crop_fraction, found.interpolation, found.crop_mode) == (0.9, "lanczos", "squash")


@pytest.mark.parametrize(
    "asked", ["", "imagnet", "0.5/0.5", "0..2", "nan,0,0/1,1,1", "imagenet:crop=2", "clip:x=1"]
)
def test_pixels_that_cannot_be_are_refused_with_what_can(asked: str) -> None:
    with pytest.raises(OptionError, match=r"expected a family \(imagenet, .*size=PX"):
        asked_pixels(asked)


def test_a_network_whose_weights_say_their_pixels_takes_no_others() -> None:
    with pytest.raises(OptionError, match="--preprocess: backbone builtin says itself"):
        load_backbone("builtin", preprocess="imagenet")


# ------------------------------------------------------------------------------------------- sizes


def test_a_file_of_one_size_takes_no_other_and_a_free_one_needs_one(place: Path) -> None:
    with pytest.raises(BackboneError, match="takes images of 32 px alone"):
        loaded(cnn(), size=48)
    free = cnn(side="S")
    with pytest.raises(BackboneError, match="takes images of any size"):
        loaded(free)
    assert loaded(free, size=48).stages[0].shape == (8, 24, 24)
    assert loaded(free, preprocess="imagenet:size=64").stages[0].shape == (8, 32, 32)


def test_positions_that_fit_one_size_alone_are_a_sentence() -> None:
    with pytest.raises(BackboneError, match="takes no images of 48 px") as caught:
        loaded(vit(side="S"), size=48)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------- what it takes part in


def test_stages_of_a_finished_graph_are_not_fine_tuned_and_pytorch_does_not_run_it(photos: Path) -> None:
    saved(cnn())
    with pytest.raises(OptionError, match="is a finished graph, whose stages stay frozen; take freeze=all"):
        fit(photos, backbone="model.onnx", preprocess="imagenet", freeze=1)
    with pytest.raises(BackboneError, match="cannot be trained from scratch"):
        fit(photos, backbone="model.onnx", preprocess="imagenet", scratch=True)
    with pytest.raises(BackboneError, match="take runtime openvino and freeze=all"):
        load_backbone("model.onnx", preprocess="imagenet").module()


def test_it_is_planned_and_chosen_beside_others_that_say_their_pixels_themselves(
    photos: Path, place: Path
) -> None:
    names = [str(saved(cnn())), "builtin@32"]
    found = plan(photos, backbones=names, preprocess="imagenet", depths=["all"])
    assert {row.name for row in found.rows} == {"model.onnx@32", "builtin@32"}
    _, run = fit(photos, backbone="auto", candidates=names, preprocess="imagenet", out=place / "run")
    assert run.config.preprocess == ("imagenet" if run.config.backbone.endswith(".onnx") else None)


def test_a_run_is_not_gone_on_with_after_its_file_became_another(photos: Path, place: Path) -> None:
    _, run = fit(photos, backbone=saved(cnn()), preprocess="imagenet", out=place / "run")
    assert network_of(run)[0].dimensions == 20
    saved(cnn(classes=9))
    with pytest.raises(
        BackboneError, match="is another network now, or is cut at other places, than when run"
    ):
        network_of(run)
    Path("model.onnx").unlink()
    with pytest.raises(BackboneError, match="no such file of weights"):
        network_of(run)


def test_of_several_inputs_and_outputs_those_of_the_image_are_taken() -> None:
    model = cnn(classes=0)
    text = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", 8])
    model.graph.input.append(text)
    table = numpy_helper.from_array(np.ones((50, 20), np.float32), "table")
    model.graph.initializer.append(table)
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["words"]),
            helper.make_node("ReduceMean", ["words"], ["text_embeds"], axes=[1], keepdims=0),
            helper.make_node("Mul", ["text_embeds", "embedding"], ["logits_per_text"]),
        ]
    )
    before = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("logits_per_text", "text_embeds", "embedding")
    ]
    del model.graph.output[:]
    model.graph.output.extend(before)
    assert loaded(model).dimensions == 20
    del model.graph.output[2]
    with pytest.raises(BackboneError, match="none of its outputs is computed of the image alone"):
        loaded(model)


def test_a_network_of_no_images_is_refused_with_what_it_takes() -> None:
    grey = Writer()
    grey.add("Flatten", grey.add("GlobalAveragePool", "pixel_values"), output="out")
    model = grey.model({"out": None})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    with pytest.raises(BackboneError, match=r"one input of colour images.*pixel_values \[0, 1, 32, 32\]"):
        loaded(model)


# ------------------------------------------------------------------------------------- OpenVINO's own form


def as_ir(model: Any, *, half: bool = False) -> Path:
    ov = openvino()
    ov.save_model(ov.Core().read_model(model.SerializeToString()), "model.xml", compress_to_fp16=half)
    return Path("model.xml")


@pytest.mark.parametrize("model", [cnn(last=True), vit(blocks=2, classes=5)], ids=["cnn", "vit"])
def test_openvinos_own_form_is_the_same_backbone(model: Any) -> None:
    expected = outputs_of(loaded(model), images())["features"]
    backbone = load_backbone(as_ir(model), preprocess="imagenet")
    found = outputs_of(backbone, images())["features"]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    assert len(backbone.stages) >= 3


def test_operations_of_openvino_are_written_as_what_they_compute() -> None:
    ov = openvino()
    ops = ov.opset13
    x = ops.parameter([-1, 3, SIDE, SIDE], np.float32, name="image")
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return ops.constant(rng.normal(0, 0.3, shape).astype(np.float32))

    ones = [1, 1]
    y = ops.group_convolution(ops.swish(x), weights(3, 4, 1, 3, 3), [2, 2], ones, ones, ones)
    y = ops.hsigmoid(ops.pad(y, [0, 0, 1, 1], [0, 0, 1, 1], "reflect"))
    y = ops.avg_pool(y, [1, 1], ones, ones, [2, 2], True, "ceil")
    y = ops.max_pool(ops.elu(y, 0.5), [2, 2], ones, [0, 0], ones, [2, 2], "floor").output(0)
    y = ops.roll(ops.clamp(y, -0.7, 0.9), [1, -2], [2, 3])
    y = ops.mvn(y, [1], True, 1e-5, "outside_sqrt")
    left, right = ops.variadic_split(y, 1, [5, 7]).outputs()
    y = ops.concat([ops.gelu(left, "tanh"), ops.prelu(right, weights(7))], 1)
    y = ops.strided_slice(y, [0, 0, 1, 0], [0, 0, 9, 0], [1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1])
    tokens = ops.transpose(ops.reshape(y, [0, 12, -1], True), [0, 2, 1])
    queries, keys = (ops.unsqueeze(ops.matmul(tokens, weights(12, 6), False, False), [1]) for _ in range(2))
    mixed = ops.squeeze(ops.scaled_dot_product_attention(queries, keys, keys), [1])
    vector = ops.reduce_mean(ops.hswish(ops.matmul(mixed, weights(9, 6), False, True)), [1], False)
    vector.output(0).get_tensor().set_names({"vector"})
    model = ov.Model([vector], [x], "all")
    ov.save_model(model, "model.xml", compress_to_fp16=False)
    backbone = load_backbone("model.xml", preprocess="imagenet")
    model.reshape([3, 3, SIDE, SIDE])
    expected = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images())["vector"]
    found = outputs_of(backbone, images())["features"]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


def test_an_openvino_file_that_cannot_be_used_is_a_line() -> None:
    path = as_ir(cnn(), half=True)
    before = load_backbone(path, preprocess="imagenet").weights_hash
    weights, text = Path("model.bin"), path.read_bytes()
    weights.write_bytes(weights.read_bytes()[:-2] + b"\1\1")
    assert load_backbone(path, preprocess="imagenet").weights_hash != before
    path.write_bytes(text.replace(b'type="ReLU"', b'type="Sinh"'))
    with pytest.raises(BackboneError, match=r"its operation Sinh .* is not one that is translated"):
        load_backbone(path, preprocess="imagenet")
    path.write_bytes(text[:-500])
    with pytest.raises(BackboneError, match="no OpenVINO model"):
        load_backbone(path, preprocess="imagenet")
    path.write_bytes(text)
    weights.unlink()
    with pytest.raises(BackboneError, match="put that file beside the model"):
        load_backbone(path, preprocess="imagenet")


# ---------------------------------------------------------------------------------- the Hugging Face cache


def hub(place: Path, model: Any, *, file: str = "onnx/model.onnx", beside: bool = True) -> Path:
    """A repository as the hub's own client leaves it: snapshots of links to blobs, and what `main` is."""
    repository = place / "hub" / "models--someone--network"
    snapshot, blobs = repository / "snapshots" / "abc123", repository / "blobs"
    blobs.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    contents = {file: model.SerializeToString(), f"{Path(file).parent}/weights.bin": None}
    if beside:
        contents["preprocessor_config.json"] = json.dumps(config()).encode()
    for number, (name, content) in enumerate(contents.items()):
        blob = blobs / f"blob{number}"
        blob.write_bytes((place / "weights.bin").read_bytes() if content is None else content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize("file", ["onnx/model.onnx", "onnx/vision_model.onnx"])
def test_a_repository_in_the_cache_is_a_backbone_with_the_weights_and_pixels_beside_it(
    place: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "find_spec", lambda name: None)  # nothing there to download with
    snapshot = hub(place, with_weights_elsewhere(cnn(), place), file=file)
    backbone = load_backbone("hf:someone/network")
    assert backbone.name == "hf:someone/network"
    assert backbone.preprocess.mean == (0.5, 0.4, 0.3)
    assert load_backbone(snapshot / file).weights_hash == backbone.weights_hash
    assert load_backbone(f"hf:someone/network/{file}").weights_hash == backbone.weights_hash
    assert "hf:someone/network" in {info.name for info in available()}
    (snapshot / "preprocessor_config.json").unlink()
    assert "hf:someone/network" not in {info.name for info in available()}


def test_weights_in_another_repository_of_the_cache_are_not_read(place: Path) -> None:
    snapshot = hub(place, with_weights_elsewhere(cnn(), place))
    other = place / "hub" / "models--someone--secret"
    other.mkdir()
    (other / "blob").write_bytes((place / "weights.bin").read_bytes())
    (snapshot / "onnx" / "weights.bin").unlink()
    (snapshot / "onnx" / "weights.bin").symlink_to(other / "blob")
    with pytest.raises(BackboneError, match="not in its folder, or not there"):
        load_backbone("hf:someone/network")


def test_a_repository_that_is_not_there_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match=r"three ways out: .*hf download someone/other onnx/model\.onnx"):
        load_backbone("hf:someone/other")
    monkeypatch.setattr(published, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"downloading it needs an optional part: .*headstart\[hub\]"):
        load_backbone("hf:someone/other")
    for name in ("hf:other", "hf:../../etc/passwd", "hf:a/b/c", "hf:a/../b.onnx"):
        with pytest.raises(BackboneError, match="expected hf:OWNER/NAME"):
            load_backbone(name)
