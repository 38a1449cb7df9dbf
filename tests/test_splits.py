"""What stays on one side of a split: near-duplicates within bounds, groups of a table; what is said of it."""

import json
import shutil
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart import fit
from headstart.data.checks import check
from headstart.data.dataset import SPLITS, ArraySource, Dataset, Sample, content_hash, read_dataset
from headstart.data.images import ImageFacts
from headstart.data.splits import assign_splits, split
from headstart.errors import DatasetError, OptionError

FAST = {"backbone": "builtin", "size": 32, "layers": "last"}


def digest(number):
    return content_hash(str(number).encode())


TRAINS = max(map("sure {}".format, range(500)), key=lambda name: content_hash(f"group {name}".encode()))
"""A group that is the last to be held out, so that both classes are trained on."""


def made(labels, groups=None):
    """A data set whose images carry these labels and groups."""
    picture = np.zeros((1, 1, 3), np.uint8)
    samples = tuple(
        Sample(str(index), label, None, ArraySource(picture), group=group)
        for index, (label, group) in enumerate(zip(labels, groups or [None] * len(labels), strict=True))
    )
    return Dataset("made", ("a", "b"), samples)


def facts(views):
    """Perceptual facts: images of one view look alike, the others like nothing."""
    random = np.random.default_rng(0)
    hashes = defaultdict(lambda: random.integers(0, 256, 32).astype(np.uint8).tobytes())
    return [ImageFacts(64, 64, "PNG", "RGB", 1, hashes[view]) for view in views]


def parted(labels, views, **options):
    hashes = [digest(index) for index in range(len(labels))]
    return split(made(labels), hashes, facts(views), validation=0.15, test=0.15, **options)


def test_one_camera_for_everything_is_left_apart_and_said():
    found = parted([0, 1] * 100, ["camera"] * 200)
    assert set(found.sides) == {"train", "validation", "test"}
    assert len(found.notes) == 1 and "200 images look alike" in found.notes[0] and "(a, b)" in found.notes[0]
    assert found.sides == parted([0, 1] * 100, ["camera"] * 200, near_duplicates="ignore").sides


def test_repeated_pictures_stay_together_and_a_note_counts_what_moved():
    views = [index // 4 for index in range(400)]  # four of each picture, a hundredth of the class
    found = parted([0] * 200 + [1] * 200, views)
    for first in range(0, 400, 4):
        assert len(set(found.sides[first : first + 4])) == 1
    apart = parted([0] * 200 + [1] * 200, views, near_duplicates="ignore")
    assert apart.notes == () and apart.groups == ()
    moved = sum(now != before for now, before in zip(found.sides, apart.sides, strict=True))
    assert found.notes == (f"near-duplicates stay on one side: {moved} images were moved for that",)


def test_a_few_images_are_no_camera_however_small_their_class_is():
    views = [*(["same"] * 5), *range(1, 16)]
    assert len(set(parted([0] * 20 + [1] * 20, [*views, *range(16, 36)][:40]).sides[:5])) == 1
    six = [*(["same"] * 6), *range(1, 35)]
    assert "one group is" in parted([0] * 20 + [1] * 20, six).notes[0]


def test_copies_of_one_picture_are_one_picture_and_stay_together():
    hashes = [digest(0)] * 30 + [digest(index) for index in range(1, 51)]
    dataset = made([0] * 60 + [1] * 20)
    found = split(dataset, hashes, facts(["copy"] * 30 + list(range(50))), validation=0.4, test=0.4)
    assert len(set(found.sides[:30])) == 1 and not any("look alike" in note for note in found.notes)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), min_size=2, max_size=60),
    st.integers(0, 9),
    st.integers(0, 999),
)
def test_groups_of_a_table_are_whole_and_an_image_added_to_one_moves_nothing(images, group, new):
    labels = [0, 1, *(label for _, label in images)]
    names = [TRAINS, TRAINS, *(f"camera {number}" for number, _ in images)]
    digests = [digest(index) for index in range(len(labels))]
    sides = assign_splits(made(labels, names), digests, [])
    on = defaultdict(set)
    for name, side in zip(names, sides, strict=True):
        on[name].add(side)
    assert all(len(found) == 1 for found in on.values())
    if f"camera {group}" in names:
        more = assign_splits(made([*labels, 0], [*names, f"camera {group}"]), [*digests, digest(-new)], [])
        assert {more[-1]} == {more[names.index(f"camera {group}")]}
        assert more[:-1] == sides


