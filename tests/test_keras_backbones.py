"""A Keras file as a backbone: what it is cut into, what its pixels are, and what is never run."""

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_models import ONNX_WRITER, keras
from made_images import write_noise

pytest.importorskip(ONNX_WRITER, reason="writes the ONNX files on this backend of Keras")

from headstart import fit, load, load_backbone
from headstart.backbones.keras import file as keras_file
from headstart.backbones.keras import network as keras_network
from headstart.backbones.openvino import openvino
from headstart.cli import cli
from headstart.errors import BackboneError, MissingExtra, OptionError, ParityError
from headstart.training.evaluation import evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and TensorFlow, not ours

layers = keras.layers
SIDE = 32


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def network(*, side: int | None = SIDE, scaled: bool = False, top: bool = True, alpha: int = 1) -> Any:
    """Inverted bottlenecks at three sizes, one residual, lively statistics; a head if ``top``."""
    keras.utils.set_random_seed(5)
    image = keras.Input((side, side, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(image) if scaled else image
    x = layers.Conv2D(8 * alpha, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(x))
    wide = layers.Conv2D(32, 1, activation="relu", name="widen")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(wide)
    first = layers.Conv2D(12, 1, name="narrow")(x)
    x = layers.Add()([first, layers.Conv2D(12, 3, padding="same", activation="relu")(first)])
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(24, 3, strides=2, activation="relu", name="last")(x)
    if top:
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D(name="pool")(x))
        x = layers.Activation("softmax")(layers.Dense(7, name="mine")(x))
    model = keras.Model(image, x, name="small")
    model.get_layer("norm").moving_mean.assign(np.linspace(-0.2, 0.2, 8 * alpha))
    model.get_layer("norm").moving_variance.assign(np.linspace(0.5, 1.5, 8 * alpha))
    return model


def save(model: Any, name: str = "model.keras") -> Path:
    model.save(name)
    return Path(name).absolute()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of noise around a colour each."""
    return write_noise(tmp_path / "photos", side=SIDE)


def run_graph(backbone: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of the staged graph for normalised images [n, 3, S, S]."""
    core = openvino().Core()
    compiled = core.compile_model(core.read_model(backbone.graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(images)
    return {name: found[name] for name in [*(stage.name for stage in backbone.stages), "features"]}


# Stages


def test_stages_end_where_one_narrow_map_carries_everything_on() -> None:
    model = network()
    backbone = load_backbone(save(model), architecture="-1..1")
    assert [(stage.name, stage.shape) for stage in backbone.stages] == [
        ("stem", (8, 16, 16)),  # not behind `widen`, which is 32 channels wide
        ("block1", (12, 8, 8)),  # of this size is most of the arithmetic, so it has two stages
        ("block2", (12, 8, 8)),  # behind the addition, not inside the residual; padding is no stage
        ("block3", (24, 4, 4)),
    ]
    assert backbone.dimensions == 24
    body = sum(np.prod(v.shape) for v in model.trainable_variables) - 24 * 7 - 7
    written = sum(stage.parameters for stage in backbone.stages)
    assert 0.95 * body < written <= body, "norms are folded, and biases of 0 are not written"
    narrow = 16**2 * 8 * 32 + 8**2 * (32 * 9 + 32 * 12)
    kernels = [16**2 * 8 * 27, narrow, 8**2 * 12 * 12 * 9, 4**2 * 24 * 12 * 9]
    assert [stage.multiply_adds for stage in backbone.stages] == kernels
    assert any("mine" in note for note in backbone.notes), "the classifier that was left out"


@pytest.mark.parametrize("top", [True, False])
def test_the_staged_graph_computes_what_the_keras_model_computes(top: bool) -> None:
    model = network(top=top)
    backbone = load_backbone(save(model), architecture="-1..1")
    images = np.random.default_rng(1).normal(0, 1, (3, 3, SIDE, SIDE)).astype(np.float32)
    found = run_graph(backbone, images)
    ends = ["re_lu", "narrow", "add", "last"]
    outputs = [next(layer for layer in model.layers if layer.name.startswith(end)).output for end in ends]
    expected = keras.Model(model.input, outputs).predict(images.transpose(0, 2, 3, 1), verbose=0)
    for name, values in zip(("stem", "block1", "block2", "block3"), expected, strict=True):
        np.testing.assert_allclose(found[name], values.transpose(0, 3, 1, 2), atol=1e-4)
    np.testing.assert_allclose(found["features"], expected[-1].mean(axis=(1, 2)), atol=1e-4)


def test_a_nested_base_is_cut_as_the_base_is() -> None:
    inner = network(top=False)
    image = keras.Input((SIDE, SIDE, 3))
    outputs = layers.Dense(4, activation="softmax")(layers.Flatten()(inner(image, training=False)))
    nested = load_backbone(save(keras.Model(image, outputs)), architecture="-1..1")
    plain = load_backbone(save(inner, "inner.keras"), architecture="-1..1")
    assert [stage.shape for stage in nested.stages] == [stage.shape for stage in plain.stages]
    assert nested.dimensions == 24 * 4 * 4, "what the head reads is flattened, not pooled"


@pytest.mark.parametrize("groups", [8, 2])
def test_what_the_onnx_writer_lacks_is_written_in_other_words(groups: int) -> None:
    keras.utils.set_random_seed(5)
    image = keras.Input((16, 16, 3))
    x = layers.Normalization(mean=[100.0, 110.0, 120.0], variance=[50.0**2] * 3)(image)
    x = layers.Conv2D(8, 3, activation="gelu")(x)  # TensorFlow's GELU is made of erfc
    model = keras.Model(image, layers.Conv2D(16, 3, strides=2, padding="same", groups=groups)(x))
    backbone = load_backbone(save(model))
    images = np.random.default_rng(1).uniform(0, 255, (2, 3, 16, 16)).astype(np.float32)
    expected = model.predict(images.transpose(0, 2, 3, 1), verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(run_graph(backbone, images)["features"], expected, atol=1e-4)


def test_any_size_where_the_layers_allow_it() -> None:
    path = save(network(side=None))
    with pytest.raises(BackboneError, match="--size"):
        load_backbone(path, architecture="-1..1")
    assert load_backbone(path, architecture="-1..1", size=48).stages[0].shape == (8, 24, 24)
    fixed = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    fixed.add(layers.Dense(9, activation="relu"))
    fixed.add(layers.Dense(3))
    with pytest.raises(BackboneError, match=r"cannot take images of 24 px.*another size"):
        load_backbone(save(fixed), architecture="0..1", size=24)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(4, 3)]), "colour images"),
        (
            lambda: keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(4)]),
            "computes no features",
        ),
        (lambda: keras.Model(*[keras.Input((8, 8, 3))] * 2), "computes no features"),
    ],
    ids=["grey", "no-map", "empty"],
)
def test_what_is_no_image_network_is_refused(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(BackboneError, match=reason):
        load_backbone(save(make()), architecture="0..1")


def test_a_graph_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write = keras_network.write_onnx

    def spoil(model: Any, *arguments: Any, **named: Any) -> None:
        kernel = model.parts[0].kernel
        kernel.assign(kernel * 1.1)
        write(model, *arguments, **named)
        kernel.assign(kernel / 1.1)

    monkeypatch.setattr(keras_network, "write_onnx", spoil)
    with pytest.raises(ParityError, match="differ"):
        load_backbone(save(network()), architecture="-1..1")


# Pixels


def test_pixels_are_as_the_model_the_family_or_the_caller_says() -> None:
    path = save(network())
    with pytest.raises(BackboneError, match=r"does not say what its pixels are.*0\.\.1.*mobilenet_v2"):
        load_backbone(path)
    assert load_backbone(path, architecture="0..1").preprocess.std == (1.0, 1.0, 1.0)
    found = load_backbone(path, architecture="0.5,0.4,0.3/0.2,0.2,0.25").preprocess
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
    with pytest.raises(BackboneError, match="'resnet18'"):
        load_backbone(path, architecture="resnet18")
    scaled = load_backbone(save(network(scaled=True), "scaled.keras"))
    assert scaled.preprocess.std == (1 / 255,) * 3
    assert any("0 to 255" in note for note in scaled.notes)


@pytest.mark.skipif(ONNX_WRITER == "jax2onnx", reason="OpenVINO cannot read the max pooling it writes")
def test_a_family_of_keras_is_recognised_and_its_pixels_are_those_of_preprocess_input() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    keras.utils.set_random_seed(3)
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    outputs = layers.Dense(3, activation="softmax")(base.output)
    backbone = load_backbone(save(keras.Model(base.input, outputs)))  # blue first, means of ImageNet
    expected = base.predict(keras.applications.vgg16.preprocess_input(pixels.copy()), verbose=0)
    mean, std = (np.array(numbers) for numbers in (backbone.preprocess.mean, backbone.preprocess.std))
    normalised = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    found = run_graph(backbone, normalised)["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert any("a vgg" in note for note in backbone.notes)


# Code in files


class Own(layers.Layer):
    """A layer of the user's."""

    def call(self, x: Any) -> Any:
        return x


def own_activation(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: layers.Lambda(lambda x: x * 2, name="twice"), "'twice' is a Lambda"),
        (lambda: Own(name="mine"), r"'mine' \(.*Own\) is not Keras's own"),
        (lambda: layers.Conv2D(3, 1, activation=own_activation), "'own_activation'"),
    ],
    ids=["lambda", "layer", "activation"],
)
def test_code_that_comes_with_a_file_is_refused_before_keras_opens_it(
    make: Callable[[], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(3, 3), make()]))
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(BackboneError, match=reason) as caught:
        load_backbone(path, architecture="0..1")
    assert "\n" not in str(caught.value)


