"""Who of a class is where now, and what they answered: what a teacher sees, from members and the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from headstart.lesson.engine.attempts import Challenge, Item
from headstart.lesson.engine.classes import Member


@dataclass(frozen=True)
class Seat:
    """One member and where they are.

    Attributes:
        member: who.
        state: their latest challenge, or None.
        taken: how many they have begun.
        number: of the problem that they have open, from 1; 0 where none is.
        left: seconds for it; None without a clock.
        seen: when they last did anything, or None.
        doing: the log of that: `reading`, `task`, `challenge`, …
    """

    member: Member
    state: Challenge | None
    taken: int
    number: int
    left: float | None
    seen: datetime | None
    doing: str = ""

    @property
    def place(self) -> str:
        """Where they are, in words."""
        if self.member.joined is None:
            return "not here yet"
        if self.number:
            return f"problem {self.number}"
        if self.state is not None and self.doing in ("", "challenge"):
            return "finished" if self.state.finished_at else "between two problems"
        doing = {"reading": "reading", "review": "cards", "task": "a task", "guess": "an experiment"}
        return doing.get(self.doing, "not begun")


def seats(
    members: Sequence[Member],
    states: Iterable[Challenge],
    seen: Mapping[str, tuple[str, datetime]],
    *,
    now: datetime,
) -> list[Seat]:
    """A class as it is now.

    Args:
        members: of the class.
        states: their challenges, oldest first.
        seen: the log that each last wrote to, and when.
        now: the time.
    """
    own: dict[str, list[Challenge]] = {}
    for state in (each for each in states if each.reset_at is None):
        own.setdefault(state.learner, []).append(state)
    found = []
    for member in members:
        taken = own.get(member.learner, [])
        log, at = seen.get(member.learner, ("", member.joined))
        latest_one = taken[-1] if taken else None
        number, item = open_item(latest_one) if latest_one else (0, None)
        left = max(0.0, (item.deadline - now).total_seconds()) if item is not None and item.deadline else None
        found.append(
            Seat(
                member,
                latest_one,
                len(taken),
                number,
                left,
                at,
                log.partition(":")[0],
            )
        )
    return found


def open_item(state: Challenge) -> tuple[int, Item | None]:
    """The problem that was opened last and is open, with its number from 1; (0, None) where none is."""
    opened = [
        (item.opened_at, number, item)
        for number, item in enumerate(state.items, 1)
        if item.opened_at is not None and item.closed_at is None
    ]
    if not opened:
        return 0, None
    _, number, item = max(opened, key=lambda one: one[:2])
    return number, item


@dataclass(frozen=True)
class Given:
    """What a class has answered to one variant of a problem.

    Attributes:
        variant: which; empty where the problem has one.
        first: how often each answer, by the pack's keys, was the first one.
        open: how many have it open and have not answered.
        closed: how many are done with it.
    """

    variant: str
    first: Mapping[str, int]
    open: int
    closed: int


def given(states: Iterable[Challenge], problem: str) -> list[Given]:
    """The first answers to a problem, each variant's apart, those asked most often first; resets left out."""
    items: dict[str, list[Item]] = {}
    for state in (each for each in states if each.reset_at is None):
        for item in state.items:
            if item.problem == problem and item.opened_at is not None:
                items.setdefault(item.layout.variant, []).append(item)
    found = [
        Given(
            variant,
            Counter(item.layout.in_keys(item.tried[0]) for item in asked if item.tried),
            sum(not item.tried and item.closed_at is None for item in asked),
            sum(item.closed_at is not None for item in asked),
        )
        for variant, asked in items.items()
    ]
    return sorted(found, key=lambda one: (-sum(one.first.values()) - one.open, one.variant))
