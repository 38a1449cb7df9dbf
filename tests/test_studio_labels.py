"""The studio's labels: what looking at a mistake changes, and that every later training knows of it."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from headstart.runs import read_images, read_predictions
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


NAMES = ("bars", "discs", "squares")


def _mistaken(world: World) -> str:
    """A run on photographs of which some are labelled wrong, so that it has mistakes."""
    for number, path in enumerate(sorted((world.root / "photos/discs").iterdir())[:6]):
        path.rename(world.root / f"photos/bars/wrong-{number}.jpg")
    return world.train(world.open())


def _offered(page: str) -> list[tuple[str, str]]:
    """Content hash and likeliest class of each mistake that a page asks about."""
    pattern = r'name="content" value="(\w+)".*?<option value="">.*?<option value="(\w+)"'
    return re.findall(pattern, page, re.DOTALL)


def test_a_label_that_is_right_is_not_asked_again_and_trains_nothing(world: World) -> None:
    run = _mistaken(world)
    content, _ = _offered(world.browser.get(run).text)[0]
    answer = world.post(f"{run}/correct", content=content, right="true")
    assert answer.url.path == run and "is not asked again" in answer.text and "Retrained" not in answer.text
    assert content not in [each for each, _ in _offered(answer.text)]
    assert "1 found right" in answer.text
    undone = world.post(f"{run}/undo")
    assert undone.url.path == run and content in [each for each, _ in _offered(undone.text)]


def test_no_wrong_class_is_chosen_beforehand(world: World) -> None:
    run = _mistaken(world)
    content, _ = _offered(world.browser.get(run).text)[0]
    refused = world.post(f"{run}/correct", content=content, label="")
    assert refused.status_code == 400 and "no class was chosen" in refused.text


def test_a_score_that_corrections_raised_says_what_it_was_and_that_the_classifier_is_the_same(
    world: World,
) -> None:
    run = _mistaken(world)
    before = world.studio.run(run[6:])
    content, label = _offered(world.browser.get(run).text)[0]
    answer = world.post(f"{run}/correct", content=content, label=label)
    after = world.studio.run(answer.url.path[6:])
    first, second = (load_file(each.path / "model.safetensors") for each in (before, after))
    assert all(np.array_equal(first[name], second[name]) for name in {*first, *second})
    was, now = (each.evaluation["validation"]["accuracy"] for each in (before, after))
    assert now > was
    said = re.sub(r"\s+", " ", answer.text)
    assert "That changes the validation score, not the classifier" in said
    assert f"as they were given it is {was:.1%} right" in said


def test_every_later_training_on_the_photographs_uses_what_was_corrected(world: World) -> None:
    run = _mistaken(world)
    held_out = read_predictions(world.studio.run(run[6:]).path)["images"][0]
    label = next(name for name in NAMES if name != held_out["label"])
    world.post(f"{run}/correct", content=held_out["content"], label=label)
    data = world.open()
    again = world.studio.run(world.train(data)[6:])
    labels = {each["content"]: each["label"] for each in read_images(again.path)}
    assert labels[held_out["content"]] == label
    assert again.corrections is not None
    assert "1 label was corrected or added" in world.browser.get(data).text
    table = world.browser.get(f"{data}/corrections.csv")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text.removeprefix("\ufeff"))))
    assert [(row["path"], row["label"], row["was"]) for row in rows] == [
        (held_out["path"], label, held_out["label"])
    ]
