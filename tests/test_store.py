"""The one store: shared by processes, migrated, mended where damaged, and filled from the files before it."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from headstart.errors import HeadstartError, RunError
from headstart.lesson.experiments.store import ResultStore
from headstart.runs import RunStore, store
from headstart.runs.store import Timing, add_timings, opening, read_timings, schema, store_file
from test_runs import make_run

pytest.importorskip("sqlalchemy", reason="needs headstart[learn]")

from headstart.lesson.engine.progress import Progress
from headstart.web.jobs import Jobs


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A new store."""
    place = tmp_path / "headstart.db"
    store.connect(place).close()
    return place


# ------------------------------------------------------------------------------------------------- timings


def test_the_newest_timings_of_a_machine_come_first() -> None:
    assert read_timings("desk") == []
    add_timings("desk", [Timing("extraction", "a", 1.5)])
    add_timings("desk", [Timing("head", "", 0.5), Timing("head", "", 0.75)])
    add_timings("laptop", [Timing("extraction", "a", 9.0)])
    assert read_timings("desk", newest=2) == [Timing("head", "", 0.75), Timing("head", "", 0.5)]
    assert len(read_timings("desk")) == 3 and read_timings("elsewhere") == []


def test_timings_that_say_nothing_are_not_kept() -> None:
    add_timings("desk", [Timing("head", "", ratio) for ratio in (0.0, -1.0, float("nan"), float("inf"))])
    assert read_timings("desk") == [] and not store_file().exists()


def test_a_store_that_cannot_be_used_costs_timings_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    add_timings("desk", [Timing("head", "", 1.0)], home=tmp_path / "home")
    assert read_timings("desk", home=tmp_path / "home") == []


# --------------------------------------------------------------------------------- one file, opened one way


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+pysqlite:///"])
def test_another_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("HEADSTART_DATABASE", f"{prefix}{tmp_path}/other.sqlite")
    add_timings("desk", [Timing("head", "", 1.0)])
    Progress.open().close()
    assert store.address() == store_file() == tmp_path / "other.sqlite"
    assert (tmp_path / "other.sqlite").is_file() and read_timings("desk") == [Timing("head", "", 1.0)]
    assert store_file(tmp_path) == tmp_path / "headstart.db"  # a home that is named has its own


def test_a_server_that_is_named_is_the_store_of_the_users_own_home_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = store_file()
    monkeypatch.setenv("HEADSTART_DATABASE", "postgresql+psycopg://class/lesson")
    assert store.address() == "postgresql+psycopg://class/lesson" and store_file() == usual
    assert store.address(tmp_path) == tmp_path / "headstart.db"


def test_a_server_gets_the_files_tables_in_its_own_types_and_once_only() -> None:
    said: list[str] = []
    with closing(sqlite3.connect(":memory:")) as server:  # which takes any name of a type
        server.create_collation("C", lambda one, other: (one > other) - (one < other))

        def execute(statement: str) -> sqlite3.Cursor:
            said.append(statement)
            changes_a_type = statement.strip().startswith("alter table log alter column")
            return server.execute("select 1" if changes_a_type else statement)

        schema.migrate(execute, dialect="postgresql")
        tables = {name for (name,) in server.execute("select name from sqlite_master where type = 'table'")}
        schema.migrate(execute, dialect="postgresql")
    there = {
        "log",
        "badge",
        "classes",
        "members",
        "lti_platforms",
        "lti_links",
        "runs",
        "timings",
        "jobs",
        "events",
        "results",
    }
    assert tables - {"sqlite_sequence"} == {"schema_version", *there}
    for word in ("bigserial", "with time zone", "double precision", "bytea", 'collate "C"'):
        assert word in " ".join(said), word
    for table in there:
        assert len([each for each in said if f"create table {table} " in each]) == 1, table


def test_a_transaction_that_fails_leaves_nothing_and_the_next_begins(file: Path) -> None:
    with closing(store.connect(file)) as database:
        with pytest.raises(ZeroDivisionError), store.transaction(database, writes=True):
            database.execute("insert into timings values ('desk', 'head', '', 1.0, 0)")
            raise ZeroDivisionError
        with store.transaction(database, writes=False):
            assert database.execute("select count(*) from timings").fetchone() == (0,)


def test_a_killed_migration_is_taken_up_again_and_a_newer_schema_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, versions = "alter table badge add column seen integer", schema.VERSIONS
    monkeypatch.setattr(schema, "VERSIONS", (*versions, schema.Version(file=f"{add}; no statement")))
    with pytest.raises(sqlite3.OperationalError, match="syntax error"):
        store.connect(file)
    monkeypatch.setattr(schema, "VERSIONS", (*versions, schema.Version(shared=add)))
    with closing(store.connect(file)) as database:
        assert "seen" in {row[1] for row in database.execute("pragma table_info(badge)")}
    monkeypatch.setattr(schema, "VERSIONS", versions)
    for use in (RunStore(file.parent).select, lambda: Progress.open(file)):
        known = len(versions)
        with pytest.raises(
            HeadstartError, match=f"have version {known + 1}, this Headstart knows {known}; upg"
        ):
            use()


