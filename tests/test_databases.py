"""Stores in the home folder: a damaged one is set aside with a sentence, a locked one is one line soon."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart import databases
from headstart.costs.timings import Observation, RateStore
from headstart.errors import HeadstartError
from headstart.lesson.experiments.store import ResultStore

pytest.importorskip("sqlalchemy", reason="needs headstart[learn]")

from headstart.lesson.engine.progress import Progress


def rates(home: Path) -> object:
    store = RateStore(home)
    store.add([Observation("decoding", "a", 1.5)])
    return store.observations()


def experiments(home: Path) -> object:
    return ResultStore(home / "experiments.db").history()


def progress(home: Path) -> object:
    store = Progress.open(home / "progress.db")
    try:
        return store.badges("ada")
    finally:
        store.close()


STORES = {"rates.sqlite": rates, "experiments.db": experiments, "progress.db": progress}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes(len(data)),
        lambda data: data[:100] + bytes(len(data) - 100),
        lambda data: data[: len(data) // 2],
    ],
    ids=["zeroed", "zeroed but its head", "cut off"],
)
def test_a_damaged_store_is_set_aside_with_a_sentence(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    use, file = STORES[name], tmp_path / name
    use(tmp_path)
    if not file.exists():  # experiments: nothing is written by asking
        sqlite3.connect(file).execute("create table results (x)").connection.close()
    with sqlite3.connect(file) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    database.close()
    data = file.read_bytes()
    file.write_bytes(damage(data))
    use(tmp_path)
    said = [each.message for each in caplog.records if "was set aside as" in each.message]
    assert len(said) == 1 and name in said[0] and "\n" not in said[0]
    assert [each for each in tmp_path.glob(f"{name}.damaged-*") if each.suffix != ".db-wal"]
    use(tmp_path)
    assert databases.is_sound(file)


@pytest.mark.parametrize("name", STORES)
def test_a_locked_store_costs_a_moment_and_then_a_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("headstart.databases.WAIT_SECONDS", "headstart.costs.timings._WAIT_SECONDS"):
        monkeypatch.setattr(place, 0.05)
    STORES[name](tmp_path)
    other = sqlite3.connect(tmp_path / name, isolation_level=None)
    other.execute("pragma locking_mode = exclusive")
    other.execute("begin exclusive")
    if name == "rates.sqlite":
        assert STORES[name](tmp_path) == []  # predictions get wider, and nothing else
    else:
        with pytest.raises(HeadstartError, match="its disk knows no locks"):
            STORES[name](tmp_path)
    other.close()


def test_a_transaction_that_fails_leaves_nothing_and_the_next_begins(tmp_path: Path) -> None:
    database = databases.connect(tmp_path / "a.db", schema="create table if not exists a (x)")
    with pytest.raises(ZeroDivisionError), databases.transaction(database, writes=True):
        database.execute("insert into a values (1)")
        raise ZeroDivisionError
    with databases.transaction(database, writes=False):
        assert database.execute("select count(*) from a").fetchone() == (0,)
    database.close()


def test_a_sound_store_is_never_set_aside(tmp_path: Path) -> None:
    databases.connect(tmp_path / "a.db", schema="create table if not exists a (x)").close()
    assert databases.set_aside(tmp_path / "a.db", lost="nothing") is None
    assert databases.set_aside(tmp_path / "absent.db", lost="nothing") is None
