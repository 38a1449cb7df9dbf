import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import sources
from headstart.data.dataset import (
    content_hash,
    list_images,
    read_dataset,
)
from headstart.errors import DatasetError, ImageError
from listed_files import PIXEL, described, fill, zipped

# --- folders ----------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    root = fill(tmp_path / "pets", "dog/b.jpg", "cat/deep/er/a.PNG", "cat/c.webp")
    dataset = read_dataset(root)
    assert (dataset.name, dataset.classes) == ("pets", ("cat", "dog"))
    assert described(dataset) == [
        ("cat/c.webp", "cat", None),
        ("cat/deep/er/a.PNG", "cat", None),
        ("dog/b.jpg", "dog", None),
    ]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.labels.dtype == np.int64
    assert dataset.samples[0].source.read() == PIXEL
    assert read_dataset(dataset) is dataset


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path, validation):
    root = fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{validation}/a/3.jpg", "test/b/x/4.jpg")
    dataset = read_dataset(root)
    assert dataset.classes == ("a", "b")
    assert sorted((Path(name).name, label, split) for name, label, split in described(dataset)) == [
        ("1.jpg", "a", "train"),
        ("2.jpg", "b", "train"),
        ("3.jpg", "a", "validation"),
        ("4.jpg", "b", "test"),
    ]


def test_split_folders_are_classes_on_request_and_where_train_is_a_vehicle(tmp_path):
    splits = fill(tmp_path / "splits", "train/a/1.jpg", "val/a/2.jpg")
    assert read_dataset(splits, split_by_folder=False).classes == ("train", "val")
    vehicles = fill(tmp_path / "vehicles", "train/1.jpg", "car/2.jpg")
    assert read_dataset(vehicles).classes == ("car", "train")


def test_litter_is_ignored_and_other_files_are_counted(tmp_path):
    root = fill(
        tmp_path, "a/1.jpg", "b/2.jpg", ".git/x.jpg", "a/.DS_Store", "b/Thumbs.db", "__MACOSX/a/._1.jpg"
    )
    fill(root, "a/notes.txt", "b/phone.dng", "loose.jpg", "b/README", content=b"plain words")
    fill(root, "b/photograph")
    dataset = read_dataset(root)
    assert [sample.name for sample in dataset.samples] == ["a/1.jpg", "b/2.jpg", "b/photograph"]
    reasons = {skipped.name: skipped.reason for skipped in dataset.skipped if not skipped.litter}
    passed_over = {skipped.name for skipped in dataset.skipped if skipped.litter}
    assert passed_over == {".git/", "a/.DS_Store", "b/Thumbs.db", "__MACOSX/"}
    assert reasons.keys() == {"a/notes.txt", "b/phone.dng", "loose.jpg", "b/README"}
    assert "no class folder" in reasons["loose.jpg"]
    assert ".dng" in reasons["b/phone.dng"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_no_utf8_are_printable_and_open(tmp_path):
    fill(tmp_path, "b/2.jpg")
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    with open(os.fsencode(tmp_path) + b"/caf\xe9/\xff.jpg", "wb") as file:
        file.write(PIXEL)
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("b", "caf\\xe9")
    name = dataset.samples[1].name
    assert name == "caf\\xe9/\\xff.jpg"
    name.encode("utf-8")
    assert dataset.samples[1].source.read() == PIXEL


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.jpg"], r"only one class \(a\)"),
        (["a/notes.txt"], r"no images \(1 left out; a/notes\.txt: \.txt is no image format"),
        ([], "no images"),
        (["1.jpg", "2.jpg"], "2 images but no class folders"),
        (
            ["a/1.jpg", "b/2.jpg", "c/notes.txt"],
            r"class folder c \(c/notes\.txt: .*; add images or remove",
        ),
        (["train/a/1.jpg", "train/b/2.jpg", "val/c/3.jpg"], "class c is in validation but not in training"),
        (["train/a/1.jpg", "train/b/x.txt", "test/b/3.jpg"], "class b is in test but not in training"),
        (["train/a/1.jpg", "val/a/3.jpg"], r"only one class \(a\)"),
        (["val/a/1.jpg", "val/b/2.jpg"], r"every image is held out .* or give .*/val to train on these"),
        (["val/a/1.jpg", "test/b/2.jpg"], r"every image is held out .* in train/$"),
    ],
)
def test_folders_that_form_no_data_set_are_one_clear_line(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(fill(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "ghost").mkdir()
    with pytest.raises(DatasetError, match="class folder ghost"):
        read_dataset(tmp_path)


def test_a_path_that_does_not_exist_or_is_something_else(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such folder or file"):
        read_dataset(tmp_path / "nowhere")
    fill(tmp_path, "song.mp3")
    with pytest.raises(DatasetError, match=r"expected a folder, a \.csv"):
        read_dataset(tmp_path / "song.mp3")


@pytest.mark.parametrize("read", [read_dataset, lambda source: list_images([source])])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the path is empty; name a folder"),
        (" ", "the path is empty; name a folder"),
        ("ftp://example.org/photos.zip", "ftp://example.org/photos.zip: addresses of this kind are not read"),
        (Path("s3://bucket/photos"), "s3://bucket/photos: is an address"),
        ("C:\\photos", "no such folder or file"),
        ("~nobody-of-this-name/photos", "~nobody-of-this-name/photos: no such folder or file"),
        ("in{braces}/photos", "in{braces}/photos: no such folder or file"),
    ],
)
def test_no_path_and_an_address_are_told_apart_from_what_is_not_there(
    tmp_path, monkeypatch, read, source, message
):
    fill(tmp_path, "ants/1.jpg", "bees/1.jpg")
    monkeypatch.chdir(tmp_path)  # an empty path is not the folder one stands in
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(source)


def test_a_path_may_have_a_tilde_blanks_braces_and_slashes_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "my {old} photos", "ants/1.jpg", "bees/1.jpg")
    for source in ("~/my {old} photos", "~/my {old} photos//", f"{tmp_path}/x/../my {{old}} photos/."):
        (tmp_path / "x").mkdir(exist_ok=True)
        dataset = read_dataset(source)
        assert dataset.classes == ("ants", "bees") and dataset.origin == str(tmp_path / "my {old} photos")
    assert len(list_images(["~/my {old} photos/ants/1.jpg"])) == 1
    with pytest.raises(DatasetError, match="is a table; give the images"):
        list_images([fill(tmp_path, "labels.csv") / "labels.csv"])


