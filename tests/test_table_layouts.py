"""Tables as services and public data sets lay them out: one-hot columns, splits of their own, addresses."""

import io
import json

import pytest

from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError
from listed_files import described, fill, write, zipped

FOUR = ("0.jpg", "1.jpg", "2.jpg", "3.jpg")


@pytest.fixture
def table(tmp_path):
    """Reads a table beside 0.jpg, 1.jpg, 2.jpg and 3.jpg: every image's name, label and split."""
    fill(tmp_path, *FOUR)

    def read(text, *, name="table.csv", **options):
        return read_dataset(write(tmp_path, {name: text}) / name, **options)

    return read


def splits(dataset):
    return [split for _, _, split in described(dataset)]


def labels(dataset):
    return [label for _, label, _ in described(dataset)]


# --- one column for each class ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("isic.csv", "image,MEL,NV,UNK\n0,1.0,0.0,0.0\n1,0.0,1.0,0.0\n2,0.0,1.0,0.0\n3,0.0,0.0,1.0\n"),
        (
            "_classes.csv",
            "filename, MEL, NV, UNK\n0.jpg, 1, 0, 0\n1.jpg, 0, 1, 0\n2.jpg, 0, 1, 0\n3.jpg, 0, 0, 1\n",
        ),
        (
            "more.csv",
            "image_id;age;MEL;NV;UNK\n0;31;True;False;False\n1;32;False;True;False\n2;33;False;True;False\n"
            "3;34;False;False;True\n",
        ),
        (
            "table.jsonl",
            "".join(
                json.dumps({"file_name": file, **{each: each == label for each in ("MEL", "NV", "UNK")}})
                + "\n"
                for file, label in zip(FOUR, ("MEL", "NV", "NV", "UNK"), strict=True)
            ),
        ),
    ],
)
def test_columns_of_one_and_zero_are_the_classes(table, name, text):
    dataset = table(text, name=name)
    assert dataset.classes == ("MEL", "NV", "UNK")
    assert labels(dataset) == ["MEL", "NV", "NV", "UNK"]
    assert "labels from 3 columns of 0 and 1 (MEL, NV, UNK)" in dataset.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,1,0\n1,0,0\n", "row 3: none of cat, dog, … is 1; label the row or remove it; .*--task multi"),
        ("0,1,0\n" * 60 + "1,0.3,0.7\n", "row 62: cat is '0.3'; expected 0 or 1"),
        ("0,0.3,0.7\n1,1,0\n", "which column has the labels"),
        ("0,0,0\n1,0,0\n", "which column has the labels"),
    ],
)
def test_columns_that_name_no_or_several_classes_are_refused_with_the_row(table, rows, message):
    with pytest.raises(DatasetError, match=message):
        table(f"image,cat,dog\n{rows}")


def test_two_columns_of_one_row_that_are_both_1_are_refused_where_other_columns_stand_beside(table):
    with pytest.raises(DatasetError, match=r"row 52: cat and dog are both 1; .*--task multi-label"):
        table("image,age,cat,dog\n" + "0,3,0,1\n1,4,1,0\n" * 25 + "2,5,1,1\n")


def test_one_hot_columns_are_bounded(table, monkeypatch):
    monkeypatch.setattr("headstart.data.dataset.tables._MOST_FLAGS", 5)
    with pytest.raises(DatasetError, match="2 columns of 0 and 1 on 3 rows are too many; write one column"):
        table("image,cat,dog\n0,1,0\n1,0,1\n2,0,1\n")


@pytest.mark.parametrize("label", ["cat, dog", "dog;cat", "cat + dog", "cat|bird"])
def test_several_labels_in_one_cell_are_refused_with_the_row(table, label):
    text = f'image,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,"{label}"\n'
    with pytest.raises(DatasetError, match=r"row 4: the label .* together; keep one, or .*--task multi"):
        table(text)


def test_a_label_of_several_words_that_are_labels_too_is_said(table):
    dataset = table("image,label\n0.jpg,hot\n1.jpg,dog\n2.jpg,hot dog\n3.jpg,ice cream\n")
    assert labels(dataset) == ["hot", "dog", "hot dog", "ice cream"]
    assert "the label 'hot dog' is 'hot' and 'dog' together" in dataset.notes[-1]
    apart = table('image,label\n0.jpg,"cat, black"\n1.jpg,"cat, white"\n2.jpg,cat/dog\n')
    assert len(apart.classes) == 3 and len(apart.notes) == 1


