"""A saved classifier on other labelled images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.comparisons.runs import compare_runs
from headstart.curation import corrections_of
from headstart.errors import DatasetError, RunError
from headstart.reports import find, report
from headstart.runs import RunStore, read_predictions, read_run
from headstart.training.evaluation import evaluate, record_evaluation


@pytest.fixture
def fitted(own_run: Path) -> Any:
    return headstart.load(own_run)


def test_labels_are_matched_by_name_not_by_position(fitted: Any, make_photos: Any, tmp_path: Path) -> None:
    whole, _ = evaluate(fitted, make_photos(tmp_path / "all", per_class=5, seed=3))
    part, _ = evaluate(fitted, make_photos(tmp_path / "part", per_class=5, seed=3, classes=("squares",)))
    assert whole.images == 15 and part.images == 5
    assert part.accuracy == pytest.approx(whole.confusion[2, 2] / 5)


def test_it_agrees_with_counting_predictions(fitted: Any, photos: Path) -> None:
    found, _ = evaluate(fitted, photos)
    right = sum(Path(item.path).parent.name == item.label for item in fitted.predict(photos))
    assert found.accuracy == pytest.approx(right / 48)


def test_unreadable_images_are_named_and_do_not_count(fitted: Any, photos: Path) -> None:
    (photos / "bars" / "000.jpg").write_bytes(b"nothing")
    found, skipped = evaluate(fitted, photos)
    assert found.images == 47 and "000.jpg" in skipped[0].name


def test_a_class_that_the_classifier_does_not_know_is_refused(fitted: Any, photos: Path) -> None:
    (photos / "bars").rename(photos / "hexagons")
    with pytest.raises(DatasetError, match="hexagons"):
        evaluate(fitted, photos)


@pytest.fixture
def foreign(fitted: Any, tmp_path: Path) -> Any:
    """A classifier with nothing in its folder that says where it comes from, as a Keras model's has."""
    folder = headstart.load(fitted.model.parent).save(tmp_path / "foreign")
    return headstart.load(folder)


def test_a_recorded_evaluation_has_a_report_and_is_listed(
    foreign: Any, make_photos: Any, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "other", per_class=6, seed=3)
    (photos / "bars" / "000.jpg").rename(photos / "discs" / "bar.jpg")  # a mistake to be shown
    (photos / "bars" / "bad.jpg").write_bytes(b"nothing")
    expected, skipped = evaluate(foreign, photos)
    run = record_evaluation(foreign, photos)
    assert run == read_run(run.path) and run in RunStore().select()
    assert run.evaluation == {"test": expected.to_dict()} and run.accuracy["test"] == expected.accuracy
    assert run.images == {"train": 0, "validation": 0, "test": 18, "skipped": 1}
    assert sum(run.seconds[phase] for phase in ("check", "evaluate", "save")) <= run.seconds["total"] + 0.01
    said = read_predictions(run.path)["images"]
    assert [entry["predicted"] == entry["label"] for entry in said].count(True) == expected.confusion.trace()
    assert all(Path(entry["file"]).is_file() and entry["split"] == "test" for entry in said)

    made = report(find(run.path))
    page = made.html()
    assert ">Confusions<" in page and 'class="matrix"' in page
    for score in (expected.accuracy, *expected.interval):
        assert f"{100 * score:.1f}" in page
    assert "bar.jpg" in page and "data:image/jpeg" in page and skipped[0].name in page
    assert made.facts["calibration"] and len(made.facts["per_class"]) == 3 and made.facts["mistakes"]
    assert "elsewhere" in made.markdown() and "What was measured" in made.markdown()
    assert made.facts["command"].endswith(f"{photos} --record")


def test_recording_again_replaces_the_evaluation_and_not_a_training(
    fitted: Any, foreign: Any, photos: Path, make_photos: Any, tmp_path: Path
) -> None:
    first = record_evaluation(foreign, photos)
    again = record_evaluation(foreign, make_photos(tmp_path / "part", per_class=5, classes=("squares",)))
    assert again.id == first.id and again.images["test"] == 5
    assert [run.images["test"] for run in RunStore().select() if not run.trained] == [5]
    assert [score["images"] for score in report(find(again.id)).facts["scores"]] == [5]

    folder = fitted.model.parent
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(RunError, match="record of this classifier's training"):
        record_evaluation(fitted, photos)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_failed_evaluation_leaves_an_earlier_record_alone(
    foreign: Any, photos: Path, tmp_path: Path
) -> None:
    first = record_evaluation(foreign, photos)
    (tmp_path / "bad" / "bars").mkdir(parents=True)
    (tmp_path / "bad" / "bars" / "one.jpg").write_bytes(b"nothing")
    with pytest.raises(DatasetError):
        record_evaluation(foreign, tmp_path / "bad")
    assert read_run(first.path) == first


def test_arrays_can_be_recorded(foreign: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3)).astype(np.uint8)
    run = record_evaluation(foreign, (pixels, ["bars", "discs", "bars", "discs", "bars", "discs"]))
    assert report(run).html().count("<h1>") == 1 and run.images["test"] == 6


def test_without_a_record_a_report_says_how_to_get_one(foreign: Any) -> None:
    folder = foreign.model.parent
    with pytest.raises(RunError, match=f"headstart evaluate {folder} DATA --record") as refused:
        find(folder)
    assert "\n" not in str(refused.value)


def test_what_needs_a_training_refuses_a_recorded_evaluation(
    fitted: Any, foreign: Any, photos: Path, tmp_path: Path
) -> None:
    run = record_evaluation(foreign, photos)
    with pytest.raises(RunError, match="trained elsewhere"):
        compare_runs([read_run(fitted.model.parent), run])
    with pytest.raises(RunError, match="trained elsewhere"):
        corrections_of(run)
    headstart.export(run, "onnx", out=tmp_path / "exported")
    card = (tmp_path / "exported" / "card.md").read_text()
    assert "trained elsewhere" in card and "same collection" not in card
