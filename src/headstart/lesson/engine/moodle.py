"""Problems to and from Moodle XML (https://docs.moodle.org/en/Moodle_XML_format).

What the format has no place for goes into tags, so that a problem survives the journey.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from headstart.errors import LessonError
from headstart.lesson.engine import html_text
from headstart.lesson.engine.pack import Option, Problem
from headstart.lesson.engine.questions import Imported, called, check_size, take, to_problem, with_code
from headstart.lesson.engine.xml_files import parse

_TYPES = ("multichoice", "truefalse")


def to_moodle_xml(problems: Iterable[Problem]) -> str:
    """The problems as a Moodle question bank."""
    quiz = ET.Element("quiz")
    for problem in problems:
        quiz.append(_question(problem))
    ET.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(quiz, encoding="unicode") + "\n"


def _question(problem: Problem) -> ET.Element:
    question = ET.Element("question", type="multichoice")
    _text(ET.SubElement(question, "name"), problem.title)
    _text(ET.SubElement(question, "questiontext", format="markdown"), with_code(problem))
    _text(ET.SubElement(question, "generalfeedback", format="markdown"), problem.explanation)
    settings = {"defaultgrade": "1", "penalty": "0.3333333", "hidden": "0", "single": "true"}
    for name, value in {**settings, "shuffleanswers": "true", "answernumbering": "none"}.items():
        ET.SubElement(question, name).text = value
    ET.SubElement(question, "idnumber").text = problem.slug
    for option in problem.options:
        answer = ET.SubElement(
            question, "answer", fraction="100" if option.correct else "0", format="markdown"
        )
        _text(answer, option.text)
        _text(ET.SubElement(answer, "feedback", format="markdown"), option.feedback)
    _text(ET.SubElement(question, "hint", format="markdown"), problem.hint)
    tags = ET.SubElement(question, "tags")
    for tag in _tags(problem):
        _text(ET.SubElement(tags, "tag"), tag)
    return question


def _tags(problem: Problem) -> list[str]:
    keys = [f"option-{number}:{option.key}" for number, option in enumerate(problem.options)]
    facts = {"kind": problem.kind, "level": problem.level, "experiment": problem.experiment}
    return [*(f"{name}:{value}" for name, value in facts.items()), f"seconds:{problem.seconds}", *keys]


def from_moodle_xml(text: str) -> Imported:
    """The questions of a Moodle XML file that have exactly one right option among several.

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
    if question.get("type") not in _TYPES:
        raise LessonError(
            f"{where} is of type {question.get('type')!r}; only {' and '.join(_TYPES)} can be imported"
        )
    tags: dict[str, str] = {}
    for tag in question.iterfind("tags/tag"):
        name, _, value = (tag.findtext("text") or "").partition(":")
        tags.setdefault(name, value)
    options = tuple(
        Option(
            key=tags.get(f"option-{number}") or f"option-{number + 1}",
            text=_prose(answer),
            feedback=_inner(answer, "feedback"),
            correct=_fraction(answer, where) == 100,
        )
        for number, answer in enumerate(question.iterfind("answer"))
    )
    return to_problem(
        where,
        title=title,
        prompt=_inner(question, "questiontext"),
        options=options,
        facts={"slug": (question.findtext("idnumber") or "").strip(), **tags},
        hint=_inner(question, "hint"),
        explanation=_inner(question, "generalfeedback"),
    )


def _fraction(answer: ET.Element, where: str) -> float:
    try:
        return float(answer.get("fraction", "0"))
    except ValueError:
        raise LessonError(f"{where}: fraction {answer.get('fraction')!r} is no number") from None


def _text(parent: ET.Element, text: str) -> None:
    ET.SubElement(parent, "text").text = text


def _inner(parent: ET.Element, name: str) -> str:
    found = parent.find(name)
    return "" if found is None else _prose(found)


def _prose(element: ET.Element) -> str:
    """The text of an element as Markdown: Moodle's editor writes HTML, which our pages would not render."""
    text = (element.findtext("text") or "").strip()
    return html_text.to_markdown(text) if element.get("format") in ("html", "moodle_auto_format") else text
