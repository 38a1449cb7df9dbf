"""What an answer is: an option, several, an order, pairs, a number; and whether it is right.

An answer is one text wherever it stands, in a form, in the log, in a tab: pieces with a blank between them.

    one       the id of the option
    several   the id of every marked option
    order     ID=PLACE for every option, places counted from 1
    match     ID=ID for every option and what belongs to it
    number    the number

Ids are opaque; which of them is right stands in the `Layout`, which stays on the server.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.errors import LessonError
from headstart.lesson.engine.pack import Problem

LEAST_OPTIONS, MOST_OPTIONS = 2, 8

LONGEST_NUMBER = 40
"""Characters of a number."""

ANY = "*"
"""As the text of a number's option: whatever no option before it says."""


class AnswerRefused(LessonError):
    """The event is not possible now; the state stays as it is. `reason` is for programs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Layout:
    """One problem in one challenge, as the log keeps it.

    Attributes:
        problem: its slug.
        seconds: for an answer in time, or None.
        options: (opaque id, option key) in the shown order.
        answer: the right answer; of a number, the id of the right option.
        form: how it is answered.
        partners: (opaque id, option key) of what options are paired with, in the shown order.
        ranges: (opaque id, lowest, highest) of the numbers that are taken for an option.
        variant: which of the problem's.
    """

    problem: str
    seconds: float | None
    options: tuple[tuple[str, str], ...]
    answer: str
    form: str = "one"
    partners: tuple[tuple[str, str], ...] = ()
    ranges: tuple[tuple[str, float, float], ...] = ()
    variant: str = ""

    def canonical(self, text: str, *, whole: bool) -> str:
        """An answer as it is kept: two that say the same are the same text.

        Args:
            text: its pieces, in any order; may come from anybody.
            whole: whether it is submitted, and must leave nothing open.

        Raises AnswerRefused for what this problem does not offer, and for what is not whole.
        """
        if self.form == "number":
            return number_of(text) if whole else " ".join(text.split())[:LONGEST_NUMBER]
        pieces = sorted(set(text.split()))
        ids = [identity for identity, _ in self.options]
        known = {f"{one}={other}" for one in ids for other, _ in self.partners} if self.partners else {*ids}
        if not known.issuperset(pieces):
            raise AnswerRefused("unknown-option", f"problem {self.problem!r} has no such option")
        rows = [piece.partition("=")[0] for piece in pieces]
        if self.form == "one" and len(pieces) > 1:
            raise AnswerRefused("unknown-option", "two answers came; choose one")
        if len(set(rows)) < len(rows):
            raise AnswerRefused("unknown-option", "a line was answered twice; answer each once")
        if whole and not pieces:
            raise AnswerRefused("incomplete", "choose an answer first")
        if whole and self.partners and len(rows) < len(ids):
            raise AnswerRefused("incomplete", "something is left open; choose for every line")
        places = {piece.partition("=")[2] for piece in pieces}
        if whole and self.form == "order" and len(places) < len(ids):
            raise AnswerRefused("incomplete", "a place was given twice; give each once")
        return " ".join(pieces)

    def is_right(self, answer: str) -> bool:
        """Whether a whole answer, as `canonical` gives it, is right."""
        return self.option_of(answer) == self.answer if self.form == "number" else answer == self.answer

    def option_of(self, answer: str) -> str:
        """The id of the option for which a number is taken, the first in the file; empty where none is."""
        value = float(answer)
        return next((identity for identity, low, high in self.ranges if low <= value <= high), "")

    def in_keys(self, answer: str) -> str:
        """An answer by the keys of the pack, for logs and statistics."""
        keys = dict(self.options) | dict(self.partners)
        pieces = (piece.partition("=") for piece in answer.split())
        return " ".join(keys.get(one, one) + sign + keys.get(other, other) for one, sign, other in pieces)


def lay_out(
    problem: Problem, *, challenge: str, seed: str, seconds: float | None, seen: Collection[str] = ()
) -> Layout:
    """A problem for one challenge: ids that tell nothing, in an order that only the seed foretells.

    Args:
        problem: with its variants, of which the seed draws one.
        challenge: its id.
        seed: secret, new for each challenge.
        seconds: for an answer in time, or None.
        seen: the variants that the learner has met, as often as they did; one seen least often is drawn.
    """
    variant = ""
    if problem.variants:
        problem = _draw(problem, seed, seen)
        variant = problem.variant

    def opaque(option: str) -> str:
        text = f"{challenge}/{problem.slug}/{option}".encode()
        return hashlib.blake2b(text, key=hashlib.sha256(seed.encode()).digest(), digest_size=8).hexdigest()

    # The ids are keyed hashes, so sorting by them shuffles.
    options = tuple(sorted((opaque(option.key), option.key) for option in problem.options))
    ids = {key: identity for identity, key in options}
    partners: tuple[tuple[str, str], ...] = ()
    ranges: tuple[tuple[str, float, float], ...] = ()
    right = [ids[option.key] for option in problem.options if option.correct]
    if problem.form == "order":
        partners = tuple((str(place), str(place)) for place in range(1, len(options) + 1))
        right = [f"{ids[option.key]}={place}" for place, option in enumerate(problem.options, 1)]
    elif problem.form == "match":
        first = {option.matches: option.key for option in reversed(problem.options)}
        partners = tuple(sorted((opaque(f"{key}/partner"), key) for key in first.values()))
        shown = {key: identity for identity, key in partners}
        right = [f"{ids[option.key]}={shown[first[option.matches]]}" for option in problem.options]
    elif problem.form == "number":
        ranges = tuple((ids[one.key], *_range(one.text, one.tolerance)) for one in problem.options)
    return Layout(
        problem.slug,
        seconds,
        options,
        " ".join(sorted(right)),
        problem.form,
        partners,
        ranges,
        variant,
    )


def feedback(problem: Problem, layout: Layout, answer: str) -> str:
    """What to say of a wrong answer, without what would be right: on what was chosen, and on nothing else."""
    keys, pieces = dict(layout.options), answer.split()
    match layout.form:
        case "number":
            chosen = layout.option_of(answer)
            return problem.option(keys[chosen]).feedback if chosen else ""
        case "order" | "match":
            wrong = [piece.partition("=")[0] for piece in pieces if piece not in layout.answer.split()]
            said = f"{len(pieces) - len(wrong)} of {len(pieces)} are right."
            return f"{said} {problem.option(keys[wrong[0]]).feedback if wrong else ''}".strip()
    wrong = [piece for piece in pieces if layout.form == "one" or piece not in layout.answer.split()]
    said = " ".join(problem.option(keys[piece]).feedback.strip() for piece in wrong)
    return said or "What you marked is right, and something is missing."


def partner(problem: Problem, layout: Layout, key: str) -> str:
    """What stands for a partner: a place of an order, or a text."""
    return key if layout.form == "order" else problem.option(key).matches


def in_words(problem: Problem, answer: str) -> str:
    """An answer by the pack's keys, as `Layout.in_keys` gives it, as Markdown for people."""
    options, said = {option.key: option for option in problem.options}, []
    for piece in answer.split():
        key, sign, other = piece.partition("=")
        text = options[key].text if key in options else key
        if sign and problem.form == "order":
            text = f"{other}. {text}"
        elif sign:
            text = f"{text} – {options[other].matches if other in options else other}"
        said.append(text)
    return "; ".join(sorted(said) if problem.form == "order" else said)


