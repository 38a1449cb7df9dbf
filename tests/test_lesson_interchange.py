"""Moodle XML, GIFT and xAPI."""

from __future__ import annotations

import json
import shutil
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cli import cli
from headstart.errors import LessonError, UserError
from headstart.lesson.engine import attempts, statements
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.attempts import Chose, Closed, Expired, HintTaken, Opened, Submitted
from headstart.lesson.engine.gift import from_gift, to_gift
from headstart.lesson.engine.html_text import to_markdown
from headstart.lesson.engine.interchange import filled
from headstart.lesson.engine.moodle import from_moodle_xml, to_moodle_xml
from headstart.lesson.engine.pack import FORMS, KINDS, LEVELS, CodeFace, Option, Problem
from headstart.lesson.engine.progress import Progress
from lesson_packs import right_answer, secret_pack, wrong_answer

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


TENTHS = st.integers(-999, 999).map(lambda number: number / 10)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    form = draw(st.sampled_from(FORMS))
    count = draw(st.integers(2, 5))
    keys = draw(st.lists(SLUGS, min_size=count, max_size=count, unique=True))
    texts = draw(st.lists(PROSE, min_size=count, max_size=count, unique=True))
    if form == "number":
        numbers = draw(st.lists(TENTHS, min_size=count, max_size=count, unique=True))
        texts = [f"{number:g}" for number in numbers[1:]] + ["*"]
    right = {"one": [0], "number": [0], "several": range(draw(st.integers(1, count)))}.get(form, [])
    options = [
        Option(
            key,
            text,
            draw(PROSE),
            correct=place in right,
            matches=draw(PROSE) if form == "match" else "",
            tolerance=abs(draw(TENTHS)) if form == "number" and text != "*" else 0.0,
        )
        for place, (key, text) in enumerate(zip(keys, texts, strict=True))
    ]
    return Problem(
        slug=draw(SLUGS),
        title=draw(TITLES),
        kind=draw(st.sampled_from(KINDS)),
        level=draw(st.sampled_from(LEVELS)),
        prompt=draw(PROSE),
        options=tuple(options if form in ("order", "number") else draw(st.permutations(options))),
        hint=draw(PROSE),
        explanation=draw(PROSE),
        experiment=draw(SLUGS),
        form=form,
        code=tuple(draw(st.lists(CODE, max_size=2))),
        seconds=draw(st.integers(15, 1800)),
    )


@st.composite
def banks(draw: st.DrawFn) -> list[Problem]:
    """Some problems, of which the first has variants."""
    first, *others = draw(st.lists(problems(), min_size=1, max_size=3))
    other = [
        replace(draw(problems()), slug=first.slug, variant=f"v{n}") for n in range(draw(st.integers(0, 2)))
    ]
    return [replace(first, variants=tuple(other)), *others]


@given(banks())
@settings(deadline=None, max_examples=60)
def test_moodle_xml_keeps_everything(asked: list[Problem]) -> None:
    assert from_moodle_xml(to_moodle_xml(asked)).problems == tuple(asked)


@given(banks())
@settings(deadline=None, max_examples=60)
def test_gift_keeps_everything(asked: list[Problem]) -> None:
    assert from_gift(to_gift(asked)).problems == tuple(asked)


def test_the_bundled_lesson_survives_both_journeys() -> None:
    asked = library.load_pack().problems("challenge")
    assert from_moodle_xml(to_moodle_xml(asked)).problems == asked
    assert from_gift(to_gift(asked)).problems == asked


