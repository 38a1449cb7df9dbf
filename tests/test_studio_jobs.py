"""The studio's jobs: watched, stopped, cut off, and gone on with."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("prometheus_client", reason="needs headstart[serve]")

import httpx

from children import started
from headstart.runs.callbacks import Range
from headstart.runs.store import opening
from headstart.studio import workers
from headstart.studio.jobs import phases, time_left
from headstart.studio.server import wind_down
from headstart.studio.state import Live
from headstart.web.jobs import Jobs, Stopped
from studio_worlds import WAIT_SECONDS, World, studio_worlds


@pytest.fixture
def make_world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[Callable[..., World]]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def test_jobs_outlive_the_server_and_what_was_cut_off_can_go_on(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    home = Path(os.environ["HEADSTART_HOME"])
    before = Jobs(home)
    path = os.fsencode(tmp_path / "root" / "photos").hex()
    cut = before.add("fit", name="aa", learner="studio", body={"data": "aa", "path": path, "size": 96})
    with before._writing() as database:  # as a kill -9 leaves it
        database.execute("update jobs set state = 'running', starts = 1 where id = ?", (cut.id,))
        database.execute("insert into events values (?, 2, 'running', '{}')", (cut.id,))
    before.close()
    world = make_world()
    end = time.monotonic() + WAIT_SECONDS
    while not world.studio.job(cut.id).over and time.monotonic() < end:
        time.sleep(0.02)
    page = world.browser.get(f"/jobs/{cut.id}").text
    assert "Interrupted" in page and "Continue" in page
    assert f"/jobs/{cut.id}" in world.browser.get("/").text
    again = world.post(f"/jobs/{cut.id}/continue")
    assert again.url.path != f"/jobs/{cut.id}"
    run = world.wait(again.url.path).result["run"]
    assert world.browser.get(f"/runs/{run}").status_code == 200
    assert f"/jobs/{cut.id}" not in world.browser.get("/").text


def test_the_page_of_a_job_that_is_done_is_its_result(world: World) -> None:
    run = world.train(world.open())
    done = world.studio.work.history("fit", learner="studio")[0]
    led = world.browser.get(f"/jobs/{done.id}?told=one", follow_redirects=False)
    assert led.status_code == 303 and led.headers["location"] == f"{run}?told=one"


def test_a_server_ends_with_the_studio_even_where_that_is_killed(world: World) -> None:
    folder = world.studio.run(world.train(world.open()).rsplit("/", 1)[1]).path
    with started([sys.executable, "-c", STARTS, str(folder)], stdout=subprocess.PIPE) as studio:
        assert studio.stdout
        address = studio.stdout.readline().strip()
        assert httpx.get(f"{address}health").status_code == 200
        studio.kill()
    end = time.monotonic() + WAIT_SECONDS
    with pytest.raises(httpx.TransportError):
        while time.monotonic() < end:
            httpx.get(f"{address}health")
            time.sleep(0.05)


STARTS = """
import sys, time
from pathlib import Path
from headstart.studio.servings import Servings
servings = Servings()
print(servings.start("run", Path(sys.argv[1])).address, flush=True)
time.sleep(600)
"""


def test_a_studio_that_ends_stops_what_it_runs_so_that_it_can_go_on(
    make_world: Callable[..., World], make_photos: Callable[..., Path]
) -> None:
    world = make_world()
    make_photos(world.root / "photos", per_class=60)
    data = world.open()
    answer = world.post(f"{data}/train", chosen="builtin@128/all", views="4")
    identity = answer.url.path[6:]
    end = time.monotonic() + WAIT_SECONDS
    while not (live := world.studio.live.get(identity)) or not live.phases:
        assert time.monotonic() < end
        time.sleep(0.01)
    wind_down(world.studio)
    later = make_world()
    assert later.studio.job(identity).state == "stopped"
    assert "Continue" in later.browser.get(answer.url.path).text


def test_a_training_stops_when_asked_and_goes_on_from_the_cache(
    world: World, monkeypatch: pytest.MonkeyPatch, make_photos: Callable[..., Path]
) -> None:
    make_photos(world.root / "photos", per_class=50)
    data = world.open()
    told: list[str] = []

    def stop_at_features(teller: workers.Teller, phase: str, done: int, total: int) -> None:
        told.append(phase)
        if done > 100:
            world.post(f"/jobs/{world.studio.work.unfinished()[0].id}/stop")
        teller.tell(phase, done, total)

    with monkeypatch.context() as patch:
        patch.setattr(workers.Teller, "on_progress", stop_at_features)
        answer = world.post(f"{data}/train", chosen="builtin@96/all")
        end = time.monotonic() + WAIT_SECONDS
        while not world.studio.job(answer.url.path[6:]).over and time.monotonic() < end:
            time.sleep(0.02)
    assert told and world.studio.job(answer.url.path[6:]).state == "stopped"
    assert world.studio.runs.page()[0] == [] and "Continue" in world.browser.get(answer.url.path).text
    again = world.post(f"{answer.url.path}/continue")
    run = world.studio.run(world.wait(again.url.path).result["run"])
    assert run.cache["hits"] > 0


def test_a_job_is_watched_with_its_prediction_and_its_curve(world: World) -> None:
    data = world.open()
    answer = world.post(f"{data}/train", chosen="builtin@96/all", head="softmax", epochs="3")
    identity = answer.url.path[6:]
    with world.browser.stream("GET", f"/jobs/{identity}/events") as stream:
        text = "".join(stream.iter_text())
    assert "event: state" in text and '"over": true' in text and "/runs/" in text
    live = world.studio.live[identity]
    assert live.expected and live.expected.low <= live.expected.median <= live.expected.high
    assert [entry["epoch"] for entry in live.epochs] == [1, 2, 3]
    run = world.studio.run(world.studio.job(identity).result["run"])
    assert "<polyline" in world.browser.get(f"/runs/{run.id}").text


def test_after_the_last_counted_phase_the_page_says_what_follows(world: World) -> None:
    answer = world.post(f"{world.open()}/train", chosen="builtin@96/all")
    job = replace(world.studio.job(answer.url.path[6:]), state="running")
    rows = phases(job, Live(phases={"features": (42, 42)}))
    assert [row["name"] for row in rows] == ["features", "training"] and rows[-1]["of"] == 0
    rows = phases(job, Live(phases={"features": (42, 42), "epochs": (3, 3)}))
    assert rows[-1]["name"] == "saving"
    world.wait(answer.url.path)


def test_a_teller_passes_predictions_on_and_lets_itself_be_stopped() -> None:
    def stopped(phase: str, done: int, total: int) -> None:
        raise Stopped

    teller = workers.Teller(stopped, Live())
    teller.on_estimate(Range(1.0, 2.0, 3.0), {})
    assert teller.live.expected == Range(1.0, 2.0, 3.0)
    with pytest.raises(Stopped):
        teller.on_progress("features", 1, 2)
    assert teller.live.phases == {"features": (1, 2)}


@pytest.mark.parametrize(
    "form",
    [
        {"chosen": ""},
        {"chosen": "../../weights@96/all"},
        {"chosen": "builtin@96/all; rm"},
        {"chosen": "builtin@96/all", "head": "forest"},
        {"chosen": "builtin@96/all", "epochs": "-1"},
        {"chosen": "builtin@96/all", "views": "1000"},
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_waits(world: World, form: dict[str, str]) -> None:
    data = world.open()
    answer = world.post(f"{data}/train", **form)
    assert answer.status_code == 400
    assert "xpected" in answer.text or "hoose one of the options" in answer.text
    assert world.studio.work.last("fit", name=data.rsplit("/", 1)[1], learner="studio") is None


def test_time_left_stays_within_the_prediction() -> None:
    expected = Range(low=6.0, median=10.0, high=17.0)
    said = [time_left(elapsed, expected) for elapsed in (0.0, 9.9, 12.0, 16.9, 18.0)]
    assert said[:4] == ["about 10 s left", "about 1 s left", "up to 5 s more", "up to 1 s more"]
    assert said[4].startswith("longer than predicted") and time_left(3.0, None) == ""


def test_a_queue_that_cannot_be_written_is_told_on_every_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAIT_SECONDS", 0.05)
    data = world.open()
    other = sqlite3.connect(world.studio.home / "headstart.db", isolation_level=None)
    other.execute("begin immediate")
    refused = world.post(f"{data}/train", chosen="builtin@96/all")
    assert refused.status_code == 400 and "keeps it locked" in refused.text
    for address in ("/", "/runs", data):
        assert "keeps it locked" in world.browser.get(address).text
    other.close()
    world.train(data)
    assert "keeps it locked" not in world.browser.get("/").text
