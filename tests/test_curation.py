"""Curation: labels put right lie apart from the images, and the head follows at once."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import headstart
from headstart.backbones import runtimes
from headstart.cli import cli
from headstart.curation import (
    Corrections,
    corrections_of,
    most_useful,
    nearest_training_images,
    retrain,
)
from headstart.curation.selection import _spread_out
from headstart.data.dataset import content_hash, read_dataset
from headstart.errors import DatasetError, ImageError, OptionError, RunError
from headstart.runs import Run, RunStore, read_predictions
from headstart.training.saving import same_network

FAST = {"backbone": "builtin", "size": 64, "precision": "f32"}


@pytest.fixture
def run(photos: Path) -> Run:
    return headstart.fit(photos, **FAST)[1]


def _swapped(photos: Path, *, number: int = 4) -> None:
    """Put some bars among the discs."""
    for index in range(number):
        file = photos / "bars" / f"{index:03}.jpg"
        file.rename(photos / "discs" / f"wrong-{index:03}.jpg")


def _content(file: Path) -> str:
    return content_hash(file.read_bytes()).hex()


# ---------------------------------------------------------------------------------------- corrections


def test_a_correction_that_is_confirmed_stays_a_change(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "log.jsonl")
    corrections.add("a.jpg", "round", content="aa", was="square")
    corrections.add("b.jpg", "square", content="bb", was="square")  # it was right
    corrections.add("c.jpg", None, content="cc")  # left out
    corrections.add("a.jpg", "round", content="aa", was="round")  # as the retrained run has it
    assert set(corrections.changes()) == {"aa", "cc"}
    corrections.add("a.jpg", "square", content="aa", was="round")  # back to what it was given as
    assert set(corrections.changes()) == {"cc"}


def test_corrections_add_undo_and_list_in_order(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "some" / "where.jsonl")
    assert corrections.list() == () and corrections.undo() is None
    first = corrections.add("a.jpg", "rose", content="aa", was="tulip")
    second = corrections.add("b.jpg", None, content="bb")
    third = corrections.add("a.jpg", "daisy", content="aa", was="rose")
    assert corrections.list() == (first, second, third)
    assert corrections.current() == {"aa": third, "bb": second}
    assert corrections.undo() == third and corrections.current()["aa"] == first
    assert Corrections(corrections.file).list() == (first, second)  # as another process reads it
    assert (os.stat(corrections.file).st_mode & 0o077) == 0


def test_a_line_cut_short_by_a_crash_costs_nothing_else(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "log.jsonl")
    kept = corrections.add("a.jpg", "rose", content="aa")
    with corrections.file.open("ab") as file:
        file.write(b'{"path": "b.jpg", "con')
    assert corrections.list() == (kept,)
    later = corrections.add("c.jpg", "rose", content="cc")
    assert corrections.list() == (kept, later)


@pytest.mark.parametrize(
    "line",
    ['{"content": ["a"], "label": "x"}', '{"content":' * 5000, '{"content": "a", "label": 3}', "[]", "\\xff"],
)
def test_a_line_that_is_not_ours_costs_nothing_else(tmp_path: Path, line: str) -> None:
    corrections = Corrections(tmp_path / "c.jsonl")
    kept = corrections.add("a.jpg", "cat", content="00")
    with corrections.file.open("a") as file:
        file.write(f"{line}\n")
    other = corrections.add("b.jpg", "dog", content="01")
    assert corrections.list() == (kept, other)


def test_corrections_are_read_from_a_regular_file_alone(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").symlink_to("/dev/zero")
    with pytest.raises(OptionError, match="not a regular file"):
        Corrections(tmp_path / "c.jsonl").list()


def test_threads_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"

    def add(worker: int) -> None:
        for number in range(20):
            Corrections(file).add("x", "rose", content=f"{worker}-{number}")

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Corrections(file).current()) == 80


def test_bad_corrections_are_refused(tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "log.jsonl")
    with pytest.raises(OptionError, match="blank"):
        corrections.add("a.jpg", " ", content="aa")
    with pytest.raises(OptionError, match="missing"):
        corrections.add(tmp_path / "missing.jpg", "rose")
    assert not corrections.file.exists()


def test_a_new_fit_takes_the_corrected_labels(photos: Path, tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "log.jsonl")
    moved, gone, extra = (photos / "bars" / name for name in ("000.jpg", "001.jpg", "002.jpg"))
    corrections.add("bars/000.jpg", "discs", content=_content(moved), was="bars")
    corrections.add("bars/001.jpg", None, content=_content(gone), was="bars")
    extra = extra.rename(tmp_path / "new.jpg")
    corrections.add(extra, "rings")
    corrections.add("bars/lost.jpg", "discs", content="00" * 16)
    before = read_dataset(photos)
    after = corrections.apply(before)
    labels = {sample.name: after.classes[sample.label] for sample in after.samples}
    assert labels["bars/000.jpg"] == "discs" and "bars/001.jpg" not in labels
    assert labels[str(extra)] == "rings" and after.classes == ("bars", "discs", "rings", "squares")
    assert len(after) == len(before)  # one left out, one added
    assert [item.name for item in after.skipped] == ["bars/lost.jpg"]
    moved.rename(photos / "bars" / "renamed.jpg")  # still found, by its content
    renamed = corrections.apply(read_dataset(photos))
    assert {s.name: renamed.classes[s.label] for s in renamed.samples}["bars/renamed.jpg"] == "discs"


def test_fit_on_the_command_line_takes_a_file_of_corrections(photos: Path, tmp_path: Path) -> None:
    corrections = Corrections(tmp_path / "log.jsonl")
    corrections.add("bars/000.jpg", None, content=_content(photos / "bars" / "000.jpg"))
    words = ["fit", str(photos), "--backbone", "builtin", "--corrections", str(corrections.file), "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert sum(json.loads(result.stdout)["images"].values()) == 47
    words[5] = str(tmp_path / "none.jsonl")
    assert "none.jsonl" in str(CliRunner().invoke(cli, words).exception)


# -------------------------------------------------------------------------------------------- retrain


def test_retraining_without_corrections_gives_the_same_model(run: Run) -> None:
    classifier, again = retrain(run, corrections_of(run))
    assert (again.path / "model.onnx").read_bytes() == (run.path / "model.onnx").read_bytes()
    assert again.accuracy == run.accuracy and again.path.parent == run.path.parent
    assert RunStore().find(again.id).head_fit["retrained_from"] == run.id
    assert classifier.classes == run.classes


def test_retraining_learns_what_a_fit_on_the_corrected_folder_learns(photos: Path) -> None:
    _swapped(photos)
    _, run = headstart.fit(photos, layers="last", **FAST)
    corrections = corrections_of(run)
    for file in sorted((photos / "discs").glob("wrong-*")):
        corrections.add(f"discs/{file.name}", "bars", content=_content(file), was="discs")
    classifier, retrained = retrain(run, corrections)
    _, fresh = headstart.fit(corrections.apply(read_dataset(photos)), layers="last", **FAST)
    assert retrained.images == fresh.images and retrained.accuracy == fresh.accuracy
    mine, theirs = (read_predictions(each.path) for each in (retrained, fresh))
    assert mine["split"] == theirs["split"]  # every image, its label and its side
    assert [e["probability"] for e in mine["images"]] == pytest.approx(
        [e["probability"] for e in theirs["images"]], abs=1e-4
    )
    wrong = next((photos / "discs").glob("wrong-*"))
    saved = classifier.predict(wrong)[0]
    assert dict(saved.top).keys() == {"bars", "discs", "squares"}


def test_retraining_touches_neither_images_nor_the_network(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in photos.rglob("*.jpg")}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was read, or a network compiled")

    monkeypatch.setattr("headstart.data.sources.FileSource.read", refuse)
    monkeypatch.setattr("headstart.backbones.runtimes.compiling.compile_cached", refuse)
    corrections = corrections_of(run)
    entry = read_predictions(run.path)["images"][0]
    corrections.add(entry["path"], None, content=entry["content"])
    _, again = retrain(run, corrections)
    assert again.cache["misses"] == 0
    monkeypatch.undo()
    assert before == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in photos.rglob("*.jpg")}
    assert runtimes.select().name  # undone


def test_a_retrained_run_can_be_retrained_and_corrections_taken_back(run: Run) -> None:
    corrections = corrections_of(run)
    entry = read_predictions(run.path)["images"][0]
    corrections.add(entry["path"], None, content=entry["content"])
    _, without = retrain(run, corrections)
    assert sum(without.images.values()) == 47
    assert corrections_of(without).file == corrections.file
    corrections.undo()
    _, back = retrain(without, corrections_of(without))
    assert sum(back.images.values()) == 48 and back.accuracy == run.accuracy


def test_a_changed_file_is_read_again_and_a_vanished_one_left_out(run: Run, photos: Path) -> None:
    (photos / "bars" / "003.jpg").write_bytes((photos / "squares" / "003.jpg").read_bytes())
    (photos / "bars" / "004.jpg").unlink()
    _, again = retrain(run, corrections_of(run))
    assert sum(again.images[side] for side in ("train", "validation", "test")) == 47
    images = {entry["path"]: entry for entry in json.loads((again.path / "images.json").read_text())}
    assert images["bars/003.jpg"]["content"] == _content(photos / "squares" / "003.jpg")


def test_new_photographs_and_new_classes_come_to_the_training_side(
    run: Run, tmp_path: Path, make_photos: Callable[..., Path]
) -> None:
    fresh = make_photos(tmp_path / "fresh", per_class=3, classes=("bars",), seed=7)
    corrections = corrections_of(run)
    for number, file in enumerate(sorted(fresh.rglob("*.jpg"))):
        corrections.add(file, "rings" if number else "bars")
    classifier, again = retrain(run, corrections)
    assert again.images["train"] == run.images["train"] + 3
    assert again.images["validation"] == run.images["validation"]
    assert classifier.classes == ("bars", "discs", "squares", "rings")
    assert len(classifier.predict(fresh)[0].top) == 4
    assert again.cache["misses"] == 3


def test_a_class_that_lost_all_its_images_is_gone(run: Run) -> None:
    corrections = corrections_of(run)
    for entry in json.loads((run.path / "images.json").read_text()):
        if entry["label"] == "squares":
            corrections.add(entry["path"], None, content=entry["content"])
    classifier, again = retrain(run, corrections)
    assert classifier.classes == ("bars", "discs") and any("squares" in note for note in again.notes)


def test_what_cannot_be_retrained_says_so(run: Run, photos: Path) -> None:
    corrections = corrections_of(run)
    for entry in json.loads((run.path / "images.json").read_text()):
        if entry["label"] != "bars":
            corrections.add(entry["path"], None, content=entry["content"])
    with pytest.raises(DatasetError, match="two classes"):
        retrain(run, corrections)
    entries = json.loads((run.path / "images.json").read_text())
    old = [{key: entry[key] for key in ("path", "label", "split")} for entry in entries]
    (run.path / "images.json").write_text(json.dumps(old))
    with pytest.raises(RunError, match="earlier version"):
        corrections_of(run)


def test_arrays_are_retrained_from_the_cache_alone() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    images[::2] //= 4
    _, run = headstart.fit((images, np.arange(24) % 2), **FAST)
    corrections = corrections_of(run)
    corrections.add("image 3", "0", content=content_hash(images[3]).hex(), was="1")
    _, again = retrain(run, corrections)
    labels = {e["path"]: e["label"] for e in json.loads((again.path / "images.json").read_text())}
    assert labels["image 3"] == "0" and labels["image 5"] == "1"


def test_a_softmax_head_is_trained_again_too(photos: Path) -> None:
    _, run = headstart.fit(photos, head="softmax", epochs=2, **FAST)
    _, again = retrain(run, corrections_of(run))
    assert again.config.head == "softmax" and len(again.history) == 2


def test_the_comparison_with_the_checked_model_sees_another_network(run: Run, photos: Path) -> None:
    _, other = headstart.fit(photos, size=96, precision="f32")
    assert same_network(run.path / "model.onnx", run.path / "model.onnx")
    assert not same_network(run.path / "model.onnx", other.path / "model.onnx")


# ------------------------------------------------------------------------------------------ selection


def test_the_nearest_training_image_to_a_training_image_is_itself(run: Run, photos: Path) -> None:
    images = json.loads((run.path / "images.json").read_text())
    entry = next(each for each in images if each["split"] == "train" and each["label"] == "bars")
    file = photos / entry["path"]
    found = nearest_training_images(run, file, k=5)
    assert found[0].path == entry["path"] and found[0].similarity == pytest.approx(1, abs=1e-3)
    assert found[0].file == str(file) and [n.similarity for n in found] == sorted(
        (n.similarity for n in found), reverse=True
    )
    assert sum(neighbour.label == "bars" for neighbour in found) >= 3
    assert nearest_training_images(run, file.read_bytes(), k=5) == found
    held_out = {each["path"] for each in images if each["split"] != "train"}
    assert not held_out & {neighbour.path for neighbour in nearest_training_images(run, file, k=99)}


def test_neighbours_carry_the_corrected_label(run: Run, photos: Path) -> None:
    images = json.loads((run.path / "images.json").read_text())
    entry = next(each for each in images if each["split"] == "train")
    corrections_of(run).add(entry["path"], "rings", content=entry["content"])
    assert nearest_training_images(run, photos / entry["path"], k=1)[0].label == "rings"


def test_bad_questions_say_what_is_wrong(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match="broken"):
        nearest_training_images(run, tmp_path / "broken.jpg")
    with pytest.raises(OptionError, match="k=0"):
        nearest_training_images(run, tmp_path / "broken.jpg", k=0)


def test_suggestions_are_unlabelled_uncertain_and_unlike_each_other(
    run: Run, photos: Path, tmp_path: Path, make_photos: Callable[..., Path]
) -> None:
    fresh = make_photos(tmp_path / "fresh", per_class=8, seed=3)
    known = photos / "bars" / "000.jpg"
    (fresh / "bars" / "known.jpg").write_bytes(known.read_bytes())
    (fresh / "bars" / "twin.jpg").write_bytes((fresh / "bars" / "001.jpg").read_bytes())
    (fresh / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = most_useful(run, fresh, k=2)
    assert len(found) == 2 and len({each.content for each in found}) == 2
    everything = most_useful(run, fresh, k=99)
    assert len(everything) == 24  # neither the known one, nor the twin, nor the broken one
    median = float(np.median([each.margin for each in everything]))
    assert min(each.margin for each in found) <= median
    assert set(found[0].to_dict()) == {
        "path",
        "label",
        "probability",
        "margin",
        "content",
        "file",
        "member",
    }
    corrections_of(run).add(found[0].path, "bars", content=found[0].content)
    assert found[0].content not in {each.content for each in most_useful(run, fresh, k=99)}


def test_picks_are_the_farthest_from_what_is_known() -> None:
    angles = np.deg2rad([0, 2, 90, 92, 180])
    candidates = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    known = np.array([[1.0, 0.0]], np.float32)
    assert _spread_out(candidates, known, k=2).tolist() == [4, 2]