def test_a_file_that_vanishes_after_listing_is_an_image_error(tmp_path):
    dataset = read_dataset(fill(tmp_path, "a/1.jpg", "b/2.jpg"))
    (tmp_path / "a/1.jpg").unlink()
    with pytest.raises(ImageError, match="No such file"):
        dataset.samples[0].source.read()


def test_a_file_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.reading, "MAX_FILE_BYTES", 10)
    dataset = read_dataset(fill(tmp_path, "a/1.jpg", "b/2.jpg"))
    with pytest.raises(ImageError, match="larger than"):
        dataset.samples[0].source.read()


# --- tables -----------------------------------------------------------------------------------------------


def test_a_csv_of_paths_labels_and_splits(tmp_path):
    text = "Path,label,extra,split\ni/1.jpg,b,,train\ni/2.jpg,a,,\n\ni/3.jpg,a,,val\n"
    path = fill(tmp_path, "i/1.jpg", "i/2.jpg", "i/3.jpg") / "labels.csv"
    path.write_text(text, encoding="utf-8-sig")
    dataset = read_dataset(path)
    assert described(dataset) == [
        ("i/1.jpg", "b", "train"),
        ("i/2.jpg", "a", None),
        ("i/3.jpg", "a", "validation"),
    ]
    assert dataset.samples[0].source.read() == PIXEL


def test_a_parquet_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path, "1.jpg", "2.jpg")
    columns = {"path": ["1.jpg", "2.jpg"], "label": [7, 8], "split": ["train", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert described(read_dataset(tmp_path / "t.parquet")) == [("1.jpg", "7", "train"), ("2.jpg", "8", None)]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DatasetError, match="not readable as Parquet"):
        read_dataset(tmp_path / "bad.parquet")


# --- zips -------------------------------------------------------------------------------------------------


def test_split_folders_in_a_zip_are_splits(tmp_path):
    names = ("train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg")
    splits = read_dataset(zipped(tmp_path / "s.zip", dict.fromkeys(names, PIXEL)))
    assert [sample.split for sample in splits.samples] == ["train", "train", "validation"]


def test_a_zip_with_an_empty_class_folder_and_a_file_that_is_no_zip(tmp_path):
    path = zipped(tmp_path / "e.zip", {"a/1.jpg": PIXEL, "b/2.jpg": PIXEL, "ghost/": b""})
    with pytest.raises(DatasetError, match="class folder ghost"):
        read_dataset(path)
    (tmp_path / "no.zip").write_bytes(b"not at all")
    with pytest.raises(DatasetError, match="not a readable zip"):
        read_dataset(tmp_path / "no.zip")


def test_zip_members_that_expand_absurdly_or_are_damaged_are_image_errors(tmp_path):
    members = {"a/bomb.bmp": bytes(20 * 2**20), "b/2.jpg": os.urandom(3000)}
    path = zipped(tmp_path / "z.zip", members)
    bomb, _ = read_dataset(path).samples
    with pytest.raises(ImageError, match="bomb"):
        bomb.source.read()
    raw = bytearray(path.read_bytes())
    raw[-1500] ^= 0xFF
    path.write_bytes(raw)
    _, damaged = read_dataset(path).samples
    with pytest.raises(ImageError, match="cannot be read from the zip"):
        damaged.source.read()


def test_a_zip_is_read_by_many_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    members = {f"{'ab'[k % 2]}/{k:03}.jpg": os.urandom(5000) for k in range(100)}
    dataset = read_dataset(zipped(tmp_path / "m.zip", members))
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda sample: sample.source.read(), dataset.samples))
    assert dict(zip([sample.name for sample in dataset.samples], contents, strict=True)) == members


