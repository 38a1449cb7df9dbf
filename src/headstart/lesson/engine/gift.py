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
from headstart.lesson.engine.pack import Option, Problem
from headstart.lesson.engine.questions import (
    Imported,
    called,
    check_size,
    take,
    text_of,
    to_problem,
    with_code,
)

_ESCAPED = str.maketrans({**{character: f"\\{character}" for character in "\\~=#{}:"}, "\n": "\\n"})


def to_gift(problems: Iterable[Problem]) -> str:
    """The problems as GIFT text. A comment before each keeps what GIFT has no place for."""
    return "\n".join(_gift(problem) for problem in problems)


def _gift(problem: Problem) -> str:
    facts = {
        "kind": problem.kind,
        "level": problem.level,
        "experiment": problem.experiment,
        "seconds": problem.seconds,
        "hint": problem.hint,
        "keys": [option.key for option in problem.options],
    }
    lines = [
        f"// [id:{problem.slug}]",
        f"// headstart: {json.dumps(facts, ensure_ascii=False)}",
        f"::{_escape(problem.title)}::[markdown]{_escape(with_code(problem))} {{",
        *(f"{'=' if o.correct else '~'}{_escape(o.text)}#{_escape(o.feedback)}" for o in problem.options),
        f"####{_escape(problem.explanation)}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def from_gift(text: str) -> Imported:
    """The questions of a GIFT file that have exactly one right option among several.

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
    form = re.match(r"\[(\w+)\]", head)
    head = head[form.end() :] if form else head
    prose = html_text.to_markdown if form and form[1] == "html" else str.strip
    answers, _, explanation = _partition(answers, "####")
    facts = _facts(comments, where)
    keys = facts.get("keys") or []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise LessonError(f"{where}: its '// headstart:' comment is damaged")
    options = _true_or_false(answers) or tuple(
        _gift_option(piece, number, keys) for number, piece in enumerate(_answers(answers, where))
    )
    return to_problem(
        where,
        title=title,
        prompt=prose(_unescape(head)),
        options=tuple(replace(one, text=prose(one.text), feedback=prose(one.feedback)) for one in options),
        facts=facts,
        hint=text_of(facts, "hint", where),
        explanation=prose(_unescape(explanation)),
    )


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


def _answers(text: str, where: str) -> list[str]:
    """Each answer with its mark, `=` or `~`, in front."""
    starts = [found.start() for found in _marks("[=~]").finditer(text) if found["mark"]]
    # Without a wrong answer, marked '~', GIFT means another kind of question: short answer or matching.
    if not any(text[start] == "~" for start in starts) or text[: starts[0]].strip():
        raise LessonError(f"{where}: only multiple choice can be imported, with answers marked '=' and '~'")
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _gift_option(piece: str, number: int, keys: Sequence[str]) -> Option:
    correct, body = piece[0] == "=", piece[1:]
    if weight := re.match(r"%(-?\d+(?:\.\d+)?)%", body):
        correct, body = float(weight[1]) == 100, body[weight.end() :]
    text, _, feedback = _partition(body, "#")
    key = keys[number] if number < len(keys) else f"option-{number + 1}"
    return Option(key, _unescape(text), _unescape(feedback), correct)


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
