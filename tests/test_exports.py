"""Exports: every format says what the classifier says, alone, and nothing half-made is left behind."""

import csv
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
import headstart.data.images
from conftest import draw, shared_folders, write_photos
from headstart.classifier import Classifier
from headstart.data.dataset import FileSource, describe, read_dataset
from headstart.data.preprocess import Preprocess
from headstart.errors import DatasetError, MissingExtra, OptionError, ParityError, RunError
from headstart.exports import FORMATS, Export, export
from headstart.exports.formats import SAME_NUMBERS
from headstart.exports.graphs import plain_graph
from headstart.exports.parity import (
    Parity,
    compare,
    refuse_if_different,
    run_program,
    write_program,
)
from headstart.exports.quantisation import cost, refuse_if_too_dear
from headstart.exports.subject import Images, Subject, find_images

SIZE = 64
NO_IMAGES = Images(np.zeros((0, 2, 2, 3), np.uint8), np.zeros(0, np.int64))
FLOAT_FORMATS = tuple(FORMATS)
FILES = {
    "onnx": ["model.onnx"],
    "openvino": ["model.bin", "model.xml"],
    "safetensors": ["model.json", "model.safetensors"],
    "torchscript": ["model.pt"],
    "tflite": ["model.tflite"],
    "saved_model": ["saved_model/fingerprint.pb", "saved_model/saved_model.pb"],
}


def needs(form: str) -> None:
    """Skip where the format's converter or runtime is not installed."""
    interpreter(form)


def interpreter(form: str) -> str:
    """The Python that has the format's converter and runtime: ours, else the one named."""
    if all(find_spec(module) for module in FORMATS[form].modules):
        return sys.executable
    named = os.environ.get("HEADSTART_TFLITE_PYTHON", "")
    if FORMATS[form].extra != "tflite" or not Path(named).is_file():
        pytest.skip(f"needs headstart[{FORMATS[form].extra}]: what {form} is written with")
    return named


