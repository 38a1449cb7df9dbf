"""When to see a card or a short question again: FSRS as a function of (state, rating, now).

The schedule is that of https://github.com/open-spaced-repetition/py-fsrs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headstart.errors import LessonError, MissingExtra
from headstart.lesson.engine.attempts import Challenge, Item
from headstart.lesson.engine.pack import Card, Problem

if TYPE_CHECKING:
    import fsrs

Asked = TypeVar("Asked", Card, Problem)

RATINGS = {"again": 1, "hard": 2, "good": 3, "easy": 4}
RETENTION = 0.9
"""A card comes back when the chance to know it has fallen to this."""


@dataclass(frozen=True)
class Memory:
    """What the schedule knows about one learner's memory of one card or question.

    `stability` is in days, `difficulty` from 1 to 10; both are None before the first review.
    """

    card: str
    due: datetime
    phase: int = 1
    step: int | None = 0
    stability: float | None = None
    difficulty: float | None = None
    last_review: datetime | None = None


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


def new(card: str, now: datetime) -> Memory:
    """A card never seen is due at once."""
    return Memory(card, due=now)


def review(memory: Memory, rating: str, now: datetime) -> tuple[Memory, Reviewed]:
    """The memory after a review, and the line for the log.

    Args:
        memory: the state before.
        rating: "again", "hard", "good" or "easy".
        now: when; a time before the last review counts as that one's.

    Raises:
        LessonError: unknown rating.
        MissingExtra: the `fsrs` package is not installed.
    """
    if rating not in RATINGS:
        raise LessonError(f"{rating!r} is no rating: expected one of {', '.join(RATINGS)}")
    at = max(now, memory.last_review or now).astimezone(UTC)
    card, _ = _scheduler().review_card(_card(memory), _rating(rating), review_datetime=at)
    after = replace(
        memory,
        due=card.due,
        phase=card.state.value,
        step=card.step,
        stability=card.stability,
        difficulty=card.difficulty,
        last_review=card.last_review,
    )
    return after, Reviewed(at, memory.card, rating)


def replay(lines: Iterable[Reviewed]) -> dict[str, Memory]:
    """Every card's memory, rebuilt from the log."""
    memories: dict[str, Memory] = {}
    for line in lines:
        memory = memories.get(line.card) or new(line.card, line.at)
        memories[line.card], _ = review(memory, line.rating, line.at)
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


def due(cards: Iterable[Asked], memories: Mapping[str, Memory], now: datetime) -> list[Asked]:
    """What to see now: the longest overdue first, then what was never seen, in the order of the pack."""
    known = [card for card in cards if card.slug in memories]
    fresh = [card for card in cards if card.slug not in memories]
    waiting = [card for card in known if memories[card.slug].due <= now]
    return sorted(waiting, key=lambda card: memories[card.slug].due) + fresh


def chance(memory: Memory, now: datetime) -> float:
    """The chance (0 to 1) that the card is known now; 0 for a card never reviewed."""
    return float(_scheduler().get_card_retrievability(_card(memory), current_datetime=now.astimezone(UTC)))


def _scheduler() -> fsrs.Scheduler:
    try:
        import fsrs
    except ImportError as error:
        raise MissingExtra("the review schedule", extra="learn") from error
    # Fuzz draws random numbers; without it a log always leads to the same schedule.
    return fsrs.Scheduler(desired_retention=RETENTION, enable_fuzzing=False)


def _rating(rating: str) -> fsrs.Rating:
    import fsrs

    return fsrs.Rating(RATINGS[rating])


def _card(memory: Memory) -> fsrs.Card:
    import fsrs

    return fsrs.Card(
        card_id=1,  # given, because otherwise fsrs reads the clock and sleeps to make one up
        state=fsrs.State(memory.phase),
        step=memory.step,
        stability=memory.stability,
        difficulty=memory.difficulty,
        due=memory.due.astimezone(UTC),
        last_review=memory.last_review.astimezone(UTC) if memory.last_review else None,
    )
