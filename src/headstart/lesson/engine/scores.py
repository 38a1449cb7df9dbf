"""Scores, streaks and item statistics, derived from the log and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import StatisticsError, correlation, fmean, median

from headstart.lesson.engine.attempts import POINTS, Challenge, Item


@dataclass(frozen=True)
class ChallengeScore:
    """How a challenge went. `seconds` is the time from opening each problem to closing it, added up."""

    points: int
    possible: int
    correct: int
    problems: int
    hints: int
    retries: int
    late: int
    seconds: float


@dataclass(frozen=True)
class Streak:
    """Days in a row, in the learner's own calendar: up to today, and at best."""

    current: int
    longest: int


@dataclass(frozen=True)
class ItemStatistics:
    """What many learners' answers say about one problem, or one variant of it.

    Attributes:
        problem: its slug.
        taken: how many closed it with at least one answer.
        facility: share of them whose first answer was right; None where nobody answered.
        discrimination: correlation of being right with the score on the other problems (the corrected
            item-rest correlation), over finished challenges. Near 0 or below: the problem does not tell those
            who know from those who do not. None where undefined (fewer than two learners, or no variation).
        median_seconds: from opening to closing.
        hint_share: share that took the hint.
        first_answers: how often each option, by its key, was the first answer.
        variant: which of the problem's; empty where it has one.
    """

    problem: str
    taken: int
    facility: float | None
    discrimination: float | None
    median_seconds: float | None
    hint_share: float | None
    first_answers: Mapping[str, int] = field(default_factory=dict)
    variant: str = ""


def score(challenge: Challenge) -> ChallengeScore:
    """The score of one challenge; problems still open count nothing."""
    items = challenge.items
    return ChallengeScore(
        points=challenge.points,
        possible=POINTS * len(items),
        correct=challenge.correct,
        problems=len(items),
        hints=sum(item.hint_taken for item in items),
        retries=sum(len(item.tried) > 1 for item in items),
        late=sum(item.late for item in items),
        seconds=sum(_seconds(item) or 0.0 for item in items),
    )


def streak(days: Iterable[date], today: date) -> Streak:
    """The learner's streak.

    Args:
        days: the days on which something was learned, in the learner's time zone, in any order.
        today: today there. A streak that reached yesterday is not broken yet.
    """
    learned = sorted(set(days))
    longest = run = 0
    previous: date | None = None
    for day in learned:
        run = run + 1 if previous is not None and day - previous == timedelta(days=1) else 1
        longest, previous = max(longest, run), day
    alive = previous is not None and timedelta(0) <= today - previous <= timedelta(days=1)
    return Streak(run if alive else 0, longest)


def item_statistics(challenges: Sequence[Challenge]) -> list[ItemStatistics]:
    """Statistics of every problem in the given challenges, in the order of first appearance.

    Give the challenges of one lesson and mode. A learner's later challenges are left out: someone who has
    seen the explanation says nothing about the problem; so are those that a teacher has reset.
    """
    firsts: dict[tuple[str, str], Challenge] = {}
    counted = (one for one in challenges if one.reset_at is None)
    for challenge in sorted(counted, key=lambda one: one.started_at):
        firsts.setdefault((challenge.learner, challenge.mode), challenge)
    asked = dict.fromkeys(_asked(item) for challenge in firsts.values() for item in challenge.items)
    order = list(dict.fromkeys(slug for slug, _ in asked))
    by_problem = sorted(asked, key=lambda each: order.index(each[0]))
    return [_statistics(each, list(firsts.values())) for each in by_problem]


def _asked(item: Item) -> tuple[str, str]:
    return item.problem, item.layout.variant


def _statistics(asked: tuple[str, str], challenges: list[Challenge]) -> ItemStatistics:
    items = [item for challenge in challenges for item in challenge.items if _asked(item) == asked]
    taken = [item for item in items if item.closed_at is not None and item.tried]
    times = [seconds for item in taken if (seconds := _seconds(item)) is not None]
    keys = (item.layout.in_keys(item.tried[0]) for item in taken)
    return ItemStatistics(
        problem=asked[0],
        taken=len(taken),
        facility=fmean(_first_right(item) for item in taken) if taken else None,
        discrimination=_discrimination(asked, challenges),
        median_seconds=median(times) if times else None,
        hint_share=fmean(item.hint_taken for item in taken) if taken else None,
        first_answers=dict(Counter(keys)),
        variant=asked[1],
    )


def _discrimination(asked: tuple[str, str], challenges: list[Challenge]) -> float | None:
    pairs = []
    for challenge in challenges:
        if challenge.finished_at is None:
            continue
        right = {_asked(item): _first_right(item) for item in challenge.items}
        if asked in right:
            pairs.append((float(right[asked]), float(sum(right.values()) - right[asked])))
    try:
        return correlation(*zip(*pairs, strict=True)) if pairs else None
    except StatisticsError:  # fewer than two, or one side does not vary
        return None


def _first_right(item: Item) -> bool:
    return bool(item.tried) and item.layout.is_right(item.tried[0])


def _seconds(item: Item) -> float | None:
    if item.opened_at is None or item.closed_at is None:
        return None
    return (item.closed_at - item.opened_at).total_seconds()
