import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data import checks
from headstart.data.checks import check, inspect, report
from headstart.data.dataset import ArraySource, Dataset, Sample, Skipped, read_dataset
from headstart.data.duplicates import FULL_DETAIL, LEAST_DETAIL, detail_of, near_duplicate_groups
from headstart.data.images import NO_HASH, ImageFacts, open_image
from headstart.data.splits import duplicate_groups
from listed_files import write
from made_images import encoded

# --- near duplicates --------------------------------------------------------------------------------------


def scene(seed, *, width=320, height=240):
    """A picture with detail at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side, weight in ((3, 1.0), (6, 0.8), (12, 0.6), (24, 0.4), (48, 0.2)):
        layer = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += weight * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def jpeg(image, quality=90):
    return encoded(image, "JPEG", quality=quality)


def hashes_of(files):
    joined = b"".join(open_image(data)[1].perceptual_hash for data in files)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def test_resized_recompressed_and_brightened_copies_are_found_and_others_are_not():
    files = []
    for seed in range(12):
        picture = scene(seed)
        bright = picture.point(lambda level: min(255, int(level * 1.1)))
        files += [jpeg(picture), jpeg(picture, 40), jpeg(picture.resize((160, 120))), jpeg(bright)]
    groups = near_duplicate_groups(hashes_of(files))
    assert groups == [list(range(4 * k, 4 * k + 4)) for k in range(12)]


def test_enlarged_digits_are_not_grouped_wholesale():
    rng = np.random.default_rng(0)
    files = []
    for _ in range(300):  # strokes on an even ground, 8 x 8, as scikit-learn's digits
        pixels = np.zeros((8, 8), np.uint8)
        for _ in range(2):
            row, column = rng.integers(1, 5, 2)
            pixels[row : row + rng.integers(2, 4), column] = rng.integers(150, 256)
            pixels[row, column : column + rng.integers(2, 4)] = rng.integers(150, 256)
        files.append(np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)))
    grouped = sum(map(len, near_duplicate_groups(hashes_of(files))))
    assert grouped <= 15


def test_flat_and_tiny_pictures_match_nothing():
    assert near_duplicate_groups(np.frombuffer(NO_HASH * 1000, np.uint8).reshape(-1, 32)) == []
    stripes = np.tile(np.packbits(np.repeat([1, 0], 128)), (50, 1))  # one edge is all it shows
    assert near_duplicate_groups(stripes) == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_hashes_have_no_groups(count):
    assert near_duplicate_groups(np.zeros((count, 32), np.uint8)) == []


def by_brute_force(hashes, distance):
    limits = np.floor(
        distance * np.clip((detail_of(hashes) - LEAST_DETAIL) / (FULL_DETAIL - LEAST_DETAIL), 0, 1)
    )
    telling = detail_of(hashes) > LEAST_DETAIL
    count = len(hashes)
    linked = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(count):
            apart = np.bitwise_count(hashes[i] ^ hashes[j]).sum()
            linked[i, j] = telling[i] and telling[j] and apart <= min(limits[i], limits[j])
    for _ in range(count):
        linked = linked | ((linked.astype(int) @ linked.astype(int)) > 0)
    groups = {tuple(np.flatnonzero(row).tolist()) for row in linked}
    return sorted(list(group) for group in groups if len(group) > 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 40))
def test_groups_are_those_of_comparing_every_pair(seed, centres, distance):
    rng = np.random.default_rng(seed)
    middle = rng.random((centres, 256)) < rng.uniform(0.1, 0.5)
    which = rng.integers(0, centres, 24)
    flips = rng.random((24, 256)) < rng.uniform(0, 0.15, (24, 1))
    hashes = np.packbits(middle[which] ^ flips, axis=1)
    assert near_duplicate_groups(hashes, distance=distance) == by_brute_force(hashes, distance)


def test_a_film_of_like_frames_ends_soon_in_one_group():
    rng = np.random.default_rng(0)
    frame = rng.random(256) < 0.5
    frames = np.packbits(frame ^ (rng.random((5000, 256)) < 0.01), axis=1)
    assert near_duplicate_groups(frames) == [list(range(5000))]


# --- the report -------------------------------------------------------------------------------------------


def facts(width=100, height=100, perceptual=NO_HASH):
    return ImageFacts(width, height, "JPEG", "RGB", 1, perceptual)


def made(labels, splits=None):
    source = ArraySource(np.zeros((1, 1), np.uint8))
    sides = splits or [None] * len(labels)
    samples = tuple(
        Sample(f"{i}.jpg", label, side, source)
        for i, (label, side) in enumerate(zip(labels, sides, strict=True))
    )
    return Dataset("made", ("a", "b"), samples)


def distinct(count):
    return [bytes([index]) * 16 for index in range(count)]


def test_nothing_wrong_is_said_in_one_line():
    dataset = made([0, 1, 0, 1])
    found = report(dataset, distinct(4), [facts()] * 4, ["train"] * 3 + ["test"], [])
    assert found.headline() == ["4 images in 2 classes (3 train, 1 test)"]
    assert found.text().endswith("nothing wrong was found")
    assert found.imbalance == 1.0


def test_the_same_image_under_two_labels_comes_first():
    dataset = made([0, 1, 0])
    found = report(dataset, [b"x" * 16, b"x" * 16, b"y" * 16], [facts()] * 3, ["train"] * 3, [])
    assert [group.labels for group in found.contradictions] == [("a", "b")]
    assert found.headline()[1].startswith("found: 1 image under more than one label")
    assert "0.jpg (a) = 1.jpg (b)" in found.text()


def test_leaks_are_duplicates_exact_and_near_on_both_sides():
    rng = np.random.default_rng(1)
    bits = rng.random(256) < 0.5
    near = bits.copy()
    near[:4] ^= True
    hashes = [b"x" * 16, b"x" * 16, b"y" * 16, b"z" * 16, None]
    seen = [facts(), facts(), facts(perceptual=np.packbits(bits).tobytes())]
    seen += [facts(perceptual=np.packbits(near).tobytes()), None]
    sides = ["train", "test", "validation", "train", None]
    found = report(made([0, 0, 1, 1, 1]), hashes, seen, sides, [Skipped("4.jpg", "truncated")])
    assert [[file.name for file in group.files] for group in found.leaks] == [
        ["0.jpg", "1.jpg"],
        ["2.jpg", "3.jpg"],
    ]
    assert [group.exact for group in found.leaks] == [True, False]
    assert found.leaks[0].splits == ("train", "test")
    assert found.images == 4
    assert "1 file left out" in found.headline()[0]
    assert len(found.headline()) == 2


def test_groups_of_exact_and_near_duplicates_are_joined():
    rng = np.random.default_rng(2)
    one = np.packbits(rng.random(256) < 0.5).tobytes()
    seen = [facts(perceptual=one), facts(perceptual=one), facts(), facts(), None]
    assert duplicate_groups([b"a", b"b", b"b", b"c", None], seen) == [[0, 1, 2]]


def test_imbalance_and_odd_sizes():
    sizes = [facts(400, 300)] * 9 + [facts(50, 40), facts(1600, 200), facts(300, 400)]
    found = report(made([0] * 11 + [1]), distinct(12), sizes, [None] * 12, [])
    assert found.imbalance == 11.0
    assert "11 of a, 1 of b" in " ".join(found.headline())
    assert [(odd.name, odd.width) for odd in found.odd_sizes] == [("9.jpg", 50), ("10.jpg", 1600)]


def test_a_class_without_readable_images_is_infinitely_uneven_and_still_json():
    found = report(made([0, 1]), [b"x" * 16, None], [facts(), None], ["train", None], [])
    assert found.imbalance == float("inf")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["imbalance"] is None


def test_text_is_capped_and_json_is_not():
    count = 40
    hashes = [digest for digest in distinct(count) for _ in range(2)]
    found = report(made([0, 1] * count), hashes, [facts()] * 2 * count, ["train"] * 2 * count, [])
    assert len(found.to_dict()["exact_duplicates"]) == count
    assert "and 35 more" in found.text()
    assert len(found.text(most=1).splitlines()) < 12


def test_a_group_is_listed_once_and_shows_every_label_however_many_copies_it_has():
    found = report(made([0] * 9 + [1]), [b"x" * 16] * 10, [facts()] * 10, ["train"] * 10, [])
    text = found.text()
    assert text.count("0.jpg (a) = 9.jpg (b) = 1.jpg (a)") == 1
    assert "and 4 more" in text and "9 exact copies (listed above)" in text


# --- from files -------------------------------------------------------------------------------------------


def test_check_reads_a_folder_and_names_every_problem(tmp_path):
    good = [jpeg(scene(seed)) for seed in range(4)]
    root = write(
        tmp_path,
        {
            "train/a/0.jpg": good[0],
            "train/a/1.jpg": good[1],
            "train/b/2.jpg": good[2],
            "train/b/copy.jpg": good[0],
            "train/b/cut.jpg": good[3][:500],
            "train/b/notes.txt": b"words",
            "val/a/again.jpg": good[1],
            "val/b/smaller.jpg": jpeg(scene(2).resize((200, 150))),
        },
    )
    steps = []
    found = check(root, workers=2, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("checking", 7, 7)
    assert found.images == 6
    assert found.classes == {"a": {"train": 2, "validation": 1}, "b": {"train": 2, "validation": 1}}
    assert {item.name for item in found.skipped} == {"train/b/cut.jpg", "train/b/notes.txt"}
    assert [[file.name for file in group.files] for group in found.contradictions] == [
        ["train/a/0.jpg", "train/b/copy.jpg"]
    ]
    assert [{file.name for file in group.files} for group in found.leaks] == [
        {"train/a/1.jpg", "val/a/again.jpg"},
        {"train/b/2.jpg", "val/b/smaller.jpg"},
    ]
    json.dumps(found.to_dict(), allow_nan=False)


def test_inspect_keeps_the_samples_order(tmp_path):
    names = {f"{'ab'[k % 2]}/{k:03}.jpg": jpeg(scene(k, width=40 + k, height=40)) for k in range(50)}
    dataset = read_dataset(write(tmp_path, names))
    hashes, seen, skipped, _ = inspect(dataset, workers=4)
    assert skipped == ()
    assert None not in hashes
    assert [f"{fact.width - 40:03}" for fact in seen] == [sample.name[2:5] for sample in dataset.samples]


def test_an_interrupted_inspection_drops_its_queue(tmp_path, monkeypatch):
    import threading

    names = {f"{'ab'[k % 2]}/{k:03}.jpg": b"x" for k in range(2000)}
    dataset = read_dataset(write(tmp_path, names))
    looked = []
    interrupted = threading.Event()

    def look(sample):
        if len(looked) >= 64:
            interrupted.wait(10)
        looked.append(sample)
        return b"h", facts(), None

    def interrupt(*_):
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "_look_at", look)
    with pytest.raises(KeyboardInterrupt):
        inspect(dataset, workers=1, progress=interrupt)
    assert len(looked) < 2000
