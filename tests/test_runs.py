"""The runs store: found by id from anywhere, safe under concurrent writers."""

import errno
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from headstart.cli.runs import command
from headstart.errors import OptionError, RunError
from headstart.runs import (
    FitConfig,
    Run,
    RunStore,
    UnreadableRun,
    new_folder,
    new_id,
    read_run,
    sweep,
    timestamp,
)
from headstart.runs.folders import _host

CONFIG = FitConfig(
    backbone="builtin",
    data="photos",
    size=128,
    depth=9,
    stages=9,
    layers=("block5@2x2", "features"),
    runtime="openvino",
    precision="bf16",
)


def make_run(folder: Path, *, run_id: str = "20260101-000000-builtin-abcd") -> Run:
    run = Run(
        id=run_id,
        path=folder,
        created=timestamp(),
        config=CONFIG,
        classes=("a", "b"),
        images={"train": 7, "validation": 2, "test": 1, "skipped": 0},
        accuracy={"validation": 0.5, "test": None},
        macro_f1=0.4,
        evaluation={},
        seconds={"total": 1.5},
        cache={"hits": 0, "misses": 10, "bytes": 100},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run.to_dict(), default=str))
    return run


def test_a_run_read_back_equals_the_one_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert read_run(tmp_path / "run") == run


