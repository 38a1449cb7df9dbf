"""The main job: what comes out, that it can be repeated, and that it survives being killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from children import started
from headstart import heads
from headstart.backbones.runtimes import select
from headstart.cli import fit as cli_fit
from headstart.data.dataset import content_hash
from headstart.errors import DatasetError, MissingExtra, OptionError, ParityError, RunError, UserError
from headstart.runs import RunStore, read_predictions
from headstart.runs.callbacks import ProgressFunction
from headstart.training import fitting as training

FAST = {"backbone": "builtin", "size": 64, "precision": "f32"}


def test_fit_learns_saves_and_reports(photos: Path) -> None:
    classifier, run = headstart.fit(photos, **FAST)
    assert run.accuracy["validation"] is not None and run.accuracy["validation"] > 0.6
    assert sum(run.images[split] for split in ("train", "validation", "test")) == 48
    names = {path.name for path in run.path.iterdir()}
    assert {
        "model.onnx",
        "model.safetensors",
        "classifier.json",
        "run.json",
        "images.json",
        "skipped.json",
        "predictions.json",
    } <= names
    record = json.loads((run.path / "run.json").read_text())
    assert {"total", "check", "features", "train", "evaluate"} <= set(record["seconds"])
    assert record["depth"] == "all" and record["head"] == "ridge"
    assert record["cache"]["misses"] == 48 and record["cache"]["bytes"] > 0
    assert np.array(record["evaluation"]["validation"]["confusion"]).sum() == run.images["validation"]
    assert RunStore().find(run.id).id == run.id
    assert classifier.classes == ("bars", "discs", "squares")


def test_the_same_job_twice_gives_the_same_model_and_computes_nothing_again(photos: Path) -> None:
    first, run_1 = headstart.fit(photos, **FAST)
    second, run_2 = headstart.fit(photos, **FAST)
    assert run_2.cache == {"hits": 48, "misses": 0, "bytes": 0}
    assert run_1.accuracy == run_2.accuracy
    assert first.model.read_bytes() == second.model.read_bytes()


def test_a_reloaded_classifier_says_what_the_one_in_memory_says(photos: Path, make_photos) -> None:
    classifier, run = headstart.fit(photos, **FAST)
    others = make_photos(photos.parent / "others", per_class=3, seed=7)
    before = classifier.predict(others)
    after = headstart.load(run.path).predict(others)
    assert before == after and len(before) == 9
    assert headstart.load(run.id).predict(others) == before


def test_softmax_prints_what_a_frozen_fine_tune_prints(photos: Path) -> None:
    _, run = headstart.fit(photos, head="softmax", epochs=5, **FAST)
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3, 4, 5]
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.config.head == "softmax" and run.config.epochs == 5


@pytest.mark.parametrize("layers", ["last", "all", "auto"])
def test_every_choice_of_layers_predicts_as_it_was_trained(photos: Path, layers: str) -> None:
    _, run = headstart.fit(photos, layers=layers, **FAST)
    record = json.loads((run.path / "run.json").read_text())
    assert record["parity"] < 2e-3
    assert (run.config.layers is None) or layers != "last"


def test_named_layers_are_read_and_names_that_the_network_lacks_refused(photos: Path) -> None:
    _, run = headstart.fit(photos, layers=["block5@1x1", "features"], **FAST)
    assert run.config.layers == ("block5@1x1", "features")
    with pytest.raises(OptionError, match=r"layers=block5: builtin has stem@1x1, .*, features; name some"):
        headstart.fit(photos, layers=["block5"], **FAST)


def test_another_layer_that_is_right_as_often_as_the_last_layer_is_named() -> None:
    table = tuple(
        heads.layer_choice.LayerCandidate((name,), 0.5, 1.0, 0.0, 0.0, 0.0) for name in ("early", "features")
    )
    choice = heads.LayerChoice(("early",), 0.5, 0.5, 40, 2, table)
    assert training._sentence(choice, read=("early",), classes=2) == (
        "features: early; leave-one-out 50.0% (last layer 50.0%)"
    )
    whole = training._sentence(choice, read=None, classes=2)
    assert whole.startswith("features: last layer; leave-one-out 50.0% (") and "compared on" not in whole
    some = training._sentence(choice, read=None, classes=400)
    assert some.endswith("; compared on 40 images of 2 classes")


def test_one_image_a_class_is_too_few_to_choose_layers_or_to_leave_out(tmp_path: Path, make_photos) -> None:
    _, run = headstart.fit(make_photos(tmp_path / "data", per_class=1), **FAST)
    assert run.config.layers is None and run.head_fit["loo_accuracy"] is None
    assert "too few classes have two training images" in run.notes[-1] and "%" not in " ".join(run.notes)


def test_a_given_split_is_kept(tmp_path: Path, make_photos) -> None:
    for split, count, seed in (("train", 8, 1), ("val", 4, 2), ("test", 3, 3)):
        make_photos(tmp_path / "data" / split, per_class=count, seed=seed)
    _, run = headstart.fit(tmp_path / "data", **FAST)
    assert dict(run.images) == {"train": 24, "validation": 12, "test": 9, "skipped": 0}


def test_every_held_out_image_is_listed_with_what_was_said_of_it(photos: Path) -> None:
    _, run = headstart.fit(photos, **FAST)
    found = read_predictions(run.path)
    for split in ("validation", "test"):
        entries = [entry for entry in found["images"] if entry["split"] == split]
        right = sum(entry["label"] == entry["predicted"] for entry in entries)
        assert len(entries) == run.images[split] and right / len(entries) == run.accuracy[split]
    first = found["images"][0]
    assert content_hash(Path(first["file"]).read_bytes()).hex() == first["content"]
    assert first["top"][0] == [first["predicted"], first["probability"]] and len(first["top"]) == 3
    (photos / "bars" / "new.png").write_bytes((photos / "discs" / "000.jpg").read_bytes())
    _, other = headstart.fit(photos, **FAST)
    assert read_predictions(other.path)["split"] != found["split"]


def test_arrays_fit_like_files() -> None:
    random_values = np.random.default_rng(0)
    pixels = random_values.integers(0, 80, (30, 40, 40, 3), dtype=np.uint8)
    labels = np.arange(30) % 2
    pixels[labels == 1, :, 20:] += 150
    _, run = headstart.fit((pixels, labels), **FAST)
    assert run.images["train"] + run.images["validation"] + run.images["test"] == 30


def test_views_multiply_the_training_rows_and_nothing_else(photos: Path) -> None:
    _, run = headstart.fit(photos, views="flip", layers="last", **FAST)
    assert run.head_fit["rows"] == 2 * run.images["train"]
    assert run.config.views == ("centre", "flip")


def test_leaving_an_image_out_leaves_all_its_views_out(photos: Path) -> None:
    _, single = headstart.fit(photos, views=1, layers="last", **FAST)
    _, several = headstart.fit(photos, views="4", layers="last", **FAST)
    for name in ("loo_accuracy", "penalty", "temperature"):
        assert several.head_fit[name] == pytest.approx(single.head_fit[name])


def test_unreadable_files_are_skipped_listed_and_with_strict_an_error(photos: Path) -> None:
    (photos / "discs" / "002.jpg").write_bytes(b"\xff\xd8\xff")
    _, run = headstart.fit(photos, **FAST)
    assert run.images["skipped"] == 1
    listed = json.loads((run.path / "skipped.json").read_text())
    assert listed[0]["path"].endswith("002.jpg") and listed[0]["reason"]
    with pytest.raises(DatasetError, match=r"002\.jpg"):
        headstart.fit(photos, strict=True, **FAST)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "forest"},
        {"layers": "some"},
        {"class_weights": "heavy"},
        {"scratch": True, "freeze": 4},
        {"epochs": 0, "head": "softmax"},
        {"freeze": 99},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"seed": -1},
        {"validation": 0.5, "test": 0.5},
    ],
)
def test_an_option_that_cannot_work_is_refused(photos: Path, options: dict) -> None:
    with pytest.raises(OptionError):
        headstart.fit(photos, **FAST, **options)


def test_an_option_without_effect_is_noted(photos: Path) -> None:
    _, run = headstart.fit(photos, epochs=5, **FAST)
    assert any("epochs=5 has no effect" in note for note in run.notes)
    _, run = headstart.fit(photos, head="softmax", epochs=5, **FAST)
    assert not any("no effect" in note for note in run.notes)


@pytest.mark.parametrize("options", [{"validation": 1.0}, {"out": "taken"}, {"out": "a file/run"}])
def test_what_cannot_end_well_is_refused_before_any_image_is_looked_at(photos: Path, options: dict) -> None:
    Path("taken").mkdir()
    Path("a file").write_text("")
    seen: list[str] = []
    with pytest.raises(UserError):
        headstart.fit(
            photos, **FAST, **options, callbacks=[ProgressFunction(lambda phase, *_: seen.append(phase))]
        )
    assert not seen


def test_fine_tuning_without_pytorch_is_refused_before_any_image_is_looked_at(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(phase: str, done: int, total: int) -> None:
        raise AssertionError(f"{phase} began")

    monkeypatch.setattr("headstart.backbones.building.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="freeze=5"):
        headstart.fit(photos, freeze=5, callbacks=[ProgressFunction(never)], **FAST)


def test_a_runs_store_that_cannot_be_written_costs_the_listing_and_not_the_run(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a file").write_text("")
    monkeypatch.setenv("HEADSTART_HOME", str(Path("a file").absolute()))
    classifier, run = headstart.fit(photos, **FAST)
    assert any("HEADSTART_HOME" in note for note in run.notes)
    assert headstart.load(run.path).predict(photos) == classifier.predict(photos)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_no_utf8_are_trained_on_listed_and_found_again(photos: Path) -> None:
    os.rename(photos / "discs", os.fsencode(photos) + b"/d\xef\nscs")
    _, run = headstart.fit(photos, **FAST)
    assert "d\\xef\\nscs" in run.classes
    held_out = read_predictions(run.path)["images"]
    assert all(Path(image["file"]).exists() for image in held_out)
    assert any("\udcef" in image["file"] for image in held_out)


def test_a_class_without_training_images_is_named(tmp_path: Path, make_photos) -> None:
    folder = make_photos(tmp_path / "photos", per_class=6)
    for path in (folder / "discs").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="discs"):
        headstart.fit(folder, **FAST)


def test_the_run_folder_may_be_named_but_not_taken(photos: Path, tmp_path: Path) -> None:
    _, run = headstart.fit(photos, out=tmp_path / "mine", **FAST)
    assert run.path == tmp_path / "mine"
    with pytest.raises(RunError, match="is there already"):
        headstart.fit(photos, out=tmp_path / "mine", **FAST)


FIT = f"import sys, headstart; headstart.fit(sys.argv[1], out=sys.argv[2], **{FAST})"


def test_two_fits_at_once_on_one_cache_both_finish_and_agree(photos: Path, tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen([sys.executable, "-c", FIT, str(photos), str(tmp_path / str(number))])
        for number in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    accuracies = [json.loads((tmp_path / str(n) / "run.json").read_text())["accuracy"] for n in range(2)]
    assert accuracies[0] == accuracies[1]
    assert len(RunStore().select()) == 2


def test_fit_killed_at_random_moments_damages_nothing(
    photos: Path, tmp_path: Path, private_folders: Path
) -> None:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIT, str(photos), str(tmp_path / "whole")], check=True)
    whole = time.perf_counter() - begun
    expected = json.loads((tmp_path / "whole" / "run.json").read_text())["accuracy"]
    moments = random.Random(0)
    for attempt in range(8):
        if attempt % 4 == 0:  # kills must also fall on a cold cache
            import shutil

            shutil.rmtree(private_folders / "cache", ignore_errors=True)
        command = [sys.executable, "-c", FIT, str(photos), str(tmp_path / str(attempt))]
        with started(command, stderr=subprocess.DEVNULL) as job:
            time.sleep(moments.uniform(0.2, 1.0) * whole)
            job.send_signal(signal.SIGKILL)
        for run in RunStore().select():
            assert (run.path / "model.onnx").stat().st_size > 0
    _, run = headstart.fit(photos, out=tmp_path / "after", **FAST)
    assert dict(run.accuracy) == expected
    if sys.platform != "win32":  # there, a day has to pass
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_interrupting_with_ctrl_c_says_what_is_kept(photos: Path, private_folders: Path) -> None:
    command = [Path(sys.executable).with_name("headstart"), "fit", photos, "--backbone", "builtin"]
    endless = [*command, "--head", "softmax", "--epochs", "9999999"]
    with started(endless, stderr=subprocess.PIPE) as job:
        until = time.monotonic() + 60
        while not (private_folders / "cache" / "features").exists() and time.monotonic() < until:
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "kept" in errors and "Traceback" not in errors
    assert list(Path().glob("runs/*")) == []


# --- fine-tuned stages and training from scratch


def test_fine_tuning_stages_trains_them_and_saves_a_model_that_predicts_the_same(photos: Path) -> None:
    _, run = headstart.fit(photos, freeze=7, epochs=2, **FAST)
    assert [entry["epoch"] for entry in run.history] == [1, 2]
    record = json.loads((run.path / "run.json").read_text())
    assert record["depth"] == 7 and record["head"] == "softmax" and record["parity"] < 2e-3
    assert run.accuracy["validation"] is not None and run.accuracy["validation"] > 0.5


def test_what_is_saved_predicts_in_float32_in_whatever_the_features_were_computed(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if select("openvino").precision != "bf16":
        pytest.skip("this processor has no bf16, so features are computed in float32 too")
    classifier, run = headstart.fit(photos, freeze=7, epochs=1, backbone="builtin", size=64)
    assert classifier.precision == "f32"
    difference = json.loads((run.path / "run.json").read_text())["parity"]
    assert 0 <= difference <= headstart.classifier.classifier._PARITY["bf16"]
    for precision in ("bf16", "f32"):
        monkeypatch.setitem(headstart.classifier.classifier._PARITY, precision, -1.0)
    with pytest.raises(ParityError):
        headstart.fit(photos, freeze=7, epochs=1, backbone="builtin", size=64)


def test_frozen_stages_and_their_norm_buffers_stay_bit_identical(photos: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from headstart.backbones import load_backbone

    _, run = headstart.fit(photos, freeze=8, epochs=1, **FAST)
    before = load_backbone("builtin", size=64).module()
    frozen, trainable = before.split(8)
    saved = {
        name.removeprefix("tail."): value
        for name, value in load_file(run.path / "model.safetensors").items()
        if name.startswith("tail.")
    }
    assert set(saved) == set(trainable.state_dict())  # what is frozen is not even written
    assert any(not torch.equal(saved[name], value) for name, value in trainable.state_dict().items())
    again = before.joined(trainable, depth=8).split(8)[0].state_dict()
    assert set(again) == set(frozen.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in frozen.state_dict().items())


def test_scratch_trains_every_stage_from_random_weights(photos: Path) -> None:
    _, run = headstart.fit(photos, scratch=True, epochs=2, backbone="builtin", size=32, precision="f32")
    assert run.config.depth == 0 and not run.config.pretrained
    assert len(run.history) == 2
    assert json.loads((run.path / "run.json").read_text())["parity"] < 2e-3


FINE_TUNE = """
import os, signal, sys
from pathlib import Path
import timm, headstart.training
from headstart.runs.callbacks import ProgressFunction

