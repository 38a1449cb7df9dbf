"""Texts of a column become numbers: `0,5` as spreadsheets write it, but never 1.234 of `1,234`.

What a comma means is decided over the whole column, since many a cell alone may mean either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

LARGEST = 1e30
"""The largest number that is learned or weighs: models count in float32, and squares of it must fit."""

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_OF_DIGITS = re.compile(r"[+-]?\d[\d.,_' ]*", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_SPOKEN = {",": "comma", ".": "point"}


class NoNumber(Exception):
    """A text of a column that is no number, or may be one of two: its place there, and why in words."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at, self.why = at, why


def as_number(text: str) -> float | None:
    """The number that a text is by itself, a comma in it taken for a decimal one; None where it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def are_digits(texts: Sequence[str]) -> bool:
    """Whether all texts are numbers, those that are written with separators of thousands included."""
    return all(_OF_DIGITS.fullmatch(text) or as_number(text) is not None for text in texts)


def as_numbers(texts: Sequence[str], *, decimal_comma: bool = False) -> list[float]:
    """The numbers that a column's texts are.

    Args:
        texts: of the whole column.
        decimal_comma: whether its program may write decimals with a comma, and thousands with a point.

    Raises:
        NoNumber: a text is none, or it cannot be known which: all commas are followed by three digits, as in
            `1,234`, or some texts have commas and others points.
    """
    found = []
    for at, text in enumerate(texts):
        value = as_number(text)
        if value is None:
            digits = _OF_DIGITS.fullmatch(text)
            way_out = "; write its digits with one point, or none, between them" if digits else ""
            raise NoNumber(at, f"is no number{way_out}")
        if abs(value) > LARGEST:
            raise NoNumber(at, f"is beyond {LARGEST:.0e}, the largest number that is taken")
        found.append(value)
    having = {mark: [at for at, text in enumerate(texts) if mark in text] for mark in ",."}
    if having[","] and having["."]:
        (before, one), (at, other) = sorted((places[0], mark) for mark, places in having.items())
        raise NoNumber(
            at, f"has a {_SPOKEN[other]}, and {texts[before]!r} a {_SPOKEN[one]}; write decimals alike"
        )
    doubtful = having[","] or (having["."] if decimal_comma else [])
    if doubtful and all(_THOUSANDS.fullmatch(texts[at]) for at in doubtful):
        text = texts[doubtful[0]]
        whole = re.sub("[.,]", "", text)
        raise NoNumber(
            doubtful[0],
            f"may be {whole} or {text.replace(',', '.')}; write {whole}, or {text}0 if it has decimals",
        )
    return found
