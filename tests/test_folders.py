"""Folders as strangers bring them: splits under many names, links, litter, our own output."""

import os
import socket
from pathlib import Path

import pytest

from headstart.data.dataset import are_splits, list_unlabelled, read_dataset
from headstart.data.dataset.split_names import sides_of, split_of
from headstart.data.sources import folders
from headstart.errors import DatasetError, ImageError
from headstart.files import mark_output
from listed_files import fill


def left_out(dataset):
    return {item.name: item.reason for item in dataset.skipped if not item.litter}


def passed_over(dataset):
    return {item.name: item.files for item in dataset.skipped if item.litter}


def names(dataset):
    return [sample.name for sample in dataset.samples]


def two_classes(root, *tops):
    for number, top in enumerate(tops):
        fill(root, f"{top}/ants/{number}1.jpg", f"{top}/bees/{number}2.jpg")
    return root


# --- splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *[
            (name, "train")
            for name in ("train", "Training", "TRAIN_SET", "train2017", "seg_train", "trainval")
        ],
        *[
            (name, "train")
            for name in ("images_train", "TrainingImages", "train-data", "Trainingsdaten", "trainset")
        ],
        *[
            (name, "validation")
            for name in ("val", "valid", "Validation", "dev", "dev_set", "val_images", "val01")
        ],
        *[
            (name, "test")
            for name in ("test", "tests", "holdout", "hold-out", "Held Out", "testdaten", "eval")
        ],
        *[
            (name, None)
            for name in ("trains", "testudo", "ants", "valley", "invalid", "train_ants", "2017", "set")
        ],
    ],
)
def test_a_name_means_a_side_where_it_says_nothing_else(name, side):
    assert split_of(name) == side


def test_an_eval_is_what_the_other_names_leave():
    assert sides_of(["train", "eval"]) == {"train": "train", "eval": "test"}
    assert sides_of(["train", "eval", "test"])["eval"] == "validation"
    assert sides_of(["flowers_train", "flowers_val"]) == {
        "flowers_train": "train",
        "flowers_val": "validation",
    }
    assert sides_of(["flowers_train"]) == {}


