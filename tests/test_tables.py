"""Tables of images and labels as people and programs write them."""

import csv
import io
import json
import sys
import time
import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.cli import cli
from headstart.data.dataset import delimited, place_of, read_dataset
from headstart.data.sources import source_at
from headstart.errors import DatasetError, ImageError, MissingExtra
from listed_files import PIXEL, write, zipped


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six images, ants/1.jpg to bees/3.jpg, with tables written beside them."""
    root = tmp_path_factory.mktemp("photos")
    for folder in ("ants", "bees"):
        (root / folder).mkdir()
        for number in (1, 2, 3):
            (root / folder / f"{number}.jpg").write_bytes(PIXEL)
    return root


def read(root, text, *, name="labels.csv", encoding="utf-8", **options):
    data = text if isinstance(text, bytes) else text.encode(encoding)
    path = root / name
    path.write_bytes(data)
    try:
        return read_dataset(path, **options)
    finally:
        path.unlink()


def rows(dataset):
    return [(sample.name, dataset.classes[sample.label]) for sample in dataset.samples]


SIX = [(f"{folder}/{number}.jpg", folder) for folder in ("ants", "bees") for number in (1, 2, 3)]
PLAIN = "path,label\n" + "".join(f"{path},{label}\n" for path, label in SIX)


def changed(*replacements):
    text = PLAIN
    for before, after in replacements:
        text = text.replace(before, after)
    return text


# --- spellings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        (PLAIN, "utf-32"),
        (changed(("\n", "\r\n")), "utf-8"),
        (changed(("\n", "\r")), "utf-8"),
        (changed((",", ";")), "utf-8"),
        (changed((",", "\t")), "utf-8"),
        (changed((",", "|")), "utf-8"),
        ("sep=;\n" + changed((",", ";")), "utf-8"),
        ("SEP=;\r\n" + changed((",", ";"), ("\n", "\r\n")), "utf-16"),
        (changed((",", ", ")), "utf-8"),
        (changed((",ants", ', "ants"'), (",bees", ',"bees" ')), "utf-8"),
        (changed(("\n", ",\n")), "utf-8"),
        (changed((".jpg,ants\n", ".jpg,ants,\n")), "utf-8"),
        ("\n\n" + changed(("\n", "\n\n")) + "\n,\n", "utf-8"),
        ("# made by a program\n# in May\n" + PLAIN, "utf-8"),
        ("#" + PLAIN, "utf-8"),
        ("# made\n" + changed(("path,label", "#filename,sort")), "utf-8"),
        (changed(("path,label", "Path , LABEL")), "utf-8"),
        (changed(("path,label", "File Name,Class")), "utf-8"),
        (changed(("path,label", "image_path,species")), "utf-8"),
        (changed(("path,label", "datei,art")), "utf-8"),
        (changed(("path,label\n", "")), "utf-8"),
        (changed(("path,label\n", ""), (",", "\t")), "utf-8"),
        (changed(("path,label\n", ""), (",", " ")), "utf-8"),
        (changed(("ants/", "./ants/"), ("bees/", "bees//")), "utf-8"),
        (changed(("ants/", "ants\\"), ("bees/", ".\\bees\\")), "utf-8"),
        (changed(("ants/", "ANTS/"), (".jpg", ".JPG")), "utf-8"),
        (changed((".jpg", "")), "utf-8"),
        (changed(("ants/", "C:\\Users\\me\\photos\\ants\\"), ("bees/", "/home/me/bees/")), "utf-8"),
        ("nr," + changed(("\nants/", "\n1,ants/"), ("\nbees/", "\n2,bees/")), "utf-8"),
        (
            "label_id,"
            + changed(("label", "label_name"), ("\nants/", "\n0,ants/"), ("\nbees/", "\n1,bees/")),
            "utf-8",
        ),
    ],
)
def test_a_table_is_read_as_it_was_meant(photos, text, encoding):
    dataset = read(photos, text, encoding=encoding)
    assert rows(dataset) == SIX
    assert not dataset.skipped


def test_a_label_in_double_quotes_may_hold_the_delimiter_and_quotes(photos):
    dataset = read(photos, 'path,label\nants/1.jpg,"cat, ""black"""\nbees/1.jpg,cat\n')
    assert rows(dataset) == [("ants/1.jpg", 'cat, "black"'), ("bees/1.jpg", "cat")]