@pytest.mark.parametrize("count", range(3, 9))
def test_of_three_groups_and_more_each_side_has_one(count):
    names = [f"patient {index % count}" for index in range(60)]
    sides = assign_splits(
        made([index // 30 for index in range(60)], names), [digest(i) for i in range(60)], []
    )
    assert set(sides) == {"train", "validation", "test"}


def test_two_groups_leave_a_side_empty_and_the_note_says_so():
    dataset = made([index // 10 for index in range(20)], ["left", "right"] * 10)
    found = split(dataset, [digest(i) for i in range(20)], facts(range(20)), validation=0.15, test=0.15)
    assert found.notes[0].startswith("2 groups stay") and "too few for any" in found.notes[0]


def test_an_image_without_a_group_is_split_by_its_own_content():
    names = [None] * 200 + ["one"] * 5
    sides = assign_splits(
        made([index % 2 for index in range(205)], names), [digest(i) for i in range(205)], []
    )
    alone = assign_splits(made([index % 2 for index in range(200)]), [digest(i) for i in range(200)], [])
    assert sides[:200] == alone and len(set(sides[200:])) == 1


def with_splits(given_splits, classes=1):
    """A data set of samples with these given splits; one class per sample modulo `classes`."""
    source = ArraySource(np.zeros((1, 1), np.uint8))
    samples = tuple(Sample(str(i), i % classes, split, source) for i, split in enumerate(given_splits))
    return Dataset("made", tuple(f"c{k}" for k in range(classes)), samples)


def digest_at(position):
    """A content hash that reads as this number from 0 to 1."""
    return int(position * 2**64).to_bytes(8, "big") + bytes(8)


LAST = digest_at(0.99)


def test_shares_come_out_as_asked_in_every_class():
    count = 20_000
    hashes = [content_hash(str(index).encode()) for index in range(count)]
    dataset = with_splits([None] * count, classes=4)
    sides = np.array(assign_splits(dataset, hashes, [], validation=0.2, test=0.1))
    for label in range(4):
        inside = sides[dataset.labels == label]
        assert abs((inside == "test").mean() - 0.1) < 0.02
        assert abs((inside == "validation").mean() - 0.2) < 0.02


HELD_OUT = {side: rank for rank, side in enumerate(SPLITS)}
positions = st.floats(0, 1, exclude_max=True)


@settings(deadline=None)
@given(
    st.lists(st.tuples(positions, st.integers(0, 5)), min_size=1, max_size=30),
    positions,
    st.sets(st.integers(0, 5)),
)
def test_adding_an_image_moves_only_its_near_duplicates_and_only_away_from_training(images, new, joined):
    """Images come with the number of their group; the new one joins (and so merges) some of the groups."""
    hashes = [LAST, *(digest_at(position) for position, _ in images)]
    groups = [[i + 1 for i, (_, group) in enumerate(images) if group == number] for number in range(6)]
    before = assign_splits(
        with_splits([None] * len(hashes)), hashes, [group for group in groups if len(group) > 1]
    )
    merged = [sum((groups[number] for number in joined), [len(hashes)])]
    merged += [groups[number] for number in range(6) if number not in joined]
    after = assign_splits(with_splits([None] * (len(hashes) + 1)), [*hashes, digest_at(new)], merged)
    for index in range(len(hashes)):
        if index not in merged[0]:
            assert after[index] == before[index]
        else:
            assert HELD_OUT[after[index]] >= HELD_OUT[before[index]]
    for group in merged:
        assert len({after[index] for index in group}) <= 1


@settings(deadline=None)
@given(st.lists(positions, min_size=1, max_size=20), st.randoms())
def test_an_images_side_does_not_depend_on_order_or_company(images, random):
    hashes = [LAST, *map(digest_at, images)]
    sides = dict(zip(hashes, assign_splits(with_splits([None] * len(hashes)), hashes, []), strict=True))
    some = [LAST, *random.sample(hashes, len(hashes) // 2)]
    for digest, side in zip(some, assign_splits(with_splits([None] * len(some)), some, []), strict=True):
        assert sides[digest] == side


def test_given_splits_win():
    given_splits = ["train", "test", "validation", "train", "test"]
    hashes = [digest_at(0.0)] * 5
    assert assign_splits(with_splits(given_splits), hashes, [[0, 1, 2, 3, 4]]) == tuple(given_splits)


def test_validation_is_carved_from_training_where_none_is_given():
    given_splits = ["train", "train", "train", "test"]
    hashes = [digest_at(0.1), digest_at(0.2), digest_at(0.9), digest_at(0.5)]
    assert assign_splits(with_splits(given_splits), hashes, []) == ("validation", "train", "train", "test")
    grouped = assign_splits(with_splits(given_splits), hashes, [[0, 1]])
    assert grouped == ("validation", "validation", "train", "test")
    with_test = assign_splits(with_splits(given_splits), hashes, [[2, 3]])
    assert with_test == ("validation", "train", "train", "test")


def test_unreadable_images_are_on_no_side():
    assert assign_splits(with_splits([None, None]), [None, LAST], [[0, 1]]) == (None, "train")


def test_a_class_of_few_images_keeps_one_for_training_with_its_near_duplicates():
    hashes = [LAST, digest_at(0.0), LAST, digest_at(0.29), LAST, digest_at(0.2)]
    dataset = with_splits([None] * 6, classes=2)
    assert assign_splits(dataset, hashes, []) == ("train", "test", "train", "train", "train", "validation")
    carved = assign_splits(
        with_splits(["train"] * 4, classes=2), [LAST, digest_at(0.0), LAST, digest_at(0.1)], []
    )
    assert carved == ("train", "validation", "train", "train")
    grouped = assign_splits(dataset, hashes, [[3, 5]])
    assert grouped == ("train", "test", "train", "train", "train", "train")


def test_a_class_without_a_training_image_is_named():
    with pytest.raises(DatasetError, match="class c1 has no training image"):
        assign_splits(with_splits([None, "test"], classes=2), [LAST, digest_at(0.0)], [])
    with pytest.raises(DatasetError, match=r"class c1: its only image cannot be read \(headstart check"):
        assign_splits(with_splits([None, None], classes=2), [LAST, None], [])


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.0, 0.0)])
def test_shares_that_leave_nothing_to_train_on_are_refused(validation, test):
    with pytest.raises(OptionError):
        assign_splits(with_splits([None]), [LAST], [], validation=validation, test=test)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Forty small pictures of two classes by five cameras, listed in a table."""
    root = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    lines = ["path,label,Camera"]
    for index in range(40):
        picture = random.integers(0, 120, (40, 40, 3)).astype(np.uint8) + np.uint8(100 * (index % 2))
        Image.fromarray(picture).save(root / f"{index}.png")
        lines.append(f"{index}.png,{'bright' if index % 2 else 'dark'},camera {index % 5}")
    (root / "images.csv").write_text("\n".join(lines))
    return root / "images.csv"


def test_a_fit_keeps_each_camera_on_one_side_and_records_by_what(table, tmp_path):
    _, run = fit(table, groups="camera", out=tmp_path / "run", **FAST)
    assert (run.config.groups, run.config.near_duplicates) == ("camera", "group")
    assert "5 groups stay on one side each" in run.notes
    on = defaultdict(set)
    for image in json.loads((run.path / "images.json").read_text()):
        on[int(image["path"].removesuffix(".png")) % 5].add(image["split"])
    assert len(on) == 5 and all(len(sides) == 1 for sides in on.values())
    assert {side for sides in on.values() for side in sides} == {"train", "validation", "test"}


@pytest.mark.parametrize("command", ["fit", "check", "compare"])
def test_a_column_that_is_not_there_is_the_users_mistake(command, table, tmp_path):
    program = import_module(f"headstart.cli.{command}").command
    done = CliRunner().invoke(program, [str(table), "--groups", "patient"])
    assert isinstance(done.exception, DatasetError)
    assert "patient is not there; it has path, label, Camera" in str(done.exception)
    folder = tmp_path / "data"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(folder / name / "1.png")
    with pytest.raises(DatasetError, match="no table in it"):
        read_dataset(folder, groups="camera")


def test_checking_says_what_a_fit_would_leave_apart_unless_near_duplicates_are_ignored(tmp_path):
    random = np.random.default_rng(0)
    scene = np.asarray(
        Image.fromarray(random.integers(0, 255, (12, 16, 3)).astype(np.uint8)).resize((160, 120))
    )
    for index in range(16):
        folder = tmp_path / "data" / ("ok" if index % 2 else "defect")
        folder.mkdir(parents=True, exist_ok=True)
        noisy = (scene + random.normal(0, 3, scene.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index}.png")
    assert any("16 images look alike" in note for note in check(tmp_path / "data").notes)
    ignored = check(tmp_path / "data", near_duplicates="ignore")
    assert ignored.near_duplicates == () and ignored.notes == ()
    with pytest.raises(OptionError, match="expected one of group, ignore"):
        check(tmp_path / "data", near_duplicates="drop")


def listed(folder, rows, *, name="groups.csv"):
    """Four images in each of two class folders, and a table of files and cameras beside them."""
    for number in range(8):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"listed, not decoded")
    (folder / name).write_text("file,camera\n" + rows)
    return folder


ROWS = "".join(f"photos/{'ab'[number % 2]}/{number}.png,camera {number % 4}\n" for number in range(7))


@pytest.mark.parametrize("way", ["column", "table in the folder", "table elsewhere", "zip"])
def test_a_table_of_groups_goes_with_labels_from_folders(tmp_path, way):
    source, groups = listed(tmp_path / "photos", ROWS), "Camera"
    if way == "table in the folder":
        groups = str(source / "groups.csv")
    elif way == "table elsewhere":
        groups = str((source / "groups.csv").rename(tmp_path / "cameras.csv"))
    elif way == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", source))
    dataset = read_dataset(source, groups=groups)
    assert dataset.classes == ("a", "b")
    found = {sample.name.rpartition("/")[2]: sample.group for sample in dataset.samples}
    assert found == {f"{number}.png": f"camera {number % 4}" for number in range(7)} | {"7.png": None}
    assert "groups from the column camera; images in none: 1" in dataset.notes[-1]


def test_a_table_of_groups_goes_with_a_table_of_labels(tmp_path):
    folder = listed(tmp_path, ROWS)
    (folder / "labels.csv").write_text("path,label\na/0.png,x\na/2.png,y\n")
    by_label = read_dataset(folder / "labels.csv", groups=str(folder / "groups.csv"))
    assert [(sample.label, sample.group) for sample in by_label.samples] == [(0, "camera 0"), (1, "camera 2")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a/0.png,x\na/0.png,y\n", r"groups\.csv: row 3: a/0\.png is in two groups, y and x; keep one"),
        ("c/9.png,x\n", r"groups\.csv: none of its 1 rows names an image of"),
    ],
)
def test_a_table_of_groups_that_cannot_be_meant_is_refused(tmp_path, rows, message):
    folder = listed(tmp_path, rows)
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder, groups="camera")
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder, groups=str(folder / "groups.csv"))
    with pytest.raises(DatasetError, match=r"none\.csv: no such table of groups"):
        read_dataset(folder, groups=str(folder / "none.csv"))
