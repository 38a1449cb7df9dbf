"""The studio's tables: many photographs become labels for a spreadsheet, and corrections are learnt."""

import csv
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import RunError
from headstart.runs import read_images
from headstart.studio import predictions
from headstart.web import uploads
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


@pytest.fixture
def fresh(world: World) -> list[tuple[str, bytes]]:
    """Photographs of two classes, one of them twice under the same name, and a file that is none."""
    photos = (
        sorted((world.root / "photos/discs").iterdir())[:3]
        + sorted((world.root / "photos/bars").iterdir())[:2]
    )
    sent = [(f"camera/{number}/shot.jpg", path.read_bytes()) for number, path in enumerate(photos)]
    return [*sent, ("camera/notes.jpg", b"no image")]


def _send(world: World, run: str, sent: list[tuple[str, bytes]]) -> Any:
    answer = world.post(f"{run}/predict", files=[("files", each) for each in sent])
    assert answer.status_code == 200, answer.text
    return world.browser.get(f"/jobs/{world.wait(answer.url.path).id}")


def _rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))


def test_many_photographs_become_a_table_that_is_looked_through_downloaded_and_removed(
    world: World, fresh: list[tuple[str, bytes]]
) -> None:
    run = world.train(world.open())
    shown = _send(world, run, fresh)
    table = shown.url.path
    assert "5 photographs" in shown.text and "1 could not be read" in shown.text
    rows = _rows(world.browser.get(f"{table}/labels.csv").content)
    assert [row["label"] in ("bars", "discs", "squares") for row in rows] == [True] * 5 + [False]
    assert all(0 < float(row["probability"]) <= 1 for row in rows if row["label"])
    assert rows[5]["path"].endswith("notes.jpg") and rows[5]["note"]
    workbook = zipfile.ZipFile(io.BytesIO(world.browser.get(f"{table}/labels.xlsx").content))
    assert all(row["path"] in workbook.read("xl/worksheets/sheet1.xml").decode() for row in rows)
    only = world.browser.get(f"{table}?show=label:discs&order=probability").text
    assert only.count("<tr><td><img") == sum(row["label"] == "discs" for row in rows)
    assert world.browser.get(f"{table}/0.jpg").headers["content-type"] == "image/jpeg"
    archive = zipfile.ZipFile(io.BytesIO(world.browser.get(f"{table}/folders.zip").content))
    assert _rows(archive.read("labels.csv")) == rows
    photos = [name for name in archive.namelist() if name != "labels.csv"]
    assert len(photos) == len(set(photos)) == 5
    assert sorted(archive.read(name) for name in photos) == sorted(data for _, data in fresh[:5])
    assert table in world.browser.get(f"{run}/predict").text
    assert "camera" not in world.browser.get("/").text, "no data set to train on"
    world.post(f"{table}/remove")
    assert world.browser.get(table).status_code == 404
    assert table not in world.browser.get(f"{run}/predict").text
    assert not list(world.studio.collections.folder.rglob("shot*"))


def test_a_folder_of_this_machine_and_a_zip_are_classified_whole(world: World, tmp_path: Path) -> None:
    run = world.train(world.open())
    shutil.copytree(world.root / "photos/discs", world.root / "new/deep")
    answer = world.post(f"{run}/predict", path="new")
    shown = world.browser.get(f"/jobs/{world.wait(answer.url.path).id}")
    count = len(list((world.root / "new/deep").iterdir()))
    assert f"{count} photographs" in shown.text and "deep/" in shown.text
    world.post(f"{shown.url.path}/remove")
    assert len(list((world.root / "new/deep").iterdir())) == count, "photographs of this machine stay"
    packed = shutil.make_archive(str(tmp_path / "some"), "zip", world.root / "new")
    zipped = _send(world, run, [("some.zip", Path(packed).read_bytes())])
    assert f"{count} photographs" in zipped.text
    paths = [row["path"] for row in _rows(world.browser.get(f"{zipped.url.path}/labels.csv").content)]
    assert paths == [f"deep/{name}" for name in sorted(os.listdir(world.root / "new/deep"))]
    outside = world.post(f"{run}/predict", path="/etc")
    assert outside.status_code == 400 and "--root" in outside.text