def is_right_in_keys(problem: Problem, answer: str) -> bool:
    """Whether an answer by the pack's keys is right."""
    if problem.form == "number":
        ranges = ((option, *_range(option.text, option.tolerance)) for option in problem.options)
        return next((one.correct for one, low, high in ranges if low <= float(answer) <= high), False)
    if problem.form == "match":
        belongs = {option.key: option.matches for option in problem.options}
        pairs = (piece.partition("=") for piece in answer.split())
        return all(belongs.get(key) == belongs.get(other) for key, _, other in pairs)
    if problem.form == "order":
        return set(answer.split()) == {f"{one.key}={place}" for place, one in enumerate(problem.options, 1)}
    return set(answer.split()) == {option.key for option in problem.options if option.correct}


def solved(problem: Problem, layout: Layout, tried: Sequence[str]) -> list[dict[str, Any]]:
    """The options once a problem has closed: each with what is right, and with what was answered.

    `right` and `mine` say whether an option is right and was chosen; `partner` and `given` are what belongs
    to it and what was given for it. Of a number, the right one alone; an order's stand in order.
    """
    own = [piece for answer in (tried if layout.form == "one" else tried[-1:]) for piece in answer.split()]
    partners = {identity: partner(problem, layout, key) for identity, key in layout.partners}
    right, given = dict(map(_pair, layout.answer.split())), dict(map(_pair, own))
    rows = []
    for identity, key in layout.options:
        option = problem.option(key)
        if layout.form == "number" and not option.correct:
            continue
        slack = f" ± {option.tolerance:g}" if option.tolerance else ""
        rows.append(
            {
                "id": identity,
                "text": option.text + slack,
                "right": identity in right,
                "mine": identity in given,
                "partner": partners.get(right.get(identity, ""), ""),
                "given": partners.get(given.get(identity, ""), ""),
            }
        )
    return sorted(rows, key=lambda row: int(row["partner"])) if layout.form == "order" else rows


