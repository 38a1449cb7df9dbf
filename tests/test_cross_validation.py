"""`--folds`: every image is judged by a head that has seen neither it nor what belongs together with it."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_folders
from headstart import fit, heads
from headstart.backbones import backbone_of
from headstart.backbones.runtimes import select
from headstart.cli.fit import command
from headstart.curation import corrections_of, retrain
from headstart.data.dataset import ArraySource, Dataset, Sample, content_hash, read_dataset
from headstart.data.folds import assign_folds
from headstart.errors import DatasetError, OptionError
from headstart.heads.metrics import clustered_interval, wilson_interval
from headstart.reports import report
from headstart.runs import FOLDS_FILE, FitConfig, Run, read_images, read_predictions, read_run
from headstart.training import Prepared, prepare, resolve, score, train
from headstart.training.cross_validation import CrossValidation

FAST = {"backbone": "builtin", "size": 64, "layers": "last"}


def made(labels: list[int], groups: list[str | None] | None = None) -> tuple[Dataset, list[bytes | None]]:
    picture = ArraySource(np.zeros((1, 1, 3), np.uint8))
    named = groups or [None] * len(labels)
    samples = tuple(
        Sample(str(index), label, None, picture, group=group)
        for index, (label, group) in enumerate(zip(labels, named, strict=True))
    )
    hashes: list[bytes | None] = [content_hash(str(index).encode()) for index in range(len(labels))]
    return Dataset("made", ("a", "b", "c"), samples), hashes


def together(groups: list[str | None]) -> list[list[int]]:
    members = defaultdict(list)
    for index, name in enumerate(groups):
        if name is not None:
            members[name].append(index)
    return list(members.values())


cases = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, *"ghijklm"])), min_size=12, max_size=60)


@settings(deadline=None)
@given(cases, st.integers(2, 5), st.randoms())
def test_folds_keep_groups_whole_and_do_not_depend_on_order(
    images: list[tuple[int, str | None]], folds: int, random: "np.random.Generator"
) -> None:
    labels, groups = [label for label, _ in images], [group for _, group in images]
    dataset, hashes = made(labels, groups)
    if len({index if group is None else group for index, group in enumerate(groups)}) < folds:
        with pytest.raises(DatasetError, match="take fewer folds"):
            assign_folds(dataset, hashes, together(groups), folds=folds)
        return
    found = assign_folds(dataset, hashes, together(groups), folds=folds)
    assert set(found) == set(range(folds))
    for members in together(groups):
        assert len({found[index] for index in members}) == 1
    order = list(range(len(images)))
    random.shuffle(order)
    shuffled = Dataset("made", dataset.classes, tuple(dataset.samples[index] for index in order))
    again = assign_folds(
        shuffled,
        [hashes[index] for index in order],
        together([groups[index] for index in order]),
        folds=folds,
    )
    assert [found[index] for index in order] == list(again)


@pytest.mark.parametrize("groups", [None, [f"camera {index % 30}" for index in range(300)]])
def test_folds_are_stratified(groups: list[str | None] | None) -> None:
    labels = [0] * 200 + [1] * 83 + [2] * 17
    dataset, hashes = made(labels, groups)
    found = assign_folds(dataset, hashes, together(groups or []), folds=5)
    for label, total in Counter(labels).items():
        sizes = Counter(fold for fold, each in zip(found, labels, strict=True) if each == label)
        assert max(sizes.values()) - min(sizes.values()) <= (1 if groups is None else 0.1 * total + 2)


def test_what_cannot_be_read_is_in_no_fold() -> None:
    dataset, hashes = made([0, 0, 1, 1, 2])
    hashes[3] = None
    assert assign_folds(dataset, hashes, [[0, 3]], folds=2)[3] is None


def judged(groups: list[str | None], *, folds: tuple[int, ...] = (0, 1) * 20) -> CrossValidation:
    """Forty images of three classes, of which a head calls all but some of the first class rightly."""
    dataset, _ = made([0] * 20 + [1] * 20, groups)
    said = np.full((40, 3), 0.05, np.float32)
    said[:8, 1] = said[8:20, 0] = said[20:, 1] = 0.9
    prepared = Prepared(dataset, None, ("train",) * 40, None, folds)  # type: ignore[arg-type]
    return CrossValidation(prepared, np.arange(40), said, said, said)


def test_an_image_without_a_group_is_of_no_group_whose_name_is_a_number() -> None:
    """Groups of a table are often called by numbers, as images are by their places."""
    named: list[str | None] = [None] * 20 + ["a"] * 10 + ["b"] * 10
    numbered = [{"a": "3", "b": "15"}.get(each or "") for each in named]
    assert judged(named).record["interval"] == judged(numbered).record["interval"]


def test_a_class_that_lies_in_one_fold_is_said() -> None:
    spread, whole = (judged([None] * 40, folds=each) for each in ((0, 1) * 20, (0,) * 20 + (1,) * 20))
    assert "all images of c are in one fold" in " ".join(spread.notes)  # which has none
    assert "all images of a, b, c are in one fold" in " ".join(whole.notes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Path]:
    """Folders in which the made series of `benchmarks/series.py` lie, and what was trained on them."""
    root = tmp_path_factory.mktemp("folds")
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from series import write_series

    sys.path.pop(0)
    write_series(root / "cameras")
    with shared_folders(root, compiled_models):
        yield root


@pytest.fixture(scope="module")
def runs(world: Path) -> dict[str, Run]:
    """A run that keeps cameras together and one that does not."""
    return {
        name: fit(world / "cameras", groups=groups, folds=5, out=world / name, **FAST)[1]
        for name, groups in (("apart", None), ("grouped", "{group}_*"))
    }


def test_a_series_flatters_a_score_that_does_not_know_of_it(runs: dict[str, Run]) -> None:
    apart, grouped = (runs[name].cross_validation for name in ("apart", "grouped"))
    assert apart and grouped
    assert apart["images"] == grouped["images"] == 240 and apart["folds"] == 5
    assert apart["accuracy"] - grouped["accuracy"] > 0.1
    assert any("look like 20 series" in note for note in runs["apart"].notes)
    widths = [found["interval"][1] - found["interval"][0] for found in (apart, grouped)]
    assert widths[1] > 2 * widths[0]  # twenty cameras are no 240 independent images
    images = read_predictions(runs["grouped"].path, name=FOLDS_FILE)["images"]
    cameras = defaultdict(set)
    for image in images:
        cameras[image["path"].split("/")[1][:5]].add(image["fold"])
    assert len(cameras) == 20 and all(len(folds) == 1 for folds in cameras.values())


@pytest.mark.parametrize("views", [1, "flip"])
def test_folds_say_what_separate_fits_say_to_the_last_bit(world: Path, views: int | str) -> None:
    asked = FitConfig.from_options(folds=3, views=views, class_weights="balanced", groups="{group}_*", **FAST)
    dataset = read_dataset(world / "cameras", groups=asked.groups)
    backbone, runtime = backbone_of(asked), select("auto")
    config = resolve(asked, dataset, backbone, runtime=runtime)
    prepared = prepare(dataset, backbone, config=config, runtime=runtime)
    scores = score(prepared, train(prepared, config=config))
    assert scores.folds is not None
    extraction, features = prepared.extraction, prepared.extraction.spec.views
    for fold in range(3):
        others, own = prepared.fold(fold, inside=False), prepared.fold(fold, inside=True)
        assert sorted([*others, *own]) == list(range(240)) and len(own)
        labels = prepared.labels(others)
        alone = heads.fit_ridge(
            (extraction.features(others, view=features[0]), labels), classes=2, class_weights="balanced"
        )
        head = alone.head
        if len(features) > 1:
            both = np.concatenate([extraction.features(others, view=view) for view in features])
            widened = heads.fit_ridge(
                (both, np.tile(labels, 2)), classes=2, class_weights="balanced", penalties=[alone.penalty]
            )
            head = heads.LinearHead("ridge", widened.head.weight, widened.head.bias, head.temperature)
        expected = head.probabilities(extraction.features(own, view=features[0]))
        at = np.isin(scores.folds.images, own)
        assert list(scores.folds.images[at]) == list(own)
        np.testing.assert_array_equal(scores.folds.probabilities[at], expected)


def test_the_record_says_of_every_image_what_was_said_of_it(runs: dict[str, Run]) -> None:
    run = read_run(runs["apart"].path)
    found = run.cross_validation
    assert found == json.loads(json.dumps(runs["apart"].cross_validation)) and found is not None
    images = read_predictions(run.path, name=FOLDS_FILE, classes=run.classes)["images"]
    assert len({image["path"] for image in images}) == 240
    right = defaultdict(list)
    for image in images:
        right[image["fold"]].append(image["label"] == image["predicted"])
    assert found["accuracies"] == [pytest.approx(np.mean(right[fold])) for fold in range(5)]
    assert found["accuracy"] == pytest.approx(np.mean([each for fold in right.values() for each in fold]))
    assert found["spread"] == pytest.approx(np.std(found["accuracies"], ddof=1))


def test_a_fit_without_folds_is_what_it_was(world: Path, runs: dict[str, Run]) -> None:
    _, without = fit(world / "cameras", out=world / "without", **FAST)
    assert without.cross_validation is None and not (without.path / FOLDS_FILE).exists()
    for name in ("model.onnx", "predictions.json"):
        assert (without.path / name).read_bytes() == (runs["apart"].path / name).read_bytes()


def test_reports_show_the_folds(runs: dict[str, Run], world: Path) -> None:
    made = report(runs["grouped"])
    assert "5 folds of 240 images" in made.html() and "5 folds: accuracy" in made.markdown()
    assert "--folds 5" in made.facts["command"] and "'{group}_*'" in made.facts["command"]


def test_a_retrained_head_is_judged_on_the_same_folds(world: Path, runs: dict[str, Run]) -> None:
    old = read_predictions(runs["apart"].path, name=FOLDS_FILE)["images"]
    image = next(each for each in old if each["label"] == "round")
    corrections_of(runs["apart"]).add(image["path"], "square", content=image["content"], was="round")
    _, new = retrain(runs["apart"], corrections_of(runs["apart"]), out=world / "again")
    corrections_of(runs["apart"]).undo()
    again = {each["content"]: each for each in read_predictions(new.path, name=FOLDS_FILE)["images"]}
    assert {key: each["fold"] for key, each in again.items()} == {e["content"]: e["fold"] for e in old}
    assert again[image["content"]]["label"] == "square"


def test_a_retrained_run_keeps_its_groups_and_is_not_judged_on_what_was_picked(
    world: Path, runs: dict[str, Run], tmp_path: Path
) -> None:
    run, corrections = runs["grouped"], corrections_of(runs["grouped"])
    groups = {image["path"]: image.get("group") for image in read_images(run.path)}
    assert len(set(groups.values())) == 20 and None not in groups.values()
    picture = next((world / "cameras").rglob("*.jpg"), None) or next((world / "cameras").rglob("*.png"))
    added = tmp_path / f"added{picture.suffix}"
    added.write_bytes(picture.read_bytes() + b"another file")
    corrections.add(added, picture.parent.name)
    _, new = retrain(run, corrections, out=tmp_path / "again")
    corrections.undo()
    assert new.cross_validation and run.cross_validation
    assert new.images["train"] == run.images["train"] + 1
    assert new.cross_validation["images"] == run.cross_validation["images"]
    narrow, wide = (
        each[1] - each[0] for each in (wilson_interval(180, 240), new.cross_validation["interval"])
    )
    assert wide > 1.5 * narrow  # it still knows that cameras are no independent images
    assert {image["path"]: image.get("group") for image in read_images(new.path)}.items() >= groups.items()


def test_the_command_shows_them_in_text_and_json(world: Path) -> None:
    words = [
        str(world / "cameras"),
        "--folds",
        "4",
        *["--backbone", "builtin", "--size", "64", "--layers", "last"],
    ]
    said = CliRunner().invoke(command, words, catch_exceptions=False)
    assert "\n4 folds: accuracy " in said.stdout and "standard deviation over folds" in said.stdout
    told = json.loads(CliRunner().invoke(command, [*words, "--json"]).stdout)
    assert told["cross_validation"]["folds"] == 4 and told["config"]["folds"] == 4
    assert told["seconds"]["folds"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "expected 2 or more"),
        ({"folds": 5, "head": "softmax"}, "is for a ridge head on a network that is frozen whole"),
        ({"folds": 5, "freeze": "auto"}, "is for a ridge head"),
        ({"folds": 5, "freeze": 2}, "is for a ridge head"),
        ({"folds": 5, "scratch": True}, "is for a ridge head"),
    ],
)
def test_folds_of_what_is_no_closed_form_are_refused_before_any_work(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        fit("nowhere", **options)  # type: ignore[arg-type]


def test_more_folds_than_groups_are_refused(world: Path) -> None:
    with pytest.raises(DatasetError, match="21 folds of 20 groups and images outside of them; take fewer"):
        fit(world / "cameras", groups="{group}_*", folds=21, out=world / "many", **FAST)


def test_an_interval_of_units_is_that_of_as_many_images_as_they_are_worth() -> None:
    random = np.random.default_rng(0)
    right = random.random(400) < 0.8
    alone = clustered_interval(right, np.arange(400))
    assert alone == pytest.approx(wilson_interval(int(right.sum()), 400), abs=1e-3)
    repeated = clustered_interval(np.repeat(right[:40], 10), np.repeat(np.arange(40), 10))
    assert repeated == pytest.approx(wilson_interval(int(right[:40].sum()), 40), abs=0.01)
    assert clustered_interval(np.ones(12, bool), np.arange(12) // 4)[1] == 1.0
