"""Turns values of tables and arrays into class names, and refuses labels that cannot be classes.

Blanks at the ends and the two spellings of an accented letter (Unicode NFC and NFD) carry no meaning and are
evened out. Everything else stays as it was written: where two names could be one, a person has to say so.
"""

from __future__ import annotations

import datetime
import math
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from headstart.data.dataset.decimals import are_digits, as_number
from headstart.data.dataset.values import Sample
from headstart.errors import DatasetError, printable

LONGEST_LABEL = 1000
"""Characters; what is longer is a caption or a file's content."""

MISSING_WORDS = frozenset({"nan", "NaN", "NAN", "-nan", "NaT", "<NA>", "#N/A", "#NA", "NULL", "null"})
"""What programs write for a missing value; nobody names a class so."""

DOUBTFUL_WORDS = frozenset({"NA", "N/A", "n/a", "na", "None", "none", "unknown", "?", "-"})
"""May be a class ("none of these") or a missing label: kept, and said."""

_INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
_FEWEST_TO_JUDGE = 5
"""Images; of fewer nobody can say that a label for each is a mistake."""


def clean(text: str) -> str:
    """A label without blanks and invisible marks at its ends, accented letters composed (NFC)."""
    if text.isascii():
        return text.strip()
    trimmed = text.strip()
    while trimmed and (trimmed[0] in _INVISIBLE or trimmed[-1] in _INVISIBLE):
        trimmed = trimmed.strip(_INVISIBLE).strip()
    return unicodedata.normalize("NFC", trimmed)


def as_label(value: object) -> str | None:
    """The class that a value names; None where it is missing (None, NaN, NaT, `pandas.NA`, empty).

    Whole numbers in floating point are the numbers (1.0 is "1"), dates are written as in ISO 8601.

    Raises:
        DatasetError: The value cannot be a label: a list, bytes that are no UTF-8, a text without end.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise DatasetError(f"the label is bytes that are no UTF-8: {value[:20]!r}; give text") from None
    if isinstance(value, str):
        label = clean(value)
        if len(label) > LONGEST_LABEL:
            raise DatasetError(f"the label has {len(label):,} characters; at most {LONGEST_LABEL:,} are read")
        if "\n" in label or "\r" in label:
            raise DatasetError(
                f"the label {printable(label)[:60]!r} holds a line break; is a quote not closed?"
            )
        return None if not label or label in MISSING_WORDS else label
    if _is_missing(value):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, numbers.Real):
        return _number(value)
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time.min
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if type(value).__name__ == "Decimal" and value == int(value):  # type: ignore[call-overload]
        return str(int(value))  # type: ignore[call-overload]
    if hasattr(value, "__len__") or isinstance(value, Iterable):
        raise DatasetError(
            f"the label is a {type(value).__name__}; expected one class for each image, not several"
        )
    return clean(str(value))


def _number(value: numbers.Real) -> str:
    if isinstance(value, numbers.Integral):
        return str(int(value))
    real = float(value)
    if math.isinf(real):
        raise DatasetError("the label is infinite; expected the name or the number of a class")
    return str(int(real)) if real.is_integer() else str(value)


def _is_missing(value: object) -> bool:
    """Whether a value stands for none: unequal to itself, or (`pandas.NA`) without a truth value."""
    if value is None:
        return True
    if hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return True


def look_alike(label: str) -> str:
    """A label without what is hardly seen: case, width, blanks, invisible marks, a `.0` at its end."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    plain = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    plain = " ".join(plain.split())
    return re.sub(r"^0*(\d+)(\.0+)?$", r"\1", plain)


def refuse_look_alikes(labels: Iterable[tuple[str, str]]) -> None:
    """Refuse labels that differ by what is hardly seen; single letters are told apart by their case.

    Args:
        labels: each label with the place where it was seen, such as "row 3".

    Raises:
        DatasetError: Names two such labels and their places.
    """
    first: dict[str, tuple[str, str]] = {}
    for label, place in labels:
        key = look_alike(label)
        other, other_place = first.setdefault(key, (label, place))
        if other != label and not len(key) == len(other) == len(label) == 1:
            raise DatasetError(
                f"{place}: the label {printable(label)!r} looks like {printable(other)!r} ({other_place}); "
                "write both the same way, or give two classes names that differ by more"
            )


def made_of_others(labels: Collection[str]) -> Iterator[tuple[str, list[str], bool]]:
    """Labels that are several others of them in a row, with these: `cat|dog` beside `cat` and `dog`.

    Of parts between bars one has to be a label. Whether it is certain comes last: `hot dog` beside `hot` and
    `dog` is not.
    """
    known = set(labels)
    for label in sorted(label for label in known if re.search(r"[|;,/+&\s]", label)):
        for delimiter in ("|", ";", ",", "/", "+", "&", None):
            parts = [part.strip() for part in label.split(delimiter)]
            there = known.intersection(parts)
            if len(parts) > 1 and (there if delimiter == "|" else there.issuperset(parts)):
                yield label, parts, delimiter is not None
                break


def refuse_single_images(classes: Sequence[str], samples: Sequence[Sample]) -> None:
    """Refuse labels that are names of the images themselves, or whole numbers that are all different."""
    if len(samples) < _FEWEST_TO_JUDGE or len(classes) < len(samples):
        return
    numeric = are_digits(classes)
    what = "numbers, as of a measurement" if numeric else "names of single images"
    way_out = "; to predict the number, say --task regression" if numeric else ""
    raise DatasetError(
        f"as many classes as images ({len(samples)}): every class has one image; the labels are {what}, "
        f"such as {', '.join(classes[:3])}; give each image the class that it shares with others{way_out}"
    )


def are_measured(labels: Sequence[str]) -> bool:
    """Whether labels are numbers measured for each image: all numbers, most with a fraction and seen once."""
    counts = Counter(labels)
    values = [as_number(name) for name in counts]
    if len(labels) < _FEWEST_TO_JUDGE or None in values:
        return False
    fractions = sum(value is not None and not value.is_integer() for value in values)
    lonely = sum(count == 1 for count in counts.values())
    return fractions > len(counts) / 2 and lonely > len(counts) / 2
