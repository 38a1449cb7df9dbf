"""Tables of several labels, numbers, groups and weights: taken, said, or refused with the row."""

import io
import json
import re
import tarfile

import numpy as np
import pytest

import headstart
from headstart.data.checks import check
from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError, OptionError
from headstart.heads.tasks import MULTI_LABEL, REGRESSION
from listed_files import fill, write

EIGHT = np.zeros((4, 8, 8), np.uint8)


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


# --- numbers --------------------------------------------------------------------------------------------


def column(cells, *, delimiter=",", name="label"):
    quoted = (f'"{cell}"' if delimiter in cell else cell for cell in cells)
    return f"path{delimiter}{name}\n" + "".join(
        f"{at}.jpg{delimiter}{cell}\n" for at, cell in enumerate(quoted)
    )


@pytest.mark.parametrize(
    ("cells", "delimiter", "message"),
    [
        (
            ["1,234", "12,001", "999"],
            ",",
            "row 2: the label '1,234' may be 1234 or 1.234; write 1234, or 1,2340",
        ),
        (["7", "1.250", "900"], ";", r"row 3: the label '1\.250' may be 1250 or 1\.250"),
        (["-1,234", "999"], "\t", "row 2: the label '-1,234' may be -1234"),
        (["1,5", "2", "0.25"], ";", r"row 4: the label '0\.25' has a point, and '1,5' a comma"),
        (["2.5", "1,234"], ",", r"row 3: the label '1,234' has a comma, and '2\.5' a point"),
        (
            ["1,234,567", "2"],
            ",",
            "row 2: the label '1,234,567' is no number; write its digits with one point",
        ),
        (["2", "1,234.5"], ",", r"row 3: the label '1,234\.5' is no number; write its digits"),
        (["2", "1_000"], ",", "row 3: the label '1_000' is no number; write its digits"),
        (["1", "NA", "3"], ",", "row 3: the label 'NA' is no number, which --task regression expects"),
        (["1", "inf"], ",", "row 3: the label 'inf' is no number"),
        (["2", "1e300"], ",", r"row 3: the label '1e300' is beyond 1e\+30"),
    ],
)
def test_numbers_that_may_be_others_are_refused_with_their_row(photos, cells, delimiter, message):
    with pytest.raises(DatasetError, match=message):
        read(photos, column(cells, delimiter=delimiter), task=REGRESSION)
    weighted = column(cells, delimiter=delimiter, name=f"label{delimiter}w").replace(
        ".jpg", f".jpg{delimiter}cat"
    )
    if not cells[0].startswith("-"):
        with pytest.raises(
            DatasetError, match=message.partition(";")[0].replace("label", "weight").split(",")[0]
        ):
            read(photos, weighted, weights_column="w")


@pytest.mark.parametrize(
    ("cells", "delimiter", "expected"),
    [
        (["1,234", "12,5", "999"], ";", [1.234, 12.5, 999]),
        (["0,125", "12,001", "999"], ",", [0.125, 12.001, 999]),
        (["1.234", "12.001"], ",", [1.234, 12.001]),
        (["1.234", "0.001"], ";", [1.234, 0.001]),
        (["1234,567", "2,125"], ";", [1234.567, 2.125]),
        (["1", "1.0", "2", "+3", ".5", "5.", "1e3"], ",", [1, 1, 2, 3, 0.5, 5, 1000]),
    ],
)
def test_numbers_that_can_only_be_meant_one_way_are_taken(photos, cells, delimiter, expected):
    assert read(photos, column(cells, delimiter=delimiter), task=REGRESSION).labels.tolist() == expected


def test_numbers_found_unasked_are_as_certain_as_those_asked_for(photos):
    cells = ["1,234", "12,001", "7,250", "3,125", "999"]
    with pytest.raises(
        DatasetError, match=r"row 2: .* may be 1234 or 1\.234; .*if each is a class, say --task single"
    ):
        read(photos, column(cells))
    assert len(read(photos, column(cells), task="single-label", for_training=False).classes) == 5
    with pytest.raises(DatasetError, match=r"the labels are numbers, as of a measurement.*--task regression"):
        read(photos, column(["1,234,567", "2,345,678", "3,000,001", "4,500,000", "999"]))
    mixed = read(photos, column(["0,5", "0", "5", "1,5", "2,5", "3,25", "4,75"], delimiter=";"))
    assert mixed.task == REGRESSION and mixed.labels.tolist() == [0.5, 0, 5, 1.5, 2.5, 3.25, 4.75]
    again = read(photos, column(["1", "1.0", "2.5", "3.5", "4.5", "5.5"]))
    assert again.task == REGRESSION and again.labels.tolist() == [1, 1, 2.5, 3.5, 4.5, 5.5]


