"""Rosters: the names of a class as schools write them, one a line or CSV."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import LessonError
from headstart.lesson.engine.attempts import LONGEST_TIMER

LONGEST_NAME, LONGEST_REFERENCE = 80, 200

MOST_MEMBERS = 1_000
"""Of one class."""

LARGEST_ROSTER = 256 * 1024
"""Bytes."""

_NAMES = ("name", "full name", "learner", "student")
_FIRST = ("first name", "given name", "firstname")
_LAST = ("last name", "surname", "family name", "lastname")
_REFERENCES = ("id", "email", "e-mail", "username", "reference", "student id")
_FACTORS = ("time", "extra time", "more time")
"""Headings of a roster's columns."""


class JoinRefused(LessonError):
    """Somebody cannot join; the message says why and what helps."""


@dataclass(frozen=True)
class Row:
    """A line of a roster."""

    name: str
    reference: str = ""
    factor: float | None = 1.0


def roster(text: str) -> list[Row]:
    """The names of a roster: one a line, or CSV whose first line has headings.

    Headings: name, or first name and last name; id or email; time (1.5, 2, none). Names that come twice are
    taken once. Raises LessonError for what is none.
    """
    text = text.removeprefix("\ufeff")
    head = text.lstrip().partition("\n")[0]
    mark = max(",;\t", key=head.count)
    try:
        read = list(csv.reader(io.StringIO(text, ""), delimiter=mark))
    except csv.Error as error:
        raise LessonError(f"the roster cannot be read as CSV: {error}") from None
    lines = [line for line in ([cell.strip() for cell in each] for each in read) if any(line)]
    heads = [cell.casefold() for cell in lines[0]] if lines else []

    def column(names: Sequence[str]) -> int | None:
        return next((place for place, cell in enumerate(heads) if cell in names), None)

    places = [column(names) for names in (_NAMES, _FIRST, _LAST, _REFERENCES, _FACTORS)]
    if all(place is None for place in places[:3]):
        rows = [Row(clean(line)) for line in text.splitlines() if line.strip()]
    else:
        rows = [_row(line, places) for line in lines[1:]]
    once: dict[str, Row] = {}
    for row in rows:
        once.setdefault(row.name.casefold(), row)
    if not once:
        raise LessonError("the roster has no names: expected one a line, or CSV with a column 'name'")
    if len(once) > MOST_MEMBERS:
        raise LessonError(f"the roster has {len(once)} names; a class has at most {MOST_MEMBERS}")
    return list(once.values())


def factor_of(text: str) -> float | None:
    """A factor on the time as people write it: `1.5`, `2x`, `none` (no clock); empty is 1.

    Raises LessonError for anything else.
    """
    word = text.strip().casefold().replace(",", ".")
    if word in ("none", "off", "no clock"):
        return None
    try:
        factor = float(word.removesuffix("x")) if word else 1.0
    except ValueError:
        factor = 0.0
    if not 1.0 <= factor <= LONGEST_TIMER:
        raise LessonError(f"time {text!r}: expected a factor from 1 to {LONGEST_TIMER:g}, or none")
    return factor


def _row(line: Sequence[str], places: Sequence[int | None]) -> Row:
    whole, first, last, reference, factor = (
        line[place] if place is not None and place < len(line) else "" for place in places
    )
    return Row(clean(whole or f"{first} {last}"), reference[:LONGEST_REFERENCE], factor_of(factor))


def clean(name: str) -> str:
    """A name on one line, as it is kept. Raises JoinRefused for what is none."""
    kept = unicodedata.normalize("NFC", " ".join(name.split()))
    if not kept or len(kept) > LONGEST_NAME or not kept.isprintable():
        raise JoinRefused(f"expected a name of 1 to {LONGEST_NAME} characters")
    return kept