def test_leading_zeros_numbers_and_truth_values_stay_as_they_were_written(photos):
    text = "path,label\nants/1.jpg,01\nants/2.jpg,2.50\nants/3.jpg,true\nbees/1.jpg,01\n"
    assert [label for _, label in rows(read(photos, text))] == ["01", "2.50", "true", "01"]


def test_home_and_file_addresses_are_paths(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    text = f"path,label\n~/ants/1.jpg,a\nfile://{photos}/bees/1.jpg,b\n"
    assert len(read(photos, text)) == 2
    (photos / "ants" / "a b.jpg").write_bytes(PIXEL)
    assert len(read(photos, "path,label\nants/a%20b.jpg,a\nbees/1.jpg,b\n")) == 2


@pytest.mark.parametrize("name", ["labels.tsv", "labels.txt", "LABELS.CSV"])
def test_text_tables_have_several_extensions(photos, name):
    assert rows(read(photos, changed((",", "\t")), name=name)) == SIX


@pytest.mark.parametrize("split", ["Split", "subset", "set"])
def test_a_split_column_has_several_names_and_values(photos, split):
    text = f"path,label,{split}\nants/1.jpg,a,TRAIN\nants/2.jpg,a,dev\n"
    text += "bees/1.jpg,b,Training\nbees/2.jpg,b,test\n"
    found = [sample.split for sample in read(photos, text).samples]
    assert found == ["train", "validation", "train", "test"]


def test_what_was_guessed_is_a_note_of_the_data_set(photos):
    assert read(photos, PLAIN).notes == ()
    assert (
        "images from the column datei, labels from art"
        in read(photos, changed(("path,label", "datei,art"))).notes[0]
    )
    assert "no header" in read(photos, changed(("path,label\n", ""))).notes[0]
    elsewhere = read(photos, changed(("ants/", "/my/ants/")))
    assert "3 rows name files by other paths, e.g. /my/ants/1.jpg is ants/1.jpg" in elsewhere.notes[0]


# --- code pages -------------------------------------------------------------------------------------------


def test_umlauts_of_a_western_code_page_are_read_and_said(photos):
    dataset = read(photos, changed(("ants\n", "K\u00e4fer\n")), encoding="cp1252")
    assert dataset.classes == ("K\u00e4fer", "bees")
    assert "not UTF-8; read as Windows-1252" in dataset.notes[0]


@pytest.mark.parametrize(
    ("word", "encoding"),
    [
        ("\u0436\u0443\u043a", "cp1251"),
        ("\u010dmel\u00e1k", "cp1250"),
        ("\u72d7", "gbk"),
        ("caf\u00e9", "mac-roman"),
    ],
)
def test_other_code_pages_are_refused_with_their_row(photos, word, encoding):
    with pytest.raises(
        DatasetError, match=r"row 2: the label .* is no UTF-8, .* save the table as CSV UTF-8"
    ):
        read(photos, changed(("ants\n", f"{word}\n")), encoding=encoding)


def test_a_code_page_beside_utf8_is_refused(photos):
    data = changed(("ants\n", "B\u00e4r\n"), ("bees\n", "K\u00e4fer\n")).encode()
    data = data.replace("B\u00e4r".encode(), "B\u00e4r".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"row 2: the label .* is no UTF-8"):
        read(photos, data)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_of_files_prove_a_code_page(tmp_path):
    for name in ("for\u00eat.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(PIXEL)
    data = "path,label\nfor\u00eat.jpg,for\u00eat\nb.jpg,b\n".encode("cp1252")
    assert read(tmp_path, data).classes == ("b", "for\u00eat")


def test_composed_and_decomposed_names_of_files_are_the_same(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "f\u00eate.jpg")).write_bytes(PIXEL)
    (tmp_path / "b.jpg").write_bytes(PIXEL)
    assert len(read(tmp_path, "path,label\nf\u00eate.jpg,a\nb.jpg,b\n")) == 2


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label\nants/1.jpg,cat, black\nbees/1.jpg,cat, white\n",
            "row 2: 3 cells under 2 columns .*comma",
        ),
        ("path;label\nants/1.jpg;a\nbees/1.jpg;b;c\n", "row 3: 3 cells under 2 columns .*semicolon"),
        ('path,label\nants/1.jpg,"a\nbees/1.jpg,b\n', "row 2: a quote is opened here and never closed"),
        ('path,label\nants/1.jpg,"a"b\nbees/1.jpg,b\n', "row 2: a quote ends inside a cell"),
        ('path,label\nants/1.jpg,"a\nbees/1.jpg,b"\nbees/2.jpg,c\n', "row 3: the label .* line break"),
        (
            "path,label\nants/1.jpg,nan\nbees/1.jpg,b\nbees/2.jpg,\n",
            "row 2: label is empty, and of 1 more rows",
        ),
        ("path,label\nants/1.jpg,Cat\nbees/1.jpg,cat\n", "row 3: the label 'cat' looks like 'Cat' .row 2"),
        ("path,label,class\nants/1.jpg,a,b\n", "only one class"),
        (
            "path,class,species\nants/1.jpg,a,b\nbees/1.jpg,a,c\n",
            "class, species; say it with --label-column",
        ),
        ("file,a,b\nants/1.jpg,x,y\n", "which column has the labels.* a, b"),
        ("image,photo,label\nants/1.jpg,bees/1.jpg,a\n", "several columns name images: image, photo"),
        ("file,file,label\nants/1.jpg,ants/1.jpg,a\n", "the column file is there twice"),
        ("path,label\nants/8.jpg,a\nants/9.jpg,b\n", r"no file of its 2 rows is there; row 2: ants/8\.jpg"),
        (
            "path,label,split\nants/1.jpg,a,train\nbees/1.jpg,b,\nants/1.jpg,a,test\n",
            "row 4: .* has split 'test'",
        ),
        ("path,label,split\nants/1.jpg,a,some\n", "row 2: split is 'some'; expected train"),
        ("nr,sort\n1,a\n", r"expected a column of image files.* got nr, sort; name them with --image-column"),
        ("", "got nothing"),
        ("path,label\n", "no rows"),
        (b"PK\x03\x04 and so on", "Excel workbook; save it as CSV UTF-8"),
        (b"PAR1 and so on", "is a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (PLAIN.encode("utf-16-le"), "zero bytes"),
    ],
)
def test_what_is_not_certain_is_refused_with_row_and_way_out(photos, text, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(photos, text)
    assert "\n" not in str(caught.value)
    assert str(photos / "labels.csv") in str(caught.value)


def test_a_workbook_is_refused_by_its_name(photos):
    with pytest.raises(DatasetError, match="looks like a workbook; save its sheet of labels as CSV UTF-8"):
        read(photos, b"PK\x03\x04", name="labels.xlsx")


def test_columns_can_be_named(photos):
    text = "photo,first,second\nants/1.jpg,a,x\nbees/1.jpg,b,x\nbees/2.jpg,b,y\n"
    assert read(photos, text, label_column="second").classes == ("x", "y")
    assert read(photos, text, image_column="photo", label_column="First").classes == ("a", "b")
    with pytest.raises(
        DatasetError, match="--label-column: the column third is not there; it has photo, first"
    ):
        read(photos, text, label_column="third")
    bare = changed(("path,label\n", ""))
    assert rows(read(photos, bare, image_column="1", label_column="column 2")) == SIX


# --- rows without files -----------------------------------------------------------------------------------


def test_rows_without_a_file_are_left_out_with_their_numbers(photos):
    text = PLAIN + "ants/9.jpg,ants\nhttps://example.org/1.jpg,bees\n,bees\nants/1.jpg,ants\n#x/1.jpg,ants\n"
    dataset = read(photos, text)
    assert rows(dataset) == SIX
    assert [(item.name, item.reason) for item in dataset.skipped] == [
        ("ants/9.jpg", "row 8: no such file"),
        (
            "https://example.org/1.jpg",
            "row 9: is an address and no file here has its name; nothing is downloaded",
        ),
        ("row 10", "row 10 names no file"),
        ("ants/1.jpg", "row 11 repeats row 2"),
        ("#x/1.jpg", "row 12: no such file"),
    ]


def test_a_name_that_several_files_have_is_told_from_one_that_none_has(tmp_path):
    files = {"train/1.jpg": PIXEL, "test/1.jpg": PIXEL, "train/2.jpg": PIXEL, "train/3.jpg": PIXEL}
    write(tmp_path, {**files, "labels.csv": "id,label\n1,a\n2,a\n3,b\n4,b\n"})
    dataset = read_dataset(tmp_path)
    assert rows(dataset) == [("train/2.jpg", "a"), ("train/3.jpg", "b")]
    assert {item.name: item.reason for item in dataset.skipped if item.name in ("1", "4")} == {
        "1": "row 2: 2 files could be meant (test/1.jpg and train/1.jpg); write the folder before the name",
        "4": "row 5: no such file",
    }


def test_one_file_by_two_paths_counts_once_and_may_not_have_two_labels(photos):
    assert read(photos, PLAIN + "./ants/1.jpg,ants\n").skipped[0].reason == "row 8 repeats row 2"
    with pytest.raises(
        DatasetError, match=r"row 8: \./ants/1\.jpg has label 'bees' here and 'ants' in row 2"
    ):
        read(photos, PLAIN + "./ants/1.jpg,bees\n")


def test_a_listed_table_without_rows_or_labels_says_so(tmp_path):
    write(tmp_path, {"1.jpg": PIXEL, "2.jpg": PIXEL, "labels.csv": "path,label\n"})
    with pytest.raises(DatasetError, match="no rows below its header"):
        read_dataset(tmp_path)
    write(tmp_path, {"labels.csv": "path,camera\n1.jpg,x\n"})
    with pytest.raises(DatasetError, match="no column of labels, such as label; it has path, camera"):
        read_dataset(tmp_path, groups="camera")


def test_a_table_of_addresses_alone_says_so(photos):
    with pytest.raises(DatasetError, match=r"row 2: gs://b/1\.jpg; nothing is downloaded here: fetch"):
        read(photos, "path,label\ngs://b/1.jpg,a\ngs://b/2.jpg,b\n")


def test_a_class_without_any_file_is_refused_for_training_alone(photos):
    text = PLAIN + "wasps/1.jpg,wasps\n"
    with pytest.raises(DatasetError, match=r"no file of class wasps is there, e\.g\. row 8: wasps/1\.jpg"):
        read(photos, text)
    assert read(photos, text, for_training=False).classes == ("ants", "bees")


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=12)
paths = st.sampled_from([path for path, _ in SIX] + ["nowhere/1.jpg", "ants/4.jpg", ""])
written_rows = st.lists(st.tuples(paths, cells), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(written_rows, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_row_is_used_or_left_out_and_every_label_comes_back(photos, written, delimiter, ending):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=ending)
    writer.writerow(["path", "label"])
    writer.writerows(written)
    try:
        dataset = read(photos, buffer.getvalue(), for_training=False)
    except DatasetError as error:
        assert "\n" not in str(error)
        return
    there = [(path, unicodedata.normalize("NFC", label.strip())) for path, label in written]
    there = [(path, label) for path, label in there if path or label]
    assert len(dataset.samples) + len(dataset.skipped) == len(there)
    assert set(rows(dataset)) <= set(there)


# --- tables beside images ---------------------------------------------------------------------------------


def in_a_zip(root, files):
    return zipped(root / "photos.zip", files)


FLAT = {"img/1.jpg": PIXEL, "img/2.jpg": PIXEL, "img/3.jpg": PIXEL}
TABLE = "path,label\nimg/1.jpg,a\nimg/2.jpg,b\n"
LINES = '{"file_name": "img/1.jpg", "label": "a"}\n{"file_name": "img/2.jpg", "label": "b"}\n'


@pytest.mark.parametrize("place", [write, in_a_zip])
@pytest.mark.parametrize(
    "files",
    [
        {**FLAT, "labels.csv": TABLE},
        {**FLAT, "top.tsv": TABLE.replace(",", "\t")},
        {**FLAT, "img/metadata.csv": "file_name,label\n1.jpg,a\n2.jpg,b\n"},
        {
            **FLAT,
            "metadata.jsonl": LINES,
        },
        {**FLAT, "train.csv": "image_id,breed\n1,a\n2,b\n", "sample.csv": "nr,text\n1,x\n"},
        {**FLAT, "labels.csv": TABLE, "other.csv": TABLE},
        {**FLAT, "tables/all.csv": TABLE.replace("img/", "")},
        {**FLAT, "train.csv": TABLE, "sample_submission.csv": "path,label\nimg/3.jpg,a\n"},
        {**FLAT, "one.csv": TABLE, "two.csv": TABLE.replace("img/2", "img/9")},
    ],
)
def test_a_table_in_a_folder_or_zip_gives_the_labels(tmp_path, place, files):
    dataset = read_dataset(place(tmp_path, files))
    assert [(name[-5:], label) for name, label in rows(dataset)] == [("1.jpg", "a"), ("2.jpg", "b")]
    left_out = {item.name for item in dataset.skipped}
    assert any(name.endswith("3.jpg") for name in left_out)
    tables = [name for name in files if not name.endswith(".jpg")]
    assert len(dataset.samples) + len(left_out) == len(files) - 1 or len(tables) > 1


def test_tables_that_are_named_after_splits_are_splits(tmp_path):
    files = {**FLAT, "train.csv": TABLE, "labels_val.csv": "path,label\nimg/3.jpg,a\n"}
    dataset = read_dataset(write(tmp_path, files))
    assert [sample.split for sample in dataset.samples] == ["validation", "train", "train"] or [
        sample.split for sample in dataset.samples
    ] == ["train", "train", "validation"]
    assert "are the splits" in dataset.notes[0]


def test_a_metadata_table_in_each_split_folder(tmp_path):
    files = {
        "train/1.jpg": PIXEL,
        "train/2.jpg": PIXEL,
        "train/metadata.csv": "file_name,label\n1.jpg,a\n2.jpg,b\n",
        "test/3.jpg": PIXEL,
        "test/metadata.csv": "file_name,label\n3.jpg,b\n",
    }
    dataset = read_dataset(write(tmp_path, files))
    assert {(sample.name, sample.split) for sample in dataset.samples} == {
        ("train/1.jpg", "train"),
        ("train/2.jpg", "train"),
        ("test/3.jpg", "test"),
    }


def test_several_tables_that_could_be_meant_are_asked_about(tmp_path):
    files = {**FLAT, "one.csv": TABLE, "two.csv": TABLE}
    with pytest.raises(DatasetError, match=r"2 tables name images \(one\.csv, two\.csv\); give the one"):
        read_dataset(write(tmp_path, files))


def test_a_table_that_contradicts_the_folders_is_asked_about(tmp_path):
    files = {
        "ants/1.jpg": PIXEL,
        "bees/1.jpg": PIXEL,
        "labels.csv": "path,label\nants/1.jpg,x\nbees/1.jpg,y\n",
    }
    with pytest.raises(DatasetError, match=r"ants/1\.jpg is 'x' in the table and 'ants' by its folder"):
        read_dataset(write(tmp_path, files))
    (tmp_path / "labels.csv").write_text("path,label\nants/1.jpg,ants\nbees/1.jpg,bees\n")
    assert read_dataset(tmp_path).classes == ("ants", "bees")
    (tmp_path / "labels.csv").write_text("path,camera\nants/1.jpg,x\nbees/1.jpg,y\n")
    assert read_dataset(tmp_path).classes == ("ants", "bees")


# --- Parquet ----------------------------------------------------------------------------------------------


def parquet(path, columns, *, features=None, **options):
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(columns)
    if features:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, **options)
    return path


