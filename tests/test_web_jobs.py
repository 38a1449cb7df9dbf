"""The queue on disk: nothing accepted is lost, one thing at a time, also after a server was killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.errors import OptionError, RunError
from headstart.runs.store import opening
from headstart.web.jobs import EVERYONE, WAITING_JOBS, Job, Jobs, Tell


@pytest.fixture
def open_jobs(tmp_path: Path) -> Iterator[Callable[[], Jobs]]:
    opened: list[Jobs] = []

    def make() -> Jobs:
        opened.append(Jobs(tmp_path))
        return opened[-1]

    yield make
    for jobs in opened:
        jobs.close()


def settled(jobs: Jobs, *, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while jobs.unfinished():
        assert time.monotonic() < ends, jobs.unfinished()
        time.sleep(0.01)


def double(job: Job, tell: Tell) -> dict[str, int]:
    tell("half-way", 1, 2)
    return {"twice": 2 * job.body["number"]}


def test_work_is_done_in_order_and_its_result_and_events_are_kept(open_jobs: Callable[[], Jobs]) -> None:
    jobs, order = open_jobs(), []
    made = [jobs.add("double", name="n", learner="ada", body={"number": n}) for n in range(3)]

    def work(job: Job, tell: Tell) -> dict[str, int]:
        order.append(job.body["number"])
        return double(job, tell)

    jobs.serve("double", work)
    settled(jobs)
    assert order == [0, 1, 2]
    ended = jobs.get(made[2].id)
    assert ended is not None and ended.state == "done" and ended.result == {"twice": 4}
    events = jobs.events(made[2].id)
    assert [event.number for event in events] == [1, 2, 3, 4]
    assert [event.kind for event in events] == ["waiting", "running", "progress", "done"]
    assert events[0].data == {"ahead": 2}
    assert events[2].data == {"text": "half way", "done": 1, "of": 2}
    assert jobs.events(made[2].id, after=2) == events[2:]
    assert [job.id for job in jobs.history("double", learner="ada")] == [job.id for job in reversed(made)]


def test_what_waits_is_there_when_the_server_starts_anew(open_jobs: Callable[[], Jobs]) -> None:
    job = open_jobs().add("double", name="n", learner="ada", body={"number": 21})
    later = open_jobs()
    later.serve("double", double)
    settled(later)
    ended = later.get(job.id)
    assert ended is not None and ended.result == {"twice": 42}


def test_the_same_unfinished_work_is_queued_once_and_again_when_it_has_ended(
    open_jobs: Callable[[], Jobs],
) -> None:
    jobs = open_jobs()
    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(lambda _: jobs.add("double", name="n", learner="ada", body={"number": 1}), range(8))
        first = {job.id for job in asked}
    assert len(first) == 1
    other = jobs.add("double", name="n", learner="eve", body={"number": 1})
    assert other.id not in first
    jobs.serve("double", double)
    settled(jobs)
    assert jobs.add("double", name="n", learner="ada", body={"number": 1}).id not in first
    settled(jobs)


def test_too_much_waiting_work_is_refused_by_name(
    open_jobs: Callable[[], Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = open_jobs()
    for number in range(WAITING_JOBS):
        jobs.add("nobody", name=str(number), learner="ada")
    with pytest.raises(OptionError, match="20 jobs that you asked for are waiting; ask again"):
        jobs.add("nobody", name="one more", learner="ada")
    jobs.add("nobody", name="one more", learner="eve")
    monkeypatch.setattr("headstart.web.jobs.WAITING_IN_ALL", WAITING_JOBS + 1)
    with pytest.raises(OptionError, match="the queue is full: 21 jobs are waiting"):
        jobs.add("nobody", name="one more", learner="zoe")


def test_what_is_asked_for_goes_before_what_began_by_itself(open_jobs: Callable[[], Jobs]) -> None:
    jobs, order = open_jobs(), []
    itself = [jobs.add("named", name=f"itself {n}", learner=EVERYONE, urgent=False) for n in range(25)]
    jobs.add("named", name="asked", learner=EVERYONE, asker="ada")
    again = jobs.add("named", name="itself 20", learner=EVERYONE, asker="eve")
    assert again.id == itself[20].id and again.urgent and again.asker == "eve"
    assert jobs.add("named", name="asked", learner=EVERYONE, asker="eve").asker == EVERYONE
    assert [job.name for job in jobs.unfinished()][:3] == ["itself 20", "asked", "itself 0"]
    assert jobs.last("named", name="asked", learner="anybody") is not None, "it is everybody's"
    jobs.serve("named", lambda job, tell: order.append(job.name))
    settled(jobs)
    assert order[:2] == ["itself 20", "asked"] and len(order) == 26


def test_nobody_has_more_waiting_than_they_may(open_jobs: Callable[[], Jobs]) -> None:
    jobs = open_jobs()
    for number in range(3):
        jobs.add("nobody", name=str(number), learner=EVERYONE, asker="ada", most=3)
    with pytest.raises(OptionError, match="3 jobs that you asked for are waiting"):
        jobs.add("nobody", name="3", learner=EVERYONE, asker="ada", most=3)
    assert jobs.add("nobody", name="0", learner=EVERYONE, asker="ada", most=3), "the same is no more"
    assert jobs.add("nobody", name="3", learner=EVERYONE, asker="eve", most=3)


def test_work_that_fails_says_why_and_the_next_is_done(open_jobs: Callable[[], Jobs]) -> None:
    jobs = open_jobs()

    def work(job: Job, tell: Tell) -> None:
        if job.name == "ours":
            raise ZeroDivisionError("oh")
        if job.name == "theirs":
            raise OptionError("no such folder")

    for name in ("theirs", "ours", "well"):
        jobs.add("mixed", name=name, learner="ada")
    jobs.serve("mixed", work)
    settled(jobs)
    states = {job.name: (job.state, job.message) for job in jobs.history("mixed", learner="ada")}
    assert states == {
        "theirs": ("failed", "no such folder"),
        "ours": ("failed", "internal error; see the server log (ZeroDivisionError: oh)"),
        "well": ("done", ""),
    }


def test_running_work_stops_at_its_next_sign_of_progress_and_waiting_work_at_once(
    open_jobs: Callable[[], Jobs],
) -> None:
    jobs, begun, steps = open_jobs(), threading.Event(), []

    def work(job: Job, tell: Tell) -> None:
        for step in range(10_000):
            tell("steps", step, 10_000)
            steps.append(step)
            begun.set()
            time.sleep(0.001)

    running = jobs.add("long", name="running", learner="ada")
    waiting = jobs.add("long", name="waiting", learner="ada")
    jobs.serve("long", work)
    assert begun.wait(60)
    jobs.stop(waiting.id)
    ended = jobs.get(waiting.id)
    assert ended is not None and ended.state == "stopped"
    jobs.stop(running.id)
    settled(jobs)
    ended = jobs.get(running.id)
    assert ended is not None and ended.state == "stopped" and len(steps) < 10_000
    assert jobs.events(running.id)[-1].kind == "stopped"


def test_two_servers_of_one_home_take_turns(open_jobs: Callable[[], Jobs]) -> None:
    at_once, most = [0], [0]
    turn = threading.Lock()

    def work(job: Job, tell: Tell) -> None:
        with turn:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        with turn:
            at_once[0] -= 1

    servers = [open_jobs(), open_jobs()]
    for number in range(6):
        servers[number % 2].add("slow", name=str(number), learner="ada")
    for server in servers:
        server.serve("slow", work)
    settled(servers[0])
    assert most[0] == 1
    assert [job.state for job in servers[1].history("slow", learner="ada")] == ["done"] * 6


def test_who_only_asks_does_not_wait_for_another_process_that_writes(
    open_jobs: Callable[[], Jobs], tmp_path: Path
) -> None:
    jobs = open_jobs()
    first = jobs.add("double", name="n", learner="ada")
    other = sqlite3.connect(tmp_path / "headstart.db", isolation_level=None)
    other.execute("begin immediate")
    with ThreadPoolExecutor(max_workers=2) as threads:
        try:
            added = threads.submit(jobs.add, "double", name="m", learner="ada")
            time.sleep(0.2)
            asked = threads.submit(lambda: (jobs.get(first.id), jobs.unfinished(), jobs.events(first.id)))
            job, unfinished, events = asked.result(timeout=5)
        finally:
            other.close()
        assert job == first and unfinished == [first] and len(events) == 1
        assert jobs.get(added.result().id) is not None


def test_old_ended_work_is_forgotten(open_jobs: Callable[[], Jobs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.web.jobs.KEPT_JOBS", 3)
    jobs = open_jobs()
    jobs.serve("quick", lambda job, tell: None)
    first = jobs.add("quick", name="first", learner="ada")
    for number in range(8):
        jobs.add("quick", name=str(number), learner="ada")
        settled(jobs)
    assert jobs.get(first.id) is None and jobs.events(first.id) == []


SERVER = """
import sys, time
from pathlib import Path
from headstart.web.jobs import Jobs