def _pair(piece: str) -> tuple[str, str]:
    one, _, other = piece.partition("=")
    return one, other


def number_of(text: str) -> str:
    """A number as people write it (blanks, a decimal comma, a per cent sign), in one way of writing.

    Raises AnswerRefused for what is none.
    """
    said = "".join(text.split()).removesuffix("%").replace(",", ".")
    try:
        value = float(said) if len(said) <= LONGEST_NUMBER and said.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AnswerRefused("no-number", "that is no number; write digits, such as 12.5")
    return f"{value + 0.0:.10g}"  # no minus before a zero


def _range(text: str, tolerance: float) -> tuple[float, float]:
    if text == ANY:
        return -math.inf, math.inf
    value, slack = float(number_of(text)), tolerance + 1e-9
    return value - slack, value + slack


def _draw(problem: Problem, seed: str, seen: Collection[str]) -> Problem:
    counts = {each.variant: list(seen).count(each.variant) for each in problem.each()}

    def place(each: Problem) -> tuple[int, str]:
        text = f"{seed}/{problem.slug}/{each.variant}".encode()
        return counts[each.variant], hashlib.sha256(text).hexdigest()

    return min(problem.each(), key=place)


def misfits(problem: Problem) -> Iterator[str]:
    """What a problem's options hold that its form cannot use, or lack that it needs."""
    form, options = problem.form, problem.options
    least = 1 if form == "number" else LEAST_OPTIONS
    if not least <= len(options) <= MOST_OPTIONS:
        yield f"expected {least} to {MOST_OPTIONS} options, got {len(options)}"
    for name in ("key", "text"):
        if len({getattr(option, name) for option in options}) < len(options):
            yield f"two options have the same {name}"
    if not all(option.text for option in options):
        yield "an option has no text"
    correct = sum(option.correct for option in options)
    if form in ("one", "number") and correct != 1:
        yield f"expected exactly one correct option, got {correct}"
    if form == "several" and not correct:
        yield "expected at least one correct option, got 0"
    if form in ("order", "match") and correct:
        yield f"'correct' says nothing about a problem of form {form!r}"
    if form == "match" and not all(option.matches for option in options):
        yield "every option of a match needs what it 'matches'"
    if form != "match" and any(option.matches for option in options):
        yield f"'matches' belongs to form: match, and this is {form!r}"
    if form != "number" and any(option.tolerance for option in options):
        yield f"'tolerance' belongs to form: number, and this is {form!r}"
    if any(option.tolerance < 0 for option in options):
        yield "a tolerance is not negative"
    if form == "number":
        yield from (f"{option.text!r:.80} is no number" for option in options if not _is_number(option.text))
        yield from (
            f"{ANY!r} cannot be correct" for option in options if option.text == ANY and option.correct
        )


def _is_number(text: str) -> bool:
    try:
        return text == ANY or bool(number_of(text))
    except AnswerRefused:
        return False