def test_a_locked_store_costs_a_moment_and_then_a_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("headstart.runs.store.opening.WAIT_SECONDS", "headstart.runs.store.timings._WAIT_SECONDS"):
        monkeypatch.setattr(place, 0.05)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        for use in (
            ResultStore(file.parent).history,
            lambda: Progress.open(file),
            RunStore(file.parent).select,
        ):
            with pytest.raises(HeadstartError, match="its disk knows no locks"):
                use()
        assert read_timings("desk", home=file.parent) == []  # predictions get wider, and nothing else


# -------------------------------------------------------------------------------------------------- damage


def timed(file: Path) -> list[Timing]:
    add_timings("desk", [Timing("head", "", 1.0)], home=file.parent)
    return read_timings("desk", home=file.parent)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes(len(data)),
        lambda data: data[:100] + bytes(len(data) - 100),
        lambda data: data[: len(data) // 2],
        lambda data: b"not a database" * 100 + data,
    ],
    ids=["zeroed", "zeroed but its head", "cut off", "no database"],
)
def test_a_damaged_store_is_set_aside_with_a_sentence(
    file: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(damage(file.read_bytes()))
    assert timed(file)
    said = [each.message for each in caplog.records if "was set aside as" in each.message]
    assert len(said) == 1 and "headstart.db is damaged" in said[0] and "\n" not in said[0]
    assert len(list(file.parent.glob("headstart.db.damaged-*"))) == 1
    assert opening.is_sound(file) and not list(file.parent.glob("*.draft*"))


def test_of_a_damaged_store_what_can_be_read_is_kept(tmp_path: Path) -> None:
    file, runs = tmp_path / "headstart.db", [f"run-{n:03}" for n in range(40)]
    for name in runs:
        RunStore(tmp_path).add(make_run(tmp_path / name, run_id=name))
    log = [(n, f"s{n % 2}", n // 2, f"line {n} {'x' * 300}") for n in range(200)]
    with closing(store.connect(file)) as database, store.transaction(database, writes=True):
        database.executemany("insert into log values (?, ?, ?, 'ada', 'read', '2030', null, ?)", log)
        timings = [("desk", "head", f"timing-{n:03}", 1.0, n) for n in range(500)]
        database.executemany("insert into timings values (?, ?, ?, ?, ?)", timings)
    data = bytearray(file.read_bytes())
    for marker in (b"timing-250", b"line 100 ", b'"run": "run-020"'):
        page = data.index(marker) // 4096 * 4096
        data[page : page + 4096] = bytes(4096)
    file.write_bytes(data)
    store.mend(file)
    found = {run.id for run in RunStore(tmp_path).select()}
    assert found <= set(runs) and len(found) > 30 and {runs[0], runs[-1]} <= found
    kept = [each.key for each in read_timings("desk", home=tmp_path)]
    assert 300 < len(kept) == len(set(kept)) < 500 and {"timing-000", "timing-499"} <= set(kept)
    with closing(store.connect(file)) as database:
        for stream in ("s0", "s1"):  # a log is understood from its beginning
            query = "select sequence from log where stream = ? order by 1"
            places = [place for (place,) in database.execute(query, (stream,))]
            assert 10 < len(places) < 100 and places == list(range(len(places)))


def _hold(file: Path, held: multiprocessing.synchronize.Event, go: multiprocessing.synchronize.Event) -> None:
    database = store.connect(file)
    database.execute("select * from timings").fetchall()
    held.set()
    go.wait(60)
    database.close()


def test_a_damaged_store_is_not_moved_away_under_another_process(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(file, held, go))
    other.start()
    try:
        assert held.wait(60)
        file.write_bytes(bytes(file.stat().st_size))
        with pytest.raises(store.StoreError, match="another program has it open"):
            store.mend(file)
        assert timed(file) == []
    finally:
        go.set()
        other.join()
    assert timed(file)


def test_a_sound_store_is_never_set_aside(file: Path) -> None:
    before = file.read_bytes()
    store.mend(file)
    store.mend(file.with_name("absent.db"))
    assert file.read_bytes() == before and not list(file.parent.glob("*damaged*"))
    (notes := file.with_name("notes.txt")).write_text("named by mistake" * 10)
    store.mend(notes)
    assert notes.exists()


# ------------------------------------------------------------------------- what earlier versions have left

EARLIER = {
    "runs.sqlite": """create table runs (id text primary key, path text not null, created text not null,
        body text not null)""",
    "jobs.db": """create table jobs (number integer primary key, id text unique not null, kind text not null,
        name text not null, learner text not null, body text not null, state text not null,
        message text not null default '', result text not null default '{}',
        starts integer not null default 0, stopping integer not null default 0, created real not null);
        create table events (job text not null, number integer not null, kind text not null,
        data text not null, primary key (job, number)) without rowid""",
    "experiments.db": """create table results (number integer primary key, id text unique not null,
        name text not null, size text not null, varied integer not null, created text not null,
        seconds real not null, result text not null)""",
    "progress.db": """create table schema_version (version integer not null);
        insert into schema_version values (1);
        create table log (id integer not null primary key, stream varchar(200) not null,
        sequence integer not null, learner varchar(64) not null, kind varchar(32) not null,
        at datetime not null, key varchar(128), body json not null,
        constraint one_entry_per_place unique (stream, sequence));
        create table badge (challenge varchar(64) not null primary key, learner varchar(64) not null,
        issued_at datetime not null, credential text not null)""",
}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A home folder as an earlier version left it."""
    home = tmp_path / "home"
    (home / "studio").mkdir(parents=True)
    run = make_run(tmp_path / "run", run_id="earlier")
    job = "insert into jobs (id, kind, name, learner, body, state, created) values ('{}', 'k', '', 'a', '', "
    rows = {
        "runs.sqlite": [],
        "jobs.db": [job.format("w") + "'waiting', 1)", "insert into events values ('w', 1, 'waiting', '{}')"],
        "studio/looks.db": [
            job.format("l") + "'done', 2)",
            "insert into events values ('l', 1, 'done', '{}')",
        ],
        "experiments.db": ["insert into results values (1, 'r', 'n', 'small', 0, '', 1.0, '{}')"],
        "progress.db": [
            "insert into log values (7, 'reading:p:ada', 0, 'ada', 'read', '2030-01-01 00:00:00', 'k', "
            """'{"mode": "learn", "section": "One"}')""",
            "insert into badge values ('c', 'ada', '2030-01-01 00:00:00', 'credential')",
        ],
    }
    for name, statements in rows.items():
        with closing(sqlite3.connect(home / name, isolation_level=None)) as database:
            database.execute("pragma journal_mode = wal")
            database.executescript(EARLIER["jobs.db" if name.endswith("looks.db") else name])
            for statement in statements:
                database.execute(statement)
            if name == "runs.sqlite":
                row = (run.id, str(run.path).encode(), run.created, json.dumps(run.to_dict(), default=str))
                database.execute("insert into runs values (?, ?, ?, ?)", row)
    return home


def held_in(home: Path) -> dict[str, object]:
    """What a store says of what the fixture put into the earlier files."""
    work, looks, progress = Jobs(home), Jobs(home, "looks"), Progress.open(store_file(home))
    try:
        return {
            "runs": [run.id for run in RunStore(home).entries()],
            "work": [(job.id, job.state, len(work.events(job.id))) for job in work.history("k", learner="a")],
            "looks": [
                (job.id, job.state, len(looks.events(job.id))) for job in looks.history("k", learner="a")
            ],
            "read": progress.read_sections("ada", "p"),
            "badges": progress.badges("ada"),
            "results": store.use(
                store_file(home), lambda database: database.execute("select id from results").fetchall()
            ),
        }
    finally:
        for each in (work, looks, progress):
            each.close()


HELD = {
    "runs": ["earlier"],
    "work": [("w", "waiting", 1)],
    "looks": [("l", "done", 1)],
    "read": {"learn": {"One"}},
    "badges": ["credential"],
    "results": [("r",)],
}


def test_the_files_of_earlier_versions_are_brought_into_the_store_once(earlier: Path) -> None:
    assert store.is_there(store_file(earlier)) and held_in(earlier) == HELD
    names = {place.name for place in earlier.rglob("*") if place.is_file()} - {"work.lock", "looks.lock"}
    assert names == {"headstart.db", "looks.db.earlier", *(f"{name}.earlier" for name in EARLIER)}
    (earlier / "runs.sqlite.earlier").rename(earlier / "runs.sqlite")
    RunStore(earlier).rebuild()
    assert held_in(earlier) == HELD and (earlier / "runs.sqlite").exists()


def _open(home: Path) -> None:
    RunStore(home).entries()


def test_processes_that_open_a_new_store_at_once_bring_everything_in_once(earlier: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(earlier,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0] and held_in(earlier) == HELD


def test_a_file_that_an_earlier_version_still_uses_is_not_taken_from_it(earlier: Path) -> None:
    with closing(sqlite3.connect(earlier / "progress.db")) as server:
        server.execute("select * from log").fetchall()
        with pytest.raises(RunError, match=r"an earlier Headstart still uses .*progress\.db; end it first"):
            RunStore(earlier).entries()
    assert held_in(earlier) == HELD


def test_runs_of_a_damaged_earlier_index_are_found_in_their_folders(
    earlier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = earlier / "runs.sqlite"
    index.write_bytes(bytes(4096) + index.read_bytes()[4096:])
    assert held_in(earlier) == HELD
    assert any("runs.sqlite is damaged and was set aside as" in each.message for each in caplog.records)
    assert not index.exists()
