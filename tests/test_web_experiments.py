"""What takes longer than a page, asked over HTTP: experiments, tasks, the project, the learner's own runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")


from headstart.errors import OptionError
from headstart.lessons import library
from headstart.web import stored
from headstart.web.drawing import draw
from lesson_worlds import World, finished, lesson_worlds


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with lesson_worlds(tmp_path) as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


# Experiments ----------------------------------------------------------------------------------------------


def test_an_experiment_is_watched_live_and_replayed_after_a_broken_connection(world: World) -> None:
    page = world.post("/experiments/one-pass/run").text
    stream = re.search(r'data-events="([^"]+)"', page)
    assert stream
    assert world.post("/experiments/one-pass/run").text.count("data-events") == 1
    finished(world)
    assert len(world.experiments.asked) == 1
    whole = world.browser.get(stream[1]).text
    ids = re.findall(r"^id: (\d+)$", whole, re.M)
    assert ids == [str(number) for number in range(1, len(ids) + 1)]
    assert "event: progress" in whole and "event: done" in whole
    rest = world.browser.get(stream[1], headers={"last-event-id": ids[1]}).text
    assert re.findall(r"^id: (\d+)$", rest, re.M) == ids[2:]
    told = re.search(r"event: progress\ndata: (.*)", whole)
    assert told and json.loads(told[1]) == {"text": "training", "done": 1, "of": 2}
    page = world.browser.get("/experiments/one-pass").text
    assert "<svg" in page and "3.5" in page and "Seconds &lt;both&gt;" in page


def test_a_picture_is_followed_through_every_stage(make_world: Callable[..., World], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    world = make_world(library.load_pack())
    assert world.browser.get("/journey/seen.png").status_code == 404
    page = world.post("/journey").text
    pictures_shown = re.findall(r'src="(/journey/\w+\.png)"', page)
    assert len(pictures_shown) >= 5
    assert all(world.browser.get(address).content.startswith(b"\x89PNG") for address in pictures_shown)
    grids = [int(side) for side in re.findall(r"<span>\d+ × (\d+) × \d+</span>", page)]
    assert grids[0] == 96 and grids == sorted(grids, reverse=True) and grids[-1] < 10
    assert world.post("/journey", file=str(tmp_path / "no.jpg")).status_code == 400
    (tmp_path / "text.jpg").write_text("no picture")
    assert world.post("/journey", file=str(tmp_path / "text.jpg")).status_code == 400
    assert make_world(learner=None).post("/journey", file="/etc/hostname").status_code == 403


def test_another_learner_cannot_watch(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)
    page = world.post("/experiments/one-pass/run").text
    stream = re.search(r'data-events="([^"]+)"', page)
    finished(world)
    assert stream and world.another().get(stream[1]).status_code == 404


def test_an_experiment_that_breaks_says_so(world: World) -> None:
    def breaks(name: str, **rest: Any) -> Any:
        raise OptionError("no such backbone")

    world.experiments.run = breaks  # type: ignore[method-assign]
    world.post("/experiments/one-pass/run")
    finished(world)
    page = world.browser.get("/experiments/one-pass").text
    assert "The last run failed: no such backbone" in page and "has not run yet" in page


def test_own_folders_are_for_a_machine_of_ones_own(make_world: Callable[..., World], tmp_path: Path) -> None:
    alone, shared = make_world(), make_world(learner=None)
    assert alone.post("/experiments/one-pass/run", folder=str(tmp_path)).status_code == 200
    finished(alone)
    assert alone.experiments.asked == [({}, str(tmp_path))]
    assert alone.post("/experiments/one-pass/run", folder="/no/such/folder").status_code == 400
    assert shared.post("/experiments/one-pass/run", folder=str(tmp_path)).status_code == 403


def test_a_task_counts_tries_gives_hints_one_at_a_time_and_its_solution_at_the_end(
    make_world: Callable[..., World],
) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    address = f"/tasks/{task.slug}"
    page = world.browser.get(address).text
    assert task.hints[0][:20] not in page and task.solution[:20] not in page
    page = world.post(f"{address}/hint").text
    assert task.hints[0][:20] in page and task.hints[1][:20] not in page
    values = {"start": "pre-trained weights", "epochs": "3"}
    assert world.post(f"{address}/run", **{**values, "epochs": "999"}).status_code == 400
    assert world.post(f"{address}/run", **{**values, "start": "magic"}).status_code == 400
    assert "data-events" in world.post(f"{address}/run", **values).text
    finished(world)
    page = world.browser.get(address).text
    assert world.experiments.asked == [({"start": "pre-trained weights", "epochs": 3}, None)]
    assert "1 of 3 tries used" in page and "✓ reached" in page and task.solution[:20] in page
    assert world.post(f"{address}/run", **values).status_code == 409


@pytest.mark.parametrize("kind", ["line", "bars", "dots"])
def test_a_plot_is_drawn_within_its_frame(kind: str) -> None:
    points = (("a<", 3.0), ("b", float("nan"))) if kind == "bars" else ((1, 3.0), (1000, -4.5))
    plot = SimpleNamespace(
        kind=kind, title="t", x="x<", y="y", series=(SimpleNamespace(name="s&", points=points),) * 2
    )
    svg = draw(plot)
    numbers = [float(n) for n in re.findall(r' (?:x|y|cx|cy|x1|y1)="([^"]+)"', svg)]
    assert numbers and all(-1 <= number <= 641 for number in numbers)
    assert "nan" not in svg and "x&lt;" in svg and 'role="img"' in svg


def test_the_project_asks_why_and_shows_it_back_with_the_grade(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    project = world.site.pack.project
    assert project is not None
    world.experiments.names += (project.experiment,)
    address = f"/tasks/{project.slug}"
    assert "<textarea" in world.browser.get(address).text
    assert "<textarea" not in world.browser.get(f"/tasks/{world.site.pack.tasks[0].slug}").text
    values = {"backbone": "builtin@64", "depth": "all", "views": "1", "epochs": "5"}
    assert world.post(f"{address}/run", **values, why="  ").status_code == 400
    assert world.site.jobs.unfinished() == []
    world.post(f"{address}/run", **values, why="Small <b>is</b>\n quick.")
    finished(world)
    page = world.browser.get(address).text
    assert "Small &lt;b&gt;is&lt;/b&gt; quick.</blockquote>" in page and "Not reached" in page
    assert world.site.store.lines(f"task:{world.site.pack.slug}:{project.slug}")[-1].body["why"]


# The learner's own runs ------------------------------------------------------------------------------------


def test_a_run_of_ones_own_is_trained_followed_and_judged(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    world = make_world(library.load_pack())
    assert "You have no stored run yet" in world.browser.get("/modes/metrics").text
    page = world.post("/runs/first", mode="metrics")
    assert page.url.path == "/modes/metrics" and "data-events" in page.text
    finished(world, seconds=120)
    runs = stored.listed(world.site)
    run = next(one for one in runs if one.config.pretrained)
    page = world.browser.get(f"/modes/metrics?run={run.id}").text
    assert "pre-trained" in page and "Confusion matrix" in page and "Calibration" in page
    score = run.evaluation["validation"]
    for value in (score["accuracy"], score["macro_f1"], score["interval"][0]):
        assert f"{100 * value:.1f}" in page
    cells = [int(count) for count in re.findall(r'<td class="(?:hit|miss) shade\d">(\d+)</td>', page)]
    assert sum(cells) == score["images"]
    assert "<html" in world.browser.get(f"/runs/{run.id}/report").text
    followed = world.post("/journey", run=run.id)
    assert followed.url.query == f"run={run.id}".encode()
    shares = [float(share) for share in re.findall(r'class="share">([\d.]+) %', followed.text)]
    assert len(shares) == min(10, len(run.classes)) and sum(shares) == pytest.approx(100, abs=0.6)
    assert shares == sorted(shares, reverse=True)
    assert world.browser.get("/runs/nonsense/report").status_code == 404
    if len(runs) > 1:
        assert "from scratch</" in page and stored.twin_of(run, runs) is not None


def test_runs_of_this_machine_are_not_shown_to_a_class(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack(), learner=None)
    assert world.post("/runs/first").status_code == 403
    assert world.browser.get("/runs/any/report").status_code == 403
    assert "machine of one" in world.browser.get("/modes/metrics").text


def a_run(history: tuple[dict[str, float], ...] = (), **changes: Any) -> Any:
    seconds = {"check": 1.0, "features": 3.0, "train": 8.0}
    accuracy = {"validation": 0.75}
    return SimpleNamespace(seconds=seconds, history=history, accuracy=accuracy, **changes)


def test_the_course_of_a_run_is_its_epochs_or_the_one_point_of_a_closed_form() -> None:
    epochs = tuple({"epoch": n, "validation_accuracy": n / 10} for n in (1, 2, 3, 4))
    assert stored.course(a_run(epochs)) == [(6.0, 10.0), (8.0, 20.0), (10.0, 30.0), (12.0, 40.0)]
    assert stored.course(a_run()) == [(12.0, 75.0)]
