"""Values from a reference machine, which prose quotes until this machine has measured its own.

They are written by `benchmarks/reference.py` alone. They stand beside the experiments rather than in a pack,
as the experiments are the same for every pack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "reference.json"


@dataclass(frozen=True)
class ReferenceValue:
    """A value that this machine has not measured yet; None where the reference machine found none."""

    value: object


@dataclass(frozen=True)
class Reference:
    """One experiment on the reference machine.

    Attributes:
        values: per field of its result.
        measured: the day.
        machine: what it ran on, in words.
        images: which images.
    """

    values: Mapping[str, object]
    measured: date
    machine: str
    images: str

    @property
    def conclusion(self) -> str:
        """What came of it there, in a sentence, or empty."""
        return conclusion_of(self.values)

    @property
    def day(self) -> str:
        """The day as people write it: `30 November 2026`."""
        return f"{self.measured.day} {self.measured:%B %Y}"


def conclusion_of(fields: Mapping[str, object]) -> str:
    """The sentence among an experiment's fields that says what came of it, or empty."""
    text = str(fields.get("conclusion") or "").strip()
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


@cache
def references() -> Mapping[str, Reference]:
    """What the reference machine measured, per experiment."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Reference(one["values"], date.fromisoformat(one["date"]), one["machine"], one["images"])
        for name, one in found.items()
    }


def completed(results: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, object]]:
    """The results of this machine, with a `ReferenceValue` for each field that it has not measured."""
    known = {
        name: {key: ReferenceValue(value) for key, value in one.values.items()}
        for name, one in references().items()
    }
    return {name: {**known.get(name, {}), **results.get(name, {})} for name in {**known, **results}}
