"""Problems to and from GIFT (https://docs.moodle.org/en/GIFT_format).

What the format has no place for goes into a comment, so that a problem survives the journey.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from headstart.errors import LessonError
from headstart.lesson.engine import html_text
from headstart.lesson.engine.answers import ANY
from headstart.lesson.engine.pack import Option, Problem
from headstart.lesson.engine.questions import (
    Imported,
    called,
    check_size,
    facts_of,
    identity,
    take,
    text_of,
    to_problem,
    weights,
    with_code,
)

_ESCAPED = str.maketrans({**{character: f"\\{character}" for character in "\\~=#{}:"}, "\n": "\\n"})


_ESCAPED_END = "\\>"


def to_gift(problems: Iterable[Problem]) -> str:
    """The problems as GIFT text. A comment before each keeps what GIFT has no place for."""
    return "\n".join(_gift(each) for problem in problems for each in problem.each())


def _gift(problem: Problem) -> str:
    facts: dict[str, Any] = {
        **facts_of(problem),
        "hint": problem.hint,
        "keys": [option.key for option in problem.options],
    }
    if problem.form in ("order", "match"):  # GIFT has no feedback on what is matched
        facts["feedback"] = [option.feedback for option in problem.options]
    lines = [
        f"// [id:{identity(problem)}]",
        f"// headstart: {json.dumps(facts, ensure_ascii=False)}",
        f"::{_escape(problem.title)}::[markdown]{_escape(with_code(problem))} {{",
        *_answer_lines(problem),
        f"####{_escape(problem.explanation)}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _answer_lines(problem: Problem) -> Iterator[str]:
    """An answer each, as GIFT writes them; an order is a matching with places."""
    several = weights(problem.options) if problem.form == "several" else []
    if problem.form == "number":
        yield "#"
    for place, option in enumerate(problem.options, 1):
        text = _escape(option.text)
        match problem.form:
            case "order" | "match":
                partner = str(place) if problem.form == "order" else _escape(option.matches)
                yield f"={text.replace('->', '-' + _ESCAPED_END)} -> {partner}"
                continue
            case "several":
                sign = f"~%{several[place - 1]}%"
            case "number":
                sign = "=" if option.correct else "=%0%"
                text = option.text if option.text == ANY else f"{option.text}:{option.tolerance:.10g}"
            case _:
                sign = "=" if option.correct else "~"
        yield f"{sign}{text}#{_escape(option.feedback)}"


def from_gift(text: str) -> Imported:
    """The questions of a GIFT file: a choice, several, true or false, a number, a matching.

    Raises LessonError where not one question can be used.
    """
    check_size(text)
    questions = [(comments, body) for comments, body in map(_apart, _blocks(text)) if body]
    if not questions:
        raise LessonError("GIFT: expected at least one question")
    return take(questions, lambda place, question: _from_gift(place, *question))


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines of each question: a blank line stands between two."""
    block: list[str] = []
    for line in [*text.replace("\r\n", "\n").split("\n"), ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _apart(block: list[str]) -> tuple[list[str], str]:
    """A question's comments, and what is left; nothing is left of a line that names a category."""
    comments = [line.strip() for line in block if line.strip().startswith("//")]
    body = "\n".join(line for line in block if not line.strip().startswith("//")).strip()
    if body.startswith("$CATEGORY"):
        body = body.partition("\n")[2].strip()
    return comments, body


def _from_gift(place: int, comments: Sequence[str], body: str) -> Problem:
    pieces = _split(body, "{")
    if len(pieces) != 2 or not pieces[1].rstrip().endswith("}"):
        raise LessonError(f"GIFT question {place}: expected its answers in braces at the end")
    head, answers = pieces[0].strip(), pieces[1].rstrip()[:-1]
    title = f"Question {place}"
    if head.startswith("::"):
        parts = _split(head[2:], "::")
        if len(parts) == 2:
            title, head = " ".join(_unescape(parts[0]).split()) or title, parts[1].strip()
    where = called(place, title, kind="GIFT question")
    markup = re.match(r"\[(\w+)\]", head)
    head = head[markup.end() :] if markup else head
    prose = html_text.to_markdown if markup and markup[1] == "html" else str.strip
    answers, _, explanation = _partition(answers, "####")
    facts = _facts(comments, where)
    keys, feedback = (facts.get(name) or [] for name in ("keys", "feedback"))
    for listed in (keys, feedback):
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise LessonError(f"{where}: its '// headstart:' comment is damaged")
    form, options = _options(answers, where)
    if form == "match" and facts.get("form") == "order":
        form, options = "order", tuple(replace(one, matches="") for one in options)
    elif form == "one" and facts.get("form") == "several":
        form = "several"
    options = tuple(
        replace(
            one,
            key=keys[place] if place < len(keys) else one.key,
            text=prose(one.text),
            feedback=feedback[place] if place < len(feedback) else prose(one.feedback),
            matches=prose(one.matches),
        )
        for place, one in enumerate(options)
    )
    return to_problem(
        where,
        title=title,
        prompt=prose(_unescape(head)),
        form=form,
        options=options,
        facts=facts,
        hint=text_of(facts, "hint", where),
        explanation=prose(_unescape(explanation)),
    )


def _options(answers: str, where: str) -> tuple[str, tuple[Option, ...]]:
    """The form of a question, and its options, told by the marks of its answers."""
    if two := _true_or_false(answers):
        return "one", two
    if answers.lstrip().startswith("#"):
        pieces = _pieces(answers.lstrip()[1:]) or ["=" + answers.lstrip()[1:]]
        return "number", tuple(_gift_number(piece, place, where) for place, piece in enumerate(pieces, 1))
    pieces = _pieces(answers)
    if pieces and all(len(_split(piece, "->")) == 2 and piece[0] == "=" for piece in pieces):
        pairs = [[_unescape(part) for part in _split(piece[1:], "->")] for piece in pieces]
        return "match", tuple(
            Option(f"option-{place}", text, matches=partner) for place, (text, partner) in enumerate(pairs, 1)
        )
    # Without a wrong answer, marked '~', GIFT means a short answer.
    if not any(piece[0] == "~" for piece in pieces):
        raise LessonError(
            f"{where}: short answers and essays cannot be imported; answers are marked '=' and '~'"
        )
    options = [_gift_option(piece, place) for place, piece in enumerate(pieces, 1)]
    rights = [weight for weight, _ in options if weight > 0]
    form = "one" if 100 in rights else "several"
    least = 100 if form == "one" else 1e-9
    return form, tuple(replace(option, correct=weight >= least) for weight, option in options)


def _true_or_false(answers: str) -> tuple[Option, ...]:
    """The two options of a true-or-false question; nothing for another kind.

    Its first feedback is for the wrong answer, its second for the right one.
    """
    pieces = _split(answers, "#", limit=2)
    said = pieces[0].strip().upper()
    if said not in ("T", "TRUE", "F", "FALSE"):
        return ()
    wrong, right = (_unescape(piece) for piece in [*pieces[1:], "", ""][:2])
    true = said.startswith("T")
    return (
        Option("true", "True", right if true else wrong, true),
        Option("false", "False", wrong if true else right, not true),
    )


def _pieces(text: str) -> list[str]:
    """Each answer with its mark, `=` or `~`, in front; none where something stands before the first."""
    starts = [found.start() for found in _marks("[=~]").finditer(text) if found["mark"]]
    if not starts or text[: starts[0]].strip():
        return []
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _gift_option(piece: str, place: int) -> tuple[float, Option]:
    """An answer's weight in per cent, and the option."""
    weight, body = 100.0 if piece[0] == "=" else 0.0, piece[1:]
    if found := re.match(r"%(-?\d+(?:\.\d+)?)%", body):
        weight, body = float(found[1]), body[found.end() :]
    text, _, feedback = _partition(body, "#")
    return weight, Option(f"option-{place}", _unescape(text), _unescape(feedback))


def _gift_number(piece: str, place: int, where: str) -> Option:
    """One number of a numerical question: `5`, `5:0.1` or `4.9..5.1`."""
    weight, option = _gift_option(piece, place)
    text, _, slack = option.text.partition(":")
    low, dots, high = text.partition("..")
    try:
        tolerance = float(slack or 0)
        if dots:
            text, tolerance = f"{(float(low) + float(high)) / 2:.10g}", abs(float(high) - float(low)) / 2
    except ValueError:
        raise LessonError(f"{where}: {option.text!r:.80} is no number") from None
    return replace(option, text=text.strip(), tolerance=tolerance, correct=weight == 100)


def _facts(comments: Sequence[str], where: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for comment in comments:
        if found := re.search(r"\[id:([^\]]+)\]", comment):
            facts["slug"] = found[1]
        if comment.startswith("// headstart:"):
            try:
                facts |= dict(json.loads(comment.removeprefix("// headstart:")))
            except (ValueError, TypeError, RecursionError):
                raise LessonError(f"{where}: its '// headstart:' comment is damaged") from None
    return facts


def _escape(text: str) -> str:
    return text.translate(_ESCAPED)


def _unescape(text: str) -> str:
    return re.sub(
        r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text.strip(), flags=re.DOTALL
    )


@cache
def _marks(mark: str) -> re.Pattern[str]:
    """Finds what a backslash escapes, and a mark (a regular expression) that none does, in one pass."""
    return re.compile(rf"\\.|(?P<mark>{mark})", re.DOTALL)


def _split(text: str, mark: str, *, limit: int = 1) -> list[str]:
    """A text cut at the first places, at most `limit`, where an unescaped mark stands."""
    parts: list[str] = []
    start = 0
    for found in _marks(re.escape(mark)).finditer(text):
        if found["mark"] and len(parts) < limit:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _partition(text: str, mark: str) -> tuple[str, str, str]:
    parts = _split(text, mark)
    return (parts[0], mark, parts[1]) if len(parts) == 2 else (text, "", "")
