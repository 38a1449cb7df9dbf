"""Runs in the studio: named, pinned, folded after corrections, and those of several labels or of numbers."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.runs import read_predictions
from headstart.studio.run_names import Family, families
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def _corrected(world: World, run: str, number: int) -> str:
    """The run after one more held-out label was corrected."""
    images = read_predictions(world.studio.run(run[6:]).path)["images"]
    label = next(name for name in ("bars", "discs", "squares") if name != images[number]["label"])
    return str(world.post(f"{run}/correct", content=images[number]["content"], label=label).url.path)


def test_retrained_runs_fold_under_the_first_and_any_run_can_be_named_and_pinned(world: World) -> None:
    data = world.open()
    runs = [world.train(data), world.train(data, chosen="builtin@128/all")]
    for number in range(3):
        runs.append(_corrected(world, runs[-1], number))
    listed = [world.studio.run(run[6:]) for run in reversed(runs)]
    first, later = families(listed)
    assert [each.id for each in (first.first, *first.later)] == [run[6:] for run in (runs[1], *runs[:1:-1])]
    assert later == Family(listed[-1])
    page = world.browser.get("/runs").text
    assert page.count("<tbody>") == 2 and "2 earlier corrections" in page
    assert world.browser.get(f"{data}/runs").text.count("<tbody>") == 2
    assert page.index(runs[1]) < page.index(runs[0])
    named = world.post(f"{runs[0]}/name", name=" the <b>first</b>\none ", pinned="true")
    assert "the &lt;b&gt;first&lt;/b&gt; one" in named.text
    page = world.browser.get("/runs").text
    assert page.index(runs[0]) < page.index(runs[1]) and "<b>first" not in page
    assert "the &lt;b&gt;first" in world.browser.get("/").text
    world.post(f"{runs[0]}/name")
    assert json.loads((world.studio.home / "studio/runs.json").read_text()) == {}
    world.post(f"{runs[0]}/name", name="gone soon", pinned="true")
    world.post(f"{runs[0]}/remove", sure="true")
    assert "gone soon" not in world.browser.get("/runs").text and world.studio.run_names.pinned() == []


def test_a_data_set_that_is_gone_is_removed_from_the_first_page(world: World) -> None:
    data = world.open()
    assert "No longer at its place" not in world.browser.get("/").text
    shutil.rmtree(world.root / "photos")
    page = world.browser.get("/")
    assert "No longer at its place" in page.text and f'action="{data}/forget"' in page.text
    assert world.browser.get(data).status_code == 200, "its page says so too"
    assert "No longer at its place" not in world.post(f"{data}/forget").text


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_run_of_several_labels_or_of_numbers_has_a_page_and_can_be_deleted(world: World, task: str) -> None:
    from headstart.training import fit

    paths = sorted((world.root / "photos").rglob("*.jpg"))
    with (world.root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "labels" if task == "multi-label" else "size"))
        for number, path in enumerate(paths):
            said = f"{path.parent.name};odd" if number % 2 else path.parent.name
            table.writerow((path, said if task == "multi-label" else 1.5 * number + 0.25))
    _, run = fit(world.root / "table.csv", backbone="builtin", size=96, task=task)
    assert f"/runs/{run.id}" in world.browser.get("/runs").text
    page = world.browser.get(f"/runs/{run.id}").text
    assert ("mAP" if task == "multi-label" else "R²") in page
    assert ("Most confident mistakes" if task == "multi-label" else "Largest errors") in page
    assert "<img" in page
    assert world.browser.get(f"/runs/{run.id}/report").status_code == 200
    other = world.browser.get(f"/runs/{run.id}/export")
    assert other.status_code == 400 and task in other.text
    world.post(f"/runs/{run.id}/remove", sure="true")
    assert world.browser.get(f"/runs/{run.id}").status_code == 404
    assert run.id not in world.browser.get("/runs").text
