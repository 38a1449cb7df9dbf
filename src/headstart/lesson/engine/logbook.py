"""Log entries as JSON and back, so that a log outlives the process and the version that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from headstart.errors import LessonError
from headstart.lesson.engine.answers import Layout
from headstart.lesson.engine.attempts import (
    Chose,
    Closed,
    Ended,
    Event,
    Expired,
    Extended,
    HintTaken,
    LogEntry,
    Opened,
    Reopened,
    Reset,
    Ruling,
    Started,
    Submitted,
)

KINDS: dict[str, type] = {
    "started": Started,
    "opened": Opened,
    "chose": Chose,
    "hint-taken": HintTaken,
    "submitted": Submitted,
    "expired": Expired,
    "closed": Closed,
    "extended": Extended,
    "reopened": Reopened,
    "ended": Ended,
    "reset": Reset,
}
_NAMES = {event: name for name, event in KINDS.items()}


def kind_of(event: Event) -> str:
    """The name under which an event is stored."""
    return _NAMES[type(event)]


def to_dict(entry: LogEntry) -> dict[str, Any]:
    """A log entry as JSON-ready values."""
    return {
        "at": entry.at.isoformat(),
        "kind": kind_of(entry.event),
        "event": asdict(entry.event),
        "deadline": entry.deadline.isoformat() if entry.deadline else None,
        "verdict": asdict(entry.ruling) if entry.ruling else None,
    }


def from_dict(data: Mapping[str, Any]) -> LogEntry:
    """The entry that `to_dict` wrote. Raises LessonError for anything else."""
    try:
        fields = dict(data["event"])
        if data["kind"] == "started":
            fields["layouts"] = tuple(_layout(layout) for layout in fields["layouts"])
        return LogEntry(
            at=datetime.fromisoformat(data["at"]),
            event=KINDS[data["kind"]](**fields),
            deadline=datetime.fromisoformat(data["deadline"]) if data["deadline"] else None,
            ruling=Ruling(**data["verdict"]) if data["verdict"] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LessonError(f"a log entry cannot be read: {type(error).__name__} {error}") from None


def _layout(data: Mapping[str, Any]) -> Layout:
    rows = ("options", "partners", "ranges")
    read: dict[str, Any] = {
        name: tuple(map(tuple, each)) if name in rows else each for name, each in data.items()
    }
    return Layout(**read)
