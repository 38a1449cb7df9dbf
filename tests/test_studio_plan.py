"""The studio's plan: three offers, the table behind them, a budget."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def _offers(page: str) -> dict[str, str]:
    """The key of each offer by its title."""
    cards = re.findall(r'value="([^"]+)"[^>]*>\s*<span><strong>(\w+)</strong>', page)
    return {title: key for key, title in cards}


def test_a_budget_marks_what_does_not_fit_without_javascript(world: World) -> None:
    data = world.open()
    world.plan(data)
    collection = world.studio.collection(data.rsplit("/", 1)[1])
    kept = world.studio.collections.read(collection, "plan")
    assert kept
    for number, row in enumerate(kept["plan"]["rows"]):  # each as good as slow
        row["predicted_seconds"] = {"low": 1.0 + 4 * number, "median": 2.0 + 4 * number, "high": 90.0}
        row["accuracy"]["accuracy"] = 0.5 + 0.04 * number
    world.studio.collections.write(collection, "plan", kept)

    def shown(notch: int) -> tuple[int, str]:
        """Rows over a budget, and the one that is selected."""
        page = world.browser.get(f"{data}/plan?notch={notch}").text
        (selected,) = re.findall(r'value="([^"]+)" id="row-\d+" checked', page)
        assert f"Recommended: {selected.rpartition('/')[0]}" in page
        return page.count('class="over'), selected

    rows = [f"{row['name']}/{row['depth']}" for row in kept["plan"]["rows"]]
    assert shown(0) == (len(rows) - 1, rows[0])  # 5 s, of which 0.85 are planned with
    assert shown(1) == (len(rows) - 2, rows[1])
    assert shown(9) == (0, rows[-1])


def test_a_plan_of_an_earlier_version_is_made_again(world: World) -> None:
    data = world.open()
    collection = world.studio.collection(data.rsplit("/", 1)[1])
    world.studio.collections.write(
        collection, "plan", {"plan": {"rows": [{"backbone": "builtin"}]}, "asked": {}}
    )
    assert world.browser.get(f"{data}/plan").status_code == 200
    job = world.studio.work.last("plan", name=collection.id, learner="studio")
    assert job
    world.wait(f"/jobs/{job.id}")
    assert "Recommended: " in world.browser.get(f"{data}/plan").text


def test_where_the_best_head_is_recommended_thorough_is_to_fine_tune_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    data = world.open()
    world.plan(data)
    collection = world.studio.collection(data.rsplit("/", 1)[1])
    kept = world.studio.collections.read(collection, "plan")
    assert kept
    head = next(row for row in kept["plan"]["rows"] if row["depth"] == "all")
    longer = {
        **head,
        "depth": head["stages"] - 2,
        "predicted_seconds": {"low": 50, "median": 62.0, "high": 70},
    }
    kept["plan"]["rows"] = [head, longer]
    world.studio.collections.write(collection, "plan", kept)
    kept["plan"]["rows"][0] = head = {**head, "predicted_seconds": {"low": 1, "median": 2.0, "high": 3}}
    world.studio.collections.write(collection, "plan", kept)
    page = world.browser.get(f"{data}/plan").text
    assert _offers(page) == {"Balanced": "builtin@96/all", "Thorough": "builtin@96/deeper"}
    assert "about 64 s" in page and "keeps that only where" in page
    asked: list[Any] = []
    monkeypatch.setattr(
        type(world.studio), "add", lambda self, kind, name, body: asked.append(body) or _Job()
    )
    world.post(f"{data}/train", chosen="builtin@96/deeper")
    world.post(f"{data}/train", chosen="builtin@96/all")
    assert [body["freeze"] for body in asked] == ["auto", "all"]


class _Job:
    id = "nothing"


def test_three_offers_stand_before_the_table_and_the_recommended_one_is_chosen(world: World) -> None:
    data = world.open()
    world.plan(data)
    collection = world.studio.collection(data.rsplit("/", 1)[1])
    kept = world.studio.collections.read(collection, "plan")
    assert kept
    head = next(row for row in kept["plan"]["rows"] if row["depth"] == "all")
    rows = [
        {
            **head,
            "backbone": "builtin",
            "size": size,
            "name": f"builtin@{size}",
            "predicted_seconds": {"low": seconds / 2, "median": seconds, "high": 2 * seconds},
            "accuracy": {**head["accuracy"], "accuracy": accuracy, "guessed": False},
        }
        for size, seconds, accuracy in ((64, 1.0, 0.6), (96, 30.0, 0.8), (128, 600.0, 0.96))
    ]
    kept["plan"]["rows"] = rows
    world.studio.collections.write(collection, "plan", kept)
    page = world.browser.get(f"{data}/plan").text
    offers = _offers(page)
    assert offers == {"Quick": "builtin@64/all", "Balanced": "builtin@96/all", "Thorough": "builtin@128/all"}
    assert re.findall(r'value="([^"]+)" checked required', page) == ["builtin@96/all"]
    for words in ("about 6 in 10 right", "about 8 in 10 right", "about 96 in 100 right", "about 10.0 min"):
        assert words in page
    assert page.index("Thorough") < page.index("<table") and "All 3 options meet the limit" in page
    assert "1 of 3 options meet the limit" in world.browser.get(f"{data}/plan?notch=0").text