def exported(run: Path, form: str, *, out: Path) -> Export:
    """The run exported by the command, in the interpreter that has the format's converter."""
    command = [interpreter(form), "-m", "headstart", "export", str(run), "--to", form, "--out", str(out)]
    path = str(Path(headstart.__file__).parent.parent)
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Export(Path(said["path"]), said["to"], said["files"], Parity(**said["parity"]), None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[dict[str, Any]]:
    """One run on made photographs, and the exports that tests have asked for."""
    root = tmp_path_factory.mktemp("exports")
    with shared_folders(root, compiled_models):
        photos = write_photos(root / "photos", per_class=40)
        classifier, run = headstart.fit(
            photos, backbone="builtin", size=SIZE, precision="f32", out=root / "run"
        )
    yield {"classifier": classifier, "run": run, "photos": photos, "made": {}, "root": root}


def made(shared: dict[str, Any], form: str, *, int8: bool = False) -> Export:
    """The shared run in a format, exported once."""
    elsewhere, key = interpreter(form) != sys.executable, (form, int8)
    if key not in shared["made"]:
        run, out = shared["run"], shared["root"] / f"{form}-{int8}"
        shared["made"][key] = (
            exported(run.path, form, out=out)
            if elsewhere
            else export(run, to=form, int8=int8, int8_cost=20.0, out=out)
        )
    found: Export = shared["made"][key]
    return found


ALONE = textwrap.dedent(
    """
    import runpy, sys
    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "headstart":
                raise ImportError("headstart is blocked")
    sys.meta_path.insert(0, Refuse())
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    """
)


@pytest.mark.parametrize("form", FLOAT_FORMATS)
def test_the_program_beside_an_export_runs_without_headstart_and_agrees(
    shared: dict[str, Any], form: str, tmp_path: Path
) -> None:
    found = made(shared, form)
    files = sorted(shared["photos"].rglob("*.jpg"))[::5]
    command = [interpreter(form), "-c", ALONE, str(found.path / "predict.py"), *map(str, files), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    answers = json.loads(done.stdout)
    expected = shared["classifier"].predict(files)
    assert [a["label"] for a in answers] == [e.label for e in expected]
    for answer, prediction in zip(answers, expected, strict=True):
        assert answer["probability"] == pytest.approx(prediction.probability, abs=1e-3)


def twins(folder: Path) -> list[Path]:
    """One picture in every depth and form that a stranger's folder may hold, and a large JPEG."""
    folder.mkdir()
    grey = np.asarray(draw("discs", seed=3, side=96).convert("L"))
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(folder / "8.png")
    Image.fromarray(deep).save(folder / "16.png")
    Image.fromarray(deep.astype(np.int32)).save(folder / "32.tif")
    Image.fromarray(grey.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(deep).save(folder / "16.pgm")
    draw("bars", seed=4, side=96).convert("CMYK").save(folder / "cmyk.jpg")
    draw("squares", seed=5, side=700).save(folder / "large.jpg", quality=85)
    turned = draw("squares", seed=6, side=96)
    turned.getexif()[274] = 6
    turned.save(folder / "turned.jpg", exif=turned.getexif())
    see_through = draw("discs", seed=7, side=96).convert("RGBA")
    see_through.putalpha(Image.fromarray(grey))
    see_through.save(folder / "alpha.png")
    return sorted(folder.iterdir())


def test_the_program_reads_every_depth_and_form_as_headstart_predict_does(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    files = twins(tmp_path / "twins")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    program = made(shared, "openvino").path / "predict.py"
    command = [sys.executable, "-B", str(program), "-", "--json"]
    names = "\n".join(map(str, [*files, tmp_path / "broken.jpg"]))
    done = subprocess.run(command, capture_output=True, text=True, check=True, input=names)
    expected = [each for each in shared["classifier"].predict(files)]
    answers = json.loads(done.stdout)
    assert [answer["path"] for answer in answers] == [str(file) for file in files]
    for answer, prediction in zip(answers, expected, strict=True):
        assert answer["label"] == prediction.label, prediction.path
        assert answer["probability"] == pytest.approx(prediction.probability, abs=1e-3)
    assert "broken.jpg" in done.stderr and "skipped" in done.stderr


def test_the_check_runs_the_exported_program_on_files(
    shared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(folder: Path, *, form: str) -> None:
        write_program(folder, form=form)
        rendering = folder / "decoding" / "rendering.py"
        text = rendering.read_text()
        assert "pixels = np.asarray(small)" in text
        rendering.write_text(text.replace("pixels = np.asarray(small)", "pixels = 0 * np.asarray(small)"))

    monkeypatch.setattr("headstart.exports.write_program", other)
    with pytest.raises(ParityError, match="differs from the classifier"):
        export(shared["run"], to="openvino", out=tmp_path / "black")


def test_the_program_reads_images_by_the_code_that_the_training_read_them_by(shared: dict[str, Any]) -> None:
    package = made(shared, "openvino").path / "decoding"
    ours = Path(headstart.data.images.__file__).parent
    assert {file.name for file in ours.glob("*.py")} <= {file.name for file in package.iterdir()}
    for file in package.glob("*.py"):
        assert "headstart." not in file.read_text().replace("headstart[", ""), file.name


@pytest.mark.parametrize("form", FLOAT_FORMATS)
def test_every_format_is_checked_on_the_runs_held_out_images(shared: dict[str, Any], form: str) -> None:
    found = made(shared, form)
    assert found.parity.images == shared["run"].images["validation"]
    assert found.parity.changed == 0 and found.parity.largest_difference <= FORMATS[form].tolerance
    assert set(FILES[form]) | {"predict.py", "card.md", "card.json"} <= set(found.files)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_is_smaller_and_its_cost_is_on_the_card(shared: dict[str, Any], form: str) -> None:
    if find_spec("nncf") is None:
        pytest.skip("int8 needs headstart[export]")
    small, full = made(shared, form, int8=True), made(shared, "openvino")
    assert small.int8 is not None and small.int8.images == shared["run"].images["validation"]
    assert small.int8.points <= 20 and small.int8.agreement > 0.8
    weights = "model.onnx" if form == "onnx" else "model.bin"
    assert small.files[weights] < 0.7 * full.files["model.bin"]
    card = json.loads((small.path / "card.json").read_text())
    assert card["int8"]["accuracy"] == small.int8.accuracy
    assert "held-out images" in (small.path / "card.md").read_text()
    assert small.int8.float_layers >= 3 and "stay in float32" in (small.path / "card.md").read_text()


def test_int8_leaves_the_head_and_the_first_layers_in_float32(shared: dict[str, Any]) -> None:
    import onnx

    found = made(shared, "onnx", int8=True)
    assert found.int8
    graph = onnx.load(found.path / "model.onnx").graph
    eight = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    layers = [eight.isdisjoint(node.input) for node in graph.node if node.op_type == "Conv"]
    assert all(layers[: found.int8.float_layers]) and not any(layers[found.int8.float_layers :])
    assert all(eight.isdisjoint(node.input) for node in graph.node if node.op_type in ("Gemm", "MatMul"))


def test_the_card_says_what_the_run_knows(shared: dict[str, Any]) -> None:
    found, run = made(shared, "onnx"), shared["run"]
    card = json.loads((found.path / "card.json").read_text())
    assert card["classes"] == ["bars", "discs", "squares"]
    assert card["metrics"]["validation"]["interval"] == list(run.evaluation["validation"]["interval"])
    assert card["data"]["images"]["train"] == run.images["train"]
    assert card["input"]["shape"] == ["N", SIZE, SIZE, 3] and card["input"]["type"] == "uint8"
    assert card["licence_of_weights"].startswith("Apache-2.0")
    assert card["versions"]["onnx"] and card["parity"] == found.parity.to_dict()
    text = (found.path / "card.md").read_text()
    low, high = run.evaluation["validation"]["interval"]
    assert f"{low:.1%} to {high:.1%}" in text and "Limits" in text and str(run.images["train"]) in text


def in_this_process(folder: Path, shown: Images) -> tuple[np.ndarray[Any, Any], list[dict[str, Any]]]:
    """What `run_program` does, without the seconds that a new process takes to load PyTorch."""
    out = folder.parent / "probabilities.npy"
    files = [source.path for sample in shown.samples if isinstance(source := sample.source, FileSource)]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(printed):
        warnings.simplefilter("ignore")  # a program prints them
        patch.setattr(sys, "argv", ["predict.py", *files, "--json", "--save", str(out)])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "dont_write_bytecode", True)
        try:
            runpy.run_path(str(folder / "predict.py"), run_name="__main__")
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == "decoding"]:
                del sys.modules[name]
    found: np.ndarray[Any, Any] = np.load(out)
    out.unlink()
    return found, json.loads(printed.getvalue())


def test_fine_tuned_stages_are_in_the_weights_and_in_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("torchscript")
    monkeypatch.setattr("headstart.exports.run_program", in_this_process)
    photos = write_photos(tmp_path / "photos", per_class=12)
    _, run = headstart.fit(
        photos, backbone="builtin", size=SIZE, freeze=7, epochs=1, head="softmax", precision="f32"
    )
    for form in ("safetensors", "torchscript"):
        assert export(run, to=form).parity.changed == 0


TINY = {
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "resnet10t": {},
}
"""Networks with tokens, with maps that have their channels last, and with an end that is no layer."""


@pytest.mark.parametrize("architecture", TINY)
def test_what_a_head_reads_inside_is_read_by_every_family(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("torchscript")
    monkeypatch.setattr("headstart.exports.run_program", in_this_process)
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    sized = {} if architecture == "resnet10t" else {"img_size": SIZE}
    network = timm.create_model(architecture, num_classes=0, **TINY[architecture], **sized)
    weights = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    about = {"architecture": architecture, "timm_kwargs": json.dumps(TINY[architecture])}
    save_file(weights, tmp_path / "own.safetensors", about)
    photos = write_photos(tmp_path / "photos", per_class=10)
    _, run = headstart.fit(
        photos, backbone=tmp_path / "own.safetensors", size=SIZE, layers="all", head="ridge", precision="f32"
    )
    assert run.config.layers is not None and len(run.config.layers) > 4
    for form in ("safetensors", "torchscript"):
        assert export(run, form).parity.changed == 0
    card = json.loads((run.path / "exports" / "safetensors" / "card.json").read_text())
    assert card["licence_of_weights"].startswith("not recorded")


def test_a_network_that_the_converter_cannot_do_is_one_clear_error(
    shared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.exports.formats.find_spec", lambda name: name)  # as if it were installed
    monkeypatch.setattr("headstart.exports.tensorflow._PROGRAM", "import sys; print('trouble'); sys.exit(1)")
    with pytest.raises(OptionError, match=r"onnx2tf cannot convert mobilenetv2_050; take --to onnx"):
        export(shared["run"], "saved_model", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_operations_that_the_runtime_lacks_are_the_users_to_avoid(tmp_path: Path) -> None:
    program = "import sys; sys.exit('RuntimeError: Select TensorFlow op(s) are not supported')"
    (tmp_path / "predict.py").write_text(program)
    with pytest.raises(OptionError, match="LiteRT does not have; take --to saved_model"):
        run_program(tmp_path, NO_IMAGES)
    (tmp_path / "predict.py").write_text("raise ValueError('something else')")
    with pytest.raises(ParityError, match="something else"):
        run_program(tmp_path, NO_IMAGES)


def test_the_program_takes_folders_and_survives_what_is_missing_or_broken(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(shared["photos"] / "bars", folder / "inner")
    (folder / "=1+1.jpg").write_bytes((folder / "inner/000.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "notes.txt").write_text("no image")
    np.save(tmp_path / "odd.npy", np.zeros((2, 3)))
    program = str(made(shared, "openvino").path / "predict.py")
    command = [sys.executable, "-B", program, "photos", "gone.jpg", "odd.npy", "--csv", "labels.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "44 images, 3 of them unreadable; saved in labels.csv\n"
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
        os.path.join("photos", "broken.jpg"),
        "gone.jpg",
        "odd.npy",
    ]
    with (tmp_path / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 44 and "No such file" in rows["gone.jpg"]["note"]
    assert "expected uint8" in rows["odd.npy"]["note"] and rows["odd.npy"]["label"] == ""
    (own,) = shared["classifier"].predict(folder / "inner/001.jpg")
    said = rows[os.path.join("photos", "inner", "001.jpg")]
    assert said["label"] == own.label and float(said["probability"]) == pytest.approx(
        own.probability, abs=1e-3
    )
    computed = subprocess.run(
        [sys.executable, "-B", program, "=1+1.jpg", "--csv", "x.csv"],
        check=True,
        cwd=folder,
        capture_output=True,
    )
    assert computed.returncode == 0 and "\n'=1+1.jpg," in (folder / "x.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "empty").mkdir()
    for none in ("empty", "gone.jpg"):
        failed = subprocess.run(
            [sys.executable, "-B", program, none], cwd=tmp_path, capture_output=True, text=True
        )
        assert failed.returncode == 2 and failed.stdout == "" and "Traceback" not in failed.stderr


def test_the_probabilities_of_a_npy_are_saved_as_they_are(shared: dict[str, Any], tmp_path: Path) -> None:
    found = made(shared, "openvino")
    pixels = np.random.default_rng(0).integers(0, 256, (35, SIZE, SIZE, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, str(found.path / "predict.py"), "pixels.npy", "--save", "out.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    classifier: Classifier = replace(shared["classifier"], precision="f32")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), classifier.probabilities(pixels), atol=1e-4)
    assert len(done.stdout.splitlines()) == 35


def test_a_model_that_disagrees_is_refused_and_leaves_nothing(
    shared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(folder: Path, shown: Images) -> tuple[np.ndarray[Any, Any], list[dict[str, Any]]]:
        return np.full((len(shown), 3), 1 / 3, np.float32), [{"label": "bars"}] * len(shown)

    def other_labels(folder: Path, shown: Images) -> tuple[np.ndarray[Any, Any], list[dict[str, Any]]]:
        right = replace(shared["classifier"], precision="f32").probabilities(shown.pixels)
        return right, [{"label": "bars"}] * len(shown)

    for answers, said in ((wrong, "the openvino export differs"), (other_labels, "labels changed")):
        monkeypatch.setattr("headstart.exports.run_program", answers)
        with pytest.raises(ParityError, match=said):
            export(shared["run"], to="openvino", out=tmp_path / "out" / "export")
        assert list((tmp_path / "out").iterdir()) == []


def test_a_difference_within_the_tolerance_passes_and_one_beyond_does_not() -> None:
    seen = Preprocess(8, 1.0, "bicubic", "center", (0.5,) * 3, (0.5,) * 3)
    of = Classifier(("a", "b"), seen, Path("model.onnx"))
    original = np.array([[0.7, 0.3], [0.4, 0.6]], np.float32)
    near, far = original + 5e-4, original + 5e-3
    refuse_if_different(compare(near, original, tolerance=1e-3, of=of), form="onnx")
    with pytest.raises(ParityError, match=r"0\.005"):
        refuse_if_different(compare(far, original, tolerance=1e-3, of=of), form="onnx")
    with pytest.raises(ParityError, match="1 of 2 labels changed"):
        refuse_if_different(
            compare(original[:, ::-1] * [[0], [1]] + original * [[1], [0]], original, tolerance=1.0, of=of),
            form="onnx",
        )
    count = Classifier(("value",), seen, Path("model.onnx"), about={"spread": 4.0}, task="regression")
    numbers = np.array([[3.0], [9.0]], np.float32)
    refuse_if_different(compare(numbers + 0.04, numbers, tolerance=SAME_NUMBERS, of=count), form="onnx")
    with pytest.raises(ParityError, match=r"numbers by up to 0\.025"):
        refuse_if_different(compare(numbers + 0.1, numbers, tolerance=SAME_NUMBERS, of=count), form="onnx")
    nothing = np.full_like(original, np.nan)
    with pytest.raises(ParityError):
        refuse_if_different(compare(nothing, original, tolerance=1e-3, of=of), form="onnx")


def test_the_cost_of_int8_is_counted_in_points_and_bounded() -> None:
    labels = np.array([0, 0, 1, 1])
    original = np.eye(2, dtype=np.float32)[labels]
    found = original[[0, 2, 2, 3]]  # one of four wrong
    lost = cost(found, original, labels=labels, calibration=7)
    assert (lost.points, lost.accuracy, lost.original, lost.agreement) == (25.0, 0.75, 1.0, 0.75)
    refuse_if_too_dear(lost, most=25)
    with pytest.raises(OptionError, match=r"costs 25\.0 points.*--int8-cost"):
        refuse_if_too_dear(lost, most=24)


def test_constants_are_computed_and_the_graph_says_the_same(shared: dict[str, Any]) -> None:
    import onnx

    model = shared["classifier"].model
    plain = plain_graph(model)
    assert sum(node.op_type == "Cast" for node in plain.graph.node) == 1  # of the pixels
    assert len(plain.graph.node) < len(onnx.load(model).graph.node)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(plain.SerializeToString()), "CPU")
    expected = replace(shared["classifier"], precision="f32").probabilities(pixels)
    np.testing.assert_allclose(compiled({"pixels": pixels})["probabilities"], expected, atol=0.05)


def test_images_that_have_moved_are_found_where_the_user_says(shared: dict[str, Any], tmp_path: Path) -> None:
    copy = shared["run"].path
    lost = tmp_path / "run"
    lost.mkdir()
    for file in copy.iterdir():
        if file.is_file():
            (lost / file.name).write_bytes(file.read_bytes())
    images = json.loads((lost / "images.json").read_text())
    for entry in images:
        entry["file"] = f"/gone/{entry['path']}"
    (lost / "images.json").write_text(json.dumps(images))
    with pytest.raises(OptionError, match=r"/gone/.*; give .* with --images"):
        export(lost, to="openvino")
    moved = export(lost, to="openvino", images=shared["photos"])
    assert moved.parity.images == shared["run"].images["validation"]
    others = tmp_path / "others"
    others.mkdir()
    (others / "one.jpg").write_bytes((shared["photos"] / "bars" / "000.jpg").read_bytes())
    assert export(lost, to="openvino", images=others, out=tmp_path / "o").parity.images == 1
    with pytest.raises(OptionError, match="--int8 needs the run's own"):
        export(lost, to="openvino", images=others, int8=True, out=tmp_path / "p")
    with pytest.raises(DatasetError):
        export(lost, to="openvino", images=tmp_path / "run", out=tmp_path / "q")


def test_images_inside_a_folder_of_shards_are_found_by_their_places(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for shard in range(2):
        pictures = [{"bytes": b"\xff\xd8\xff" + bytes([shard, i]), "path": None} for i in range(2)]
        table = pyarrow.table({"image": pictures, "label": ["a", "b"]})
        parquet.write_table(table, tmp_path / f"train-{shard:05}-of-00002.parquet")
    dataset = read_dataset(tmp_path)
    known = [describe(each, label="ab"[each.label], split="train", content=None) for each in dataset.samples]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images.json").write_text(json.dumps(known))
    classifier = SimpleNamespace(
        classes=("a", "b"), task="single-label", model=tmp_path / "run" / "model.onnx"
    )
    for images in (None, tmp_path):
        sides = find_images(Subject(classifier, None), images)  # type: ignore[arg-type]
        assert [(each.name, each.label) for each in sides.train] == [
            (each.name, each.label) for each in dataset.samples
        ]
        assert [each.source.read() for each in sides.train] == [
            each.source.read() for each in dataset.samples
        ]


def test_what_cannot_be_had_is_one_clear_error(
    shared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shared["run"]
    with pytest.raises(OptionError, match=r"--to 'coreml': expected one of onnx, openvino"):
        export(run, to="coreml")
    with pytest.raises(OptionError, match="--int8 is for onnx and openvino"):
        export(run, to="torchscript", int8=True)
    with pytest.raises(OptionError, match="--int8-cost"):
        export(run, to="openvino", int8_cost=-1)
    with pytest.raises(RunError, match="no run nowhere"):
        export("nowhere", to="openvino")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="is there already"):
        export(run, to="openvino", out=tmp_path / "taken")
    bare = shared["classifier"].save(tmp_path / "bare")
    with pytest.raises(RunError, match=r"has no run\.json"):
        export(bare, to="torchscript", images=shared["photos"])
    monkeypatch.setattr("headstart.exports.formats.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"headstart\[tflite\]"):
        export(run, to="tflite")


def test_a_classifier_without_a_record_says_so_on_its_card(shared: dict[str, Any], tmp_path: Path) -> None:
    bare = shared["classifier"].save(tmp_path / "bare")
    found = export(headstart.load(bare), to="openvino", images=shared["photos"])
    assert found.path == bare / "exports" / "openvino"
    text = (found.path / "card.md").read_text()
    assert "not recorded" in text and "nothing is known of its accuracy" in text


def test_the_command_prints_json_on_stdout_and_errors_exit_with_2(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    program = "from headstart.cli import main; main()"
    command = [sys.executable, "-c", program, "export", str(shared["run"].path)]
    good = subprocess.run(
        [*command, "--to", "openvino", "--out", str(tmp_path / "x"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(good.stdout)
    assert found["to"] == "openvino" and found["parity"]["changed"] == 0 and good.stderr == ""
    bad = subprocess.run([*command, "--to", "coreml"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stdout == "" and len(bad.stderr.splitlines()) == 1
