"""The studio's answer to whether more photographs would help."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.studio.learning_amounts import _said
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def test_a_run_is_trained_again_on_fewer_photographs_and_says_what_more_would_do(world: World) -> None:
    data = world.open()
    run = world.train(data)
    assert "Find out" in world.browser.get(run).text
    asked = world.post(f"{run}/amounts")
    location = next((each.headers["location"] for each in asked.history), asked.url.path)
    job = world.wait(location)
    images = [images for images, _ in job.result["points"]]
    trained = world.studio.run(run[6:])
    assert images == sorted(set(images)) and len(images) >= 3
    assert images[-1] == trained.images["train"]
    assert job.result["points"][-1][1] == trained.evaluation["validation"]["accuracy"]
    page = world.browser.get(run).text
    assert f"to {images[-1]:,} training photographs" in page and "<polyline" in page


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (0.6, 0.8, "will probably help"),
        (0.78, 0.8, "cannot say for certain"),
        (0.8, 0.805, "hardly more"),
        (0.8, 0.7, "chance alone"),
    ],
)
def test_a_gain_is_called_one_only_beyond_chance(before: float, now: float, said: str) -> None:
    assert said in _said([[10, 0.5], [20, before], [40, now]], spread=0.05)


def test_a_run_that_cannot_be_repeated_here_is_not_offered_it(world: World) -> None:
    data = world.open()
    run = world.train(data)
    world.post(f"{data}/forget")
    assert "Would more photographs help?" not in world.browser.get(run).text
    assert world.post(f"{run}/amounts").status_code == 400