def fit(name, killed_after):
    def progress(phase, done, total):
        if phase == "epochs" and done == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
    headstart.fit(sys.argv[1], backbone="builtin", size=64, precision="f32", freeze=7, epochs=4,
                  out=Path(sys.argv[2], name), callbacks=[ProgressFunction(progress)])

for name, killed_after in (("whole", None), ("killed", 2), ("resumed", None)):
    child = os.fork()  # PyTorch is imported once for all three
    if not child:
        fit(name, killed_after)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kept = Path(os.environ["HEADSTART_CACHE"], "checkpoints").glob("*")
    print(name, ended, "kept" if any(kept) else "nothing")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_killed_training_goes_on_from_its_last_epoch_with_the_same_result(
    photos: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", FINE_TUNE, str(photos), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "whole 0 nothing",
        f"killed {-signal.SIGKILL} kept",
        "resumed 0 nothing",
    ]
    whole, resumed = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "resumed"))
    assert resumed["history"] == whole["history"]
    assert resumed["accuracy"] == whole["accuracy"]


def test_the_last_layer_is_read_when_asked_for_although_others_are_cached(photos: Path) -> None:
    from headstart.backbones import load_backbone
    from headstart.backbones.runtimes import select
    from headstart.data.dataset import read_dataset
    from headstart.data.images import CENTRE
    from headstart.features import FeatureSpec
    from headstart.training import prepare, train

    _, run = headstart.fit(photos, layers="all", **FAST)
    backbone = load_backbone("builtin", size=64)
    spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,), layers=True)
    runtime = select("openvino", precision="f32")
    prepared = prepare(read_dataset(photos), backbone, spec=spec, runtime=runtime, config=run.config)
    trained = train(prepared, config=replace(run.config, layers="last"))
    assert trained.layers is None and trained.head.weight.shape[0] == backbone.dimensions