def test_a_number_whose_image_is_not_there_is_left_out_and_is_no_class(photos):
    text = column(["1.5", "2.25", "3.5", "4.5", "5.5"]) + "missing.jpg,6.25\n"
    dataset = read(photos, text)
    assert dataset.task == REGRESSION and len(dataset) == 5 and dataset.skipped[0].name == "missing.jpg"


def test_numbers_in_arrays_shards_and_folders_are_told_by_their_places(photos):
    fill(photos, "n/1.5/1.jpg", "n/2.5/2.jpg", "n/many/3.jpg")
    with pytest.raises(DatasetError, match=r"many/3\.jpg: the label 'many' is no number"):
        read_dataset(photos / "n", task=REGRESSION)
    with pytest.raises(DatasetError, match="y: label 1: the label '1,234' may be 1234"):
        read_dataset((np.zeros((2, 8, 8), np.uint8), ["12", "1,234"]), task=REGRESSION)
    sizes = {"1.cls": "1", "2.cls": "1.0", "3.cls": "2", "4.json": '{"label": 3.25}'}
    with tarfile.open(photos / "s.tar", "w") as shard:
        for name, text in {**sizes, **{f"{at}.jpg": "no pixels" for at in "1234"}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            shard.addfile(member, io.BytesIO(text.encode()))
    assert sorted(read_dataset(photos / "s.tar", task=REGRESSION).labels) == [1, 1, 2, 3.25]


def test_numbers_too_small_for_single_precision_are_refused_and_the_largest_are_taken(photos):
    assert len(read(photos, column(["1e-9", "2e-9", "3e29"]), task=REGRESSION)) == 3
    with pytest.raises(OptionError, match="differ by 1e-42 are too small for a model in single precision"):
        headstart.fit((EIGHT, [1e-42, 3e-42] * 2), backbone="builtin", task=REGRESSION)


# --- several labels in a cell ---------------------------------------------------------------------------


LISTS = {
    "python": (str(["cat", "dog"]), str(["dog"]), "[]"),
    "json": ('["cat", "dog"]', '["dog"]', "[]"),
    "tuples": (str(("cat", "dog")), str(("dog",)), "()"),
    "sets": ("{'dog', 'cat'}", "{'dog'}", "set()"),
    "escaped": (r"['cat', 'd\x6fg']", "['dog']", "[]"),
}


def quoted(cells, header="path,label"):
    lines = (f'{at}.jpg,"{cell.replace(chr(34), chr(34) * 2)}"' for at, cell in enumerate(cells))
    return "\n".join([header, *lines])


@pytest.mark.parametrize("task", [None, MULTI_LABEL])
@pytest.mark.parametrize("cells", LISTS.values(), ids=LISTS)
def test_lists_that_were_written_as_text_are_lists(photos, cells, task):
    dataset = read(photos, quoted(cells), task=task)
    assert dataset.task == MULTI_LABEL and said(dataset) == {"0.jpg": "cat|dog", "1.jpg": "dog", "2.jpg": ""}
    assert any("lists written as text" in note for note in dataset.notes)
    arrays = read_dataset((np.zeros((3, 8, 8), np.uint8), list(cells)), task=task)
    assert [arrays.label_of(each) for each in arrays.samples] == ["cat|dog", "dog", ""]
    assert read(photos, quoted(cells[:2]), task="single-label").task == "single-label"


@pytest.mark.parametrize("task", [None, MULTI_LABEL])
@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["['dog']", "['cat' 'dog']"], r"row 3: the label \"\['cat' 'dog'\]\" is no list that can be read"),
        (["['dog']", "[cat, dog]"], r"row 3: the label '\[cat, dog\]' is no list"),
        (["['dog']", "[..., 'cat']"], "row 3: .* is no list"),
        (["['dog']", "['cat', None]", "['cat']"], "row 3: .* is no list"),
        (["['dog']", "['cat', '']"], "row 3: a label in the list is empty"),
        (["['dog']", '["cat", NaN]'], "row 3: a label in the list is empty"),
        (["['dog']", "[['cat']]"], "row 3: .* is no list"),
    ],
)
def test_a_list_in_text_that_cannot_be_read_is_refused_with_its_row(photos, cells, message, task):
    with pytest.raises(DatasetError, match=message):
        read(photos, quoted(cells), task=task)