@pytest.mark.parametrize(
    "tops",
    [
        ("train", "dev"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("cifar-train", "cifar-test"),
    ],
)
def test_folders_that_mean_splits_are_splits(tmp_path, tops):
    dataset = read_dataset(two_classes(tmp_path, *tops))
    assert dataset.classes == ("ants", "bees")
    assert {sample.split for sample in dataset.samples} == {"train", split_of(tops[1].split("-")[-1])}
    assert are_splits(tops)


def test_splits_inside_class_folders_are_splits(tmp_path):
    fill(tmp_path, *(f"{kind}/{side}/{side}.jpg" for kind in ("ants", "bees") for side in ("train", "val")))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("ants", "bees")
    assert [sample.split for sample in dataset.samples] == ["train", "validation"] * 2
    assert read_dataset(tmp_path, split_by_folder=False).samples[0].split is None


@pytest.mark.parametrize(
    "files",
    [
        ["alpha/ants/1.jpg", "alpha/bees/2.jpg", "beta/ants/3.jpg", "beta/Bees/4.jpg"],
        ["2019/ants/1.jpg", "2019/bees/2.jpg", "2020/ants/3.jpg", "2020/bees/4.jpg"],
        ["train/ants/1.jpg", "train/bees/2.jpg", "more/ants/3.jpg", "more/bees/4.jpg"],
        ["ants/train/1.jpg", "ants/val/2.jpg", "bees/3.jpg"],
        ["ants_train/1.jpg", "ants_test/2.jpg", "bees_train/3.jpg", "bees_test/4.jpg"],
        ["ants/1.jpg", "bees/2.jpg", "test/3.jpg"],
        ["alpha/ants/1.jpg", "alpha/bees/2.jpg", "beta/ants/3.jpg", "beta/wasps/4.jpg"],
    ],
)
def test_folders_that_mean_one_thing_or_another_are_asked_about(tmp_path, files):
    fill(tmp_path, *files)
    with pytest.raises(DatasetError, match="--splits none") as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    assert set(read_dataset(tmp_path, split_by_folder=False).classes) == {
        name.split("/")[0] for name in files
    }


@pytest.mark.parametrize(
    "files",
    [
        ["train/1.jpg", "car/2.jpg", "plane/3.jpg"],
        ["train/1.jpg", "test/2.jpg", "car/3.jpg"],
        ["test/1.jpg", "hotel/2.jpg"],
        ["ants/sub/1.jpg", "bees/sub/2.jpg"],
        ["valid/1.jpg", "invalid/2.jpg"],
        ["ants/1.jpg", "bees/2.jpg", "misc/only.jpg"],
    ],
)
def test_other_folders_are_classes_whatever_they_are_called(tmp_path, files):
    dataset = read_dataset(fill(tmp_path, *files))
    assert list(dataset.classes) == sorted({name.split("/")[0] for name in files})


def test_unlabelled_test_images_beside_splits_are_left_out_by_name(tmp_path):
    two_classes(tmp_path, "train", "val")
    fill(tmp_path, "test/9.jpg")
    assert left_out(read_dataset(tmp_path)) == {"test/9.jpg": "lies in no class folder, so it has no label"}


def test_a_folder_around_the_classes_is_named(tmp_path):
    fill(tmp_path, "photos/ants/1.jpg", "photos/bees/2.jpg")
    with pytest.raises(DatasetError, match=r"only one class \(photos\).*\(ants, bees\), give .*/photos$"):
        read_dataset(tmp_path)


# --- links and what is no file ----------------------------------------------------------------------------


def test_dangling_links_loops_and_special_files_are_left_out_by_name(tmp_path):
    fill(tmp_path, "ants/1.jpg", "bees/2.jpg")
    (tmp_path / "ants/gone.jpg").symlink_to("/nonexistent/1.jpg")
    (tmp_path / "ants/self.jpg").symlink_to("self.jpg")
    (tmp_path / "bees/up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "bees/pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(tmp_path / "bees")
        listening.bind("socket.jpg")
        os.chdir(here)
    dataset = read_dataset(tmp_path)
    assert names(dataset) == ["ants/1.jpg", "bees/2.jpg"]
    assert left_out(dataset) == {
        "ants/gone.jpg": "a link to /nonexistent/1.jpg, which cannot be reached",
        "ants/self.jpg": "a link to self.jpg, which cannot be reached",
        "bees/pipe.jpg": "a pipe, not a file",
        "bees/socket.jpg": "a socket, not a file",
        "bees/up": "a link back to a folder that it lies in",
    }


def test_a_folder_that_is_linked_twice_is_read_twice(tmp_path):
    fill(tmp_path / "store", "ants/1.jpg", "bees/2.jpg")
    for side in ("train", "val"):
        (tmp_path / "d" / side).mkdir(parents=True)
        for kind in ("ants", "bees"):
            (tmp_path / "d" / side / kind).symlink_to(tmp_path / "store" / kind)
    dataset = read_dataset(tmp_path / "d")
    assert [sample.split for sample in dataset.samples] == ["train", "train", "validation", "validation"]
    (tmp_path / "root").symlink_to(tmp_path / "d")
    assert len(read_dataset(tmp_path / "root")) == 4


def test_links_to_folders_of_links_do_not_double_for_ever(tmp_path):
    for level in range(40):
        (tmp_path / "levels" / str(level)).mkdir(parents=True)
        for name in ("a", "b"):
            (tmp_path / "levels" / str(level) / name).symlink_to(tmp_path / "levels" / str(level + 1))
    fill(tmp_path / "levels" / "40", "1.jpg")
    dataset = list_unlabelled([tmp_path / "levels" / "20"])
    assert len(dataset.samples) <= folders.MOST_VISITS
    assert any("the same folder as in" in item.reason for item in dataset.skipped)


def test_a_folder_that_the_system_refuses_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "ants/1.jpg", "bees/2.jpg", "bees/shut/3.jpg")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out(read_dataset(tmp_path)) == {
        "bees/shut/": "the folder cannot be listed: Permission denied"
    }


def test_a_file_that_became_a_pipe_is_an_error_and_no_wait(tmp_path):
    dataset = read_dataset(fill(tmp_path, "a/1.jpg", "b/2.jpg"))
    (tmp_path / "a/1.jpg").unlink()
    os.mkfifo(tmp_path / "a/1.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        dataset.samples[0].source.read()


# --- litter and our own output ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        ".Trash-1000",
        "@Recycle",
        *("#snapshot", ".thumbnails", "__MACOSX", "found.000", "LOST.DIR"),
    ],
)
def test_folders_of_systems_and_network_drives_are_passed_over(tmp_path, folder):
    fill(tmp_path, "ants/1.jpg", "bees/2.jpg", f"{folder}/x.jpg", f"ants/{folder}/1.jpg/THUMB_M.jpg")
    (tmp_path / "bees" / folder).mkdir()
    dataset = read_dataset(tmp_path)
    assert names(dataset) == ["ants/1.jpg", "bees/2.jpg"]
    assert passed_over(dataset) == {f"{folder}/": 1, f"ants/{folder}/": 1}


def test_names_with_blanks_commas_and_newlines_are_classes_like_others(tmp_path):
    dataset = read_dataset(fill(tmp_path, "red, ripe/1 a.jpg", "not\nripe/2.jpg"))
    assert dataset.classes == ("not\\nripe", "red, ripe")


def test_what_headstart_wrote_is_passed_over_wherever_it_lies(tmp_path):
    fill(tmp_path, "ants/1.jpg", "bees/2.jpg", "why/1.heat.png", "ants/model/model.onnx")
    fill(tmp_path, "runs/first/run.json", "runs/first/model.onnx", "runs/second/run.json")
    fill(tmp_path, "comparisons/x/comparison.json")
    mark_output(tmp_path / "why")
    mark_output(tmp_path / "ants/model")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("ants", "bees")
    assert names(dataset) == ["ants/1.jpg", "bees/2.jpg"]
    assert passed_over(dataset) == {
        "ants/model/": 2,
        "comparisons/x/": 1,
        "runs/first/": 2,
        "runs/second/": 1,
        "why/": 2,
    }


def test_a_record_beside_photographs_is_somebody_elses(tmp_path):
    dataset = read_dataset(fill(tmp_path, "ants/1.jpg", "ants/run.json", "bees/2.jpg"))
    assert dataset.classes == ("ants", "bees")
    assert "ants/run.json" in left_out(dataset)


def test_images_to_predict_come_with_what_is_passed_over(tmp_path):
    fill(tmp_path, "new/a.jpg", "new/notes.txt", "new/more.zip", "new/.hidden")
    (tmp_path / "new/gone.jpg").symlink_to("/nope.jpg")
    found = list_unlabelled([tmp_path / "new"])
    assert [Path(sample.name).name for sample in found.samples] == ["a.jpg"]
    assert {Path(item.name).name for item in found.skipped} == {
        "notes.txt",
        "more.zip",
        ".hidden",
        "gone.jpg",
    }
