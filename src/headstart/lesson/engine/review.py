"""When to see a card or a short question again: FSRS as a function of (memory, rating, now).

The schedule is that of https://github.com/open-spaced-repetition/py-fsrs, whose `Card` is what it knows about
one learner's memory of one card or question; None stands for one that was never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headstart.errors import LessonError, MissingExtra
from headstart.lesson.engine.attempts import Challenge, Item
from headstart.lesson.engine.pack import Card, Problem

if TYPE_CHECKING:
    import fsrs

Asked = TypeVar("Asked", Card, Problem)

RATINGS = ("again", "hard", "good", "easy")
RETENTION = 0.9
"""A card comes back when the chance to know it has fallen to this."""


@dataclass(frozen=True)
class Reviewed:
    """One line of the review log."""

    at: datetime
    card: str
    rating: str

    def to_dict(self) -> dict[str, Any]:
        """The line as JSON-ready values."""
        return {"at": self.at.isoformat(), "card": self.card, "rating": self.rating}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reviewed:
        """The line that `to_dict` wrote."""
        return cls(datetime.fromisoformat(data["at"]), data["card"], data["rating"])


def review(memory: fsrs.Card | None, rating: str, now: datetime, *, card: str) -> tuple[fsrs.Card, Reviewed]:
    """The memory after a review, and the line for the log.

    Args:
        memory: the state before, which stays as it is.
        rating: "again", "hard", "good" or "easy".
        now: when; a time before the last review counts as that one's.
        card: what was reviewed, by its slug.

    Raises:
        LessonError: unknown rating.
        MissingExtra: the `fsrs` package is not installed.
    """
    if rating not in RATINGS:
        raise LessonError(f"{rating!r} is no rating: expected one of {', '.join(RATINGS)}")
    try:
        import fsrs
    except ImportError as error:
        raise MissingExtra("the review schedule", extra="learn") from error
    at = now.astimezone(UTC)
    # The number is given, because otherwise fsrs reads the clock and sleeps to make one up.
    before = memory or fsrs.Card(card_id=1, due=at)
    at = max(at, before.last_review or at)
    # Fuzz draws random numbers; without it a log always leads to the same schedule.
    scheduler = fsrs.Scheduler(desired_retention=RETENTION, enable_fuzzing=False)
    after, _ = scheduler.review_card(before, fsrs.Rating(1 + RATINGS.index(rating)), review_datetime=at)
    return after, Reviewed(at, card, rating)


def replay(lines: Iterable[Reviewed]) -> dict[str, fsrs.Card]:
    """Every card's memory, rebuilt from the log."""
    memories: dict[str, fsrs.Card] = {}
    for line in lines:
        memories[line.card], _ = review(memories.get(line.card), line.rating, line.at, card=line.card)
    return memories


def answered(rounds: Iterable[Challenge]) -> list[Reviewed]:
    """The review log that rounds of short questions amount to, oldest first.

    Right at once is good, right with the hint or at the second attempt hard, and anything else again.
    """
    lines = [
        Reviewed(item.closed_at, item.problem, _rating_of(item))
        for one in rounds
        for item in one.items
        if item.closed_at is not None
    ]
    return sorted(lines, key=lambda line: line.at)


def _rating_of(item: Item) -> str:
    if not item.correct:
        return "again"
    return "hard" if item.hint_taken or len(item.tried) > 1 else "good"


def due(cards: Iterable[Asked], memories: Mapping[str, fsrs.Card], now: datetime) -> list[Asked]:
    """What to see now: the longest overdue first, then what was never seen, in the order of the pack."""
    known = [card for card in cards if card.slug in memories]
    fresh = [card for card in cards if card.slug not in memories]
    waiting = [card for card in known if memories[card.slug].due <= now]
    return sorted(waiting, key=lambda card: memories[card.slug].due) + fresh
