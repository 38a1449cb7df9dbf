"""Somebody's run folder: whatever its files hold, it costs itself a sentence, and no other run anything."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import shared_folders, write_photos
from headstart.classifier import load
from headstart.cli import cli
from headstart.comparisons import compare_runs
from headstart.curation import corrections_of
from headstart.curation.images import as_given
from headstart.errors import HeadstartError
from headstart.reports import report
from headstart.runs import Run, RunStore, look_at, read_predictions, read_run
from headstart.training import fit
from mutations import mutations

pytest.importorskip("fastapi", reason="needs headstart[web]")

from studio_worlds import World, studio_worlds

RECORDS = ("run.json", "predictions.json", "images.json", "skipped.json", "classifier.json")
SETTINGS = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Run:
    """A run as a fit writes it; its folder is copied by each test."""
    place = tmp_path_factory.mktemp("whole")
    with shared_folders(place, compiled_models):
        photos = write_photos(place / "photos", per_class=8)
        _, run = fit(photos, backbone="builtin", size=64, out=place / "run", head="softmax", epochs=2)
    return run


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Path:
    """A copy of its folder."""
    return Path(shutil.copytree(whole.path, tmp_path / "run"))


def read_everything(folder: Path) -> None:
    """All that is read of a run's folder, whoever asks; only our own errors, of one line, are allowed."""
    for ask in (
        lambda: read_run(folder).to_dict(),
        lambda: report(read_run(folder)).json(),
        lambda: report(read_run(folder)).markdown(),
        lambda: compare_runs([read_run(folder), read_run(folder)]),
        lambda: as_given(read_run(folder)),
        lambda: corrections_of(read_run(folder)),
        lambda: read_predictions(folder),
        lambda: load(folder),
    ):
        try:
            ask()
        except HeadstartError as error:
            assert "\n" not in str(error) and "\x1b" not in str(error)


@pytest.mark.parametrize("name", RECORDS)
def test_a_mutated_file_of_a_run_is_read_or_refused_in_a_line(run: Path, name: str) -> None:
    before = (run / name).read_text()

    @SETTINGS
    @given(mutations(before))
    def check(data: bytes) -> None:
        (run / name).write_bytes(data)
        read_everything(run)

    check()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "root").mkdir()
    with studio_worlds(tmp_path / "root") as make:
        yield make()


@pytest.mark.parametrize("value", [None, "x", [], float("nan"), float("inf")])
def test_an_epoch_with_what_is_no_number_is_drawn_without_it(world: World, run: Path, value: object) -> None:
    record = json.loads((run / "run.json").read_text())
    record["history"][0]["accuracy"] = record["history"][1]["loss"] = value
    (run / "run.json").write_text(json.dumps(record))
    RunStore().add(read_run(run))
    assert world.browser.get(f"/runs/{record['id']}").status_code == 200
    assert "<html" in report(read_run(run)).html()


PAGES = ("", "/report", "/report.html", "/export", "/try", "/label", "/picture/00")


def test_a_mutated_run_breaks_no_page_but_its_own_and_that_with_a_sentence(
    world: World, whole: Run, run: Path
) -> None:
    RunStore().add(read_run(run))
    good = Path(shutil.copytree(whole.path, "runs/good"))
    record = json.loads((good / "run.json").read_text()) | {"id": "good"}
    (good / "run.json").write_text(json.dumps(record))
    odd = Path(shutil.copytree(whole.path, "runs/odd"))

    @settings(SETTINGS, max_examples=4)
    @given(
        st.sampled_from(RECORDS[:3]).flatmap(
            lambda n: st.tuples(st.just(n), mutations((run / n).read_text()))
        )
    )
    def check(mutation: tuple[str, bytes]) -> None:
        name, data = mutation
        before = (odd / name).read_bytes()
        (odd / name).write_bytes(data)
        os.utime(odd / name, ns=(0, time.time_ns()))
        for address in ("/", "/runs", "/runs/good"):
            answer = world.browser.get(address)
            assert answer.status_code == 200 and "good" in answer.text
        found = look_at(odd)
        for page in PAGES:
            assert world.browser.get(f"/runs/{found.id}{page}").status_code in (200, 303, 400, 404)
        (odd / name).write_bytes(before)

    check()


def odd_files(folder: Path) -> Iterator[str]:
    """Makes of one name in a folder what it should not be, one after the other."""
    file = folder / "run.json"
    for kind in ("pipe", "device", "folder", "deep", "date", "outside"):
        if file.is_dir():
            file.rmdir()
        file.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        elif kind == "folder":
            file.mkdir()
        elif kind == "deep":
            file.write_text('{"id":' * 50_000)
        elif kind == "date":
            file.write_text(json.dumps({**RECORD, "created": 20261130}))
        else:
            (folder.parent / "elsewhere.json").write_text(json.dumps(RECORD))
            file.symlink_to("../elsewhere.json")
        yield kind


RECORD = {"id": "odd"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_no_file_at_all_is_one_greyed_row_with_its_reason(world: World, whole: Run) -> None:
    RECORD.update(json.loads((whole.path / "run.json").read_text()), id="odd")
    shutil.copytree(whole.path, "runs/good")
    shutil.copytree(whole.path, "runs/odd")
    for kind in odd_files(Path("runs/odd")):
        for address in ("/", "/runs"):
            shown = world.browser.get(address)
            assert shown.status_code == 200 and whole.id in shown.text, kind
            assert 'class="unreadable"' in shown.text and "cannot be read" in shown.text, kind
        assert world.browser.get("/runs/odd").status_code == 400, kind
        for words in (["report", "runs/odd"], ["compare", "runs/odd", "runs/good"]):
            told = CliRunner().invoke(cli, words)
            assert told.exit_code != 0 and isinstance(told.exception, HeadstartError), (kind, told)
        listed = CliRunner().invoke(cli, ["runs"])
        assert listed.exit_code == 0 and "cannot be read" in listed.output and whole.id in listed.output, kind


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_of_images_that_names_a_pipe_or_a_device_neither_blocks_nor_fills_the_memory(
    world: World, run: Path, tmp_path: Path, kind: str
) -> None:
    os.mkfifo(tmp_path / "root" / "pipe")
    target = str(tmp_path / "root" / "pipe") if kind == "pipe" else "/dev/zero"
    for name in ("images.json", "predictions.json"):
        listed = json.loads((run / name).read_text())
        for image in listed if name == "images.json" else listed["images"]:
            image["file"] = target
        (run / name).write_text(json.dumps(listed))
    found = read_run(run)
    RunStore().add(found)
    content = read_predictions(run)["images"][0]["content"]
    assert world.browser.get(f"/runs/{found.id}/picture/{content}").status_code == 404
    assert world.browser.get(f"/runs/{found.id}/report.html").status_code == 200
