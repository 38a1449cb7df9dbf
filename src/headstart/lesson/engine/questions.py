"""What the readers of question files share: a question that is one of ours, and what was taken of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from headstart.errors import LessonError, printable
from headstart.files import Unreadable, parse_json
from headstart.lesson.engine.answers import misfits
from headstart.lesson.engine.pack import PROBLEM_SECONDS, CodeFace, Option, Problem

LARGEST_IMPORT = 5_000_000
"""Characters; a file of questions is smaller."""

_FENCE = re.compile(r"```(?P<language>\w*) title=\"(?P<label>[^\"\n]*)\"\n")

Question = TypeVar("Question")


@dataclass(frozen=True)
class Imported:
    """What was taken of a file, and one line for each question that was left out."""

    problems: tuple[Problem, ...]
    left_out: tuple[str, ...] = ()


def take(questions: Iterable[Question], read: Callable[[int, Question], Problem]) -> Imported:
    """Read each question by its place, counted from 1; those that cannot be used are left out.

    Raises:
        LessonError: not one of them can be used; why the first cannot.
    """
    problems: list[Problem] = []
    left_out: list[str] = []
    for place, question in enumerate(questions, 1):
        try:
            problems.append(read(place, question))
        except LessonError as error:
            left_out.append(str(error))
    if left_out and not problems:
        more = f" (and {len(left_out) - 1} more questions that cannot be imported)" if left_out[1:] else ""
        raise LessonError(left_out[0] + more)
    return Imported(_joined(problems), tuple(left_out))


def _joined(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems; one that says it is a variant of another stands in it again."""
    found: list[Problem] = []
    places: dict[str, int] = {}
    for problem in problems:
        place = places.get(problem.slug)
        if place is not None and problem.variant not in {each.variant for each in found[place].each()}:
            found[place] = replace(found[place], variants=(*found[place].variants, problem))
        else:
            places[problem.slug] = len(found)
            found.append(problem)
    return tuple(found)


def facts_of(problem: Problem) -> dict[str, str]:
    """What other systems' files have no place for, by name; `to_problem` takes it."""
    facts = {name: str(getattr(problem, name)) for name in ("kind", "level", "experiment", "seconds", "form")}
    if problem.runs_with:
        facts["runs_with"] = json.dumps(dict(problem.runs_with))
    return facts | ({"slug": problem.slug, "variant": problem.variant} if problem.variant != "first" else {})


def identity(problem: Problem) -> str:
    """What a problem, or a variant of one, is called among all of a file."""
    return problem.slug if problem.variant == "first" else f"{problem.slug}-{problem.variant}"


def weights(options: Sequence[Option]) -> list[str]:
    """What each option of several counts, in per cent: a wrong one costs everything."""
    right = sum(option.correct for option in options)
    return [f"{100 / right:.7g}" if option.correct else "-100" for option in options]


def to_problem(
    where: str,
    *,
    title: str,
    prompt: str,
    form: str,
    options: tuple[Option, ...],
    facts: Mapping[str, Any],
    hint: str,
    explanation: str,
) -> Problem:
    """A problem from what a file says of it; `facts` are what only our own files know, and may be anything.

    Raises:
        LessonError: its options do not fit its form, or a fact is not what it must be.
    """
    prompt, code = _without_code(prompt)
    seconds = facts.get("seconds", PROBLEM_SECONDS)
    try:
        seconds = int(seconds)
    except (TypeError, ValueError, OverflowError):  # a list, a word, an infinite number
        raise LessonError(f"{where}: seconds {_short(seconds)} is no number") from None
    problem = Problem(
        slug=text_of(facts, "slug", where) or _slug(title),
        title=title,
        kind=text_of(facts, "kind", where) or "conceptual",
        level=text_of(facts, "level", where) or "intermediate",
        prompt=prompt,
        options=options,
        hint=hint,
        explanation=explanation,
        experiment=text_of(facts, "experiment", where),
        code=code,
        seconds=seconds,
        form=form,
        variant=text_of(facts, "variant", where) or "first",
        runs_with=_values(text_of(facts, "runs_with", where), where),
    )
    for message in misfits(problem):
        raise LessonError(f"{where}: {message}")
    return problem


def _values(text: str, where: str) -> dict[str, Any]:
    try:
        return dict(parse_json(text.encode())) if text else {}
    except (Unreadable, TypeError, ValueError):
        raise LessonError(f"{where}: runs_with {_short(text)} is no JSON of names and values") from None


def text_of(facts: Mapping[str, Any], name: str, where: str) -> str:
    """A fact that is text; empty where there is none. Raises LessonError where it is something else."""
    value = facts.get(name) or ""
    if not isinstance(value, str):
        raise LessonError(f"{where}: {name} {_short(value)} is no text")
    return value


def called(place: int, title: str, *, kind: str = "question") -> str:
    """A question in a message: its place and its title, which may be long and hold anything."""
    return f"{kind} {place} ({_short(title)})"


def with_code(problem: Problem) -> str:
    """A prompt with its programs behind it, each in a fence that `to_problem` takes off again."""
    fences = (f'```{face.language} title="{face.label}"\n{face.text}```' for face in problem.code)
    return "\n\n".join([problem.prompt, *fences])


def check_size(text: str) -> None:
    """Refuse, with a LessonError, what is too large to be a file of questions."""
    if len(text) > LARGEST_IMPORT:
        raise LessonError(f"this file is too large to be questions: more than {LARGEST_IMPORT:,} characters")


def _without_code(prompt: str) -> tuple[str, tuple[CodeFace, ...]]:
    """The prompt without its fenced programs, and those; each character is looked at once."""
    prose: list[str] = []
    faces: list[CodeFace] = []
    place = 0
    while (start := prompt.find("```", place)) >= 0:
        opened = _FENCE.match(prompt, start)
        end = prompt.find("```", opened.end()) if opened else start
        if end < 0:
            break
        prose.append(prompt[place:start].rstrip("\n") if opened else prompt[place : start + 3])
        if opened:
            faces.append(CodeFace(opened["label"], opened["language"], prompt[opened.end() : end]))
        place = end + 3
    return "".join([*prose, prompt[place:]]).strip(), tuple(faces)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "question"


def _short(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= 80 else f"{text[:80]}…"
