"""Problems to and from Moodle XML (https://docs.moodle.org/en/Moodle_XML_format).

What the format has no place for goes into tags, so that a problem survives the journey.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from headstart.errors import LessonError
from headstart.lesson.engine import html_text
from headstart.lesson.engine.pack import Option, Problem
from headstart.lesson.engine.questions import (
    Imported,
    called,
    check_size,
    facts_of,
    identity,
    take,
    to_problem,
    weights,
    with_code,
)
from headstart.lesson.engine.xml_files import parse

_TYPES = {"several": "multichoice", "order": "ordering", "match": "matching", "number": "numerical"}
"""Moodle's type for a form; `multichoice` for all others."""

_READ = ("multichoice", "truefalse", "numerical", "matching", "ordering")


def to_moodle_xml(problems: Iterable[Problem]) -> str:
    """The problems as a Moodle question bank."""
    quiz = ET.Element("quiz")
    for problem in problems:
        for each in problem.each():
            quiz.append(_question(each))
    ET.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(quiz, encoding="unicode") + "\n"


def _question(problem: Problem) -> ET.Element:
    kind = _TYPES.get(problem.form, "multichoice")
    question = ET.Element("question", type=kind)
    _text(ET.SubElement(question, "name"), problem.title)
    _text(ET.SubElement(question, "questiontext", format="markdown"), with_code(problem))
    _text(ET.SubElement(question, "generalfeedback", format="markdown"), problem.explanation)
    settings = {"defaultgrade": "1", "penalty": "0.3333333", "hidden": "0"}
    if kind == "multichoice":
        single = "true" if problem.form == "one" else "false"
        settings |= {"single": single, "shuffleanswers": "true", "answernumbering": "none"}
    elif kind == "matching":
        settings |= {"shuffleanswers": "true"}
    elif kind == "ordering":
        settings |= {"layouttype": "VERTICAL", "selecttype": "ALL", "gradingtype": "ABSOLUTE_POSITION"}
    for name, value in settings.items():
        ET.SubElement(question, name).text = value
    ET.SubElement(question, "idnumber").text = identity(problem)
    _answers(question, problem)
    _text(ET.SubElement(question, "hint", format="markdown"), problem.hint)
    tags = ET.SubElement(question, "tags")
    for tag in _tags(problem):
        _text(ET.SubElement(tags, "tag"), tag)
    return question


def _answers(question: ET.Element, problem: Problem) -> None:
    several = weights(problem.options) if problem.form == "several" else []
    for number, option in enumerate(problem.options):
        fraction = "100" if option.correct else "0"
        if problem.form == "match":
            answer = ET.SubElement(question, "subquestion", format="markdown")
        else:
            fraction = several[number] if several else fraction
            fraction = str(number + 1) if problem.form == "order" else fraction
            answer = ET.SubElement(question, "answer", fraction=fraction, format="markdown")
        _text(answer, option.text)
        if problem.form == "match":
            _text(ET.SubElement(answer, "answer"), option.matches)
        if problem.form == "number":
            ET.SubElement(answer, "tolerance").text = f"{option.tolerance:.10g}"
        _text(ET.SubElement(answer, "feedback", format="markdown"), option.feedback)


def _tags(problem: Problem) -> list[str]:
    keys = [f"option-{number}:{option.key}" for number, option in enumerate(problem.options)]
    return [*(f"{name}:{value}" for name, value in facts_of(problem).items()), *keys]


def from_moodle_xml(text: str) -> Imported:
    """The questions of a Moodle XML file: a choice, several, true or false, a number, a matching, an order.

    Raises LessonError for XML that cannot be parsed, and where not one question can be used.
    """
    check_size(text)
    quiz = parse(text, what="Moodle XML")
    questions = [question for question in quiz.iter("question") if question.get("type") != "category"]
    if quiz.tag != "quiz" or not questions:
        raise LessonError("Moodle XML: expected <quiz> with at least one <question>")
    return take(questions, _from_question)


def _from_question(place: int, question: ET.Element) -> Problem:
    title = " ".join(_inner(question, "name").split()) or f"Question {place}"
    where = called(place, title)
    kind = question.get("type")
    if kind not in _READ:
        raise LessonError(f"{where} is of type {kind!r}; only {', '.join(_READ)} can be imported")
    tags: dict[str, str] = {}
    for tag in question.iterfind("tags/tag"):
        name, _, value = (tag.findtext("text") or "").partition(":")
        tags.setdefault(name, value)
    forms = {name: form for form, name in _TYPES.items()}
    single = kind == "truefalse" or (question.findtext("single") or "true").strip() in ("true", "1")
    form = "one" if kind == "truefalse" or (kind == "multichoice" and single) else forms[kind]
    rows = list(question.iterfind("subquestion" if form == "match" else "answer"))
    if form == "order":
        rows.sort(key=lambda row: _fraction(row, where))
    options = tuple(
        Option(
            key=tags.get(f"option-{number}") or f"option-{number + 1}",
            text=_prose(row),
            feedback=_inner(row, "feedback"),
            correct=form not in ("order", "match") and _is_right(_fraction(row, where), form),
            matches=_inner(row, "answer") if form == "match" else "",
            tolerance=_number(row.findtext("tolerance") or 0, where) if form == "number" else 0.0,
        )
        for number, row in enumerate(rows)
    )
    return to_problem(
        where,
        title=title,
        prompt=_inner(question, "questiontext"),
        form=form,
        options=options,
        facts={"slug": (question.findtext("idnumber") or "").strip(), **tags},
        hint=_inner(question, "hint"),
        explanation=_inner(question, "generalfeedback"),
    )


def _is_right(fraction: float, form: str) -> bool:
    return fraction > 0 if form == "several" else fraction == 100


def _fraction(answer: ET.Element, where: str) -> float:
    return _number(answer.get("fraction", "0"), where)


def _number(text: object, where: str) -> float:
    try:
        value = float(str(text))
    except ValueError:
        raise LessonError(f"{where}: {text!r} is no number") from None
    return value


def _text(parent: ET.Element, text: str) -> None:
    ET.SubElement(parent, "text").text = text


def _inner(parent: ET.Element, name: str) -> str:
    found = parent.find(name)
    return "" if found is None else _prose(found)


def _prose(element: ET.Element) -> str:
    """The text of an element as Markdown: Moodle's editor writes HTML, which our pages would not render."""
    text = (element.findtext("text") or "").strip()
    return html_text.to_markdown(text) if element.get("format") in ("html", "moodle_auto_format") else text
