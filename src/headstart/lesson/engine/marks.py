"""The marks of a class: what each member's best challenge came to, as a table for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from headstart.errors import OptionError
from headstart.files.spreadsheets import as_csv, as_xlsx
from headstart.lesson.engine.attempts import POINTS, Challenge
from headstart.lesson.engine.classes import Member
from headstart.lesson.engine.scores import score

FORMATS = {".csv": as_csv, ".xlsx": as_xlsx}


@dataclass(frozen=True)
class Mark:
    """What one member has earned.

    Attributes:
        member: who.
        best: their challenge with the most points, the earliest of several; None where none counts.
        taken: how many they began, but for those that were reset.
        badge: whether one of them earned the badge.
        possible: points of a challenge of this lesson.
        reset: whether they began some, and all were reset.
    """

    member: Member
    best: Challenge | None
    taken: int
    badge: bool
    possible: int
    reset: bool = False

    @property
    def points(self) -> int:
        """Of the best challenge."""
        return self.best.points if self.best is not None else 0


def of_class(
    members: Sequence[Member], states: Iterable[Challenge], *, problems: Sequence[str]
) -> list[Mark]:
    """Everybody's mark, by their numbers.

    Args:
        members: of the class.
        states: their challenges; those that were reset earn nothing.
        problems: of the lesson's challenge, by their slugs.
    """
    own: dict[str, list[Challenge]] = {}
    for state in states:
        own.setdefault(state.learner, []).append(state)
    found = []
    for member in members:
        begun = own.get(member.learner, [])
        counted = (state for state in begun if state.reset_at is None)
        taken = sorted(counted, key=lambda state: (-state.points, state.started_at))
        earned = any(state.earns_badge for state in taken)
        best = taken[0] if taken else None
        reset = bool(begun) and best is None
        found.append(Mark(member, best, len(taken), earned, POINTS * len(problems), reset))
    return found


def as_file(marks: Sequence[Mark], ending: str, *, problems: Sequence[str]) -> bytes:
    """The marks as `.csv` or `.xlsx`: a line for each member, a column for each problem.

    Raises OptionError for another ending.
    """
    if ending not in FORMATS:
        raise OptionError(f"marks are written as {' or '.join(FORMATS)}, not {ending!r}")
    header = [
        "number", "name", "id", "challenges", "points", "possible", "percent", "correct", "badge",
        "hints", "late", "seconds", "started", "finished", *problems,
    ]  # fmt: skip
    return FORMATS[ending](header, [_row(mark, problems) for mark in marks])


def _row(mark: Mark, problems: Sequence[str]) -> list[object]:
    member, best = mark.member, mark.best
    who = [member.number, member.shown, member.reference, mark.taken]
    if best is None:
        return [*who, *[None] * (10 + len(problems))]
    came, points = score(best), {item.problem: item.points for item in best.items if item.closed_at}
    return [
        *who,
        came.points,
        mark.possible,
        round(100 * came.points / mark.possible, 1),
        came.correct,
        "yes" if mark.badge else "no",
        came.hints,
        came.late,
        round(came.seconds),
        *(
            at.astimezone(UTC).isoformat(timespec="seconds") if at else None
            for at in (best.started_at, best.finished_at)
        ),
        *(points.get(problem) for problem in problems),
    ]


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else None
