"""Marks of a class: the best challenge of each counts; CSV, a workbook, the teacher's page, the command."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.cli import cli
from headstart.errors import OptionError
from headstart.files import home_folder, make
from headstart.lesson.engine import marks
from headstart.lesson.engine.attempts import Challenge, Opened, Submitted, begin
from headstart.lesson.engine.classes import Classes, Member, Row
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.pack_loading import load_pack
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages import joining
from headstart.web.site import load_secret
from lesson_packs import plain, secret_pack, taken
from lesson_worlds import World, lesson_worlds

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PACK = secret_pack()
SLUGS = [problem.slug for problem in PACK.problems("challenge")]


def members() -> list[Member]:
    named = [("Ada", "a-1"), ("=HYPERLINK(1)", ""), ("", ""), ("Zoë", "")]
    return [Member(f"m{place}", "c", place, name, ref) for place, (name, ref) in enumerate(named, 1)]


def states() -> list[Challenge]:
    later = NOW + timedelta(hours=1)
    return [
        taken("m1", "rrw--", pack=PACK, now=NOW),
        taken("m1", "rsrrr", pack=PACK, now=later, hint=True, seconds=30),
        taken("m1", "-----", pack=PACK, now=later),
        taken("m2", "r----", pack=PACK, now=NOW),
        taken("m4", "rrrrr", pack=PACK, now=NOW),
        taken("gone", "rrrrr", pack=PACK, now=NOW),
    ]


def test_the_best_challenge_counts_and_every_member_has_a_line() -> None:
    found = marks.of_class(members(), states(), problems=SLUGS)
    assert [mark.points for mark in found] == [470, 100, 0, 500]
    assert [mark.taken for mark in found] == [3, 1, 0, 1]
    assert [mark.badge for mark in found] == [True, False, False, True]
    text = marks.as_file(found, ".csv", problems=SLUGS).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    ada, formula, nobody, zoe = rows
    assert (ada["name"], ada["id"], ada["points"], ada["percent"], ada["hints"]) == (
        "Ada",
        "a-1",
        "470",
        "94.0",
        "5",
    )
    assert (ada["problem-0"], ada["problem-1"], ada["seconds"]) == ("100", "70", "150")
    assert ada["started"] == "2030-01-01T01:00:00+00:00" and ada["finished"] and not formula["finished"]
    assert formula["name"] == "'=HYPERLINK(1)", "no cell is computed"
    assert formula["problem-1"] == "" and nobody["name"] == "Learner 3" and nobody["points"] == ""
    assert zoe["name"] == "Zoë" and zoe["badge"] == "yes"


def test_a_challenge_that_was_reset_earns_nothing() -> None:
    reset = replace(taken("m1", "rrrrr", pack=PACK, now=NOW), reset_at=NOW)
    found = marks.of_class(members(), [reset], problems=SLUGS)
    assert (found[0].best, found[0].taken, found[0].badge, found[0].reset) == (None, 0, False, True)
    assert not found[1].reset, "who never began had nothing to reset"
    again = taken("m1", "r----", pack=PACK, now=NOW)
    ada = marks.of_class(members(), [reset, again], problems=SLUGS)[0]
    assert (ada.points, ada.taken, ada.badge, ada.reset) == (100, 1, False, False)
    assert "500" not in marks.as_file(found, ".csv", problems=SLUGS).decode("utf-8-sig")


def test_the_workbook_holds_the_same_as_the_csv() -> None:
    found = marks.of_class(members(), states(), problems=SLUGS)
    data = marks.as_file(found, ".xlsx", problems=SLUGS)
    sheet = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")
    rows = [
        ["".join(cell.itertext()) for cell in row]
        for row in ElementTree.fromstring(sheet).iter()
        if row.tag.endswith("}row")
    ]
    read = list(csv.reader(io.StringIO(marks.as_file(found, ".csv", problems=SLUGS).decode("utf-8-sig"))))
    assert [[cell.removeprefix("'") for cell in row] for row in read] == rows
    with pytest.raises(OptionError, match=r"\.csv or \.xlsx"):
        marks.as_file(found, ".pdf", problems=SLUGS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with lesson_worlds(tmp_path) as make:
        yield make(learner=None, door=joining.DOOR, token="of-this-server")


def play(store: Progress, pack: Pack, learner: str, right: int) -> None:
    """A challenge whose first problems are answered."""
    state = store.start(begin(pack, challenge=f"c-{learner}", learner=learner, seed="s"), NOW)
    for item in state.items[:right]:
        store.record(state.id, Opened(item.problem), NOW)
        store.record(state.id, Submitted(item.problem, item.layout.answer, item.problem), NOW)


def test_a_teacher_sees_the_marks_and_saves_them_and_a_learner_does_not(world: World) -> None:
    one, token = world.site.classes.create("Biology <10b>", pack="secrets", now=NOW)
    ada, _ = world.site.classes.enrol(one, [Row("Ada"), Row("Grace")])
    play(world.site.store, world.site.pack, ada.learner, 3)
    teacher, place = world.another(), f"/classes/{one.id}/marks"
    assert teacher.get(place).url.path == joining.DOOR
    page = teacher.get(f"{place}?token={token}").text
    assert "300 of 500" in page and "3 of 5, not finished" in page and 'aria-current="page">Marks' in page
    saved = teacher.get(f"{place}.csv")
    assert b"Ada,,1,300,500,60.0,3" in saved.content and "attachment" in saved.headers["content-disposition"]
    assert (
        teacher.get(f"{place}.xlsx").content.startswith(b"PK")
        and teacher.get(f"{place}.pdf").status_code == 404
    )
    assert world.another().get(f"{place}.csv", follow_redirects=False).status_code == 303


def test_the_command_shows_and_writes_the_marks_of_a_class(private_folders: Path, tmp_path: Path) -> None:
    pack = plain(load_pack())
    with closing(Progress.open()) as store:
        classes = Classes(store, load_secret(make(home_folder())))
        one, _ = classes.create("10b", pack=pack.slug, now=NOW)
        (ada,) = classes.enrol(one, [Row("Ada")])
        play(store, pack, ada.learner, 2)
    run = CliRunner().invoke(cli, ["class", "marks", "10b"])
    assert run.exit_code == 0 and "200 of 500" in run.output and "2 of 5" in run.output
    for name in ("marks.csv", "marks.xlsx"):
        written = CliRunner().invoke(cli, ["class", "marks", "10b", str(tmp_path / name)])
        assert written.exit_code == 0 and (tmp_path / name).stat().st_size > 100
    assert b"why-it-is-faster" in (tmp_path / "marks.csv").read_bytes()
    refused = CliRunner().invoke(cli, ["class", "marks", "10b", str(tmp_path / "marks.pdf")])
    assert refused.exit_code != 0 and not (tmp_path / "marks.pdf").exists()