# --- splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("is_valid", ("False", "False", "True", "True"), ("train", "train", "validation", "validation")),
        ("is_valid", ("no", "no", "yes", "No"), ("train", "train", "validation", "train")),
        ("Is Test", ("0", "0", "1", "0"), ("train", "train", "test", "train")),
        ("is_training_image", ("1", "1", "0", "0"), ("train", "train", "test", "test")),
        ("data set", ("train", "train", "valid", "test"), ("train", "train", "validation", "test")),
        ("Usage", ("Training", "Training", "PublicTest", "PrivateTest"), ("train", "train", "test", "test")),
        ("ml_use", ("training", "training", "UNASSIGNED", "test"), ("train", "train", None, "test")),
        ("fold", ("0", "0", "1", "2"), (None,) * 4),
        ("vehicle", ("train", "train", "train", "bus"), (None,) * 4),
    ],
)
def test_a_column_that_says_splits_is_known_by_its_name_or_its_values(table, column, values, expected):
    rows = "".join(f"{file},{'ab'[i % 2]},{values[i]}\n" for i, file in enumerate(FOUR))
    dataset = table(f"path,label,{column}\n{rows}")
    assert splits(dataset) == list(expected)
    said = [note for note in dataset.notes if f"splits from the column {column}" in note]
    assert bool(said) == any(expected)


def test_a_column_of_splits_that_says_something_else_is_refused(table):
    with pytest.raises(DatasetError, match="row 3: 'perhaps' is neither true nor false"):
        table("path,label,is_valid\n0.jpg,a,True\n1.jpg,b,perhaps\n")
    with pytest.raises(DatasetError, match="is_valid, is_test all say the splits; write one column split"):
        table("path,label,is_valid,is_test\n0.jpg,a,True,False\n1.jpg,b,False,False\n")


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_that_are_written_as_differences_are_read_and_bounded(table, monkeypatch, encoding):
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    made, buffer = pyarrow.table({"path": FOUR, "label": list("abab")}), io.BytesIO()
    pq.write_table(
        made, buffer, use_dictionary=False, column_encoding=dict.fromkeys(("path", "label"), encoding)
    )
    assert labels(table(buffer.getvalue(), name="t.parquet")) == list("abab")
    monkeypatch.setattr("headstart.data.sources.parquet.MAX_DELTA_TEXT", 10)
    with pytest.raises(DatasetError, match="the column path takes 0 MiB; paths and labels take at most"):
        table(buffer.getvalue(), name="t.parquet")


# --- addresses --------------------------------------------------------------------------------------------

AUTOML = (("TRAIN", "a"), ("VALIDATION", "b"), ("TEST", "a"), ("UNASSIGNED", "b"))


@pytest.mark.parametrize("header", ["", "set,image_path,label\n", "ML_USE,GCS_FILE_PATH,LABEL\n"])
def test_rows_for_automl_are_read_with_the_files_beside_them(table, header):
    rows = "".join(f"{use},gs://bucket/some/{i}.jpg,{label}\n" for i, (use, label) in enumerate(AUTOML))
    dataset = table(header + rows)
    assert described(dataset) == [
        ("0.jpg", "a", "train"),
        ("1.jpg", "b", "validation"),
        ("2.jpg", "a", "test"),
        ("3.jpg", "b", None),
    ]
    assert "4 rows name files by other paths, e.g. gs://bucket/some/0.jpg is 0.jpg" in dataset.notes[-1]


