"""Moodle XML, GIFT and xAPI."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import LessonError
from headstart.lessons import attempts, interchange, library, statements
from headstart.lessons.attempts import Chose, Closed, Expired, HintTaken, Opened, Submitted
from headstart.lessons.pack import KINDS, LEVELS, CodeFace, Option, Problem
from lesson_packs import secret_pack

NOW = datetime(2030, 1, 1, tzinfo=UTC)

LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn"), include_characters="\n")
PROSE = (
    st.text(LETTERS, min_size=1, max_size=40).map(str.strip).filter(lambda text: text and "```" not in text)
)
TITLES = PROSE.map(lambda text: " ".join(text.split())).filter(bool)
SLUGS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
CODE = st.builds(
    CodeFace,
    label=st.sampled_from(["Keras", "Headstart"]),
    language=st.just("python"),
    text=st.text("ab #{}=~:\\\n'\"", max_size=30).map(lambda text: text + "\n"),
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    keys = draw(st.lists(SLUGS, min_size=2, max_size=5, unique=True))
    right = draw(st.integers(0, len(keys) - 1))
    return Problem(
        slug=draw(SLUGS),
        title=draw(TITLES),
        kind=draw(st.sampled_from(KINDS)),
        level=draw(st.sampled_from(LEVELS)),
        prompt=draw(PROSE),
        options=tuple(Option(key, draw(PROSE), draw(PROSE), n == right) for n, key in enumerate(keys)),
        hint=draw(PROSE),
        explanation=draw(PROSE),
        experiment=draw(SLUGS),
        code=tuple(draw(st.lists(CODE, max_size=2))),
        seconds=draw(st.integers(15, 1800)),
    )


@given(st.lists(problems(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_moodle_xml_keeps_everything(asked: list[Problem]) -> None:
    assert interchange.from_moodle_xml(interchange.to_moodle_xml(asked)) == tuple(asked)


@given(st.lists(problems(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_gift_keeps_everything(asked: list[Problem]) -> None:
    assert interchange.from_gift(interchange.to_gift(asked)) == tuple(asked)


def test_the_bundled_lesson_survives_both_journeys() -> None:
    asked = library.load_pack().problems("challenge")
    assert interchange.from_moodle_xml(interchange.to_moodle_xml(asked)) == asked
    assert interchange.from_gift(interchange.to_gift(asked)) == asked


def test_moodle_sees_one_right_answer_and_shuffles() -> None:
    question = ET.fromstring(interchange.to_moodle_xml(secret_pack().problems("challenge")))[0]
    assert question.get("type") == "multichoice"
    assert [answer.get("fraction") for answer in question.iterfind("answer")] == ["100", "0", "0", "0"]
    assert question.findtext("shuffleanswers") == "true" and question.findtext("single") == "true"
    assert question.findtext("hint/text") == "SECRETHINT 0"


FOREIGN_GIFT = r"""
// a comment of somebody else
$CATEGORY: top/pictures

::Colours:: What colour\: red or blue? {
~%0%blue # no
=red # yes \#1
####Because.
}

Second question {~%-25%wrong ~%100%right}
"""


def test_a_foreign_gift_file_is_read() -> None:
    first, second = interchange.from_gift(FOREIGN_GIFT)
    assert (first.title, first.prompt, first.slug) == ("Colours", "What colour: red or blue?", "colours")
    assert [(o.text, o.feedback, o.correct) for o in first.options] == [
        ("blue", "no", False),
        ("red", "yes #1", True),
    ]
    assert first.explanation == "Because." and first.hint == ""
    assert second.answer.text == "right"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is it true? {T}", "only multiple choice"),
        ("Match {=a -> b =c -> d}", "only multiple choice"),
        ("Two right {=a =b ~c}", "exactly one right, got 3 and 2"),
        ("No answers", "question 1: expected its answers in braces"),
        ("", "at least one question"),
        ("// headstart: {broken\nA {=a ~b}", "comment is damaged"),
        ('// headstart: {"seconds": "soon"}\nA {=a ~b}', "'soon' is no number"),
    ],
)
def test_gift_that_is_not_ours_to_guess_is_refused(text: str, expected: str) -> None:
    with pytest.raises(LessonError, match=expected):
        interchange.from_gift(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<quiz>", "not well formed"),
        ("<quiz></quiz>", "at least one <question>"),
        (
            "<quiz><question type='essay'><name><text>E</text></name></question></quiz>",
            "'essay'; only multichoice",
        ),
        ("<quiz><question type='multichoice'/></quiz>", "got 0 and 0"),
        ("<!DOCTYPE q [<!ENTITY a 'b'>]><quiz>&a;</quiz>", "document type declaration"),
        ("<quiz><question type='multichoice'><answer fraction='x'/></question></quiz>", "'x' is no number"),
        ("x" * 5_000_001, "too large"),
    ],
)
def test_moodle_xml_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    with pytest.raises(LessonError, match=expected):
        interchange.from_moodle_xml(text)


def log() -> list[attempts.Entry]:
    pack = secret_pack(problems=2)
    state, entry = attempts.step(None, attempts.begin(pack, challenge="c", learner="ada", seed="s"), NOW)
    entries = [entry]
    first, second = (item.layout for item in state.items)
    for seconds, event in (
        (0, Opened(first.problem)),
        (1, Chose(first.problem, first.answer)),
        (2, HintTaken(first.problem)),
        (3, Submitted(first.problem, first.answer, "k")),
        (4, Opened(second.problem)),
        (500, Expired(second.problem)),
        (501, Closed(second.problem)),
    ):
        state, entry = attempts.step(state, event, NOW + timedelta(seconds=seconds))  # type: ignore[arg-type]
        entries.append(entry)
    return [entry for entry in entries if entry is not None]


def test_the_log_tells_its_story_in_xapi() -> None:
    lines = [json.loads(line) for line in statements.to_lines(log())]
    verbs = [line["verb"]["display"]["en"] for line in lines]
    assert verbs == [
        "initialized", "attempted", "asked", "answered", "attempted", "terminated", "terminated", "completed",
    ]  # fmt: skip
    answered, completed = lines[3]["result"], lines[-1]["result"]
    assert answered["success"] and answered["duration"] == "PT3.00S" and answered["score"]["scaled"] == 0.8
    assert completed == {
        "completion": True,
        "success": False,
        "score": {"raw": 80, "min": 0, "max": 200, "scaled": 0.4},
    }
    assert {line["context"]["registration"] for line in lines} == {lines[0]["context"]["registration"]}
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_statement_ids_are_stable_and_unique() -> None:
    first, again = ([line["id"] for line in statements.statements(log())] for _ in range(2))
    assert first == again and len(set(first)) == len(first)