def test_moodle_sees_one_right_answer_and_shuffles() -> None:
    question = ET.fromstring(to_moodle_xml(secret_pack().problems("challenge")))[0]
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
    first, second = from_gift(FOREIGN_GIFT).problems
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
        ("Short {=a =c}", "short answers and essays"),
        ("Half a match {=a -> b =c}", "short answers and essays"),
        ("Two right {=a =b ~c}", "exactly one correct option, got 2"),
        ("A number {#1:x}", "'1:x' is no number"),
        ("No number {#a}", "'a' is no number"),
        ("No answers", "question 1: expected its answers in braces"),
        ("", "at least one question"),
        ("// headstart: {broken\nA {=a ~b}", "comment is damaged"),
        ('// headstart: {"seconds": "soon"}\nA {=a ~b}', "'soon' is no number"),
        ('// headstart: {"seconds": 1e999}\nA {=a ~b}', "inf is no number"),
        ('// headstart: {"keys": 5}\nA {=a ~b}', "comment is damaged"),
        ('// headstart: {"hint": ["a"]}\nA {=a ~b}', "hint .* is no text"),
        ("// headstart: " + "[" * 100_000 + "\nA {=a ~b}", "comment is damaged"),
    ],
)
def test_gift_that_is_not_ours_to_guess_is_refused(text: str, expected: str) -> None:
    with pytest.raises(LessonError, match=expected):
        from_gift(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<quiz>", "not well formed"),
        ("<quiz></quiz>", "at least one <question>"),
        (
            "<quiz><question type='essay'><name><text>E</text></name></question></quiz>",
            "'essay'; only multichoice, truefalse, numerical",
        ),
        ("<quiz><question type='multichoice'/></quiz>", "2 to 8 options, got 0"),
        ("<!DOCTYPE q [<!ENTITY a 'b'>]><quiz>&a;</quiz>", "document type declaration"),
        ("<quiz><question type='multichoice'><answer fraction='x'/></question></quiz>", "'x' is no number"),
        ("x" * 5_000_001, "too large"),
    ],
)
def test_moodle_xml_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    with pytest.raises(LessonError, match=expected):
        from_moodle_xml(text)


def log() -> list[attempts.LogEntry]:
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
    assert answered["success"] and answered["duration"] == "PT3.00S" and answered["score"]["scaled"] == 1.0
    assert completed == {
        "completion": True,
        "success": False,
        "score": {"raw": 100, "min": 0, "max": 200, "scaled": 0.5},
    }
    assert {line["context"]["registration"] for line in lines} == {lines[0]["context"]["registration"]}
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_a_round_with_everything_right_is_a_success_in_any_mode() -> None:
    pack = library.load_pack()
    event = attempts.begin(pack, challenge="c", learner="ada", seed="s", mode="review", timer=None)
    state, entry = attempts.step(None, event, NOW)
    entries = [entry]
    for item in state.items:
        for each in (Opened(item.problem), Submitted(item.problem, item.layout.answer, item.problem)):
            state, entry = attempts.step(state, each, NOW)
            entries.append(entry)
    lines = [json.loads(line) for line in statements.to_lines([one for one in entries if one])]
    assert lines[-1]["result"]["success"] and not state.earns_badge


def test_statement_ids_are_stable_and_unique() -> None:
    first, again = ([line["id"] for line in statements.statements(log())] for _ in range(2))
    assert first == again and len(set(first)) == len(first)


def test_questions_that_cannot_be_imported_are_named_and_the_others_are_taken() -> None:
    essay = "<question type='essay'><name><text>Essay \x7f</text></name></question>"
    written = to_moodle_xml(library.load_pack().problems("challenge"))
    found = from_moodle_xml(written.replace("</quiz>", f"{essay}</quiz>"))
    assert len(found.problems) == 5
    assert found.left_out == (
        "question 17 ('Essay \\x7f') is of type 'essay'; "
        "only multichoice, truefalse, numerical, matching, ordering can be imported",
    )
    gift = from_gift("One {=a ~b}\n\nTwo right {=a =b ~c}\n\nShort {=a =c}")
    assert [problem.prompt for problem in gift.problems] == ["One"] and len(gift.left_out) == 2


def test_other_systems_kinds_of_questions_become_forms() -> None:
    text = "Some {~%50%a#yes ~%50%b ~%-100%c#no}\n\nPairs {=a -> 1 =c -> 1}"
    text += "\n\nPi {#=3.1:0.05#good =%50%3:1#near}"
    some, pairs, pi, span = from_gift(text + "\n\nSpan {#1..2}").problems
    assert some.form == "several" and [one.correct for one in some.options] == [True, True, False]
    assert pairs.form == "match" and [one.matches for one in pairs.options] == ["1", "1"]
    assert pi.form == "number" and [(o.text, o.tolerance, o.correct) for o in pi.options] == [
        ("3.1", 0.05, True),
        ("3", 1.0, False),
    ]
    assert (span.options[0].text, span.options[0].tolerance) == ("1.5", 0.5)
    answers = "<answer fraction='{}'><text>{}</text>{}</answer>".format
    xml = (
        "<quiz><question type='numerical'>" + answers(100, 5, "<tolerance>0.1</tolerance>") + "</question>"
        "<question type='multichoice'><single>false</single>"
        + "".join(answers(weight, text, "") for weight, text in ((50, "a"), (-50, "b"), (50, "c")))
        + "</question><question type='ordering'>"
        + "".join(answers(place, text, "") for place, text in ((2, "late"), (1, "early")))
        + "</question><question type='matching'>"
        + "".join(
            f"<subquestion><text>{one}</text><answer><text>{two}</text></answer></subquestion>"
            for one, two in (("cat", "paw"), ("dog", "paw"))
        )
        + "</question><question type='matching'><subquestion><text/><answer><text>hoof</text></answer>"
        "</subquestion></question></quiz>"
    )
    found = from_moodle_xml(xml)
    assert [problem.form for problem in found.problems] == ["number", "several", "order", "match"]
    assert [one.text for one in found.problems[2].options] == ["early", "late"]
    assert len(found.left_out) == 1 and "2 to 8 options" in found.left_out[0]