# --- arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 1), (4, 8, 8, 3)])
def test_arrays_with_labels(shape):
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    dataset = read_dataset((images, [10, 9, 10, 2]))
    assert dataset.classes == ("2", "9", "10")
    assert dataset.labels.tolist() == [2, 1, 2, 0]
    np.testing.assert_array_equal(dataset.samples[3].source.read(), images[3])


def test_a_list_of_pillow_images_is_a_data_set_of_arrays():
    pictures = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    dataset = read_dataset((pictures, ["r", "b"]))
    assert dataset.samples[0].source.read().shape == (6, 8, 3)
    assert content_hash(dataset.samples[0].source.read()) != content_hash(dataset.samples[1].source.read())


@pytest.mark.parametrize("source", [None, 5, b"photos", ["a.jpg"], np.zeros((2, 8, 8), np.uint8)])
def test_what_is_neither_a_path_nor_a_pair_of_arrays_is_refused(source):
    with pytest.raises(DatasetError, match=rf"got {type(source).__name__}"):
        read_dataset(source)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8), np.float32), [0, 1], r"expected uint8 .* got float32; .*\* 255"),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], r"expected the shape .* got \[2, 3, 8, 8\]"),
        (np.zeros((2, 8, 8), np.uint8), [0], "got 1 label for 2 images"),
        (np.zeros((0, 8, 8), np.uint8), [], "no images"),
        (np.zeros((2, 8, 8), np.uint8), [1, 1], "only one class"),
        (np.zeros((2, 8, 8), np.int64), [0, 1], r"got int64; pass X\.astype"),
        (np.zeros((2, 8, 8), np.uint8), ["a", None], "1 label is missing, the first at 1"),
        (np.zeros((2, 8, 8), np.uint8), [0.0, np.nan], "1 label is missing, the first at 1"),
        (np.zeros((2, 8, 8), np.uint8), np.array([1, "a"], dtype=object), "labels are of several kinds"),
        (5, [0, 1], "X: expected an array or a list of images, got int"),
    ],
)
def test_arrays_that_form_no_data_set(images, labels, message):
    with pytest.raises(DatasetError, match=message):
        read_dataset((images, labels))


# --- images to predict ------------------------------------------------------------------------------------


def test_images_to_predict_come_from_files_folders_and_zips(tmp_path):
    fill(tmp_path, "folder/x/1.jpg", "folder/notes.txt", "single.dat")
    path = zipped(tmp_path / "z.zip", {"a.jpg": PIXEL})
    samples = list_images([tmp_path / "single.dat", tmp_path / "folder", path])
    assert [Path(sample.name).name for sample in samples] == ["single.dat", "1.jpg", "a.jpg"]
    assert {sample.label for sample in samples} == {-1}
    with pytest.raises(DatasetError, match="no such"):
        list_images([tmp_path / "nowhere.jpg"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetError, match="no image in it"):
        list_images([tmp_path / "bare"])


# --- hashes and splits ------------------------------------------------------------------------------------


def test_a_content_hash_follows_content_shape_and_kind():
    array = np.arange(12, dtype=np.uint8)
    hashes = [
        content_hash(b"a"),
        content_hash(b"b"),
        content_hash(array),
        content_hash(array.tobytes()),
        content_hash(array.reshape(3, 4)),
        content_hash(array.reshape(4, 3)),
    ]
    assert len(set(hashes)) == 6
    assert {len(digest) for digest in hashes} == {16}
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert content_hash(picture[:, ::2]) == content_hash(picture[:, ::2].copy())