def images(*names):
    return [{"bytes": PIXEL + name.encode(), "path": name} for name in names]


def test_a_hugging_face_parquet_has_its_images_and_class_names_inside(tmp_path):
    names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    path = parquet(
        tmp_path / "h.parquet",
        {"image": images(*names), "label": [1, 0, 1, 0]},
        features={"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}},
        row_group_size=3,
    )
    dataset = read_dataset(path)
    assert rows(dataset) == list(
        zip([f"row {n + 1} {name}" for n, name in enumerate(names)], ["dog", "cat"] * 2, strict=True)
    )
    assert [sample.source.read() for sample in dataset.samples] == [PIXEL + name.encode() for name in names]
    assert (
        read_dataset(in_a_zip(tmp_path, {"h.parquet": path.read_bytes()})).samples[3].source.read()
        == PIXEL + b"4.jpg"
    )


def test_a_column_of_bytes_holds_images_too(tmp_path):
    path = parquet(tmp_path / "b.parquet", {"jpg": [PIXEL, PIXEL + b"2"], "cls": ["a", "b"]})
    assert rows(read_dataset(path)) == [("row 1", "a"), ("row 2", "b")]


@pytest.mark.parametrize("folder", ["", "data/"])
def test_a_folder_of_shards_is_one_data_set_with_splits(tmp_path, folder):
    (tmp_path / "data").mkdir()
    for name, label in (
        ("train-00000-of-00002", "a"),
        ("train-00001-of-00002", "b"),
        ("test-00000-of-00001", "a"),
    ):
        parquet(tmp_path / f"{folder}{name}.parquet", {"image": images("1.jpg"), "label": [label]})
    (tmp_path / "README.md").write_text("words")
    dataset = read_dataset(tmp_path)
    assert sorted((dataset.classes[s.label], s.split) for s in dataset.samples) == [
        ("a", "test"),
        ("a", "train"),
        ("b", "train"),
    ]
    assert [item.name for item in dataset.skipped] == ["README.md"]
    (tmp_path / f"{folder}train-00001-of-00002.parquet").unlink()
    notes = read_dataset(tmp_path, for_training=False).notes
    assert "1 of the 2 shards of train are here" in notes[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["ants/1.jpg"] * 2, "label": [1.0, float("nan")]}, "row 2: label is empty"),
        ({"path": ["ants/1.jpg"] * 2, "label": [["a"], ["b"]]}, "row 2: ants/1.jpg has label"),
        ({"path": ["ants/1.jpg"] * 2, "label": [b"\xff", b"a"]}, "row 1: the label is bytes"),
        ({"path": ["ants/1.jpg"], "label": ["x" * 70_000]}, "a value of label has 70,000 bytes"),
        ({"a": [1], "b": [2]}, "expected a column of image files"),
    ],
)
def test_parquet_that_forms_no_data_set_is_refused(photos, columns, message):
    path = parquet(photos / "t.parquet", columns)
    with pytest.raises(DatasetError, match=message):
        read_dataset(path)