def test_true_or_false_becomes_a_question_with_two_options() -> None:
    (gift,) = from_gift("The sun is cold. {FALSE#It is not.#Right.}").problems
    assert [(o.text, o.correct, o.feedback) for o in gift.options] == [
        ("True", False, "It is not."),
        ("False", True, "Right."),
    ]
    (xml,) = from_moodle_xml(
        "<quiz><question type='truefalse'><name><text>Sun</text></name>"
        "<answer fraction='100'><text>true</text></answer><answer fraction='0'><text>false</text></answer>"
        "</question></quiz>"
    ).problems
    assert xml.answer.text == "true"


@pytest.mark.parametrize(
    "text",
    [
        "<a " * 20_000,
        "<!--" * 20_000,
        """<a x='> y="'>""" * 20_000,
        "<![a>" * 20_000,
        "&#x" * 20_000,
        "<pre>" * 20_000,
        "\n \n" * 40_000,
    ],
)
def test_text_that_was_made_to_cost_costs_what_its_length_says(text: str) -> None:
    begun = time.process_time()
    to_markdown(text)
    for asked in ("::" * 20_000 + text, f"A {text} {{=a ~b}}", '``` title="a"\n' * 5_000 + "A {=a ~b}"):
        with suppress(LessonError):
            from_gift(asked)
    assert time.process_time() - begun < 5, "quadratic time would be minutes"


# What a teacher does with it -------------------------------------------------------------------------------

MOODLE_EDITOR = """<?xml version="1.0" encoding="UTF-8"?>
<quiz>
<question type="category"><category><text>$course$/Default</text></category></question>
<question type="multichoice">
 <name><text>Which &amp; why</text></name>
 <questiontext format="html"><text><![CDATA[<p>What is <strong>transfer&nbsp;learning</strong>,
 <code>a &lt; b</code>?<br></p><pre>x = 1
  y = 2</pre><ul><li>one</li><li>two</li></ul><script>alert(1)</script><img src="a.png" alt="a net">]]></text>
 </questiontext>
 <generalfeedback format="html"><text><![CDATA[<p>Because.</p>]]></text></generalfeedback>
 <answer fraction="100" format="html"><text><![CDATA[<p>Reuse of <em>features</em></p>]]></text>
  <feedback format="html"><text></text></feedback></answer>
 <answer fraction="0" format="plain_text"><text>a &lt;b&gt; c</text>
  <feedback format="html"><text><![CDATA[<p>No.</p>]]></text></feedback></answer>
</question></quiz>"""


def test_what_moodles_editor_wrote_is_read_as_markdown() -> None:
    (problem,) = from_moodle_xml(MOODLE_EDITOR).problems
    assert problem.prompt == (
        "What is **transfer learning**, `a < b`?\n\n```\nx = 1\n  y = 2\n```\n\n- one\n- two\n\n[a net]"
    )
    assert [option.text for option in problem.options] == ["Reuse of *features*", "a <b> c"]
    assert problem.options[1].feedback == "No." and problem.explanation == "Because."


def test_a_pack_with_questions_of_another_system_opens(tmp_path: Path, private_folders: Path) -> None:
    folder = library.new_pack("mine", tmp_path)
    (tmp_path / "bank.xml").write_text(MOODLE_EDITOR)
    (tmp_path / "more.gift").write_text(
        "Faster, 3 s? {=yes ~no}\n\nPairs {=a -> b =c -> d}\n\nPi {#3.14:0.01}"
    )
    for name in ("bank.xml", "more.gift"):
        ran = CliRunner().invoke(cli, ["lesson", "import", str(tmp_path / name), str(folder)])
        assert ran.exit_code == 0, ran.stderr
    problems = library.load_pack(folder).problems("challenge")
    assert [problem.form for problem in problems] == ["one", "one", "one", "match", "number"]
    assert not any(problem.experiment for problem in problems[1:])
    checked = CliRunner().invoke(cli, ["lesson", "check", str(folder)])
    assert checked.exit_code == 0 and "warning: no hint" in checked.stdout, "warnings alone"
    assert "'Faster' makes this paragraph a claim" in checked.stdout


