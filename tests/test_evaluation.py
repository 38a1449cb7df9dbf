"""A saved classifier on other labelled images."""

from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.errors import DatasetError
from headstart.evaluation import evaluate


@pytest.fixture
def fitted(photos: Path) -> Any:
    return headstart.fit(photos, size=64, precision="f32")[0]


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