def test_class_names_that_are_not_there_are_refused(tmp_path):
    features = {"label": {"_type": "ClassLabel", "names": ["cat"]}}
    path = parquet(tmp_path / "h.parquet", {"image": images("1.jpg"), "label": [7]}, features=features)
    with pytest.raises(DatasetError, match="row 1: class 7, but the file names 1 classes"):
        read_dataset(path)
    path = parquet(tmp_path / "h.parquet", {"image": images("1.jpg"), "label": [-1]}, features=features)
    with pytest.raises(DatasetError, match="row 1: label is empty"):
        read_dataset(path)


def test_whole_numbers_in_floating_point_are_the_numbers(photos):
    path = parquet(photos / "t.parquet", {"path": ["ants/1.jpg", "bees/1.jpg"], "label": [0.0, 1.0]})
    assert read_dataset(path).classes == ("0", "1")


def test_parquet_without_pyarrow_names_the_extra_in_a_zip_too(tmp_path, monkeypatch):
    archive = in_a_zip(tmp_path, {"t.parquet": b"PAR1"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for path in (archive, write(tmp_path, {"t.parquet": b""}) / "t.parquet"):
        with pytest.raises(MissingExtra, match=r"headstart\[parquet\]"):
            read_dataset(path)


# --- bounds -----------------------------------------------------------------------------------------------


def test_rows_columns_lines_and_bytes_of_text_tables_are_bounded(photos, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_ROWS", 3)
    with pytest.raises(DatasetError, match="more than 3 rows"):
        read(photos, PLAIN)
    with pytest.raises(DatasetError, match="columns; at most 10,000"):
        read(photos, "path,label" + ",x" * 20_000)
    with pytest.raises(DatasetError, match="row 2: more than 1,048,576 characters"):
        read(photos, "path,label\n" + "a" * (2**20 + 1))
    monkeypatch.setattr(delimited, "MAX_TABLE_BYTES", 100)
    with pytest.raises(DatasetError, match="larger than"):
        read(photos, PLAIN * 2)


@pytest.mark.skipif(not hasattr(__import__("os"), "mkfifo"), reason="no pipes here")
def test_a_pipe_that_is_called_a_table_does_not_block(tmp_path):
    import os

    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DatasetError, match="not a regular file"):
        read_dataset(tmp_path / "t.csv")


def test_an_image_inside_a_parquet_is_found_again_by_its_place(tmp_path):
    path = parquet(tmp_path / "h.parquet", {"image": images("1.jpg", "2.jpg"), "label": ["a", "b"]})
    place = place_of(read_dataset(path).samples[1])
    assert place == {"file": str(path), "member": "image.bytes:1"}
    assert source_at(place["file"], place["member"]).read() == PIXEL + b"2.jpg"
    with pytest.raises(ImageError, match="no longer in"):
        source_at(str(path), "image.bytes:2").read()
    path.write_bytes(b"PAR1 no")
    with pytest.raises(ImageError, match="not readable as Parquet"):
        source_at(str(path), "image.bytes:1").read()
    inside = read_dataset(in_a_zip(tmp_path, {"h.parquet": b"", **FLAT, "labels.csv": TABLE}))
    assert "member" in place_of(inside.samples[0])


def constant(rows, *, value="ants/1.jpg", columns=("path", "label")):
    """A few kilobytes that say the same thing in every row."""
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    part = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int8()), [value])
    buffer = io.BytesIO()
    pq.write_table(pyarrow.table(dict.fromkeys(columns, part)), buffer, compression="zstd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"rows": 2_100_000}, "2,100,000 rows; at most 2,000,000 are read"),
        ({"rows": 150_000}, "150,000 rows name only 1 different images"),
        ({"rows": 10, "columns": [f"c{number}" for number in range(51)]}, "51 columns; at most 50 are read"),
        (
            {"rows": 10, "columns": ["path", "label", "x" * 50_000]},
            "list of columns and row groups is larger",
        ),
        ({"rows": 100_000, "value": "x" * 100_000}, "has 100,000 bytes; a path or a label has at most"),
    ],
)
def test_a_parquet_that_claims_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch, made, message):
    monkeypatch.setattr("headstart.data.sources.parquet.MAX_COLUMNS", 50)
    monkeypatch.setattr("headstart.data.sources.parquet.MAX_FOOTER", 50_000)
    data = constant(**made)
    (tmp_path / "t.parquet").write_bytes(data)
    began = time.process_time()
    for path in (tmp_path / "t.parquet", in_a_zip(tmp_path, {"t.parquet": data, "1.jpg": PIXEL})):
        with pytest.raises(DatasetError, match=message):
            read_dataset(path)
    assert (
        time.process_time() - began < 10
    )  # what each takes is far below one; the rows alone would take more