def test_html_in_gift_is_read_as_markdown_where_it_says_so() -> None:
    text = "::T::[html]<p>A <b>bold</b> one</p> {\n=<p>yes</p>#<p>Right.</p>\n~<p>no</p>\n}"
    (problem,) = from_gift(text).problems
    assert problem.prompt == "A **bold** one" and problem.options[0].feedback == "Right."
    (plain,) = from_gift(text.replace("[html]", "[plain]")).problems
    assert plain.prompt == "<p>A <b>bold</b> one</p>"


@pytest.mark.parametrize("name", ["questions.xml", "questions.gift"])
def test_a_challenge_travels_through_files_into_another_pack(
    name: str, tmp_path: Path, private_folders: Path
) -> None:
    pack, file = library.load_pack(), tmp_path / name
    ran = CliRunner().invoke(cli, ["lesson", "export", str(file), "--keep"])
    assert ran.exit_code == 0 and "5 problems written" in ran.stderr
    other = shutil.copytree(library.BUNDLED / library.DEFAULT, tmp_path / "other")
    refused = CliRunner().invoke(cli, ["lesson", "import", str(file), str(other)])
    assert isinstance(refused.exception, UserError) and "already" in str(refused.exception)
    before = (other / "problems" / "review.yaml").read_text()
    ran = CliRunner().invoke(cli, ["lesson", "import", str(file), str(other), "--mode", "review"])
    assert ran.exit_code == 0, ran.stderr
    after = library.load_pack(other)
    assert after.problems("review")[-5:] == pack.problems("challenge"), "nothing is lost on the way"
    assert (other / "problems" / "review.yaml").read_text().startswith(before.rstrip())
    (other / "problems" / "review.yaml").unlink()
    CliRunner().invoke(cli, ["lesson", "import", str(file), str(other), "--mode", "review"])
    assert library.load_pack(other).problems("review") == pack.problems("challenge"), "a file of its own"


def test_those_who_read_it_elsewhere_see_numbers_and_no_placeholder(
    tmp_path: Path, private_folders: Path
) -> None:
    file = tmp_path / "questions.xml"
    CliRunner().invoke(cli, ["lesson", "export", str(file)])
    text = file.read_text()
    assert "{{" not in text and "not measured yet" not in text and "† From the reference machine" in text
    filled_in = filled(library.load_pack().problems("challenge"), {"freeze-depth": {"seconds_none": 1.234}})
    assert "1.23 seconds with nothing frozen" in filled_in[3].explanation


def test_files_that_hold_no_questions_are_refused_in_a_line(tmp_path: Path) -> None:
    refused = CliRunner().invoke(cli, ["lesson", "export", str(tmp_path / "q.pdf")])
    assert isinstance(refused.exception, UserError) and ".gift" in str(refused.exception)
    (tmp_path / "q.xml").write_bytes(b"\xff\xfe\x00")
    library.new_pack("mine", tmp_path)
    refused = CliRunner().invoke(cli, ["lesson", "import", str(tmp_path / "q.xml"), str(tmp_path / "mine")])
    assert isinstance(refused.exception, UserError) and "not UTF-8" in str(refused.exception)


def test_the_log_gives_statistics_and_statements(private_folders: Path) -> None:

    empty = CliRunner().invoke(cli, ["lesson", "statistics"])
    assert empty.exit_code == 0 and "nobody has taken it" in empty.stdout
    pack, store = library.load_pack(), Progress.open()
    now = datetime(2030, 1, 1, tzinfo=UTC)
    for place, learner in enumerate(("ada", "bob")):
        state = store.start(attempts.begin(pack, challenge=learner, learner=learner, seed="s"), now)
        for item in state.items:
            first = right_answer(item.layout) if place else wrong_answer(item.layout)
            store.record(learner, attempts.Opened(item.problem), now)
            store.record(learner, attempts.Submitted(item.problem, first, f"{item.problem}1"), now)
    ran = CliRunner().invoke(cli, ["lesson", "statistics", "--json"])
    found = json.loads(ran.stdout)
    assert [one["problem"] for one in found] == [problem.slug for problem in pack.problems("challenge")]
    assert found[0]["taken"] == 1, "only closed problems count: ada has an attempt left"
    ran = CliRunner().invoke(cli, ["lesson", "log", "--learner", "bob"])
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {line["actor"]["account"]["name"] for line in lines} == {"bob"}
    assert [line["verb"]["display"]["en"] for line in lines].count("answered") == 5
    store.close()