def test_text_beside_lists_in_text_is_one_label_where_several_were_asked_for(photos):
    cells = ["['cat', 'dog']", "bird", ""]
    found = said(read(photos, quoted(cells), task=MULTI_LABEL))
    assert found == {"0.jpg": "cat|dog", "1.jpg": "bird", "2.jpg": ""}
    with pytest.raises(DatasetError, match=r"row 3: the label 'bird' is no list, and .* \(row 2\) is one"):
        read(photos, quoted(cells[:2]))
    braces = read(photos, quoted(["(young)", "(old)", "{x}"]), for_training=False)
    assert braces.classes == ("(old)", "(young)", "{x}")


def test_cells_that_are_lists_may_be_missing_or_text_and_nothing_else(photos):
    def lines(*cells):
        return "\n".join(json.dumps({"path": f"{at}.jpg", "label": cell}) for at, cell in enumerate(cells))

    for task in (None, MULTI_LABEL):
        found = read(photos, lines(["cat", "dog"], None, "bird", [], "", ["dog"]), name="t.jsonl", task=task)
        assert list(said(found).values()) == ["cat|dog", "", "bird", "", "", "dog"]
        with pytest.raises(DatasetError, match="row 2: the label 7 is no list, as those of other images are"):
            read(photos, lines(["cat"], 7), name="t.jsonl", task=task)
        with pytest.raises(DatasetError, match="row 2: the label is a dict"):
            read(photos, lines(["cat"], {"a": 1}), name="t.jsonl", task=task)


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_the_delimiter_of_labels_is_said_and_is_one(photos, mark):
    cells = [f"cat{mark}dog", f"dog{mark} NaN", f"cat{mark}{mark}cat", ""]
    dataset = read(photos, quoted(cells), task=MULTI_LABEL)
    assert said(dataset) == {"0.jpg": "cat|dog", "1.jpg": "dog", "2.jpg": "cat", "3.jpg": ""}
    assert dataset.notes[-1].endswith(f"labels are split at '{mark}', such as 'cat{mark}dog'")
    other = next(each for each in "|;," if each != mark)
    with pytest.raises(
        DatasetError, match=re.escape(f"row 6: 'x{other}y' has '{other}', and 'cat{mark}dog' (row 2)")
    ):
        read(photos, quoted([*cells, f"x{other}y"]), task=MULTI_LABEL)


def test_a_second_delimiter_is_refused_unasked_and_in_rows_of_one_image(photos):
    with pytest.raises(DatasetError, match=r"row 5: 'dog;bird' has ';', and 'cat\|dog' \(row 2\)"):
        read(photos, quoted(["cat|dog", "cat", "dog", "dog;bird", "dog", "cat", "bird", "bird"]))
    rows = "path,label\n0.jpg,cat|dog\n0.jpg,bird\n1.jpg,bird|cat\n"
    assert said(read(photos, rows, task=MULTI_LABEL)) == {"0.jpg": "bird|cat|dog", "1.jpg": "bird|cat"}
    with pytest.raises(DatasetError, match=r"row 5: 'a, b' has ','"):
        read(photos, rows + '2.jpg,"a, b"\n', task=MULTI_LABEL)
    names = [["Smith, John", "Doe, Jane"], ["Smith, John"]]
    listed = read(photos, quoted(map(json.dumps, names)), task=MULTI_LABEL)
    assert listed.classes == ("Doe, Jane", "Smith, John")


