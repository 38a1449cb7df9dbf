"""Heat maps: they lie where the decision was made, however they are found."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import headstart
from conftest import shared_folders
from headstart.classifier import Classifier
from headstart.cli import cli
from headstart.data.images import load_pixels
from headstart.data.preprocess import Preprocess
from headstart.errors import ImageError, OptionError
from headstart.explanations import Explainer, HeatMap, explain, heat, heat_map, outlined, overlay
from headstart.explanations.activation import spread
from headstart.explanations.overlays import colours
from headstart.reports import find, report

_SIDE, _HALF = 128, 64


def _picture(random: np.random.Generator, kind: str) -> Image.Image:
    """Blocks of noise that say nothing, but for the lower left quadrant, whose stripes decide the class."""
    grey = np.empty((_SIDE, _SIDE), np.uint8)
    for row in (0, _HALF):
        for column in (0, _HALF):
            cell = int(random.choice([2, 4, 8]))
            noise = random.integers(30, 226, (_HALF // cell, _HALF // cell), dtype=np.uint8)
            grey[row : row + _HALF, column : column + _HALF] = noise.repeat(cell, 0).repeat(cell, 1)
    along = np.arange(_HALF) + random.integers(0, 8)
    stripes = np.where(along // 6 % 2, random.integers(190, 240), random.integers(20, 60)).astype(np.uint8)
    field = np.broadcast_to(stripes[:, None] if kind == "level" else stripes, (_HALF, _HALF))
    grey[_HALF:, :_HALF] = field
    return Image.fromarray(grey).convert("RGB")


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Path]:
    """Where what all tests share is made."""
    folder = tmp_path_factory.mktemp("explanations")
    with shared_folders(folder, compiled_models):
        yield folder


@pytest.fixture(scope="module")
def quadrants(root: Path) -> Path:
    folder, random = root / "images", np.random.default_rng(0)
    for kind in ("level", "upright"):
        (folder / kind).mkdir(parents=True)
        for number in range(24):
            _picture(random, kind).save(folder / kind / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def classifier(root: Path, quadrants: Path) -> Classifier:
    return headstart.fit(quadrants, backbone="builtin", precision="f32", out=root / "run")[0]


@pytest.fixture(scope="module")
def with_last_layer(quadrants: Path) -> Classifier:
    """One whose head reads nothing but the features."""
    return headstart.fit(quadrants, precision="f32", layers="last", backbone="builtin", size=64)[0]


@pytest.fixture(scope="module")
def with_neither(root: Path) -> tuple[Path, Explainer]:
    """Such pictures and a class without stripes: of two, each is also the other's absence, anywhere."""
    folder, random = root / "three", np.random.default_rng(2)
    for kind in ("level", "upright", "neither"):
        (folder / kind).mkdir(parents=True)
        for number in range(48):
            picture = _picture(random, kind)
            if kind == "neither":
                picture.paste(picture.crop((_HALF, 0, _SIDE, _HALF)).rotate(180), (0, _HALF))
            picture.save(folder / kind / f"{number:02}.png")
    return folder, Explainer(headstart.fit(folder, precision="f32", backbone="builtin", size=2 * _SIDE)[0])


@pytest.mark.parametrize("method", ["cam", "occlusion"])
def test_the_heat_lies_where_the_class_is_decided(with_neither: tuple[Path, Explainer], method: str) -> None:
    folder, explainer = with_neither
    shares, shown = [], "0[0-5].png" if method == "cam" else "00.png"  # occlusion takes seconds for each
    for kind in ("level", "upright"):
        for file in sorted((folder / kind).glob(shown)):
            heat = explainer.heat_map(file, method=method)
            assert heat.label == kind
            half = len(heat.values) // 2
            shares.append(heat.values[half:, :half].sum() / heat.values.sum())
    assert np.mean(shares) >= 0.8


def test_the_gradient_finds_what_the_closed_form_says(quadrants: Path, with_last_layer: Classifier) -> None:
    pytest.importorskip("timm")
    file = quadrants / "level" / "03.png"
    exact, gradient = (heat_map(with_last_layer, file, method=method) for method in ("cam", "grad-cam"))
    assert exact.values.max() == 1.0
    np.testing.assert_allclose(exact.values, gradient.values, atol=1e-4)