def test_labels_that_a_disk_would_write_alike_have_a_folder_each(world: World) -> None:
    for number, name in enumerate(("bars", "discs", "squares")):
        (world.root / "photos" / name).rename(world.root / "photos" / ("C", "C#", "@C")[number])
    run = world.train(world.open())
    shutil.copytree(world.root / "photos", world.root / "new")
    answer = world.post(f"{run}/predict", path="new")
    table = world.browser.get(f"/jobs/{world.wait(answer.url.path).id}").url.path
    gone = next((world.root / "new/C#").iterdir())
    gone.unlink()
    archive = zipfile.ZipFile(io.BytesIO(world.browser.get(f"{table}/folders.zip").content))
    rows = _rows(archive.read("labels.csv"))
    labels = {row["path"].removeprefix("'"): row["label"].removeprefix("'") for row in rows}
    found: dict[str, set[str]] = {}
    for name in archive.namelist():
        if name != "labels.csv":
            data = archive.read(name)
            like = [path for path in labels if (world.root / "new" / path).exists()]
            same = {labels[path] for path in like if (world.root / "new" / path).read_bytes() == data}
            found.setdefault(name.partition("/")[0], set()).update(same)
    assert found == {"C": {"C"}, "C (2)": {"@C"}, "C (3)": {"C#"}}
    notes = {row["path"]: row["note"] for row in rows}
    assert notes.pop(f"C#/{gone.name}") == "gone, or another picture by now"
    assert "gone, or another picture by now" not in notes.values()


def test_what_was_sent_goes_with_a_job_that_failed_and_with_its_run(
    world: World, fresh: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.train(world.open())
    with monkeypatch.context() as patched:
        patched.setattr(predictions, "load", lambda path: (_ for _ in ()).throw(RunError("no classifier")))
        with pytest.raises(AssertionError, match="no classifier"):
            _send(world, run, fresh)
    assert not list(world.studio.collections.folder.rglob("shot*"))
    table = _send(world, run, fresh).url.path
    (world.studio.run(run[6:]).path / "images.json").unlink()  # as of a run that was pulled
    world.post(f"{run}/remove", sure="true")
    for name in ("", "/labels.csv", "/labels.xlsx", "/folders.zip", "/0.jpg"):
        assert world.browser.get(f"{table}{name}").status_code == 404
    assert not list(world.studio.collections.folder.rglob("shot*"))


def test_a_wrong_label_in_the_table_is_corrected_and_the_classifier_learns_it(
    world: World, fresh: list[tuple[str, bytes]]
) -> None:
    run = world.train(world.open())
    shutil.rmtree(world.root / "photos/discs")  # so that these photographs are new
    table = _send(world, run, [(name, data + b"\0") for name, data in fresh[:5]]).url.path
    nothing = world.post(table)
    assert nothing.status_code == 400 and "no photograph was given a label" in nothing.text
    answer = world.post(table, **{"label-0": "squares", "label-1": ""})
    assert answer.status_code == 200 and "1 photograph added" in answer.text
    new = world.studio.run(answer.url.path[6:])
    assert [each["label"] for each in read_images(new.path) if "shot" in each["path"]] == ["squares"]
    kept = world.post(f"{table}/remove")
    assert kept.status_code == 400 and "undo that first" in kept.text
    forged = world.post(table, **{"label-99": "discs"})
    assert forged.status_code == 400 and "another table" in forged.text


def test_what_cannot_be_classified_is_refused_at_once_and_nothing_of_it_stays(
    world: World, fresh: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.train(world.open())
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "LARGEST_PICTURE", 100)
        assert "a photograph may have" in world.post(f"{run}/predict", files={"files": fresh[0]}).text
    sent = [("files", (f"{number}.jpg", b"no image")) for number in range(2)]
    refused = world.post(f"{run}/predict", files=sent)
    assert refused.status_code == 400 and "0.jpg" in refused.text
    assert not [
        each for each in world.studio.collections.folder.iterdir() if not (each / "about.json").exists()
    ]
