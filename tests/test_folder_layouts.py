"""Folders as public data sets lay them out: parts, masks, wrappers, boxes, arrays."""

import pytest

from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError
from listed_files import PIXEL, described, fill, write, zipped


def left_out(dataset):
    return {item.name: item.reason for item in dataset.skipped}


# --- pictures that belong to others -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "companion", "what"),
    [
        ("{}/a ({}).png", "{}/a ({})_mask.png", "a mask"),
        ("{}/a ({}).png", "{}/a ({})_mask_1.png", "a mask"),
        ("{}/{}.jpg", "{}/{}_segmentation.png", "a mask"),
        ("{}/images/{}.png", "{}/masks/{}.png", "a mask"),
        ("{}/images/{}.jpg", "{}/Ground Truth/{}_gt.png", "a mask"),
        ("{}/{}.jpg", "{}/thumbs/{}.jpg", "a thumbnail"),
        ("{}/{}.jpg", "{}/thumb_{}.jpg", "a thumbnail"),
        ("{}/{}.JPG", "{}/{}-thumbnail.jpg", "a thumbnail"),
        ("train/{}/images/{}.png", "train/{}/masks/{}.png", "a mask"),
    ],
)
def test_masks_and_thumbnails_are_left_out_with_the_picture_they_belong_to(
    tmp_path, picture, companion, what
):
    pairs = [(kind, number) for kind in ("ants", "bees") for number in (1, 2)]
    fill(tmp_path, *(each.format(*pair) for pair in pairs for each in (picture, companion)))
    dataset = read_dataset(tmp_path)
    assert sorted(name for name, _, _ in described(dataset)) == sorted(
        picture.format(*pair) for pair in pairs
    )
    assert dataset.classes == ("ants", "bees")
    assert left_out(dataset) == {
        companion.format(*pair): f"{what} of {picture.format(*pair)}" for pair in pairs
    }


@pytest.mark.parametrize(
    "tops", [("images", "masks"), ("train", "train_masks"), ("JPEGImages", "SegmentationClass")]
)
def test_a_folder_of_masks_is_no_class(tmp_path, tops):
    fill(tmp_path, *(f"{top}/{number}.png" for top in tops for number in (1, 2)))
    with pytest.raises(DatasetError, match=f"{tops[1]}/1.png: a mask of {tops[0]}/1.png|only one class"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path, split_by_folder=False).classes) == 2


@pytest.mark.parametrize(
    "tops", [("mask", "no_mask"), ("with_mask", "without_mask"), ("face", "face_mask"), ("thumb", "finger")]
)
def test_classes_that_are_called_like_masks_stay_classes(tmp_path, tops):
    fill(tmp_path, *(f"{top}/{number}.png" for top in tops for number in (1, 2)))
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 4 and not dataset.skipped


# --- what is around, and what is beside -------------------------------------------------------------------


@pytest.mark.parametrize("around", ["data", "archive/data", "ILSVRC/Data/CLS-LOC"])
def test_splits_are_found_below_folders_around_everything(tmp_path, around):
    fill(tmp_path, *(f"{around}/{s}/{c}/1.jpg" for s in ("train", "val") for c in ("ants", "bees")))
    write(tmp_path, {"README.txt": "about it", f"{around}/train/ants/notes.txt": "x"})
    dataset = read_dataset(tmp_path)
    assert {(label, split) for _, label, split in described(dataset)} == {
        (label, split) for label in ("ants", "bees") for split in ("train", "validation")
    }
    assert set(left_out(dataset)) == {"README.txt", f"{around}/train/ants/notes.txt"}
    (tmp_path / around / "train" / "wasps").mkdir()
    if around.count("/") < 2:
        with pytest.raises(DatasetError, match="no images in class folder wasps"):
            read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("archive/seg_train/seg_train", "archive/seg_test/seg_test"),
        ("train/images", "test/Images"),
    ],
)
def test_classes_are_found_within_a_folder_that_says_the_split_again(tmp_path, train, test):
    fill(tmp_path, *(f"{top}/{kind}/1.jpg" for top in (train, test) for kind in ("ants", "bees")))
    dataset = read_dataset(tmp_path)
    assert sorted((label, split) for _, label, split in described(dataset)) == [
        (label, split) for label in ("ants", "bees") for split in ("test", "train")
    ]
    fill(tmp_path, f"{test}/loose.jpg")
    assert left_out(read_dataset(tmp_path))[f"{test}/loose.jpg"].startswith("lies in no class folder")
    (tmp_path / train / "wasps").mkdir()
    with pytest.raises(DatasetError, match="no images in class folder wasps"):
        read_dataset(tmp_path)


def test_a_copy_of_the_classes_beside_them_is_asked_about(tmp_path):
    fill(tmp_path, *(f"{top}{kind}/1.jpg" for top in ("", "brain/") for kind in ("yes", "no")))
    with pytest.raises(
        DatasetError, match=r"brain/ holds folders called as those beside it \(no/ and yes/\)"
    ):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, split_by_folder=False).classes == ("brain", "no", "yes")


