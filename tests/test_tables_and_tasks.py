"""Tables of several labels, numbers, groups and weights: taken, said, or refused with the row."""

import pytest

from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError
from headstart.heads.tasks import MULTI_LABEL, REGRESSION
from listed_files import fill, write


@pytest.fixture
def photos(tmp_path):
    """0.jpg to 7.jpg."""
    fill(tmp_path, *(f"{number}.jpg" for number in range(8)))
    return tmp_path


def read(photos, text, *, name="table.csv", **options):
    return read_dataset(write(photos, {name: text}) / name, **options)


def said(dataset):
    """Every image's labels, as the data set says them."""
    return {sample.name.rpartition("/")[2]: dataset.label_of(sample) for sample in dataset.samples}


# --- a table beside class folders ------------------------------------------------------------------------


@pytest.fixture
def days(tmp_path):
    """Twelve photographs in two folders that are no classes of several labels."""
    files = [f"day{1 + number % 2}/{number}.jpg" for number in range(12)]
    fill(tmp_path, *files)
    return tmp_path, files


@pytest.mark.parametrize("task", [None, MULTI_LABEL])
@pytest.mark.parametrize("rows", [11, 12])
@pytest.mark.parametrize(
    ("header", "cells"),
    [("path,label", ("cat", "dog", "cat|dog", "dog")), ("path,cat,dog", ("1,0", "0,1", "1,1", "0,1"))],
)
def test_a_table_of_several_labels_goes_before_folders_however_few_it_names(days, header, cells, rows, task):
    folder, files = days
    lines = [f"{file},{cells[number % 4]}" for number, file in enumerate(files[:rows])]
    dataset = read_dataset(write(folder, {"labels.csv": "\n".join([header, *lines])}), task=task)
    assert dataset.task == MULTI_LABEL and dataset.classes == ("cat", "dog") and len(dataset) == rows
    told = [note for note in dataset.notes if "not by the folders" in note]
    assert [note.rpartition("; ")[2] for note in told] == ["images that are not in it: 1"] * (rows == 11)


@pytest.mark.parametrize(("task", "header"), [(MULTI_LABEL, "path,size,cat"), (REGRESSION, "path,size")])
def test_folders_that_cannot_have_the_labels_asked_for_do_not_stand_in_for_a_table(days, task, header):
    folder, files = days
    width = header.count(",")
    lines = [",".join([file, *["7"] * width]) for file in files]
    write(folder, {"about.csv": "\n".join([header, *lines])})
    with pytest.raises(DatasetError, match=r"about\.csv: .*--label-column"):
        read_dataset(folder, task=task)
    assert read_dataset(folder).classes == ("day1", "day2")


def test_a_table_with_splits_goes_before_folders_and_one_with_labels_alone_is_said(days):
    folder, files = days
    rows = [f"{file},{file[:4]}" for file in files[:8]]
    write(folder, {"labels.csv": "\n".join(["path,label", *rows])})
    alike = read_dataset(folder)
    assert len(alike) == 12
    assert alike.notes[0].endswith("read by the folders; the table says the same of 8 images and lacks 4")
    sides = [f"{row},{'test' if number < 4 else 'train'}" for number, row in enumerate(rows)]
    write(folder, {"labels.csv": "\n".join(["path,label,split", *sides])})
    split = read_dataset(folder)
    assert [sample.split for sample in split.samples] == ["test"] * 4 + ["train"] * 4
    assert split.notes[-1].endswith("images that are not in it: 4")


# --- rows of one image -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [None, MULTI_LABEL])
@pytest.mark.parametrize(
    ("column", "cells", "options", "message"),
    [
        ("patient", ("A", "B"), {"groups": "patient"}, "row 3: 0.jpg has group 'B' here and 'A' in row 2"),
        ("patient", ("", "B"), {"groups": "patient"}, "row 3: 0.jpg has group 'B' here and none in row 2"),
        ("w", ("1", "5"), {"weights_column": "w"}, "row 3: 0.jpg has weight '5' here and '1' in row 2"),
        ("split", ("train", "test"), {}, "row 3: 0.jpg has split 'test' here and 'train' in row 2"),
    ],
)
@pytest.mark.parametrize("second", ["cat", "dog"])
def test_rows_of_one_image_have_one_split_group_and_weight(
    photos, column, cells, options, message, second, task
):
    text = f"path,label,{column}\n0.jpg,cat,{cells[0]}\n0.jpg,{second},{cells[1]}\n1.jpg,dog,{cells[1]}\n"
    with pytest.raises(DatasetError, match=message) as refused:
        read(photos, text, task=task, **options)
    assert "--task" not in str(refused.value)


@pytest.mark.parametrize("task", ["single-label", REGRESSION])
@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.jpg,1\n0.jpg,2\n1.jpg,2\n",
        "path,cat,dog\n0.jpg,1,1\n1.jpg,0,1\n",
        "path,cat,dog\n0.jpg,0,0\n1.jpg,0,1\n",
        "path,label\n0.jpg,a|b\n1.jpg,\n",
    ],
)
def test_another_task_is_proposed_only_where_none_was_said(photos, text, task):
    with pytest.raises(DatasetError, match=r"row [23]: ") as refused:
        read(photos, text, task=task)
    assert "--task" not in str(refused.value)


# --- groups ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", ["{camera}_*.jpg", "cam*.jpg", "{}_x"])
@pytest.mark.parametrize("place", ["", "table.csv"])
def test_a_pattern_without_a_group_is_told_what_it_lacks(photos, groups, place):
    write(photos, {"table.csv": "path,label\n0.jpg,a\n1.jpg,b\n"})
    with pytest.raises(DatasetError, match=r"--groups .*: a pattern of names needs \{group\}"):
        read_dataset(photos / place, groups=groups)


def test_rows_without_a_group_are_counted(photos):
    text = "path,label,patient\n0.jpg,a,x\n1.jpg,b,\n2.jpg,a,x\n3.jpg,b,{}\n"
    notes = read(photos, text.format(""), groups="patient").notes
    assert notes[-1].endswith("table.csv: rows without a group: 2, each by itself")
    full = text.format("y").replace("1.jpg,b,", "1.jpg,b,y")
    assert not any("without a group" in note for note in read(photos, full, groups="patient").notes)
