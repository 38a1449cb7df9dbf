"""Experiments of the lesson's pages: the guess before, photographs that are sent, the queue of a class."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")


from headstart.errors import OptionError
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.pack import CodeFace
from headstart.lesson.pages.experiments import curve_of
from headstart.web.jobs import EVERYONE, Event
from lesson_packs import secret_pack, secret_problem
from lesson_worlds import World, finished, lesson_worlds, running


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with lesson_worlds(tmp_path) as make:
        yield make


def test_a_guess_is_asked_for_and_shown_beside_what_came(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    address = "/experiments/pretrained-vs-scratch"
    assert "Before it runs, what do you expect?" in world.browser.get(address).text
    asked = world.post(f"{address}/run", guess="  about\u2028 40 <b> ")
    assert "You expected" not in asked.text, "nothing has come yet"
    finished(world)
    page = world.browser.get(address).text
    assert (
        "You expected <strong>about 40 &lt;b&gt;</strong>" in page
        and "It came to <strong>3.5</strong>" in page
    )
    assert "Before it runs again" in page
    other = make_world(library.load_pack(), learner="eve")
    assert "You expected" not in other.browser.get(address).text


def test_what_a_problem_asks_about_runs_on_its_page_once_it_is_answered(
    make_world: Callable[..., World],
) -> None:
    problem = replace(
        secret_problem(1), code=(CodeFace("Keras", "python", "print(1)\n"),), runs_with={"epochs": 4}
    )
    pack = replace(secret_pack(), problem_sets={"challenge": (problem,)})
    pytest.importorskip("numpy")
    from headstart.lesson import experiments

    world = make_world(pack)
    about = world.experiments.describe("one-pass")
    about.parameters = experiments.describe("one-pass").parameters
    world.experiments.describe = lambda name, **_: about  # type: ignore[method-assign]
    challenge = world.begin()
    assert "Run it here" not in world.browser.get(f"{challenge}/1").text
    page = world.answer(challenge, 1).text
    code, button = page.index("print(1)"), page.index("Run it here, ")
    assert page.index("The measurement") < code < button
    assert 'name="set-epochs" value="4"' in page
    shown = world.post("/experiments/one-pass/run", at=f"{challenge}/1", **{"set-epochs": "4"})
    assert shown.url.path == f"{challenge}/1" and "data-events=" in shown.text
    finished(world)
    page = world.browser.get(f"{challenge}/1").text
    assert world.experiments.asked == [({"epochs": 4}, None)]
    assert "Seconds &lt;both&gt;" in page and "Run it again" in page


def test_photographs_that_are_sent_are_used_once_and_removed(
    make_world: Callable[..., World], photos: Path, tmp_path: Path
) -> None:
    world = make_world()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(photos.rglob("*.*")):
            archive.write(path, path.relative_to(photos.parent))
    files = [("files", ("pets.zip", packed.getvalue())), ("files", ("", b""))]
    address, form = "/experiments/one-pass/run", {"csrf": world.csrf()}
    assert world.browser.post(address, data=form, files=files).url.path == "/experiments/one-pass"
    one = sorted(photos.rglob("*.*"))[0]
    single = [("files", (f"pets/{one.parent.name}/a.jpg", one.read_bytes()))]
    world.browser.post(address, data=form, files=single)
    first, second = world.site.jobs.unfinished()
    assert first.learner == second.learner == "ada", "nobody else's"
    zipped, folder = (Path(job.body["source"]) for job in (first, second))
    assert zipped.name == "pets.zip" and zipped.is_file() and len(list(folder.rglob("*.*"))) == 1
    world.site.jobs.stop(second.id)
    finished(world)
    assert world.experiments.asked == [({}, str(zipped))] and not zipped.exists()
    refused = world.browser.post(address, data=form, files=[("files", ("a.jpg", b"no picture"))])
    assert refused.status_code == 400 and "a.jpg" in refused.text
    assert list((tmp_path / "lesson" / "sent").iterdir()) == [], "what was stopped is gone, too"
    of_a_class = make_world(learner=None)
    form = {"csrf": of_a_class.csrf()}
    assert of_a_class.browser.post(address, data=form, files=single).status_code == 403
    assert of_a_class.browser.post(address, data=form, files=files * 20).status_code == 413


def test_a_class_shares_what_it_measures_and_nobody_fills_the_queue(make_world: Callable[..., World]) -> None:
    ada = make_world(learner=None)
    eve = replace(ada, browser=ada.another(), token="")
    page = ada.post("/experiments/one-pass/run").text
    stream = re.search(r'data-events="([^"]+)"', page)
    running(ada)
    assert stream and eve.post("/jobs/" + stream[1].split("/")[2] + "/stop").status_code == 403
    assert stream[0] in eve.post("/experiments/one-pass/run").text, "the same job, watched by both"
    assert len(ada.site.jobs.unfinished()) == 1
    assert ada.post("/jobs/" + stream[1].split("/")[2] + "/stop").status_code == 403, "eve waits for it too"
    eve.post("/experiments")
    queued = [(job.name, job.urgent) for job in ada.site.jobs.unfinished()]
    assert queued == [("one-pass", True)], "what has been asked for is not queued again"
    for place in range(4):
        body = {"parameters": {"epochs": place}}
        asked = partial(
            ada.site.jobs.add, "experiment", name="one-pass", learner=EVERYONE, asker="mallory", most=3
        )
        with suppress(OptionError) if place == 3 else nullcontext():
            asked(body=body)
    assert sum(job.asker == "mallory" for job in ada.site.jobs.unfinished()) == 3
    waiting = ada.site.jobs.unfinished()[-1]
    assert ada.site.waiting.text(waiting) == "Waiting: 3 before it, about 9 s"
    finished(ada)
    assert "event: done" in eve.browser.get(stream[1]).text
    for world in (ada, eve):
        assert "As a table" in world.browser.get("/experiments/one-pass").text


def test_thirty_learners_queue_five_tasks_each_and_are_told_how_long_they_wait(
    make_world: Callable[..., World],
) -> None:
    pack = library.load_pack()
    world = make_world(pack, learner=None, door="/join")
    begun: dict[str, datetime] = {}
    told: list[tuple[str, datetime, float]] = []
    dice = random.Random(0)

    def run(name: str, *, parameters: Any, seed: int, progress: Any, **_: Any) -> Any:
        """Takes six times what was predicted, more or less, by a clock that only this moves."""
        assert world.experiments.gate.wait(120)
        [job] = [each for each in world.site.jobs.unfinished() if each.state == "running"]
        begun[job.id] = world.clock.now
        if len(begun) in (2, 40, 100):
            for waiting in world.site.jobs.unfinished()[1:]:
                ahead, seconds = world.site.waiting.seconds(waiting)
                assert seconds is not None and ahead > 0
                told.append((waiting.id, world.clock.now, seconds))
        world.clock.forward(dice.uniform(12, 24))
        return SimpleNamespace(id="r", fields={}, seconds=1.0, busy=False, predicted=None)

    world.experiments.names = tuple({task.experiment for task in pack.tasks})
    world.experiments.run = run  # type: ignore[method-assign]
    one, _ = world.site.classes.create("10 b", pack=pack.slug, now=world.clock.now)
    for place in range(30):
        learner = replace(world, browser=world.another(), token="")
        form = {"csrf": csrf_of(learner, "/join"), "code": one.code, "name": f"Learner {place}"}
        learner.browser.post("/join", data=form)
        form = {"csrf": csrf_of(learner, "/me")}
        for task in pack.tasks:
            values = {control.name: str(control.start) for control in task.controls}
            page = learner.browser.post(f"/tasks/{task.slug}/run", data=form | values)
            assert page.status_code == 200 and "data-events=" in page.text
    said = re.search(r"Waiting: [^<]*", page.text)
    assert said and said[0] == "Waiting: 149 before it, about 7.5 min", said
    finished(world)
    assert len(begun) == 150 and len(told) == 148 + 110 + 50
    for job, at, seconds in told:
        waited = (begun[job] - at).total_seconds()
        assert waited / 2 <= seconds <= 2 * waited, (job, waited, seconds)


def csrf_of(world: World, address: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', world.browser.get(address).text)
    assert found
    return found[1]


def test_a_running_training_is_drawn_from_its_progress_unless_its_problem_is_open() -> None:
    told = [("epochs", 1, 40.0), ("epochs", 2, 60.0), ("from scratch", 1, 10.0)]
    events = [
        Event(number, "progress", {"text": text, "done": done, "of": 2, "reached": reached})
        for number, (text, done, reached) in enumerate(told, 1)
    ]
    drawn = curve_of([Event(0, "running", {}), *events])
    assert drawn.startswith("<svg") and "from scratch" in drawn
    assert curve_of([*events, Event(4, "running", {})]) == "", "begun again"
    again = Event(4, "progress", {"text": "epochs", "done": 1, "of": 2, "reached": 5.0})
    assert curve_of([*events[:2], again]) == "", "another training of that name"
