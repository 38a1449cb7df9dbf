"""What takes longer than a page, asked over HTTP: experiments, tasks, the project, the learner's own runs."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")


from headstart.errors import OptionError
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.progress import Line
from headstart.lesson.pages import runs
from headstart.lesson.pages.experiments import measure_quick
from headstart.lesson.pages.site import TOURS_KEPT
from lesson_packs import plain
from lesson_worlds import World, finished, lesson_worlds, running


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
    assert "As a table" in page and "BatchNorm is fixed." in page and "Batchnorm" not in page


def test_a_picture_is_followed_through_every_stage(make_world: Callable[..., World], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    world = make_world(library.load_pack())
    assert world.browser.get("/tour/seen.png").status_code == 404
    page = world.post("/tour").text
    pictures_shown = re.findall(r'src="(/tour/\w+\.png)"', page)
    assert len(pictures_shown) >= 5
    assert all(world.browser.get(address).content.startswith(b"\x89PNG") for address in pictures_shown)
    grids = [int(side) for side in re.findall(r"<span>\d+ × (\d+) × \d+</span>", page)]
    assert grids[0] == 96 and grids == sorted(grids, reverse=True) and grids[-1] < 10
    assert world.post("/tour", file=str(tmp_path / "no.jpg")).status_code == 400
    (tmp_path / "text.jpg").write_text("no picture")
    assert world.post("/tour", file=str(tmp_path / "text.jpg")).status_code == 400
    assert make_world(learner=None).post("/tour", file="/etc/hostname").status_code == 403


def test_the_questions_about_a_picture_show_it_and_ask_for_one_first(
    make_world: Callable[..., World],
) -> None:
    pytest.importorskip("openvino")
    world = make_world(library.load_pack(), learner="without-a-picture")
    assert "short questions</button>" not in world.browser.get("/modes/visualize").text
    assert world.post("/modes/visualize/begin").url.path == "/modes/visualize"
    assert world.site.store.challenges() == []
    followed = world.post("/tour").text
    assert "short questions</button>" in followed
    questions = str(world.post("/modes/visualize/begin").url.path).rsplit("/", 1)[0]
    shown = world.open(questions, 1).text
    for pattern in (r'src="(/tour/\w+\.png)"', r"<span>(\d+ × \d+ × \d+)</span>"):
        assert len(re.findall(pattern, shown)) > 4
        assert re.findall(pattern, shown) == re.findall(pattern, followed)
    for number in range(TOURS_KEPT):
        world.site.tours.keep("another", name=str(number))
    assert "no longer has your picture" in world.browser.get(f"{questions}/1").text


@pytest.mark.parametrize("address", ["/experiments/one-pass/run", "/tasks/{task}/run"])
def test_pages_do_not_wait_for_a_form_that_waits_for_another_process(
    make_world: Callable[..., World], address: str
) -> None:
    world = make_world(pack=library.load_pack())
    task = world.site.pack.tasks[0]
    world.experiments.names = (*world.experiments.names, task.experiment)
    values = {control.name: control.start for control in task.controls}
    world.csrf()
    other = sqlite3.connect(world.site.jobs.address, isolation_level=None)
    with world.browser as browser, ThreadPoolExecutor(max_workers=2) as threads:
        other.execute("begin immediate")
        try:
            form = threads.submit(world.post, address.format(task=task.slug), **values)
            time.sleep(0.3)
            page = threads.submit(browser.get, "/").result(timeout=5)
            assert page.status_code == 200 and not form.done()
        finally:
            other.close()
        assert form.result().status_code == 200
        world.experiments.gate.set()


def test_an_experiment_that_breaks_says_so(world: World) -> None:
    def breaks(name: str, **rest: Any) -> Any:
        raise OptionError("no such backbone")

    world.experiments.run = breaks  # type: ignore[method-assign]
    world.post("/experiments/one-pass/run")
    finished(world)
    page = world.browser.get("/experiments/one-pass").text
    assert "The last run failed: no such backbone" in page and "has not run yet" in page
    assert "✗ the last run failed" in world.browser.get("/experiments").text


def test_a_running_experiment_and_those_that_wait_can_be_stopped(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    page = world.post("/experiments").text
    assert "Stop all 2" in page
    running(world)
    page = world.post("/experiments/stop").text
    assert ">Stopping</p>" in page and "waiting for its turn" not in page and "Stop all" not in page
    finished(world)
    assert len(world.experiments.asked) == 1 and world.experiments.results_by_name == {}
    for name in world.experiments.names:
        assert "The last run was stopped" in world.browser.get(f"/experiments/{name}").text
    stream = world.browser.get(f"/jobs/{world.site.jobs.history('experiment', learner='ada')[0].id}/events")
    assert "event: stopped" in stream.text


def test_a_try_can_be_stopped_and_only_by_its_learner(make_world: Callable[..., World]) -> None:
    world, other = make_world(library.load_pack()), make_world(library.load_pack(), learner="eve")
    task = world.site.pack.tasks[0]
    world.post(f"/tasks/{task.slug}/run", start="random weights", epochs="1")
    job = world.site.jobs.unfinished()[0]
    assert other.post(f"/jobs/{job.id}/stop").status_code == 404
    assert not world.site.jobs.unfinished()[0].stopping
    running(world)
    page = world.post(f"/jobs/{job.id}/stop", at=f"/tasks/{task.slug}")
    assert page.url.path == f"/tasks/{task.slug}" and ">Stopping</p>" in page.text
    assert world.post(f"/jobs/{job.id}/stop", at="//evil.example/x").url.path == "/"
    finished(world)
    page = world.browser.get(f"/tasks/{task.slug}").text
    assert "The run was stopped. This try was not counted." in page and "0 of 3 tries used" in page


def test_pages_say_what_to_install_where_experiments_need_it(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    install = "<code>pip install &#39;headstart[torch]&#39;</code>"
    places = ("/", "/experiments", "/modes/try", "/modes/learn")
    told = [install.replace("&#39;", "'") in world.browser.get(place).text for place in places]
    assert told == [False] * 4
    world.experiments.without_torch = ("pretrained-vs-scratch",)
    world.site.catalogue.forget()
    told = [install.replace("&#39;", "'") in world.browser.get(place).text for place in places]
    assert told == [True] * 4
    assert "Measure the 1 that can run here" in world.browser.get("/").text
    assert "needs headstart[torch]" in world.browser.get("/modes/try").text
    world.experiments.without_torch = world.experiments.names
    world.site.catalogue.forget()
    first = world.browser.get("/").text
    assert (
        "2 experiments need an optional part" in first
        and "Measure</button>" not in first
        and ">Measure the" not in first
    )


def test_what_settles_an_open_problem_is_held_back_until_it_is_closed(
    make_world: Callable[..., World],
) -> None:
    world = make_world(plain(library.load_pack()))
    problem = world.site.pack.problems("challenge")[0]
    task = next(one for one in world.site.pack.tasks if one.experiment == problem.experiment)
    events = re.search(r'data-events="([^"]+)"', world.post(f"/experiments/{problem.experiment}/run").text)
    assert events
    finished(world)
    world.post("/experiments/one-pass/run")
    world.post(f"/tasks/{task.slug}/run", start="pre-trained weights", epochs="3")
    finished(world)
    places = (f"/experiments/{problem.experiment}", "/modes/learn", f"/tasks/{task.slug}")
    result = re.compile(r"<svg viewBox=\"0 0 640|>3\.5<|>9<")

    def seen() -> list[bool]:
        first = f'href="/experiments/{problem.experiment}"' in world.browser.get("/").text
        return [first, *(bool(result.search(world.browser.get(place).text)) for place in places)]

    assert seen() == [True] * 4, "before a problem is open the lesson shows its results"
    challenge = world.begin()  # which opens the first
    assert seen() == [False] * 4
    assert world.browser.get("/experiments").text.count('<svg class="small"') == 1
    assert "hidden until you finish the open problem" in world.browser.get("/modes/learn").text
    assert not re.search("3.5|9.0", world.browser.get(events[1]).text)
    assert result.search(world.browser.get("/experiments/one-pass").text), "no open problem is about it"
    other = make_world(library.load_pack(), learner="eve").browser
    other_page = other.get("/experiments").text
    assert "held back" not in other_page
    world.post(f"/experiments/{problem.experiment}/run")
    finished(world)
    assert seen() == [False] * 4, "nor is what is run meanwhile"
    world.answer(challenge, 1)
    assert seen() == [True] * 4


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


def test_each_try_has_a_seed_of_its_own_and_what_is_reached_can_be_run_again(
    make_world: Callable[..., World],
) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    address, values = f"/tasks/{task.slug}", {"start": "pre-trained weights", "epochs": "3"}
    for number in (1, 2, 3, 4):
        assert world.post(f"{address}/run", **values).status_code == 200
        finished(world)
        assert world.experiments.seeds == list(range(1, number + 1))
    page = world.browser.get(address).text
    assert "1 of 3 tries used" in page and "Run it again" in page and page.count('<th scope="row">') == 4


def test_used_tries_close_a_task_that_was_not_reached(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    address, values = f"/tasks/{task.slug}", {"start": "random weights", "epochs": "1"}
    world.experiments.fields["seconds_scratch"] = 2.0
    for _ in range(task.tries):
        world.post(f"{address}/run", **values)
        finished(world)
    page = world.browser.get(address).text
    assert "3 of 3 tries used" in page and task.solution[:20] in page and "<button>Run" not in page
    assert world.post(f"{address}/run", **values).status_code == 409


def test_a_task_begun_anew_has_all_its_tries_and_hints_and_draws_new_images(
    make_world: Callable[..., World],
) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    address, values = f"/tasks/{task.slug}", {"start": "random weights", "epochs": "1"}
    world.experiments.fields["seconds_scratch"] = 2.0
    assert "Begin this task anew" not in world.browser.get(address).text
    for round_of_tries in (1, 2):
        assert task.hints[0][:20] in world.post(f"{address}/hint").text
        for _ in range(task.tries):
            world.post(f"{address}/run", **values)
            finished(world)
        assert "3 of 3 tries used" in world.browser.get(address).text
        page = world.post(f"{address}/reset").text
        assert "0 of 3 tries used" in page and "<button>Run" in page
        assert task.hints[0][:20] not in page and task.solution[:20] not in page
        assert world.experiments.seeds == list(range(1, task.tries * round_of_tries + 1)), "none comes again"


def test_a_try_that_missed_on_a_busy_machine_is_not_charged(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    address, values = f"/tasks/{task.slug}", {"start": "pre-trained weights", "epochs": "3"}
    world.experiments.fields["seconds_scratch"] = 2.0
    world.experiments.busy = True
    for _ in range(task.tries + 1):
        world.post(f"{address}/run", **values)
        finished(world)
    page = world.browser.get(address).text
    assert "0 of 3 tries used" in page and "It was not counted" in page and "<button>Run" in page
    world.experiments.fields["seconds_scratch"] = 9.0
    world.post(f"{address}/run", **values)
    finished(world)
    page = world.browser.get(address).text
    assert "1 of 3 tries used" in page and "✓ reached" in page, "what is reached is reached, busy or not"


def test_tries_of_before_open_and_are_charged(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    stream = f"task:{world.site.pack.slug}:{task.slug}:ada"
    values = {"start": "random weights", "epochs": 5}
    body = {"parameters": values, "fields": {"seconds_pretrained": None}, "reached": False, "seed": 1}
    world.site.store.append(Line(stream, "ada", "try", world.clock(), body, "before"))
    assert "1 of 3 tries used" in world.browser.get(f"/tasks/{task.slug}").text


def test_the_first_page_counts_tasks_that_were_reached(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    first = world.browser.get("/").text
    assert "0 of 5 reached" in first and "<span>not reached</span>" in first
    pack = world.site.pack
    done = {"parameters": {}, "fields": {}, "reached": True}
    for task in (*pack.tasks, pack.project):
        assert task is not None
        stream = f"task:{pack.slug}:{task.slug}:ada"
        world.site.store.append(Line(stream, "ada", "try", world.clock(), done, task.slug))
    first = world.browser.get("/").text
    assert "5 of 5 reached" in first and "<span>reached</span>" in first
    for mode in pack.modes:
        for section in mode.sections if mode.name not in ("try", "project", "challenge") else ():
            world.site.store.mark_read("ada", pack.slug, mode=mode.name, section=section, now=world.clock())
    first = world.browser.get("/").text
    assert "Begin: The challenge" in first, "nothing else is left"


def test_one_button_measures_all_that_has_not_run(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    first = world.browser.get("/").text
    assert "The numbers in the lesson are still those of the reference machine" in first
    assert "<svg" not in first.split("<main")[1]
    assert "Measure everything, less than a minute" in world.browser.get("/experiments").text
    world.post("/experiments")
    running(world)
    page = world.browser.get("/experiments").text
    assert page.count("data-events") == 1 and "running now" in page and "waiting for its turn" in page
    world.post("/experiments")  # sent twice, queued once
    finished(world)
    assert len(world.experiments.asked) == 2
    page = world.browser.get("/experiments").text
    assert page.count("✓ measured in") == 2 and "Measure" not in page.split("<main")[1].split("<ul")[0]
    last = world.browser.get("/").text.split("<main")[1]
    assert "<svg" in last and "Some numbers in the lesson are still" not in last and "<button" not in last


def test_what_is_quick_measures_by_itself_quickest_first_and_once(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    seconds = {"one-pass": (7.0, 8.0), "pretrained-vs-scratch": (20.0, 30.0), "calibration": (1.0, 2.0)}
    world.experiments.names = tuple(seconds)
    describe = world.experiments.describe

    def described(name: str, **rest: Any) -> Any:
        return SimpleNamespace(**vars(describe(name, **rest)) | {"predicted_range": seconds[name]})

    world.experiments.describe = described  # type: ignore[method-assign]
    measure_quick(world.site)
    assert [job.name for job in world.site.jobs.unfinished()] == ["calibration", "one-pass"]
    assert "data-refresh" in world.browser.get("/").text
    finished(world)
    measure_quick(world.site)
    assert not world.site.jobs.unfinished()
    of_a_class = make_world(library.load_pack(), learner=None)
    measure_quick(of_a_class.site)
    assert not of_a_class.site.jobs.unfinished()


def test_an_experiment_runs_with_the_values_that_were_changed(make_world: Callable[..., World]) -> None:
    pytest.importorskip("numpy")
    from headstart.lesson import experiments

    world = make_world(library.load_pack())
    declared = experiments.describe("one-pass").parameters
    backbone = experiments.Parameter("backbone", "a network", "builtin", "builtin")
    about = world.experiments.describe("one-pass")
    about.parameters = (*declared, backbone)
    world.experiments.describe = lambda name, **_: about  # type: ignore[method-assign]
    page = world.browser.get("/experiments/one-pass").text
    assert 'name="set-epochs" min="1" max="50" value="20"' in page and 'name="set-keep"' in page
    unchanged = {"set-epochs": "20", "set-keep": "yes", "set-backbone": "builtin"}
    world.post("/experiments/one-pass/run", **unchanged)
    finished(world)
    world.post("/experiments/one-pass/run", **{**unchanged, "set-epochs": "5", "set-keep": "no"})
    finished(world)
    assert world.experiments.asked == [({}, None), ({"epochs": 5, "keep": "no"}, None)]
    refused = world.post("/experiments/one-pass/run", **{"set-epochs": "51"})
    assert refused.status_code == 400 and "from 1 to 50" in refused.text
    shared = make_world(library.load_pack(), learner=None)
    shared.experiments.describe = lambda name, **_: about  # type: ignore[method-assign]
    assert "set-backbone" not in shared.browser.get("/experiments/one-pass").text
    assert shared.post("/experiments/one-pass/run", **{"set-backbone": "/etc/x.pt"}).status_code == 403


def test_a_try_shows_what_it_took_and_what_came_of_it(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    task = world.site.pack.tasks[0]
    forecast = f"/tasks/{task.slug}/forecast"
    told = world.browser.get(forecast, params={"epochs": "3"}).json()
    assert told == {"text": "Predicted with these values: 2.0 to 4.0 s"}
    assert world.browser.get(forecast, params={"epochs": "999"}).status_code == 400
    world.post(f"/tasks/{task.slug}/run", start="pre-trained weights", epochs="3")
    finished(world)
    page = world.browser.get(f"/tasks/{task.slug}").text
    changed = page.split("What changed")[1]
    assert "<svg" in changed and "your last try" in changed and "As a table" in changed
    assert "seconds until the first training, pre-trained unless" in changed
    row = re.sub(r"<[^>]+>", " ", changed.split("<tbody>")[-1]).split()
    assert row[:8] == ["1", "pre-trained", "weights", "3", "2", "9", "2", "–"], row
    assert task.goals[0].says in page


def test_parts_of_a_page_stand_where_the_author_put_them(make_world: Callable[..., World]) -> None:
    pytest.importorskip("openvino")
    world = make_world(library.load_pack())
    world.post("/tour")
    page = world.browser.get("/modes/visualize").text
    sections = page.split('<section id="section-')
    assert (
        'id="runs"' in sections[1]
        and 'id="tour"' in sections[3]
        and "short questions</button>" in sections[4]
    )
    assert page.count('id="runs"') == page.count('id="tour"') == page.count("short questions</button>") == 1


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
    fit = runs._fit
    small = {"size": 32, "epochs": 2}
    monkeypatch.setattr(runs, "_fit", lambda *given, **named: fit(*given, **{**named, **small}))
    monkeypatch.setattr(runs, "TWIN_SECONDS", 600.0)  # no budget that a busy machine could exceed
    world = make_world(library.load_pack())
    assert "You have no stored run yet" in world.browser.get("/modes/metrics").text
    page = world.post("/runs/first", mode="metrics")
    assert page.url.path == "/modes/metrics" and "data-events" in page.text
    finished(world)
    own = runs.listed(world.site)
    run = next(one for one in own if one.config.pretrained)
    page = world.browser.get(f"/modes/metrics?run={run.id}").text
    assert "pre-trained" in page and "Confusion matrix" in page and "Calibration" in page
    score = run.evaluation["validation"]
    for value in (score["accuracy"], score["macro_f1"], score["interval"][0]):
        assert f"{100 * value:.1f}" in page
    cells = [int(count) for count in re.findall(r'<td class="(?:hit|miss) shade\d">(\d+)</td>', page)]
    assert sum(cells) == score["images"]
    assert "<html" in world.browser.get(f"/runs/{run.id}/report").text
    followed = world.post("/tour", run=run.id)
    assert followed.url.query == f"run={run.id}".encode()
    shares = [float(share) for share in re.findall(r'class="share">([\d.]+) %', followed.text)]
    assert len(shares) == min(10, len(run.classes)) and sum(shares) == pytest.approx(100, abs=0.6)
    assert shares == sorted(shares, reverse=True)
    assert world.browser.get("/runs/nonsense/report").status_code == 404
    if len(own) > 1:
        assert "from scratch</" in page and runs.twin_of(run, own) is not None


def test_runs_of_this_machine_are_not_shown_to_a_class(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack(), learner=None)
    assert world.post("/runs/first").status_code == 403
    assert world.browser.get("/runs/any/report").status_code == 403
    assert "machine of one" in world.browser.get("/modes/metrics").text


def a_run(history: tuple[dict[str, float], ...] = (), **changes: Any) -> Any:
    seconds = {"check": 1.0, "features": 3.0, "train": 8.0}
    accuracy = {"validation": 0.75}
    return SimpleNamespace(seconds=seconds, history=history, accuracy=accuracy, **changes)


def test_the_distance_of_accuracy_and_macro_f1_is_read_off_the_classes() -> None:
    def gap(*classes: tuple[str, float, int], accuracy: float) -> str:
        per_class = [{"name": name, "f1": f1, "support": images} for name, f1, images in classes]
        macro = sum(f1 for _, f1, _ in classes) / len(classes)
        return runs._gap({"accuracy": accuracy, "macro_f1": macro}, per_class)

    balanced = gap(("a", 0.67, 10), ("b", 0.0, 10), ("c", 1.0, 10), accuracy=0.667)
    assert "11.0 points above" in balanced and "“b”" in balanced and "classes are" not in balanced
    assert "small classes are found worse" in gap(("a", 0.95, 90), ("b", 0.4, 10), accuracy=0.92)
    assert "large classes are found worse" in gap(("a", 0.6, 90), ("b", 0.9, 10), accuracy=0.6)


def test_only_the_same_network_from_scratch_stands_beside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(identity: str, backbone: str, *, pretrained: bool) -> Any:
        config = SimpleNamespace(
            data="digits", backbone=backbone, architecture=None, size=64, pretrained=pretrained
        )
        return SimpleNamespace(id=identity, path=Path(identity), config=config)

    monkeypatch.setattr(runs, "read_predictions", lambda path: {"split": "one"})
    run, twin = of("run", "builtin", pretrained=True), of("twin", "builtin", pretrained=False)
    other = of("other", "builtin-large", pretrained=True)
    assert runs.twin_of(run, [other, run, twin]) is twin and runs.twin_of(other, [run, twin]) is None


def test_the_course_of_a_run_is_its_epochs_or_the_one_point_of_a_closed_form() -> None:
    epochs = tuple({"epoch": n, "validation_accuracy": n / 10} for n in (1, 2, 3, 4))
    assert runs.course(a_run(epochs)) == [(6.0, 10.0), (8.0, 20.0), (10.0, 30.0), (12.0, 40.0)]
    assert runs.course(a_run()) == [(12.0, 75.0)]