def test_a_record_of_a_version_that_recorded_less_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in (
        "near_duplicates",
        "groups",
        "freeze",
        "candidates",
        "folds",
        "costs",
        "priors",
        "weights_column",
    ):
        del record["config"][name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert read_run(tmp_path / "run") == run


def test_a_config_is_made_of_options_and_completed_by_what_it_trains() -> None:
    assert FitConfig.from_options() == FitConfig(task="auto", head="auto")  # until labels and depth are known
    asked = FitConfig.from_options(
        backbone=Path("net.pth"), views="flip", scratch=True, candidates=["a", "b"]
    )
    assert asked.backbone == "net.pth" and asked.candidates == ("a", "b")
    assert asked.views == ("centre", "flip") and not asked.pretrained
    for named in (FitConfig.from_options(backbone="net@96"), FitConfig.from_options(backbone="net", size=96)):
        assert (named.backbone, named.size) == ("net", 96)
    with pytest.raises(OptionError, match="net@96 and size=64: give one size"):
        FitConfig.from_options(backbone="net@96", size=64)
    frozen = replace(FitConfig(), depth=9, stages=9)
    fine_tuned, softmax = replace(frozen, depth=5), replace(frozen, head="softmax", layers="all")
    settled = [each.settled() for each in (frozen, fine_tuned, softmax, replace(asked, stages=9))]
    assert [each.epochs for each in settled] == [None, 15, 30, 40]
    assert [each.layers for each in settled] == ["auto", None, None, None]
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        FitConfig.from_options(depth=3)


def test_the_record_says_depth_all_when_everything_is_frozen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.to_dict()["depth"] == "all"
    assert replace(run, config=replace(CONFIG, depth=5)).to_dict()["depth"] == 5


def test_a_run_is_found_by_folder_id_and_beginning_of_id(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    store = RunStore()
    store.add(run)
    assert {store.find(name).id for name in (tmp_path / "run", run.id, run.id[:10])} == {run.id}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_folder_whose_name_is_no_utf8_is_found_and_text_beyond_ascii_is_filtered_by(tmp_path: Path) -> None:
    run = make_run(tmp_path / os.fsdecode(b"r\xff"))
    run = replace(run, config=replace(run.config, data="café"))
    store = RunStore()
    store.add(run)
    assert [found.path for found in store.select(contains="café")] == [run.path]
    assert store.select(contains="cafe") == []


def test_a_filter_means_every_character_literally(tmp_path: Path) -> None:
    store = RunStore()
    for number, data in enumerate(("my_photos", "my-photos", "100%", "100!", "back\\slash")):
        run = make_run(tmp_path / str(number), run_id=f"run-{number}")
        store.add(replace(run, config=replace(run.config, data=data)))

    def found(text: str) -> list[str]:
        return [run.config.data for run in store.select(contains=text)]

    assert found("my_photos") == ["my_photos"] and found("MY-PHOTOS") == ["my-photos"]
    assert found("100%") == ["100%"] and found("0!") == ["100!"] and found("back\\s") == ["back\\slash"]
    assert found("m%photos") == [] and len(found("")) == 5


def test_an_ambiguous_beginning_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        RunStore().add(make_run(tmp_path / str(number), run_id=f"2026-{number}"))
    with pytest.raises(RunError, match="begins 2 runs"):
        RunStore().find("2026")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_name_that_is_no_run_says_where_to_look(name: str) -> None:
    with pytest.raises(RunError, match="headstart runs"):
        RunStore().find(name)


def test_a_run_whose_folder_is_gone_says_where_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    RunStore().add(run)
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(RunError, match="is gone"):
        RunStore().find(run.id)


def test_a_damaged_record_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_run(tmp_path)


@pytest.fixture
def kept(private_folders: Path, tmp_path: Path) -> list[Run]:
    """Three runs that the index knows, in folders that lie nowhere in particular."""
    runs = [make_run(tmp_path / f"place{n}" / "run", run_id=f"2026-{n}-{'x' * 40}") for n in range(3)]
    for run in runs:
        RunStore().add(run)
    return runs


def ids(runs: Iterable[Run | UnreadableRun]) -> set[str]:
    return {run.id for run in runs}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"not a database" * 100 + data,
        lambda data: bytes(4096) + data[4096:],
        lambda data: data[:4096] + bytes(len(data) - 4096),
        lambda data: data[: len(data) // 2],
    ],
    ids=["no database", "first page zeroed", "all but the first page zeroed", "cut off"],
)
def test_a_damaged_index_is_set_aside_and_made_again_from_the_folders(
    kept: list[Run], damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    file = RunStore().address
    file.write_bytes(damage(file.read_bytes()))
    named = {run.id for run in kept if os.fsencode(run.path) in file.read_bytes()}
    assert ids(RunStore().entries()) == named
    RunStore().rebuild([kept[0].path.parents[1]])
    assert ids(RunStore().entries()) == ids(kept) and RunStore().find(kept[1].id) == kept[1]
    assert [each.message for each in caplog.records if "set aside" in each.message]
    assert len(list(file.parent.glob("headstart.db.damaged-*"))) == 1


def test_one_flipped_byte_in_a_row_costs_nothing(kept: list[Run]) -> None:
    store, columns = RunStore(), ("id", "path", "created", "body")
    for column in columns:
        for at in (0, 5, 30):
            with closing(sqlite3.connect(store.address)) as database, database:
                row = database.execute(f"select rowid, {column} from runs order by rowid limit 1").fetchone()
                data = row[1] if isinstance(row[1], bytes) else row[1].encode()
                flipped = data[:at] + bytes([data[at % len(data)] ^ 0x80]) + data[at + 1 :]
                database.execute(
                    f"update runs set {column} = {'?' if column == 'path' else 'cast(? as text)'} "
                    "where rowid = ?",
                    (flipped, row[0]),
                )
            assert store.find(kept[0].id) in kept and ids(store.select()) == ids(kept), (column, at)


def test_a_row_whose_folder_is_gone_too_is_one_unreadable_entry(kept: list[Run]) -> None:
    with closing(sqlite3.connect(RunStore().address)) as database, database:
        database.execute("update runs set body = '[' where id = ?", (kept[0].id,))
    (kept[0].path / "run.json").unlink()
    broken = [each for each in RunStore().entries() if isinstance(each, UnreadableRun)]
    assert ids(broken) == {kept[0].id} and "damaged" in broken[0].reason
    assert ids(RunStore().select()) == ids(kept[1:])


def test_the_index_is_rebuilt_on_the_command_line(kept: list[Run], tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere" / "deep" / "run", run_id="another")
    (tmp_path / "elsewhere" / "odd").mkdir()
    (tmp_path / "elsewhere" / "odd" / "run.json").write_text('{"id": 3}')
    RunStore().address.unlink()
    told = CliRunner().invoke(command, ["--rebuild", str(tmp_path / "elsewhere")])
    assert told.exit_code == 0 and "1 run" in told.output and "odd" in told.output
    assert ids(RunStore().select()) == {"another"}
    told = CliRunner().invoke(command, ["--rebuild", str(tmp_path), "--json"])
    assert {each["run"] for each in json.loads(told.output)["runs"]} == {*ids(kept), "another"}


def test_rebuilding_keeps_the_runs_of_a_disk_that_is_not_there(kept: list[Run], tmp_path: Path) -> None:
    (tmp_path / "place0").rename(tmp_path / "unplugged")
    assert RunStore().rebuild().gone == 1
    assert ids(RunStore().select()) == ids(kept)


def test_a_run_that_cannot_be_read_is_one_row_among_the_others(kept: list[Run], tmp_path: Path) -> None:
    runs = Path("runs")
    make_run(runs / "good", run_id="good")
    (runs / "odd").mkdir(parents=True)
    (runs / "odd" / "run.json").write_text("[" * 100_000)
    told = CliRunner().invoke(command, [])
    assert told.exit_code == 0, told.output
    row = next(line for line in told.output.splitlines() if line.startswith("odd"))
    assert "nested" in row and len([line for line in told.output.splitlines() if "builtin" in line]) == 4
    rows = json.loads(CliRunner().invoke(command, ["--json"]).output)
    assert [each["run"] for each in rows if "unreadable" in each] == ["odd"]


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "run") as folder:
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "run") as folder:
        (folder / "whole.txt").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system which file is flushed")
def test_a_folder_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    flush, rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        told.append(os.readlink(f"/proc/self/fd/{descriptor}").rsplit("/", 1)[1])
        flush(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        told.append("named")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    with new_folder(tmp_path / "run") as folder:
        (folder / "inner").mkdir()
        for name in ("run.json", "inner/model.onnx"):
            (folder / name).write_text("whole")
    before = told[: told.index("named")]
    assert {"run.json", "model.onnx", "inner"} <= set(before) and before[-1] == folder.name
    assert told[told.index("named") + 1 :] == [tmp_path.name]


def test_a_disk_that_fills_up_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No space left"), new_folder(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is there already"), new_folder(tmp_path):
        raise AssertionError("the body must not run")


def test_ids_are_unique() -> None:
    assert len({new_id("builtin") for _ in range(50)}) > 45


def _add_many(folder: Path, writer: int) -> None:
    store = RunStore()
    for number in range(10):
        store.add(make_run(folder / f"{writer}-{number}", run_id=f"run-{writer}-{number}"))


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(tmp_path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert len(RunStore().select()) == 40
    assert len(RunStore().select(contains="run-3-")) == 10
    assert len(RunStore().select(limit=5)) == 5


# ---------------------------------------------------------------------------------------- half written

WRITER = """
import sys, time
from pathlib import Path
from headstart.runs import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing a folder; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def partials(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".partial"))


def age(folder: Path, *, days: float) -> None:
    """Make a folder and all in it look unchanged for so long."""
    then = time.time() - days * 86400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def abandoned(folder: Path, name: str) -> Path:
    """A half-written folder of which only the name says whose it was."""
    left = folder / name
    left.mkdir(parents=True)
    (left / "half.txt").write_text("half")
    return left


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders: a day decides there")
def test_a_killed_writers_folder_is_removed_by_the_next_one_and_a_living_ones_stays(tmp_path: Path) -> None:
    with writer(tmp_path / "killed"), writer(tmp_path / "living"):
        age(next(tmp_path.glob(".living.*")), days=30)  # slow, or of a process with a number used before
        assert len(partials(tmp_path)) == 2 and sweep(tmp_path) == []
    with writer(tmp_path / "living"), new_folder(tmp_path / "next"):
        assert [name.split(".")[1] for name in partials(tmp_path)] == ["living", "next"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["next"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders: a day decides there")
def test_headstart_runs_removes_what_killed_fits_left(tmp_path: Path, private_folders: Path) -> None:
    with writer(Path("runs/killed")):
        assert CliRunner().invoke(command, []).exit_code == 0 and len(partials(Path("runs"))) == 1
    assert CliRunner().invoke(command, []).exit_code == 0 and partials(Path("runs")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders: a day decides there")
def test_a_process_number_used_again_does_not_keep_a_folder_for_ever(tmp_path: Path) -> None:
    left = abandoned(tmp_path, f".old.{_host()}.{os.getpid()}.partial")
    assert sweep(tmp_path) == []  # this process may be about to take its lock
    age(left, days=0.01)
    assert sweep(tmp_path) == [left]


@pytest.mark.parametrize("name", [".run.another-machine.1.partial", ".run.1.partial"])
def test_what_another_machine_writes_is_left_for_a_day(tmp_path: Path, name: str) -> None:
    left = abandoned(tmp_path, name)
    age(left, days=0.9)
    assert sweep(tmp_path) == []
    age(left, days=1.1)
    (left / "half.txt").write_text("still at it")
    assert sweep(tmp_path) == []
    age(left, days=1.1)
    assert sweep(tmp_path) == [left] and not left.exists()


@pytest.mark.parametrize(
    "name", [".photos.partial", "run.host.1.partial", ".run.host.one.partial", ".run.host.1"]
)
def test_other_folders_are_never_swept(tmp_path: Path, name: str) -> None:
    left = abandoned(tmp_path, name)
    age(left, days=99)
    assert sweep(tmp_path) == [] and (left / "half.txt").exists()


def test_a_link_that_is_called_like_one_is_not_followed(tmp_path: Path) -> None:
    kept = abandoned(tmp_path, "kept")
    age(kept, days=99)
    (tmp_path / ".run.host.1.partial").symlink_to(kept)
    assert sweep(tmp_path) == [] and (kept / "half.txt").exists()
    assert sweep(tmp_path / "nowhere") == []