def test_a_network_that_does_more_than_average_gets_a_gradient_or_occlusion(quadrants: Path) -> None:
    pytest.importorskip("timm")
    images = []
    for file in sorted(quadrants.glob("*/0?.png")):
        with Image.open(file) as opened:
            images.append(np.asarray(opened))
    labels = [file.parent.name for file in sorted(quadrants.glob("*/0?.png"))]
    classifier, _ = headstart.fit(
        (np.stack(images), np.array(labels)),
        backbone="mobilenetv3_small_050",
        scratch=True,
        epochs=1,
        size=32,
        precision="f32",
    )
    with pytest.raises(OptionError, match="more than average"):
        heat_map(classifier, images[0], method="cam")
    found = heat_map(classifier, images[0])
    assert found.method in ("grad-cam", "occlusion") and found.values.shape == (32, 32)


def test_tokens_without_a_place_give_no_map_and_patches_keep_theirs() -> None:
    tokens = np.random.default_rng(0).normal(size=(1 + 16, 6)).astype(np.float32)
    coefficients = np.zeros((6, 17), np.float32)
    coefficients[:, 0] = 1  # the class token alone
    with pytest.raises(OptionError, match="occlusion"):
        spread(tokens, coefficients, side=32)
    coefficients[:] = 0
    coefficients[2, 1:] = 1  # one channel of the patches
    tokens[1:, 2] = 0
    tokens[1 + 4 * 3 + 0, 2] = 5  # row 3, column 0
    heat = spread(tokens, coefficients, side=32)
    assert np.unravel_index(int(heat.argmax()), heat.shape)[0] >= 24 and heat[:16].max() == 0
    assert heat[24:, :8].mean() > 10 * heat[24:, 16:].mean()


