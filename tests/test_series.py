"""Series in names of files and groups in tables: found unasked, and kept on one side where that is asked."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.data.checks import check
from headstart.data.dataset import Dataset, FileSource, Sample, read_dataset
from headstart.data.dataset.series import grouped_by_name, series_in_words
from headstart.data.splits import assign_splits
from headstart.errors import DatasetError


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The made series of `benchmarks/series.py`."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from series import write_series

    yield write_series(tmp_path_factory.mktemp("series") / "cameras")
    sys.path.pop(0)


def named(names: list[str], labels: list[int] | None = None) -> Dataset:
    """A data set of files that are never read."""
    found = labels or [index % 2 for index in range(len(names))]
    samples = tuple(Sample(n, label, None, FileSource(n)) for n, label in zip(names, found, strict=True))
    return Dataset("named", ("a", "b"), samples)


@pytest.mark.parametrize(
    ("pattern", "name", "group"),
    [
        ("{group}_*.jpg", "a/cam01_0001.jpg", "cam01"),
        ("{group}_*.jpg", "a/cam_01_0001.jpg", "cam"),
        ("cam_{group}_*", "a/cam_01_0001.jpg", "01"),
        ("*-{group}", "a/1-2-3.png", "2-3.png"),
        ("???{group}-?-*", "a/b/img7-x-y.png", "7"),
        ("{group}/*", "a/patient 3/1.png", "patient 3"),
        ("{group}/*/*", "p/q/r/1.png", "q"),
        ("{group}.(x)*", "a/1.(x)+.png", "1"),
        ("{group}_*.jpg", "a/cam01_0001.png", None),
        ("{group}/*", "1.png", None),
    ],
)
def test_a_pattern_takes_the_shortest_text_that_makes_the_rest_fit(
    pattern: str, name: str, group: str | None
) -> None:
    other = {"cam_1_1", "cam1_3/2/1.jpg", "abc1_1.jpg", "abc1-1-1", "1.(x)"}
    found = grouped_by_name(named([name, *sorted(other)]), pattern).samples[0]
    assert found.group == group


def test_a_pattern_that_cannot_be_meant_is_refused_with_a_name_to_go_by() -> None:
    with pytest.raises(DatasetError, match=r"no name fits --groups x_\{group\}; the first one is a/1\.png"):
        grouped_by_name(named(["a/1.png"]), "x_{group}")
    with pytest.raises(DatasetError, match="once"):
        grouped_by_name(named(["a/1.png"]), "{group}_{group}")


def test_no_name_makes_a_pattern_take_long() -> None:
    begun = time.process_time()
    with pytest.raises(DatasetError):
        grouped_by_name(named(["_" * 255 + ".png"] * 200), "*_{group}_*_*_*_*.jpg")
    assert time.process_time() - begun < 5


def names_of(form: str, *, series: int = 8, frames: int = 10) -> list[str]:
    return [
        form.format(kind="ab"[one % 2], series=one, frame=frame, both=100 * one + frame)
        for one in range(series)
        for frame in range(frames)
    ]


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("{kind}/cam{series:02}_{frame:04}.jpg", "{group}_*"),
        ("{kind}/img-cam{series} {frame}.jpg", "*-{group} *"),
        ("{kind}/IMG_202103{series:02}_{frame:04}.jpg", "*_{group}_*"),
        ("{kind}/patient {series}/{frame}.jpg", "{group}/*"),
    ],
)
def test_names_that_look_like_series_are_said_with_a_pattern_that_finds_them(form: str, pattern: str) -> None:
    names = names_of(form)
    dataset = named(names, ["ab".index(name[0]) for name in names])
    (said,) = series_in_words(dataset)
    assert "look like 8 series" in said and f"--groups '{pattern}'" in said
    assert len({sample.group for sample in grouped_by_name(dataset, pattern).samples}) == 8


@pytest.mark.parametrize(
    "form",
    [
        "{kind}/{both}.jpg",
        "{kind}/img_{both}.jpg",
        "{kind}/{kind}_{both}.jpg",
        "{kind}/{kind}_{both:04}_{frame}.jpg",
        "{kind}/{both}_small.jpg",
        "train_{both}.jpg",
    ],
)
def test_numbers_and_names_of_classes_are_no_series(form: str) -> None:
    names = names_of(form)
    assert series_in_words(named(names, [index // 10 % 2 for index in range(80)])) == ()


def test_series_are_found_in_very_many_names_by_a_part_of_them() -> None:
    names = names_of("{kind}/cam{series:03}_{frame:04}.jpg", series=100, frames=500)
    begun = time.process_time()
    (said,) = series_in_words(named(names, ["ab".index(name[0]) for name in names]))
    assert "series (cam000 … " in said and time.process_time() - begun < 5


def write_table(folder: Path, column: str, *, groups: int = 4, split: bool = False) -> Path:
    lines = [f"path,label,{column}" + (",split" if split else "")]
    for number in range(12):
        (folder / f"{number}.png").write_bytes(b"listed, not decoded")
        lines.append(f"{number}.png,{'xy'[number % 2]},g{number % groups}" + (",train" if split else ""))
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def test_a_column_of_groups_that_is_not_used_is_said(tmp_path: Path) -> None:
    table = write_table(tmp_path, "Patient ID")
    (said,) = (note for note in read_dataset(table).notes if "not used" in note)
    assert "the column Patient ID is not used (4 different values): --groups 'Patient ID' keeps" in said
    used = read_dataset(table, groups="Patient ID")
    assert not any("not used" in note for note in used.notes)
    assert {sample.group for sample in used.samples} == {"g0", "g1", "g2", "g3"}


@pytest.mark.parametrize("how", [{"groups": 12}, {"groups": 1}, {"split": True}])
def test_a_column_that_groups_nothing_or_comes_with_splits_is_not(
    tmp_path: Path, how: dict[str, int]
) -> None:
    assert not any("not used" in note for note in read_dataset(write_table(tmp_path, "camera", **how)).notes)


def test_check_says_series_unasked_and_a_pattern_keeps_each_on_one_side(
    cameras: Path,
) -> None:
    report = check(cameras)
    assert any("names look like 20 series (cam01 … cam20)" in note for note in report.notes)
    assert any("--groups '{group}_*'" in line for line in report.text().splitlines())
    grouped = read_dataset(cameras, groups="{group}_*")
    assert not any("look like" in note for note in grouped.notes)
    contents = [sample.source.read()[:16] for sample in grouped.samples]
    sides = assign_splits(grouped, contents, [])
    on = defaultdict(set)
    for sample, side in zip(grouped.samples, sides, strict=True):
        on[sample.group].add(side)
    assert len(on) == 20 and all(len(found) == 1 for found in on.values())
    assert {side for found in on.values() for side in found} == {"train", "validation", "test"}