def test_small_tables_of_many_rows_without_a_file_cost_little(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("headstart.data.dataset.tables._LEFT_OUT", 50)
    (tmp_path / "ants.jpg").write_bytes(PIXEL)
    for paths in (["ants.jpg"] + [None] * 30_000, ["ants.jpg"] * 30_000, list(range(30_000))):
        kind = pyarrow.int64() if paths[0] == 0 else pyarrow.string()
        table = pyarrow.table({"path": pyarrow.array(paths, kind), "label": ["a"] * len(paths)})
        options = {"use_dictionary": False, "column_encoding": {"path": "DELTA_BINARY_PACKED"}}
        pq.write_table(
            table, tmp_path / "t.parquet", **(options if paths[0] == 0 else {}), compression="zstd"
        )
        assert (tmp_path / "t.parquet").stat().st_size < len(paths)
        with pytest.raises(DatasetError, match=r"row \d+: [\d,]+ rows so far name no file that is here"):
            read_dataset(tmp_path / "t.parquet")


@pytest.mark.parametrize("line", ["1.jpg,b\n", "\n", ",b\n"])
def test_text_that_says_the_same_in_each_line_is_refused_before_its_rows_are_read(tmp_path, line):
    text = "path,label\n" + line * (2**22 // len(line) + 1)
    archive = in_a_zip(tmp_path, {"t.csv": text.encode(), "1.jpg": PIXEL})
    began = time.process_time()
    with pytest.raises(DatasetError, match=r"lines only [23] differ; keep one for each image"):
        read_dataset(archive)
    assert time.process_time() - began < 5  # far below one; the rows alone took more


def test_check_takes_the_names_of_columns(tmp_path):
    for number in range(4):
        Image.new("RGB", (40, 40), (60 * number, 30, 90)).save(tmp_path / f"{number}.png")
    lines = "".join(f"{number}.png,x,{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "t.csv").write_text("photo,first,second\n" + lines)
    table = str(tmp_path / "t.csv")
    refused = CliRunner().invoke(cli, ["check", table])
    assert isinstance(refused.exception, DatasetError)
    assert "--label-column" in str(refused.exception)
    done = CliRunner().invoke(
        cli, ["check", table, "--label-column", "second", "--image-column", "photo", "--json"]
    )
    assert done.exit_code == 0
    assert '"classes"' in done.output
