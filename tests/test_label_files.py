"""Label files of other programs: what is written is read as it was, and what they write is understood."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headstart.cli import cli
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.dataset.label_files import FORMS, label_file
from headstart.errors import DatasetError, OptionError
from listed_files import PIXEL


def told(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Labels by the last part of each name."""
    return {
        Path(sample.name).name: tuple(sorted(dataset.classes[label] for label in dataset.classes_of(sample)))
        for sample in dataset.samples
    }


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PIXEL)
    return folder


def write(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value))
    return file


@pytest.mark.parametrize("form", FORMS)
def test_labels_come_back_as_they_were_written(form: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", "cat/1 ä.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg")
    plain = read_dataset(folder)
    read = read_dataset(write(folder / "out.json", json.loads(label_file(plain, form))))
    assert told(read) == told(plain) and read.task == "single-label" and read.classes == ("cat", "dog")
    table = folder / "several.csv"
    table.write_text("path,label\ncat/1 ä.jpg,cat|dog\ncat/2.jpg,cat\ndog/3.jpg,dog\ndog/4.jpg,dog\n")
    several = read_dataset(table, task="multi-label")
    read = read_dataset(write(folder / "out.json", json.loads(label_file(several, form))))
    assert told(read) == told(several) and read.task == "multi-label"


def test_a_label_studio_export_is_read_with_the_last_word_of_each_task(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "photos/d.jpg")

    def task(path: str, *choices: str) -> dict[str, Any]:
        made = [
            {"result": [{"to_name": "picture", "type": "choices", "value": {"choices": [each]}}]}
            for each in choices
        ]
        return {"data": {"id": "7", "picture": path}, "annotations": made}

    tasks = [
        task("/data/local-files/?d=photos%2Fa.jpg", "cat", "dog"),
        task("/data/upload/3/0a1b2c3d-b.jpg", "cat"),
        task("photos/c.jpg", "dog"),
        {"data": {"picture": "photos/d.jpg"}, "annotations": []},
    ]
    tasks[2]["annotations"].append({"was_cancelled": True, "result": []})
    found = read_dataset(write(folder / "export.json", tasks), for_training=False)
    assert told(found) == {"a.jpg": ("dog",), "b.jpg": ("cat",), "c.jpg": ("dog",)}
    assert any("without a label and left out: 1" in note for note in found.notes)


def test_samples_of_fiftyone_have_their_splits_and_names_without_endings_find_files(tmp_path: Path) -> None:
    names = [f"data/{name}.jpg" for name in "abcd"]
    folder = pictures(tmp_path, *names)
    samples = [
        {
            "filepath": name,
            "tags": ["x", "test" if number == 3 else "train"],
            "guess": {"_cls": "Classification", "label": "no"},
            "ground_truth": {"_cls": "Classification", "label": label},
        }
        for number, (name, label) in enumerate(zip(names, ["cat", "dog", "cat", "dog"], strict=True))
    ]
    found = read_dataset(write(folder / "samples.json", {"name": "x", "samples": samples}))
    assert told(found)["b.jpg"] == ("dog",)
    assert [sample.split for sample in found.samples].count("test") == 1
    (folder / "samples.json").unlink()
    write(folder / "labels.json", {"classes": ["cat", "dog"], "labels": {"a": 0, "b": 1, "c": 0, "d": 1}})
    assert told(read_dataset(folder)) == told(found)


COCO: dict[str, Any] = {
    "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [{"image_id": 5, "category_id": 1}, {"image_id": 6, "category_id": 2}],
}
CLASS = {"_cls": "Classification", "label": "cat"}
TWO_CONTROLS = [
    {"from_name": name, "type": "choices", "value": {"choices": [name]}} for name in ("species", "quality")
]
BOX = {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (COCO | {"annotations": [BOX]}, "boxes"),
        (COCO | {"annotations": [{"image_id": 5, "category_id": 9}]}, "KeyError: 9"),
        (COCO | {"annotations": [3]}, "not as its program writes it"),
        (COCO | {"images": {"a": 1}}, "not as its program writes it"),
        ({"labels": {"a": 7}, "classes": ["cat", "dog"]}, "2 classes, and the class"),
        ({"labels": {"a": -1}, "classes": ["cat", "dog"]}, "2 classes, and the class"),
        ({"samples": [{"filepath": "a.jpg", "x": {"_cls": "Detections"}}]}, "boxes"),
        ([{"data": {}}], "a task has 0 images"),
        ([{"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "rectanglelabels"}]}]}], "boxes"),
        (
            {"samples": [{"filepath": "a.jpg", "predictions": CLASS, "label": CLASS}]},
            "several fields of labels",
        ),
        ([{"data": {"i": "a.jpg"}, "annotations": [{"result": TWO_CONTROLS}]}], "several controls"),
        ([{"data": {"i": "a.jpg", "j": "b.jpg"}, "annotations": []}], "2 images"),
        ({"name": "package"}, "no labels in a form that is known"),
        ([], "no labels in a form that is known"),
        ({"labels": {}, "x": json.loads("[" * 99 + "]" * 99)}, "nested deeper"),
    ],
)
def test_what_is_of_another_form_or_damaged_is_one_line(value: Any, said: str, tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(DatasetError, match=said) as error:
        read_dataset(write(tmp_path / "labels.json", value))
    assert len(str(error.value)) < 400 + len(str(tmp_path)) and "\n" not in str(error.value)


def test_the_command_writes_what_fit_reads_and_refuses_what_it_cannot_write(photos: Path) -> None:
    out = photos / "labels.json"
    words = ["labels", str(photos), "--to", "coco", "--out", str(out)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.stdout == f"48 images, 3 classes; saved in {out}\n"
    assert told(read_dataset(out)) == told(read_dataset(photos))
    for wrong, said in (
        (["--to", "voc"], "expected one of coco, label-studio, fiftyone"),
        (["--out", "no/x"], "in a folder that exists"),
    ):
        with pytest.raises(OptionError, match=said):
            CliRunner().invoke(cli, [*words, *wrong], catch_exceptions=False)