def test_a_loss_of_the_users_does_not_matter() -> None:
    model = network()
    model.compile("adam", loss=own_activation)
    model.save("model.keras")
    assert load_backbone("model.keras", architecture="0..1").dimensions == 24


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.h5", b"\x89HDF", r"older HDF5.*model\.save\('model\.keras'\)"),
        ("model.keras", b"no zip", r"no model in the \.keras format"),
        ("model.keras", None, "No such file"),
    ],
)
def test_other_files_are_refused_in_one_line(name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(BackboneError, match=reason):
        load_backbone(name)


def rewritten(path: Path, change: Callable[[str], str], *, compressed: bool = False) -> Path:
    """The file again, with another configuration."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"].decode()).encode()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_loss_of_the_users_in_a_model_inside_is_code_too() -> None:
    inner = network()
    inner.compile("adam", loss=own_activation)
    path = save(keras.Sequential([keras.Input((SIDE, SIDE, 3)), inner]))
    with pytest.raises(BackboneError, match="'own_activation'"):
        load_backbone(path, architecture="0..1")


def test_files_that_cost_more_than_they_weigh_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_file, "HEADROOM", 1 << 20)
    config = '{"class_name": "Functional", "config": {"name": "%s"}}'
    path = rewritten(save(network()), lambda _: config % (" " * (4 << 20)), compressed=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(BackboneError, match=r"expands to \d+ MiB"):
        load_backbone(path, architecture="0..1")
    rewritten(save(network()), lambda _: '{"a":' * 1000)
    with pytest.raises(BackboneError, match=r"no model in the \.keras format"):
        load_backbone(path, architecture="0..1")
    deep = "[" * 500 + "]" * 500
    rewritten(path, lambda _: f'{{"class_name": "Functional", "config": {deep}}}')
    with pytest.raises(BackboneError, match="nested deeper"):
        load_backbone(path, architecture="0..1")


def test_a_model_whose_file_cannot_explain_its_size_is_not_made() -> None:
    path = rewritten(save(network()), lambda text: text.replace('"units": 7', '"units": 400000000'))
    with pytest.raises(BackboneError, match="Keras cannot open it"):
        load_backbone(path, architecture="0..1")


def test_names_in_a_file_cannot_write_to_a_terminal() -> None:
    path = save(keras.Sequential([keras.Input((16, 16, 3)), Own(name="mine")]))
    rewritten(path, lambda text: text.replace('"mine"', r'"mi\u001b[31m\nne"'))
    with pytest.raises(BackboneError, match="not Keras's own") as refused:
        load_backbone(path, architecture="0..1")
    assert str(refused.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_no_keras_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(BackboneError, match="not a regular file"):
        load_backbone(tmp_path / "pipe.keras")


def test_without_keras_the_extra_is_named_and_a_known_file_still_loads() -> None:
    path = save(network())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_file, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"headstart\[keras\]"):
            load_backbone(path, architecture="0..1")
    first = load_backbone(path, architecture="0..1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_file, "find_spec", lambda name: None)
        assert load_backbone(path, architecture="0..1") == first


# The whole way


def test_fit_save_predict_and_evaluate_without_the_keras_file(photos: Path, tmp_path: Path) -> None:
    path = save(network())
    _, run = fit(photos, backbone=path, architecture="0..1", out=tmp_path / "run", precision="f32")
    assert run.config.architecture == "0..1"
    path.unlink()
    classifier = load(tmp_path / "run")
    assert evaluate(classifier, photos)[0].accuracy > 0.9
    code = (
        "import sys; from headstart import load; "
        f"print(load('run').predict(['{photos}/red/1.png'])[0].label); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "red"), done.stderr


def test_the_same_model_saved_again_needs_nothing_and_other_weights_everything() -> None:
    model = network()
    path = save(model)
    first = load_backbone(path, architecture="0..1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("the file was opened"))
        time.sleep(1.1)
        save(model)  # dated anew
        assert load_backbone(path, architecture="0..1") == first
    kernel = model.get_layer("last").kernel
    kernel.assign(kernel * 1.5)
    assert load_backbone(save(model), architecture="0..1").weights_hash != first.weights_hash


def test_what_needs_trained_stages_is_refused_before_any_work(photos: Path) -> None:
    path = save(network())
    with pytest.raises(OptionError, match=r"freeze=1.*headstart\.keras\.fit"):
        fit(photos, backbone=path, architecture="0..1", freeze=1)
    with pytest.raises(BackboneError, match="from scratch"):
        fit(photos, backbone=path, architecture="0..1", scratch=True)
    _, run = fit(photos, backbone=path, architecture="0..1", freeze="auto", head="ridge")
    assert any("headstart.keras.fit" in note for note in run.notes)


def test_the_command_shows_stages_and_fits(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(network(scaled=True))
    cli.main(["backbones", "model.keras"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "model (small) at 32 px, 24 features" in shown
    assert "block2" in shown
    assert "note: model.keras scales its pixels itself" in shown
    cli.main(["fit", str(photos), "--backbone", "model.keras", "--out", "run"], standalone_mode=False)
    assert "model.keras at 32 px, all stages frozen" in capsys.readouterr().out


def test_at_its_first_use_nothing_is_said_but_by_the_command() -> None:
    save(network(scaled=True))
    command = [sys.executable, "-m", "headstart", "backbones", "model.keras"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    assert not re.search("oneDNN|absl|cpu_feature_guard", done.stderr)


def test_what_is_no_information_is_still_heard(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    information = b"""WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795.112717   27648 port.cc:153] oneDNN custom operations are on.
2026-01-01 10:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.
"""
    error = b"E0000 00:00:1795.112717   27648 cuda.cc:1] no device\nImportError: libone.so: no such file\n"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with keras_file._without_log_lines():
        os.write(2, information)
    assert capfd.readouterr().err.encode() == information, "the user's own level holds"
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with pytest.raises(ImportError), keras_file._without_log_lines():
        os.write(2, information + error)
        raise ImportError
    assert capfd.readouterr().err.encode() == error
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