@pytest.mark.parametrize("both", ["cat dog", "cat/dog", "cat+dog", "cat & dog"])
def test_a_label_that_is_made_of_others_is_said(photos, both):
    dataset = read(photos, quoted(["cat|dog", both, "bird"]), task=MULTI_LABEL)
    assert both in dataset.classes
    assert f"the label '{both}' is kept as one, and is 'cat' and 'dog' together" in dataset.notes[-1]
    assert dataset.notes[-1].endswith("if it is both, write cat|dog")
    whole = read(photos, quoted(["cat", "dog", "bird"]), task=MULTI_LABEL)
    assert whole.notes[-1].endswith("no label has '|', ';' or ',' in it, so each is one")


# --- several labels in arrays ---------------------------------------------------------------------------


def of_array(y, task=None):
    dataset = read_dataset((EIGHT, y), task=task)
    assert dataset.task == MULTI_LABEL
    return [dataset.label_of(each) for each in dataset.samples]


FLAGS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (["a", "a|b", "b", None], ["a", "a|b", "b", ""]),
        (np.array(["a", "a;b", "b", ""]), ["a", "a|b", "b", ""]),
        ([["a"], ["a", "b"], ["b"], []], ["a", "a|b", "b", ""]),
        ([("a", "c"), ("a", "b"), ("b", "c"), ("c", "a")], ["a|c", "a|b", "b|c", "a|c"]),
        ([{"a"}, {"a", "b"}, frozenset("b"), None], ["a", "a|b", "b", ""]),
        ([["a"], "b", None, {"a"}], ["a", "b", "", "a"]),
        ([[10, 9], [9, 2], [2, 10], [2, 9]], ["9|10", "2|9", "2|10", "2|9"]),
        (FLAGS, ["0|2", "1", "", "0|1|2"]),
        (FLAGS.astype(bool), ["0|2", "1", "", "0|1|2"]),
        (FLAGS.astype(float).tolist(), ["0|2", "1", "", "0|1|2"]),
        (list(FLAGS), ["0|2", "1", "", "0|1|2"]),
        (np.eye(4, dtype=int), ["0", "1", "2", "3"]),
        (np.array([["a", "b"], ["b", "c"], ["a", "c"], ["a", "b"]]), ["a|b", "b|c", "a|c", "a|b"]),
        (np.array([["a"], ["b"], ["b"], ["a"]]), ["a", "b", "b", "a"]),
    ],
)
def test_labels_of_arrays_are_several_where_that_is_asked_for(y, expected):
    assert of_array(y, MULTI_LABEL) == expected


def test_labels_of_arrays_are_found_to_be_several_where_they_can_only_be():
    assert of_array([["a"], ["a", "b"], [], ["b"]]) == ["a", "a|b", "", "b"]
    assert of_array(FLAGS) == ["0|2", "1", "", "0|1|2"]
    assert of_array(["a", "a|b", "b", "b"]) == ["a", "a|b", "b", "b"]
    pandas = pytest.importorskip("pandas")
    assert of_array(pandas.DataFrame(FLAGS, columns=["red", "blue", "old"])) == [
        "old|red",
        "blue",
        "",
        "blue|old|red",
    ]
    assert of_array(pandas.Series([["a"], ["a", "b"], [], ["b"]])) == ["a", "a|b", "", "b"]
    wide = np.zeros((4, 12), int)
    wide[:, 2:] = np.eye(10, dtype=int)[:4] + np.eye(10, dtype=int)[6:]
    assert read_dataset((EIGHT, wide)).classes == ("2", "3", "4", "5", "8", "9", "10", "11")


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (
            np.eye(4, dtype=int),
            None,
            r"\[4, 4\]; of one-hot rows pass y.argmax.*say task='multi-label'",
        ),
        (FLAGS, "single-label", r"shape \[4, 3\]; of one-hot rows pass y\.argmax\(axis=1\)$"),
        (FLAGS * 2, MULTI_LABEL, "y: label 0: 0 is '2'; expected 0 or 1"),
        (FLAGS * 0.5, None, r"shape \[4, 3\]; of several labels say task='multi-label'"),
        (np.array([["a", "b"]] * 4), None, r"shape \[4, 2\]; of several"),
        (
            [["a"], ["b"], ["a", "b"], []],
            "single-label",
            "several labels each, which is no single",
        ),
        (
            ["a", "a;b", "a|b", "b"],
            MULTI_LABEL,
            r"label 2: 'a\|b' has '\|', and 'a;b' \(label 1\) has ';'",
        ),
        (["a", None, "b", "b"], None, "1 label is missing, the first at 1"),
    ],
)
def test_labels_of_arrays_that_are_not_of_the_task_are_refused_with_the_way_out(y, task, message):
    with pytest.raises(DatasetError, match=message):
        read_dataset((EIGHT, y), task=task)


