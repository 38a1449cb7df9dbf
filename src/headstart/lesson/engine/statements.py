"""The log as xAPI statements (https://github.com/adlnet/xAPI-Spec), one JSON object per line.

Statement ids are derived from the log, so sending a log twice stores each statement once.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import Any

from headstart.errors import LessonError, printable
from headstart.lesson.engine import attempts
from headstart.lesson.engine.asking import Refused, ask, is_safe
from headstart.lesson.engine.attempts import (
    POINTS,
    Challenge,
    Closed,
    Expired,
    HintTaken,
    LogEntry,
    Opened,
    Started,
    Submitted,
)

URN = "urn:headstart"
HOME_PAGE = "http://localhost"
"""xAPI wants an address that makes a learner's name unique; ours are unique on this machine."""

API = "1.0.3"
"""The version of xAPI that is spoken; stores of 2.0 speak it too."""

BATCH = 50
"""Statements that are sent at once."""

_VERBS = "http://adlnet.gov/expapi/verbs/"
_NAMESPACE = uuid.UUID("5f1f1f5e-6d0a-5c2c-8f5c-4d3f0f1c9a77")


def to_lines(entries: Iterable[LogEntry]) -> Iterator[str]:
    """One challenge's log as JSON lines."""
    for statement in statements(entries):
        yield json.dumps(statement, ensure_ascii=False, separators=(",", ":"))


def statements(entries: Iterable[LogEntry]) -> Iterator[dict[str, Any]]:
    """One challenge's log as xAPI statements. Marking an option is not an experience and gives none."""
    state: Challenge | None = None
    for place, entry in enumerate(entries):
        was_finished = state is not None and state.finished_at is not None
        state = attempts.advance(state, entry)
        verb, result = _experience(entry, state)
        problem = getattr(entry.event, "problem", None)
        if verb:
            yield _statement(state, entry.at, verb, problem, result, f"{place}")
        if state.finished_at is not None and not was_finished:
            possible = POINTS * len(state.items)
            final = {
                "completion": True,
                "success": state.correct == len(state.items),
                "score": _score(state.points, possible),
            }
            yield _statement(state, entry.at, "completed", None, final, f"{place}/end")


def send(found: Iterable[Mapping[str, Any]], *, endpoint: str, credentials: str) -> int:
    """Sends statements to a learning record store; those that it has already are left as they are.

    Args:
        found: the statements.
        endpoint: the store's address, below which it has `statements`.
        credentials: its key and secret with a colon between.

    Returns:
        How many it took.

    Raises LessonError for an address that is not HTTPS, and where the store does not take them.
    """
    if not is_safe(endpoint):
        raise LessonError(f"{printable(endpoint)[:200]}: expected the store's address, https://…")
    if ":" not in credentials:
        raise LessonError("the store's key and secret are expected with a colon between them")
    head = {
        "authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
        "content-type": "application/json",
        "x-experience-api-version": API,
    }

    def post(some: Sequence[Mapping[str, Any]]) -> int:
        body = json.dumps(list(some)).encode()
        try:
            ask(f"{endpoint.rstrip('/')}/statements", method="POST", headers=head, body=body)
        except Refused as refused:
            if refused.status != HTTPStatus.CONFLICT:
                raise
            # One of them is there already, and the store takes all or none.
            return sum(post([one]) for one in some) if len(some) > 1 else 0
        return len(some)

    waiting, sent = iter(found), 0
    while batch := list(islice(waiting, BATCH)):
        sent += post(batch)
    return sent


def _experience(entry: LogEntry, state: Challenge) -> tuple[str | None, dict[str, Any]]:
    match entry.event:
        case Started():
            return "initialized", {}
        case Opened():
            return "attempted", {}
        case HintTaken():
            return "asked", {"extensions": {f"{URN}:hint": True}}
        case Submitted() if entry.ruling is not None:
            ruling = entry.ruling
            opened = state.item(entry.event.problem).opened_at or entry.at
            return "answered", {
                "success": ruling.correct,
                "response": ruling.option,
                "score": _score(ruling.points, POINTS),
                "duration": f"PT{max(0.0, (entry.at - opened).total_seconds()):.2f}S",  # ISO 8601
            }
        case Expired():
            return "terminated", {"completion": False, "extensions": {f"{URN}:time-over": True}}
        case Closed():
            return "terminated", {"completion": False}
    return None, {}


def _score(points: int, possible: int) -> dict[str, Any]:
    return {"raw": points, "min": 0, "max": possible, "scaled": points / possible}


def _statement(
    state: Challenge, at: datetime, verb: str, problem: str | None, result: dict[str, Any], place: str
) -> dict[str, Any]:
    lesson = f"{URN}:lesson:{state.pack}"
    activity = f"{lesson}:{state.mode}:{problem}" if problem else f"{lesson}:{state.mode}"
    kind = "cmi.interaction" if problem else "assessment"
    statement: dict[str, Any] = {
        "id": str(uuid.uuid5(_NAMESPACE, f"{state.id}/{place}")),
        "actor": {"objectType": "Agent", "account": {"homePage": HOME_PAGE, "name": state.learner}},
        "verb": {"id": _VERBS + verb, "display": {"en": verb}},
        "object": {
            "objectType": "Activity",
            "id": activity,
            "definition": {"type": f"http://adlnet.gov/expapi/activities/{kind}"},
        },
        "context": {
            "registration": str(uuid.uuid5(_NAMESPACE, state.id)),
            "contextActivities": {"grouping": [{"id": lesson}]},
        },
        "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    return statement | ({"result": result} if result else {})