def test_a_single_class_around_the_classes_is_named_as_deep_as_it_is(tmp_path):
    fill(tmp_path, "a/b/ants/1.jpg", "a/b/bees/1.jpg")
    with pytest.raises(DatasetError, match=r"the folders in it \(ants, bees\), give .*/a/b$"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "tops",
    [
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("images_001", "images_002", "images_012"),
        ("batch1", "batch2"),
        ("fold_0", "fold_1"),
    ],
)
def test_parts_of_a_collection_are_no_classes(tmp_path, tops):
    fill(tmp_path, *(f"{top}/{top}{number}.jpg" for top in tops for number in (1, 2)))
    with pytest.raises(DatasetError, match=r"are called parts of one collection; .* \(--splits none"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, split_by_folder=False).classes == tuple(sorted(tops))
    rows = "".join(f"{top}{number},{'ab'[number - 1]}\n" for top in tops for number in (1, 2))
    write(tmp_path, {"HAM10000_metadata.csv": f"image_id,dx\n{rows}"})
    assert read_dataset(tmp_path).classes == ("a", "b")


def test_numbered_classes_are_classes(tmp_path):
    fill(tmp_path, "Type_1/1.jpg", "Type_2/1.jpg", "grade3/1.jpg")
    assert read_dataset(tmp_path).classes == ("Type_1", "Type_2", "grade3")


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled_images", "unsorted", "unsup"])
def test_unlabelled_images_beside_classes_are_asked_about(tmp_path, name):
    fill(tmp_path, "ants/1.jpg", "bees/1.jpg", f"{name}/1.jpg")
    with pytest.raises(
        DatasetError, match=rf"{name}/ lies beside class folders; move it away if it is no class"
    ):
        read_dataset(tmp_path)


def test_held_out_images_in_a_folder_that_is_no_class_have_no_label(tmp_path):
    fill(
        tmp_path, "train/n01/images/1.jpg", "train/n02/images/2.jpg", "val/images/3.jpg", "test/images/4.jpg"
    )
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("n01", "n02")
    assert set(left_out(dataset)) == {"val/images/3.jpg", "test/images/4.jpg"}


def test_folders_in_class_folders_are_told_of_where_they_may_be_the_classes(tmp_path):
    fill(tmp_path / "a", "bird/owl/1.jpg", "mammal/cat/1.jpg", "mammal/dog/1.jpg")
    assert read_dataset(tmp_path / "a").notes == (
        "mammal/ holds folders (cat/ and dog/); their images count as mammal",
    )
    fill(
        tmp_path / "b",
        "train/ant/2020/1.jpg",
        "train/bee/1.jpg",
        "train/bee/more/2.jpg",
        "val/ant/2021/1.jpg",
    )
    assert read_dataset(tmp_path / "b").notes == (
        "ant/ holds folders (2020/ and 2021/); their images count as ant",
    )


def test_names_of_strangers_are_shown_without_their_control_characters(tmp_path):
    fill(tmp_path / "a", "a\x1b[2J/x/1.jpg", "a\x1b[2J/y/1.jpg", "b/v\x07/1.jpg", "b/w/1.jpg")
    (note,) = read_dataset(tmp_path / "a").notes
    assert note.isprintable() and note.endswith("; so it is in 2 classes")
    write(tmp_path / "b", {"images/1.jpg": PIXEL, "labels\x1b[2J.json": "{}"})
    with pytest.raises(DatasetError, match="looks like labels in JSON") as caught:
        read_dataset(tmp_path / "b")
    assert str(caught.value).isprintable()


# --- no labelled images at all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["train2017/1.jpg", "annotations/instances_train2017.json"],
            "boxes in COCO's form; a classifier needs",
        ),
        (["train/1.jpg", "train/_annotations.coco.json"], "boxes in COCO's form"),
        (["images/1.jpg", "annotations.json"], r"only one class \(images\): .* boxes in COCO's form"),
        (["JPEGImages/1.jpg", "Annotations/1.xml", "ImageSets/Main/train.txt"], "boxes in Pascal VOC's form"),
        (["images/train/1.jpg", "labels/train/1.txt", "data.yaml"], "boxes in YOLO's form"),
        (["train/images/1.jpg", "train/labels/1.txt"], "boxes in YOLO's form"),
        (["data_batch_1", "test_batch", "batches.meta"], r"CIFAR's batches; .* pair of arrays \(X, y\)"),
        (["train-images-idx3-ubyte", "train-labels-idx1-ubyte"], "MNIST's form"),
        (["pathmnist.npz"], r"arrays in files; load them .* \(X, y\)"),
        (["train.tfrecord-00000-of-00002"], "records of another program"),
        (
            ["photos/1.jpg", "labels.xlsx"],
            r"only one class \(photos\): labels\.xlsx looks like a workbook; save",
        ),
        (
            ["photos/1.jpg", "labels.json"],
            r"only one class \(photos\): labels\.json looks like labels in JSON",
        ),
    ],
)
def test_what_is_no_set_of_labelled_images_is_called_what_it_is(tmp_path, names, said):
    files = {name: PIXEL if name.endswith(".jpg") else b"x" for name in names}
    write(tmp_path / "folder", files)
    for source in (tmp_path / "folder", zipped(tmp_path / "zip.zip", files)):
        with pytest.raises(DatasetError, match=said) as caught:
            read_dataset(source)
        assert "\n" not in str(caught.value)
    if len(names) == 1 and "tfrecord" not in names[0]:
        with pytest.raises(DatasetError, match=said):
            read_dataset(tmp_path / "folder" / names[0])