@pytest.mark.parametrize("method", ["cam", "occlusion"])
def test_what_explaining_needs_is_loaded_once_for_a_classifier(
    classifier: Classifier, quadrants: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    read, compiled = [], []
    load = onnx.load
    monkeypatch.setattr(onnx, "load", lambda *a, **k: (k or read.append(a), load(*a, **k))[1])  # whole
    compile_model = heat.compile_model
    monkeypatch.setattr(
        heat, "compile_model", lambda *a, **k: (compiled.append(k), compile_model(*a, **k))[1]
    )
    explainer = Explainer(classifier)
    first, *_ = [explainer.heat_map(quadrants / "level" / f"0{n}.png", method=method) for n in range(3)]
    assert len(compiled) == 1 and len(read) == 1
    again = heat_map(headstart.load(classifier.model.parent), quadrants / "level" / "00.png", method=method)
    np.testing.assert_array_equal(first.values, again.values)


def test_the_gradients_network_is_loaded_once_for_a_classifier(
    quadrants: Path, with_last_layer: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    from headstart.explanations import gradient

    loaded, load_backbone = [], gradient.load_backbone
    monkeypatch.setattr(
        gradient, "load_backbone", lambda *a, **k: (loaded.append(a), load_backbone(*a, **k))[1]
    )
    explainer = Explainer(with_last_layer)
    for number in range(2):
        explainer.heat_map(quadrants / "level" / f"0{number}.png", method="grad-cam")
    assert len(loaded) == 1


def test_the_heat_of_another_label_is_elsewhere(classifier: Classifier, quadrants: Path) -> None:
    file = quadrants / "level" / "01.png"
    mine, other = heat_map(classifier, file), heat_map(classifier, file, label="upright")
    assert mine.probability + other.probability == pytest.approx(1, abs=1e-4)
    assert float((mine.values * other.values).max()) == 0  # of two labels, what speaks for one is not for two


def test_bad_requests_say_what_is_wrong(classifier: Classifier, quadrants: Path, tmp_path: Path) -> None:
    file = quadrants / "level" / "00.png"
    with pytest.raises(OptionError, match="level, upright"):
        heat_map(classifier, file, label="sideways")
    with pytest.raises(OptionError, match="occlusion"):
        heat_map(classifier, file, method="magic")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match="broken"):
        heat_map(classifier, tmp_path / "broken.png")


def test_colours_rise_in_lightness_and_the_overlay_says_what_glows() -> None:
    shades = colours(np.linspace(0, 1, 64, dtype=np.float32)) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(shades) > 0)
    values = np.zeros((32, 32), np.float32)
    values[:16] = 1
    heat = HeatMap(values, "rose", 0.9, "cam", np.full((32, 32, 3), 128, np.uint8))
    bare, whole = overlay(heat, side=64, legend=False), overlay(heat, side=64)
    assert bare.size == (64, 64) and whole.size[0] == 64 and whole.size[1] > 64
    pixels = np.asarray(bare).astype(float)
    assert pixels[:24].mean() > 2 * pixels[40:].mean()
    assert "speak for rose" in heat.legend() and "90.0%" in heat.legend()


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("size", [(400, 240), (240, 400)])
def test_the_frame_is_around_what_the_classifier_saw(mode: str, size: tuple[int, int]) -> None:
    width, height = size
    places = np.zeros((height, width, 3), np.uint8)  # each pixel says where it is
    places[..., 0] = np.linspace(0, 255, width)[None, :]
    places[..., 1] = np.linspace(0, 255, height)[:, None]
    preprocess = Preprocess(96, 0.8, "bilinear", mode, (0.5,) * 3, (0.5,) * 3)
    seen = load_pixels(places, preprocess)
    left, top, right, bottom = preprocess.crop_box(width, height)
    for at, corner in ((seen[0, 0], (left, top)), (seen[-1, -1], (right - 1, bottom - 1))):
        there = places[corner[1], corner[0], :2]
        assert np.abs(at[:2].astype(int) - there).max() <= 4
    framed = np.asarray(outlined(Image.fromarray(places), preprocess))
    changed = np.argwhere((framed != places).any(axis=2))
    assert changed.min(axis=0).tolist() == [top, left]
    assert changed.max(axis=0).tolist() == [bottom - 1, right - 1]
    assert (framed[height // 2, width // 2] == places[height // 2, width // 2]).all()


def test_pictures_of_images_with_one_name_do_not_overwrite_each_other(
    classifier: Classifier, quadrants: Path, tmp_path: Path
) -> None:
    from headstart.data.dataset import list_images

    samples = list_images([quadrants / "level" / "00.png", quadrants / "upright" / "00.png"])
    written = explain(classifier, [(sample.name, sample.source) for sample in samples], tmp_path / "why")
    assert len({path for path, _ in written.values()}) == 2
    assert all(path.exists() for path, _ in written.values())


def test_predict_writes_the_pictures_and_names_them(classifier: Classifier, quadrants: Path) -> None:
    file, run = quadrants / "upright" / "02.png", str(classifier.model.parent)
    result = CliRunner().invoke(cli, ["predict", run, str(file), "--explain", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    with Image.open(row["heat_map"]["file"]) as picture:
        assert picture.width == 448 and row["heat_map"]["method"] == "cam"
    result = CliRunner().invoke(cli, ["predict", run, str(file), "--explain-to", "why"])
    assert "why/02.heat.png" in result.stdout and Path("why/02.heat.png").exists()
    plain = CliRunner().invoke(cli, ["predict", run, str(file), "--json"])
    assert "heat_map" not in json.loads(plain.stdout)[0]


def test_the_report_shows_why_an_image_was_called_wrong(quadrants: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images = tmp_path / "mislabelled"
    for kind, other in (("level", "upright"), ("upright", "level")):
        (images / kind).mkdir(parents=True, exist_ok=True)
        for file in sorted((quadrants / kind).iterdir()):
            wrong = file.name.startswith("0")
            (images / (other if wrong else kind)).mkdir(exist_ok=True)
            (images / (other if wrong else kind) / f"{kind}-{file.name}").write_bytes(file.read_bytes())
    headstart.fit(images, precision="f32", backbone="builtin", size=64, validation=0.4, out="mixed")
    html = report(find("mixed")).html(explain=True)
    heats = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="what spoke for', html)
    assert heats
    assert Image.open(io.BytesIO(base64.b64decode(heats[0]))).size == (112, 112)