# --- columns of 0 and 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0.jpg,F,1,0\n1.jpg,M,,1\n", "row 3: cat is ''; expected 0 or 1, as elsewhere; write either"),
        ("0.jpg,F,1,0\n1.jpg,M,0,-1\n", "row 3: dog is '-1'; expected 0 or 1"),
        ("0.jpg,F,1.0,\n1.jpg,M,-1.0,0.0\n", "row 2: dog is ''; expected 0 or 1"),
        ("0.jpg,F,1,0\n" + "1.jpg,F,0,1\n" * 60 + "1.jpg,M,0,2\n", "row 63: dog is '2'; expected 0 or 1"),
    ],
)
def test_the_first_cell_that_is_neither_0_nor_1_is_named(photos, rows, message):
    text = f"path,sex,cat,dog\n{rows}"
    with pytest.raises(DatasetError, match=message):
        read(photos, text, task=MULTI_LABEL)


def test_columns_of_flags_beside_others_are_told_of_the_task(photos):
    for row in ("1,1", ",1", "-1,1"):
        with pytest.raises(DatasetError, match="--label-column, or --task multi-label, if they are col"):
            read(photos, f"path,sex,cat,dog\n0.jpg,F,{row}\n1.jpg,M,1,0\n")


def test_columns_of_1_and_minus_1_alone_are_read_as_1_and_0_and_that_is_said(photos):
    text = (
        "path,sex,cat,dog,rare\n0.jpg,F,1,-1,-1\n1.jpg,M,-1,1,-1\n2.jpg,M,1,1,-1\n"
        + "3.jpg,F,-1,-1,-1\n" * 60
    )
    dataset = read(photos, text + "4.jpg,F,-1,-1,1\n", task=MULTI_LABEL)
    assert said(dataset) == {"0.jpg": "cat", "1.jpg": "dog", "2.jpg": "cat|dog", "3.jpg": "", "4.jpg": "rare"}
    assert any(note.endswith("-1 is read as 0, since no cell is 0") for note in dataset.notes)
    assert of_array(FLAGS * 2 - 1, MULTI_LABEL) == of_array(FLAGS)
    with pytest.raises(DatasetError, match="which column has the labels"):
        read(photos, text)


def test_no_way_out_is_named_that_does_not_fit(photos):
    with pytest.raises(DatasetError, match=r"--label-column$"):
        read(photos, "path,sex,site\n0.jpg,F,back\n1.jpg,M,face\n")
    with pytest.raises(DatasetError, match=r"--label-column$"):
        read(photos, "path,age,cat,dog\n0.jpg,3,1,1\n1.jpg,4,0,1\n", task="single-label")


# --- nothing to learn -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [("cat|dog", "dog|cat"), ("cat", "cat")])
def test_images_that_all_have_the_same_labels_teach_nothing(photos, cells):
    text = quoted(cells * 3)
    with pytest.raises(DatasetError, match=r"every image has the same labels \(cat.*nothing to learn"):
        read(photos, text, task=MULTI_LABEL)
    assert len(read(photos, text, task=MULTI_LABEL, for_training=False)) == 6


def test_one_label_is_one_in_words():
    for labels, words in (([["cat"], [], [], []], "1 label"), ([["cat", "dog"], [], [], []], "2 labels")):
        dataset = read_dataset((EIGHT, labels), task=MULTI_LABEL)
        assert check(dataset).headline()[0].startswith(f"multi-label: 4 images with {words}")
        assert not check(dataset).headline()[0].startswith(f"multi-label: 4 images with {words}s")
        assert f"4 images, {words} (cat" in repr(dataset)


def test_folders_without_links_say_that_each_image_has_one_label(photos):
    fill(photos, "set/a/1.jpg", "set/b/2.jpg")
    dataset = read_dataset(photos / "set", task=MULTI_LABEL)
    assert dataset.notes[-1].endswith(
        "no file is linked into several class folders; each image has one label"
    )