@pytest.mark.parametrize(
    ("options", "told"), [({"layers": "all"}, True), ({"layers": "last"}, False), ({}, False)]
)
def test_layers_that_a_softmax_head_does_not_read_are_said(
    photos: Path, options: dict[str, str], told: bool
) -> None:
    _, run = headstart.fit(photos, head="softmax", epochs=1, **FAST, **options)
    assert (
        "layers=all has no effect on a softmax head, which reads the last layer" in "; ".join(run.notes)
    ) is told


@pytest.mark.parametrize("total", [3.0, 2.444, 2.4449])
def test_printed_phases_add_up_to_the_printed_total(total: float) -> None:
    seconds = {
        "startup": 0.3333,
        "choice": 0.1249,
        "check": 0.055,
        "features": 1.005,
        "train": 0.4,
        "save": 0.1,
    }
    shown = cli_fit._phases({**seconds, "total": total})
    spent = [float(each.rpartition(" ")[2]) for each in shown.split(", ")]
    assert sum(spent) == pytest.approx(round(total, 2)) and shown.startswith("startup 0.33, choice 0.12, ")


@pytest.mark.parametrize("options", [{"freeze": 5}, {"scratch": True}])
def test_a_ridge_head_that_would_be_ignored_is_refused_before_the_work(
    photos: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="head=ridge has no effect with"):
        headstart.fit(photos, backbone="builtin@64", head="ridge", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