def test_an_address_stands_for_the_one_file_of_its_name(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/1.jpg", "c d/2.jpg")
    text = "url,label\nhttps://example.org/x/a/1.jpg?size=3#top,a\ns3://b/c%20d/2.jpg,b\ns3://x/3.jpg,b\n"
    dataset = read_dataset(write(tmp_path, {"table.csv": text}) / "table.csv")
    assert described(dataset) == [("a/1.jpg", "a", None), ("c d/2.jpg", "b", None)]
    assert dataset.skipped[0].reason.startswith("row 4: is an address and no file here has its name")


def test_what_is_no_path_is_not_printed_in_full(table):
    with pytest.raises(DatasetError, match="no file of its 2 rows is there") as caught:
        table("image,label\n" + "".join(f"{'/9j/4AAQ' * 999},{label}\n" for label in "ab"))
    assert len(str(caught.value)) < 600


# --- tables beside folders --------------------------------------------------------------------------------


def both_sides(table="{}_labels.csv"):
    """train/ and test/ with files of equal names, and a table for each."""
    files = {f"{side}/{file}": b"\xff\xd8\xff" for side in ("train", "test") for file in FOUR}
    for side, kinds in (("train", "abab"), ("test", "bbaa")):
        rows = "".join(f"{file},{kind}\n" for file, kind in zip(FOUR, kinds, strict=True))
        files[table.format(side)] = f"filename,label\n{rows}".encode()
    return files


@pytest.mark.parametrize("name", ["{}_labels.csv", "labels/{}.csv", "{}.csv"])
def test_a_table_named_after_a_split_speaks_of_that_splits_folder(tmp_path, name):
    expected = [(f"test/{file}", kind, "test") for file, kind in zip(FOUR, "bbaa", strict=True)]
    expected += [(f"train/{file}", kind, "train") for file, kind in zip(FOUR, "abab", strict=True)]
    folder = write(tmp_path / "folder", both_sides(name))
    assert sorted(described(read_dataset(folder))) == expected
    assert sorted(described(read_dataset(zipped(tmp_path / "zip.zip", both_sides(name))))) == expected
    if "/" not in name:
        alone = read_dataset(folder / name.format("train"))
        assert [(name, label) for name, label, _ in described(alone)] == [row[:2] for row in expected[4:]]


def test_lists_of_files_and_labels_are_read_where_nothing_else_says_labels(tmp_path):
    fill(tmp_path, *(f"images/{file}" for file in FOUR))
    write(tmp_path, {"classes.txt": "ants\nbees\n", "train.txt": "images/0.jpg 0\nimages/1.jpg 1\n"})
    write(tmp_path, {"val.txt": "2.jpg 0\n3.jpg 1\n"})
    dataset = read_dataset(tmp_path)
    assert described(dataset) == [
        ("images/0.jpg", "0", "train"),
        ("images/1.jpg", "1", "train"),
        ("images/2.jpg", "0", "validation"),
        ("images/3.jpg", "1", "validation"),
    ]
    fill(tmp_path, "more/4.jpg")
    assert read_dataset(tmp_path).classes == ("images", "more")
    write(
        tmp_path / "alone", {"1.jpg": b"x", "1.txt": "0 0.5 0.5 0.1 0.1\n", "notes.txt": "of 1.jpg, in May\n"}
    )
    with pytest.raises(DatasetError, match="1 images but no class folders"):
        read_dataset(tmp_path / "alone")


def test_tables_of_splits_are_taken_before_one_that_is_none(tmp_path):
    files = both_sides("{}.csv") | {"meta.csv": "file,label\ntrain/0.jpg,z\ntest/0.jpg,y\n"}
    dataset = read_dataset(write(tmp_path, files))
    assert sorted({*splits(dataset)}) == ["test", "train"] and dataset.classes == ("a", "b")
    assert dataset.notes[0].endswith("read by test.csv, train.csv, not by meta.csv")


def test_the_column_of_images_is_known_by_the_files_that_are_there(tmp_path):
    fill(tmp_path, "train_images/3f.png", "train_images/4a.png", "test_images/5b.png")
    write(tmp_path, {"train.csv": "code,diagnosis\n3f,0\n4a,2\n", "test.csv": "code\n5b\n"})
    dataset = read_dataset(tmp_path)
    assert described(dataset) == [("train_images/3f.png", "0", None), ("train_images/4a.png", "2", None)]


def test_a_named_column_of_labels_goes_before_the_folders(tmp_path):
    fill(tmp_path, "left/1.jpg", "left/2.jpg", "right/3.jpg")
    write(tmp_path, {"about.csv": "image,sex,site\n1,f,back\n2,m,back\n3,f,face\n"})
    by_folders = read_dataset(tmp_path)
    assert by_folders.classes == ("left", "right")
    assert "the folders are the labels, and not about.csv: which column has the labels" in by_folders.notes[0]
    assert labels(read_dataset(tmp_path, label_column="site")) == ["back", "back", "face"]


def test_a_table_that_does_not_tell_its_labels_is_named_where_no_folders_do(tmp_path):
    fill(tmp_path, "images/1.jpg", "images/2.jpg")
    write(tmp_path, {"about.csv": "image,sex,site\n1,f,back\n2,m,face\n"})
    with pytest.raises(DatasetError, match=r"about\.csv: which column has the labels\? there are sex, site"):
        read_dataset(tmp_path)
