"""Classes in the store: joining, rosters, personal codes, tokens, erased names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="needs headstart[learn]")

from headstart.errors import InternalError, LessonError
from headstart.lesson.engine import classes as engine
from headstart.lesson.engine.attempts import begin
from headstart.lesson.engine.classes import Class, Classes, Rules
from headstart.lesson.engine.progress import Progress
from headstart.lesson.engine.rosters import JoinRefused, Row, factor_of, roster
from headstart.runs.store import schema
from lesson_packs import secret_pack

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = b"s" * 32


@pytest.fixture
def classes(tmp_path: Path) -> Iterator[Classes]:
    store = Progress.open(tmp_path / "headstart.db")
    yield Classes(store, SECRET)
    store.close()


@pytest.fixture
def one(classes: Classes) -> Class:
    return classes.create("10 b", pack="secrets", now=NOW)[0]


def test_a_class_is_found_by_its_code_as_people_type_it_and_by_its_token(classes: Classes) -> None:
    one, token = classes.create("  Biology \n 10b ", pack="secrets", now=NOW)
    assert one.name == "Biology 10b" and len(one.code) == 6 and set(one.code) <= set(engine.LETTERS)
    typed = f" {one.code[:3].lower()}-{one.code[3:]} "
    assert classes.by_code(typed) == classes.by_token(token) == classes.get(one.id) == one
    for wrong in ("", "BBBBBB", "é" * 6, one.code + "B", one.code[:5]):
        assert classes.by_code(wrong) is None and classes.by_token(wrong) is None
    renewed = classes.new_code(one.id)
    assert classes.by_code(one.code) is None and classes.by_code(renewed.code) == renewed
    other = classes.new_token(one.id)
    assert classes.by_token(token) is None and classes.by_token(other) is not None
    assert classes.proof(one) != classes.proof(classes.named("biology 10B")), "who came with the old is out"


def test_two_classes_have_two_names_and_one_alone_needs_none(classes: Classes) -> None:
    with pytest.raises(LessonError, match="headstart class new NAME makes one"):
        classes.named(None)
    one, _ = classes.create("10b", pack="secrets", now=NOW)
    assert classes.named(None) == one
    with pytest.raises(LessonError, match="there is a class '10B' already"):
        classes.create("10B", pack="secrets", now=NOW)
    classes.create("10c", pack="secrets", now=NOW)
    with pytest.raises(LessonError, match="which class: there is 10b, 10c"):
        classes.named(None)


@pytest.mark.parametrize("name", ["", " \n", "x" * 81, "a\x1b[2J", "a\u202eb"])
def test_what_is_no_name_is_refused(classes: Classes, one: Class, name: str) -> None:
    with pytest.raises(JoinRefused, match="expected a name"):
        classes.join(one, name, now=NOW)
    assert classes.members(one.id) == []


def test_a_name_joins_once_and_a_personal_code_goes_on_elsewhere(classes: Classes, one: Class) -> None:
    ada = classes.join(one, "Ada", now=NOW)
    with pytest.raises(JoinRefused, match="joined already"):
        classes.join(one, "ADA", now=NOW)
    code = classes.give_code(ada.learner)
    assert classes.by_personal_code(code.lower().replace("-", " "), now=NOW) == ada
    again = classes.give_code(ada.learner)
    assert classes.by_personal_code(code, now=NOW) is None
    assert classes.by_personal_code(again, now=NOW) == ada
    for wrong in ("", "BBBB-BBBB", one.code):
        assert classes.by_personal_code(wrong, now=NOW) is None
    assert classes.standing(ada.learner) == (one, ada) and classes.standing("guest-1") is None


def test_whom_a_course_names_comes_from_there_alone(classes: Classes, one: Class) -> None:
    sent = classes.admit(one, reference="lti:p:29", name="Ada", now=None)
    with pytest.raises(JoinRefused, match="open the lesson from your course"):
        classes.join(one, "ada", now=NOW)
    assert classes.admit(one, reference="lti:p:29", name="Ada", now=NOW).learner == sent.learner
    with pytest.raises(JoinRefused, match="joined already"):
        classes.join(one, "ada", now=NOW)


def test_of_a_roster_each_name_joins_once_and_nobody_else(classes: Classes, one: Class) -> None:
    listed = classes.enrol(one, [Row("Ada Lovelace", "al@school", 1.5), Row("Eve")], only=True)
    assert [(each.number, each.joined) for each in listed] == [(1, None), (2, None)]
    assert classes.enrol(one, [Row("eve"), Row("Zoe")])[0].name == "Zoe", "who is there stays"
    ada = classes.join(one, "ada  lovelace", now=NOW)
    assert ada.learner == listed[0].learner and ada.factor == 1.5 and ada.reference == "al@school"
    with pytest.raises(JoinRefused, match="not on the class's list"):
        classes.join(one, "Mallory", now=NOW)
    eve = classes.by_personal_code(classes.give_code(listed[1].learner), now=NOW)
    assert eve is not None and eve.joined == NOW
    classes.join(one, "Zoe", now=NOW)
    with pytest.raises(JoinRefused, match="not on the class's list"):
        classes.join(one, "Mallory", now=NOW)  # also once all have come


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("Ada\n\n Lovelace, Ada \nEve\nada\n", [Row("Ada"), Row("Lovelace, Ada"), Row("Eve")]),
        (
            "\ufeffName;E-Mail;Time\r\nAda;a@b;1,5\r\n;;\r\nEve;;none\r\n",
            [Row("Ada", "a@b", 1.5), Row("Eve", "", None)],
        ),
        ('last name,first name,id\n"Lovelace, C.",Ada,7\n', [Row("Ada Lovelace, C.", "7")]),
        ("name\tother\nAda\tx\nEve\n", [Row("Ada"), Row("Eve")]),
    ],
)
def test_rosters_are_read_as_schools_write_them(text: str, rows: list[Row]) -> None:
    assert roster(text) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no names"),
        ("name\n", "no names"),
        ("name,time\nAda,11\n", "time '11': expected a factor from 1 to 10, or none"),
        ("name,id\n,7\n", "expected a name"),
        ("name\n" + "x" * 140_000, "cannot be read as CSV: field larger"),
        ("\n".join(f"Learner {number}" for number in range(1001)), "1001 names; a class has at most 1000"),
    ],
)
def test_a_roster_that_cannot_be_used_says_why(text: str, says: str) -> None:
    with pytest.raises(LessonError, match=says):
        roster(text)


def test_factors_are_read_as_teachers_write_them() -> None:
    assert [factor_of(text) for text in ("", "1.5x", "2", " NONE ", "1,5")] == [1.0, 1.5, 2.0, None, 1.5]
    for text in ("0.5", "nan", "inf", "x"):
        with pytest.raises(LessonError, match="expected a factor"):
            factor_of(text)


def test_rules_are_kept_whole_and_those_of_a_later_version_left_out(classes: Classes, one: Class) -> None:
    changes = {"timer": None, "timer_is_fixed": True, "deadline": NOW, "together": True, "started": NOW}
    changed = classes.change_rules(one.id, **changes)
    assert classes.get(one.id) == changed and changed.rules == Rules(**changes)  # type: ignore[arg-type]
    assert Rules.from_dict(changed.rules.to_dict() | {"of tomorrow": 1}) == changed.rules
    assert {field.name for field in fields(Rules)} == set(changed.rules.to_dict())
    with pytest.raises(LessonError, match="expected a factor from 1 to 10"):
        classes.change_rules(one.id, timer=0.5)
    with pytest.raises(LessonError, match="no such class"):
        classes.change_rules("gone", timer=1.0)


def test_an_erased_name_is_in_no_byte_of_the_store(tmp_path: Path) -> None:
    store = Progress.open(tmp_path / "headstart.db")
    classes = Classes(store, SECRET)
    one, token = classes.create("10 b", pack="secrets", now=NOW)
    ada, eve = (classes.join(one, name, now=NOW) for name in ("Ada Verylongname", "Eve Otherlongname"))
    code = classes.give_code(ada.learner)
    event = begin(secret_pack(), challenge="c", learner=ada.learner, seed="s")
    store.keep_badge(store.start(event, NOW), "signed for Ada Verylongname", NOW)

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("headstart.db*"))

    assert b"Verylongname" in held() and b"Otherlongname" in held()
    assert token.encode() not in held() and code.replace("-", "").encode() not in held()
    classes.erase_name(ada.learner)
    classes.dismiss(eve.learner)
    assert b"Verylongname" not in held() and b"Otherlongname" not in held()
    [left] = classes.members(one.id)
    assert left.shown == "Learner 1" and classes.by_personal_code(code, now=NOW) is None
    assert classes.standing(ada.learner) is not None and classes.standing(eve.learner) is None
    assert [each.learner for each in store.challenges()] == [ada.learner], "what was learned stays"
    classes.remove(one.id)
    assert classes.all() == [] and classes.members(one.id) == []
    store.close()


def test_learners_that_join_at_once_get_a_number_each_and_a_name_once(classes: Classes, one: Class) -> None:
    refused: list[str] = []

    def join(name: str) -> None:
        try:
            classes.join(one, name, now=NOW)
        except JoinRefused:
            refused.append(name)

    threads = [threading.Thread(target=join, args=(f"Learner {n % 15}",)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = classes.members(one.id)
    assert [each.number for each in there] == list(range(1, 16)) and len(refused) == 15


def test_a_class_is_full_at_its_bound(classes: Classes, one: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_MEMBERS", 2)
    classes.enrol(one, [Row("Ada"), Row("Eve")])
    with pytest.raises(JoinRefused, match="the class is full: it has 2 members"):
        classes.join(one, "Zoe", now=NOW)


def test_a_store_of_before_classes_gets_their_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, versions = tmp_path / "headstart.db", schema.VERSIONS
    monkeypatch.setattr(schema, "VERSIONS", versions[:4])
    old = Progress.open(file)
    with pytest.raises(InternalError, match="no such table: classes"):
        Classes(old, SECRET).create("10 b", pack="p", now=NOW)
    old.close()
    monkeypatch.setattr(schema, "VERSIONS", versions)
    store = Progress.open(file)
    assert Classes(store, SECRET).create("10 b", pack="p", now=NOW)[0].name == "10 b"
    store.close()