def work(job, tell):
    Path(sys.argv[2]).write_text("running")
    time.sleep(60)

jobs = Jobs(Path(sys.argv[1]))
jobs.serve("long", work)
time.sleep(60)
"""


def killed_while_running(folder: Path) -> None:
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(mark)])
    try:
        ends = time.monotonic() + 120
        while not mark.exists():
            assert server.poll() is None and time.monotonic() < ends
            time.sleep(0.02)
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()


def test_work_of_a_killed_server_is_begun_again_once_and_then_given_up(
    open_jobs: Callable[[], Jobs], tmp_path: Path
) -> None:
    jobs = open_jobs()
    job = jobs.add("long", name="n", learner="ada", body={"number": 4})
    killed_while_running(tmp_path)
    stuck = jobs.get(job.id)
    assert stuck is not None and stuck.state == "running"
    jobs.serve("long", double)
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "done" and ended.result == {"twice": 8}
    assert [event.kind for event in jobs.events(job.id)].count("running") == 2


def test_work_that_saw_two_servers_die_is_given_up(open_jobs: Callable[[], Jobs], tmp_path: Path) -> None:
    jobs = open_jobs()
    job = jobs.add("long", name="poison", learner="ada")
    killed_while_running(tmp_path)
    killed_while_running(tmp_path)
    jobs.serve("long", double)
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "failed"
    assert ended.message == "the server ended 2 times while it ran"


def test_queues_of_one_store_work_side_by_side_and_know_nothing_of_each_other(
    open_jobs: Callable[[], Jobs], tmp_path: Path
) -> None:
    begun, looks = held(open_jobs()), Jobs(tmp_path, "looks")
    try:
        assert looks.unfinished() == [] and looks.get(begun.job.id) is None
        looks.serve("once", double)
        job = looks.add("once", name="first", learner="ada", body={"number": 1})
        settled(looks)
        assert job.id != begun.job.id and looks.events(job.id)[0].data == {"ahead": 0}
        found = begun.jobs.get(begun.job.id)
        assert found is not None and found.state == "running"
    finally:
        begun.go.set()
        looks.close()
    settled(begun.jobs)
    assert begun.ran == ["first"]


# Trouble with the file -------------------------------------------------------------------------------------


def until(true: Callable[[], object], *, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for long."""
    monkeypatch.setattr(opening, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr("headstart.web.jobs.AGAIN_SECONDS", 0.02)
    monkeypatch.setattr("headstart.web.jobs.PROGRESS_SECONDS", 0.02)


@dataclass
class Held:
    """A job that has begun and ends when `go` is set."""

    jobs: Jobs
    job: Job
    ran: list[str]
    go: threading.Event


def held(jobs: Jobs, **body: object) -> Held:
    ran: list[str] = []
    ready, go = threading.Event(), threading.Event()

    def work(job: Job, tell: Tell) -> dict[str, int]:
        ran.append(job.name)
        ready.set()
        assert go.wait(30)
        tell("half-way", 1, 2)
        return {"answer": 42}

    jobs.serve("once", work)
    job = jobs.add("once", name="first", learner="ada", body=body)
    assert ready.wait(30)
    return Held(jobs, job, ran, go)


def test_a_database_held_by_another_process_when_a_job_ends_costs_nothing(
    open_jobs: Callable[[], Jobs], tmp_path: Path, impatient: None
) -> None:
    begun = held(open_jobs())
    jobs, job, ran, go = begun.jobs, begun.job, begun.ran, begun.go
    other = sqlite3.connect(tmp_path / "headstart.db", isolation_level=None)
    other.execute("begin immediate")
    go.set()
    until(lambda: "another process keeps it locked" in jobs.trouble)
    with pytest.raises(RunError, match=r"waiting work cannot be kept in .*locked"):
        jobs.add("once", name="refused", learner="ada")
    other.close()
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "done" and ended.result == {"answer": 42}
    assert [event.kind for event in jobs.events(job.id)].count("done") == 1 and jobs.trouble == ""
    jobs.add("once", name="second", learner="ada")
    settled(jobs)
    assert ran == ["first", "second"]


def test_a_full_disk_when_a_job_ends_costs_nothing(open_jobs: Callable[[], Jobs], impatient: None) -> None:
    begun = held(open_jobs(), long="x" * 5000)
    jobs, job, ran, go = begun.jobs, begun.job, begun.ran, begun.go
    with jobs._turn:
        pages = jobs._database.execute("pragma page_count").fetchone()[0]
        jobs._database.execute("create table filler (x)")
        jobs._database.execute(f"pragma max_page_count = {pages + 1}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            while True:
                jobs._database.execute("insert into filler values (zeroblob(900))")
        jobs._database.execute(
            "create trigger full before update on jobs begin insert into filler values (zeroblob(90000)); end"
        )
    go.set()
    until(lambda: "the disk is full" in jobs.trouble)
    assert jobs.unfinished()
    with jobs._turn:
        jobs._database.execute(f"pragma max_page_count = {pages + 1000}")
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "done" and ran == ["first"]
    assert [event.kind for event in jobs.events(job.id)].count("done") == 1


def test_what_runs_is_stopped_although_the_file_cannot_be_written(
    open_jobs: Callable[[], Jobs], tmp_path: Path, impatient: None
) -> None:
    jobs, ready = open_jobs(), threading.Event()

    def endless(job: Job, tell: Tell) -> None:
        ready.set()
        while True:
            tell("step", 1, 2)
            time.sleep(0.005)

    jobs.serve("endless", endless)
    job = jobs.add("endless", name="n", learner="ada")
    assert ready.wait(30)
    other = sqlite3.connect(tmp_path / "headstart.db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(RunError):
        jobs.stop(job.id)
    until(lambda: jobs.trouble)
    other.close()
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "stopped"


def test_work_that_asks_python_to_end_is_a_failed_job_and_the_next_is_done(
    open_jobs: Callable[[], Jobs],
) -> None:
    jobs = open_jobs()

    def leave(job: Job, tell: Tell) -> None:
        sys.exit(3)

    jobs.serve("leave", leave)
    jobs.serve("unwritable", lambda job, tell: {"x": object()})
    jobs.serve("double", double)
    made = [
        jobs.add(kind, name="n", learner="ada", body={"number": 1})
        for kind in ("leave", "unwritable", "double")
    ]
    settled(jobs)
    assert [jobs.get(job.id).state for job in made] == ["failed", "failed", "done"]  # type: ignore[union-attr]


def test_a_store_that_stays_locked_is_one_line_before_long(
    open_jobs: Callable[[], Jobs], tmp_path: Path, impatient: None
) -> None:
    open_jobs().close()
    other = sqlite3.connect(tmp_path / "headstart.db", isolation_level=None)
    other.execute("pragma locking_mode = exclusive")
    other.execute("begin exclusive")
    with pytest.raises(RunError, match="its disk knows no locks") as raised:
        Jobs(tmp_path)
    assert "\n" not in str(raised.value)
    other.close()


@pytest.mark.parametrize("damage", [bytes(4096), b"no database" * 500, b""])
def test_a_damaged_store_is_set_aside_at_the_start_with_a_sentence(
    open_jobs: Callable[[], Jobs], tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_jobs()
    first.add("double", name="n", learner="ada", body={"number": 1})
    first.close()
    file = tmp_path / "headstart.db"
    data = file.read_bytes()
    file.write_bytes(damage + data[len(damage) :] if damage else data[:1024] + bytes(len(data) - 1024))
    (tmp_path / "work.lock").write_bytes(b"no database" * 500)
    jobs = open_jobs()
    assert any("headstart.db is damaged and was set aside as" in each.message for each in caplog.records)
    jobs.serve("double", double)
    job = jobs.add("double", name="n", learner="ada", body={"number": 2})
    settled(jobs)
    ended = jobs.get(job.id)
    assert ended is not None and ended.result == {"twice": 4}


def test_a_store_damaged_while_a_job_runs_is_set_aside_and_the_job_ends_in_the_new_one(
    open_jobs: Callable[[], Jobs], tmp_path: Path, impatient: None
) -> None:
    begun = held(open_jobs())
    jobs, job, ran, go = begun.jobs, begun.job, begun.ran, begun.go
    with jobs._turn, jobs._reading_turn:
        jobs._database.execute("pragma wal_checkpoint(truncate)")
        (tmp_path / "headstart.db").write_bytes(b"no database" * 5000)
        jobs._reader.execute("pragma shrink_memory")
    until(lambda: jobs.get(job.id) is None)  # a page asks, and the damage is noticed
    go.set()
    until(lambda: (found := jobs.get(job.id)) is not None and found.over)
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "done" and ran == ["first"]
    assert list(tmp_path.glob("headstart.db.damaged-*"))
