"""The store: nothing lost, nothing doubled, under concurrency and kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.errors import InternalError, LessonError
from headstart.lesson.engine import attempts, review
from headstart.lesson.engine import progress as progress_module
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Challenge, Chose, Closed, HintTaken, Opened, Submitted
from headstart.lesson.engine.progress import Progress
from lesson_packs import secret_pack

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PACK = secret_pack()
SLUGS = [problem.slug for problem in PACK.problems("challenge")]


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened = Progress.open(tmp_path / "home" / "headstart.db")
    yield opened
    opened.close()


def begin(store: Progress, challenge: str = "c1", learner: str = "ada", **options: object) -> Challenge:
    event = attempts.begin(PACK, challenge=challenge, learner=learner, seed=challenge, **options)  # type: ignore[arg-type]
    return store.start(event, NOW)


def take(store: Progress, challenge: str, *, right: int = 5) -> Challenge:
    """A learner takes the whole challenge; the first problem's answers are sent twice, by a double click."""
    for number, slug in enumerate(SLUGS):
        state, _ = store.record(challenge, Opened(slug), NOW)
        layout = state.item(slug).layout
        options = (
            [layout.answer] if number < right else [i for i, _ in layout.options if i != layout.answer][:2]
        )
        if number == 0:
            store.record(challenge, Chose(slug, options[0]), NOW)
        for attempt, option in enumerate(options):
            for _ in range(2 if number == 0 else 1):
                store.record(challenge, Submitted(slug, option, f"{slug}-{attempt}"), NOW)
    return store.challenge(challenge)


def test_what_was_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "headstart.db"
    first = Progress.open(path)
    begin(first)
    state = take(first, "c1")
    first.close()
    second = Progress.open(path)
    assert second.challenge("c1") == state and state.earns_badge
    assert second.challenges(learner="ada") == [state] and second.challenges(learner="bob") == []
    second.close()


def test_starting_twice_gives_the_first_challenge(store: Progress) -> None:
    begin(store)
    store.record("c1", Opened(SLUGS[0]), NOW)
    again = begin(store, timer=10.0)
    assert again.timer == 1.0 and again.item(SLUGS[0]).opened_at == NOW


def test_a_refused_event_leaves_no_trace(store: Progress) -> None:
    begin(store)
    before = store.entries("c1")
    with pytest.raises(AnswerRefused):
        store.record("c1", HintTaken(SLUGS[0]), NOW)
    assert store.entries("c1") == before
    with pytest.raises(LessonError, match="no such challenge"):
        store.record("unknown", Opened(SLUGS[0]), NOW)


def test_what_could_not_be_committed_is_not_remembered(
    store: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = begin(store)
    writing = store._writing

    @contextmanager
    def torn() -> Iterator[sa.Connection]:
        with writing() as connection:
            yield connection
            raise sa.exc.OperationalError("commit", {}, Exception("disk full"))

    with monkeypatch.context() as patched:
        patched.setattr(store, "_writing", torn)
        with pytest.raises(InternalError, match="disk full"):
            store.record("c1", Opened(SLUGS[0]), NOW)
    assert store.challenge("c1") == before
    store.record("c1", Opened(SLUGS[1]), NOW)
    assert store.challenge("c1") == attempts.replay(store.entries("c1")) != before


def test_only_so_many_challenges_are_remembered(store: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "KEPT_STATES", 2)
    for number in range(5):
        begin(store, f"c{number}", learner=f"l{number}")
        store.record(f"c{number}", Opened(SLUGS[0]), NOW)
        assert len(store._states) <= 2
    for number in range(5):
        assert store.challenge(f"c{number}") == attempts.replay(store.entries(f"c{number}"))


def test_time_running_out_is_logged_once_whoever_notices(store: Progress) -> None:
    begin(store)
    store.record("c1", Opened(SLUGS[0]), NOW)
    later = NOW + timedelta(seconds=500)
    for _ in range(2):
        assert store.settle("c1", later).item(SLUGS[0]).expired
    store.record("c1", Opened(SLUGS[1]), later)
    kinds = [type(entry.event).__name__ for entry in store.entries("c1")]
    assert kinds == ["Started", "Opened", "Expired", "Opened"]


def test_two_tabs_agree(store: Progress) -> None:
    """Two connections answer one problem at once with different keys: together they have two attempts."""
    begin(store)
    state, _ = store.record("c1", Opened(SLUGS[0]), NOW)
    options = [identity for identity, _ in state.item(SLUGS[0]).layout.options]
    outcomes = []

    def tab(number: int) -> None:
        try:
            store.record("c1", Submitted(SLUGS[0], options[number], f"tab-{number}"), NOW)
            outcomes.append("accepted")
        except AnswerRefused as refused:
            outcomes.append(refused.reason)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tab, range(4)))
    item = store.challenge("c1").item(SLUGS[0])
    assert outcomes.count("accepted") == len(item.tried) <= attempts.ATTEMPTS
    assert set(outcomes) <= {"accepted", "closed"} and item.closed_at is not None


