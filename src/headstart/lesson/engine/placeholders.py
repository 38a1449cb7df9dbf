"""Where a measured number will stand in a lesson's prose.

    {{ experiment:freeze-depth.seconds_saved }}   one field of an experiment's result
    {{ plot:freeze-depth }}                       the experiment's plot, with its table
    {{ claim:freeze-depth }}                      marks what stands before it as backed by the experiment
    {{ panel:runs }}                              on a line of its own: one of the page's own parts

Nothing is invented: until the experiment has run on this machine, the number is that of the reference machine
and marked so (`reference`); where there is none either, `fill` says that in its place. Where it has run and
found nothing of the kind, such as a model that another beats, it says that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.lesson.engine.reference import ReferenceValue, references

PENDING = "not measured yet"
NONE = "none here"
HELD = "hidden until you finish the open problem"
MARK = "†"
"""Behind a number that the reference machine measured."""

_PATTERN = re.compile(r"\{\{\s*(?P<kind>[a-z]+):(?P<name>[a-z0-9-]+)(?:\.(?P<field>[a-z0-9_]+))?\s*\}\}")
KINDS = ("experiment", "plot", "claim", "panel")
PANELS = ("picture", "runs", "journey", "judged", "scores", "confusion", "reliability", "questions")
"""A photograph that becomes a label; the learner's stored runs; a picture followed through the stages; a run
judged, as a whole or in three parts (scores, confusion matrix, calibration); a mode's short questions."""


@dataclass(frozen=True)
class Placeholder:
    """One placeholder; `start` and `end` index the text. Of a panel `experiment` is its name."""

    kind: str
    experiment: str
    field: str | None
    start: int
    end: int


def find(text: str) -> list[Placeholder]:
    """Every well-formed placeholder of a text, in order."""
    return [
        Placeholder(match["kind"], match["name"], match["field"], match.start(), match.end())
        for match in _PATTERN.finditer(text)
    ]


def malformed(text: str) -> list[tuple[int, str]]:
    """What looks like a placeholder and is none: (index in the text, what stands there)."""
    good = {placeholder.start for placeholder in find(text) if _sound(placeholder)}
    found = []
    start = text.find("{{")
    while start >= 0:
        closed = text.find("}}", start + 2)
        end = closed + 2 if closed >= 0 else len(text)  # without an end, the first is enough to name
        if start not in good:
            found.append((start, text[start:end]))
        start = text.find("{{", end)
    return found


def _sound(placeholder: Placeholder) -> bool:
    return placeholder.kind in KINDS and (placeholder.field is not None) == (placeholder.kind == "experiment")


def panels(text: str) -> list[str | tuple[str, str]]:
    """A text in pieces, cut at the lines that name a panel: prose as it is, panels as ("panel", name)."""
    pieces: list[str | tuple[str, str]] = []
    prose: list[str] = []
    for line in text.splitlines():
        found = find(line)
        if len(found) == 1 and found[0].kind == "panel" and line.strip() == line[found[0].start :].strip():
            pieces += ["\n".join(prose), ("panel", found[0].experiment)]
            prose = []
        else:
            prose.append(line)
    return [piece for piece in [*pieces, "\n".join(prose)] if not isinstance(piece, str) or piece.strip()]


def placed(text: str) -> set[str]:
    """The panels that a text names."""
    return {found.experiment for found in find(text) if found.kind == "panel"}


def measured(
    results: Mapping[str, Mapping[str, object]], experiment: str, field: str, *, pending: str = PENDING
) -> object:
    """The value of a field; `pending` where no result has it, and NONE where a result says there is none.

    One that only the reference machine measured comes as a `ReferenceValue`.
    """
    value = results.get(experiment, {}).get(field, pending)
    if isinstance(value, ReferenceValue):
        return ReferenceValue(NONE) if value.value is None else value
    return NONE if value is None else value


def from_reference(text: str, results: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The experiments of which a text quotes values that only the reference machine has measured."""
    quoted = (
        found.experiment
        for found in find(text)
        if found.kind == "experiment"
        and isinstance(measured(results, found.experiment, found.field or ""), ReferenceValue)
    )
    return list(dict.fromkeys(quoted))


def footnote(text: str, results: Mapping[str, Mapping[str, object]]) -> str:
    """What the mark behind numbers of a filled text means; empty where it bears none."""
    names = from_reference(text, results)
    if not names:
        return ""
    one = references()[names[0]]
    return f"{MARK} From the reference machine ({one.machine}), {one.day}; not measured on this machine yet."


def fill(text: str, results: Mapping[str, Mapping[str, object]], *, pending: str = PENDING) -> str:
    """Puts measured values where they belong; claims and plots leave no text behind.

    Args:
        text: prose with placeholders.
        results: per experiment that has run, its fields; numbers are shown with three significant digits, and
            with a mark where they are the reference machine's.
        pending: what stands where nothing has been measured.
    """
    parts: list[str] = []
    place = 0
    for match in _PATTERN.finditer(text):
        before = text[place : match.start()]
        if match["kind"] == "experiment":
            found = measured(results, match["name"], match["field"] or "", pending=pending)
            mark, found = (MARK, found.value) if isinstance(found, ReferenceValue) else ("", found)
            parts += [before, (f"{found:.3g}" if isinstance(found, float) else str(found)) + mark]
        else:
            parts.append(before.rstrip(" \t"))  # with the blanks that set it off
        place = match.end()
    return "".join([*parts, text[place:]])