def test_a_writer_that_lost_the_race_for_a_place_looks_again(
    store: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostgreSQL would have it: between reading and writing another tab was quicker."""
    begin(store)
    insert, intruded = progress_module._insert, []

    def late(connection: sa.Connection, line: progress_module.Line, sequence: int) -> None:
        if not intruded:
            intruded.append(line)
            insert(connection, line, sequence)
        insert(connection, line, sequence)

    monkeypatch.setattr(progress_module, "_insert", late)
    state, _ = store.record("c1", Opened(SLUGS[0]), NOW)
    assert intruded and store.challenge("c1") == state and len(store.entries("c1")) == 2

    def never(*_: object) -> None:
        raise sa.exc.IntegrityError("insert", {}, Exception("UNIQUE constraint failed"))

    monkeypatch.setattr(progress_module, "_insert", never)
    with pytest.raises(InternalError, match="too busy"):
        store.record("c1", HintTaken(SLUGS[0]), NOW)


def test_the_database_itself_refuses_a_doubled_answer(store: Progress) -> None:
    begin(store)
    take(store, "c1", right=5)
    with store._writing() as connection, pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
        key = f"{SLUGS[0]}-0"
        line = progress_module.Line("challenge:c1", "ada", "submitted", NOW, {}, key)
        progress_module._insert(connection, line, 1000)


@pytest.mark.parametrize(("learners", "stores"), [(200, 1), (20, 2)])
def test_learners_at_once_lose_and_double_nothing(tmp_path: Path, learners: int, stores: int) -> None:
    """One server with 200 learners; and two programs that share the file."""
    opened = [Progress.open(tmp_path / "headstart.db") for _ in range(stores)]
    gate = threading.Barrier(learners)

    def learner(number: int) -> Challenge:
        store = opened[number % stores]
        gate.wait()
        begin(store, f"c{number}", f"learner-{number}")
        return take(store, f"c{number}", right=number % 6)

    with ThreadPoolExecutor(learners) as pool:
        states = list(pool.map(learner, range(learners)))
    for number, state in enumerate(states):
        right = number % 6
        assert state.correct == right and state.finished_at is not None
        answers = [entry for entry in opened[0].entries(state.id) if isinstance(entry.event, Submitted)]
        assert len(answers) == right + 2 * (5 - right)
    assert len(opened[0].challenges()) == learners
    for store in opened:
        store.close()


WRITER = """
import sys
from datetime import datetime, UTC
from headstart.lesson.engine import attempts
from headstart.lesson.engine.progress import Progress
from lesson_packs import secret_pack
now = datetime(2030, 1, 1, tzinfo=UTC)
store = Progress.open(sys.argv[1])
for number in range(100):
    challenge = f"c{number}"
    begun = attempts.begin(secret_pack(), challenge=challenge, learner="l", seed="s")
    for item in store.start(begun, now).items:
        store.record(challenge, attempts.Opened(item.problem), now)
        key = f"{challenge}-{item.problem}"
        store.record(challenge, attempts.Submitted(item.problem, item.layout.answer, key), now)
        print(challenge, key, flush=True)
"""


@pytest.mark.parametrize("answers", [1, 23])
def test_kill_9_loses_no_accepted_answer(tmp_path: Path, answers: int) -> None:
    path = tmp_path / "headstart.db"
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here)])}
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        accepted = [writer.stdout.readline().split() for _ in range(answers)]
        os.kill(writer.pid, signal.SIGKILL)
        accepted += [line.split() for line in writer.stdout.read().splitlines() if line.count("-") == 3]
    assert writer.returncode == -signal.SIGKILL
    store = Progress.open(path)
    kept = {
        entry.event.key
        for state in store.challenges()
        for entry in store.entries(state.id)
        if isinstance(entry.event, Submitted)
    }
    assert {key for _, key in accepted} <= kept and len(accepted) >= answers
    begin(store, "after")
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


ACTIONS = st.sampled_from(["open", "choose", "submit", "hint", "close"])


@given(st.lists(st.tuples(st.sampled_from(SLUGS), ACTIONS, st.integers(0, 3)), max_size=20))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stored_log_agrees_with_the_state_in_memory(
    tmp_path: Path, actions: list[tuple[str, str, int]]
) -> None:
    """Two servers of one log take turns, and each knows what the other wrote."""
    stores = [Progress.open(tmp_path / "headstart.db") for _ in range(2)]
    challenge = f"c{len(stores[0].challenges())}"
    state = begin(stores[0], challenge)
    now = NOW
    for number, (slug, action, place) in enumerate(actions):
        store = stores[number // 2 % 2]
        now += timedelta(seconds=40)
        for expired in attempts.overdue(state, now):
            state, _ = attempts.step(state, expired, now)
        option = state.item(slug).layout.options[place][0]
        event = {
            "open": Opened(slug),
            "choose": Chose(slug, option),
            "submit": Submitted(slug, option, f"{slug}{place}"),
            "hint": HintTaken(slug),
            "close": Closed(slug),
        }[action]
        try:
            state, _ = attempts.step(state, event, now)
        except AnswerRefused:
            store.settle(challenge, now)
            with pytest.raises(AnswerRefused):
                store.record(challenge, event, now)
            continue
        assert store.record(challenge, event, now)[0] == state
    for store in stores:
        assert store.challenge(challenge) == state == attempts.replay(store.entries(challenge))
        store.close()


def test_reading_is_noted_once_per_section_and_per_learner(store: Progress) -> None:
    assert store.mark_read("ada", "lesson", mode="learn", section="The idea", now=NOW)
    assert not store.mark_read("ada", "lesson", mode="learn", section="The idea", now=NOW)
    assert store.mark_read("ada2", "lesson", mode="why", section="Before", now=NOW)
    assert store.read_sections("ada", "lesson") == {"learn": {"The idea"}}


def test_the_review_schedule_is_rebuilt_from_the_store(store: Progress) -> None:
    memory, now = None, NOW
    for rating in ("good", "again", "easy"):
        now += timedelta(days=2)
        memory, line = review.review(memory, rating, now, card="card")
        store.log_review("ada", "lesson", line)
    assert review.replay(store.reviews("ada", "lesson")) == {"card": memory}
    assert store.reviews("bob", "lesson") == []


def test_a_challenge_keeps_its_first_badge(store: Progress) -> None:
    begin(store)
    state = take(store, "c1")
    assert store.keep_badge(state, "first", NOW) == "first"
    assert store.keep_badge(state, "second", NOW) == "first"
    assert store.badges("ada") == ["first"]


def test_migrations_give_the_tables_the_code_uses(store: Progress) -> None:
    inspector = sa.inspect(store._engine)
    for table in progress_module._metadata.sorted_tables:
        assert {column["name"] for column in inspector.get_columns(table.name)} == set(table.columns.keys())
    names = {constraint["name"] for constraint in inspector.get_unique_constraints("log")}
    assert names == {"one_entry_per_place", "one_entry_per_key"}


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    with pytest.raises(LessonError, match="cannot open the progress database"):
        Progress.open(path)
    assert path.read_text() == "not a database" * 100
