"""The challenge as a function of (state, event, now).

    event --judge--> entry --advance--> state

`judge` rules on an event (is it late, is it right, what is it worth) and writes the ruling into a log entry;
`advance` only copies from the entry. So a state can be rebuilt from its log alone, by `replay`, even after a
lesson or a constant in this file has changed. Nothing here reads a clock, a file or a random number.

What an answer is, and whether it is right, `answers` says; here is one text.

The rules: each problem has its own time, which begins when it is opened. An answer that arrives until
`deadline + GRACE` is on time; a later one still counts and costs points. There are two attempts; the second
costs points, the hint is free. Nobody is stuck at zero, and the clock never decides about the badge.

A teacher may give more time, never less, open a closed problem again, end a challenge with the bell, and
reset it, after which it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from headstart.errors import InternalError, LessonError
from headstart.lesson.engine.answers import AnswerRefused, Layout, feedback, lay_out, partner, solved
from headstart.lesson.engine.pack import Pack, Problem

ATTEMPTS = 2
GRACE = timedelta(seconds=2)
"""What a slow connection may add to an answer given in time."""

LONGEST_TIMER = 10.0
"""The time may be stretched tenfold or switched off (WCAG 2.2, success criterion 2.2.1)."""

MOST_SECONDS = 7 * 24 * 3600.0
"""Of a problem with more time."""

POINTS = 100
RETRY_COST = 30
LATE_COST = 30


# Events: what happened ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A learner began a challenge; made by `begin`. `timer` stretches the time, None switches it off."""

    challenge: str
    learner: str
    pack: str
    fingerprint: str
    mode: str
    timer: float | None
    layouts: tuple[Layout, ...]


@dataclass(frozen=True)
class Opened:
    """The learner sees a problem; its time begins."""

    problem: str


@dataclass(frozen=True)
class Chose:
    """An answer was marked, not yet submitted. `option` is its text, see `answers`."""

    problem: str
    option: str


@dataclass(frozen=True)
class HintTaken:
    """The learner asked for the hint."""

    problem: str


@dataclass(frozen=True)
class Submitted:
    """An answer. A repeated `key` (a double click, a reload) is the same answer, not another attempt."""

    problem: str
    option: str
    key: str


@dataclass(frozen=True)
class Expired:
    """A problem's time is over; the problem stays open."""

    problem: str


@dataclass(frozen=True)
class Closed:
    """The learner gave a problem up."""

    problem: str


@dataclass(frozen=True)
class Extended:
    """The teacher gave more time: a problem has so many seconds from its opening now, None: no clock."""

    problem: str
    seconds: float | None


@dataclass(frozen=True)
class Reopened:
    """The teacher lets a closed problem be answered anew, with two attempts and its whole time."""

    problem: str


@dataclass(frozen=True)
class Ended:
    """The bell: whatever is not closed closes."""


@dataclass(frozen=True)
class Reset:
    """The teacher took the challenge back: it counts for nothing, and the learner may begin another one."""


OfProblem = Opened | Chose | HintTaken | Submitted | Expired | Closed | Extended | Reopened
Event = Started | OfProblem | Ended | Reset


@dataclass(frozen=True)
class Ruling:
    """The ruling on an answer. `option` is the answer by the options' keys in the pack."""

    option: str
    correct: bool
    late: bool
    closes: bool
    points: int


@dataclass(frozen=True)
class LogEntry:
    """One line of the log: what happened, when, and what was ruled."""

    at: datetime
    event: Event
    deadline: datetime | None = None
    ruling: Ruling | None = None


# State ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One problem of a challenge."""

    layout: Layout
    opened_at: datetime | None = None
    deadline: datetime | None = None
    chosen: str | None = None
    tried: tuple[str, ...] = ()
    hint_taken: bool = False
    late: bool = False
    expired: bool = False
    closed_at: datetime | None = None
    correct: bool = False
    points: int = 0
    extended: bool = False
    reopened: int = 0

    @property
    def problem(self) -> str:
        """The problem's slug."""
        return self.layout.problem

    def is_late(self, now: datetime) -> bool:
        """The one rule about lateness."""
        return self.deadline is not None and now > self.deadline + GRACE

    def status(self, now: datetime) -> str:
        """`unopened`, `open`, `overtime` (time is up, answers still count) or `closed`."""
        if self.closed_at is not None:
            return "closed"
        if self.opened_at is None:
            return "unopened"
        return "overtime" if self.expired or self.is_late(now) else "open"

    def worth(self, now: datetime) -> int:
        """What a correct answer would earn now. Never negative."""
        cost = RETRY_COST * bool(self.tried) + LATE_COST * self.is_late(now)
        return max(0, POINTS - cost)


@dataclass(frozen=True)
class Challenge:
    """One learner's run through a mode's problems."""

    id: str
    learner: str
    pack: str
    fingerprint: str
    mode: str
    timer: float | None
    started_at: datetime
    latest: datetime
    items: tuple[Item, ...]
    answered: frozenset[str] = frozenset()
    reopened_at: datetime | None = None
    reset_at: datetime | None = None

    def item(self, problem: str) -> Item:
        """One item. Raises AnswerRefused for a problem the challenge does not have."""
        for item in self.items:
            if item.problem == problem:
                return item
        raise AnswerRefused("unknown-problem", f"this challenge has no problem {problem!r}")

    @property
    def points(self) -> int:
        """The sum over closed items."""
        return sum(item.points for item in self.items)

    @property
    def correct(self) -> int:
        """How many items were answered correctly."""
        return sum(item.correct for item in self.items)

    @property
    def finished_at(self) -> datetime | None:
        """When the last item closed, or None while one is open."""
        times = [item.closed_at for item in self.items if item.closed_at is not None]
        return max(times) if len(times) == len(self.items) else None

    @property
    def earns_badge(self) -> bool:
        """All problems of the mode `challenge` correct."""
        done = self.finished_at is not None and self.reset_at is None
        return self.mode == "challenge" and self.correct == len(self.items) and done


# The machine ----------------------------------------------------------------------------------------------


def begin(
    pack: Pack,
    *,
    challenge: str,
    learner: str,
    seed: str,
    mode: str = "challenge",
    timer: float | None = 1.0,
    only: Collection[str] | None = None,
    earlier: Iterable[Challenge] = (),
) -> Started:
    """The event that starts a challenge.

    Args:
        pack: the lesson.
        challenge: a new id (a UUID).
        learner: whose it is.
        seed: secret and new for each challenge; it shuffles the options and makes their ids opaque.
        mode: whose problems are asked.
        timer: factor on each problem's time, 1 to 10, or None for no clock.
        only: the problems to ask, by their slugs; None asks all of the mode.
        earlier: the learner's challenges before: the variants seen least often are drawn.

    Raises LessonError for a timer outside its range or a mode without problems.
    """
    if timer is not None and not 1.0 <= timer <= LONGEST_TIMER:
        raise LessonError(f"timer {timer:g}: expected a factor from 1 to {LONGEST_TIMER:g}, or off")
    asked = [problem for problem in pack.problems(mode) if only is None or problem.slug in only]
    seen: dict[str, list[str]] = {problem.slug: [] for problem in asked}
    for item in (
        item for each in earlier if (each.pack, each.mode) == (pack.slug, mode) for item in each.items
    ):
        if item.opened_at is not None and item.problem in seen:
            seen[item.problem].append(item.layout.variant or pack.problem(mode, item.problem).variant)
    layouts = tuple(
        lay_out(
            problem,
            challenge=challenge,
            seed=seed,
            seconds=None if timer is None else problem.seconds * timer,
            seen=seen[problem.slug],
        )
        for problem in asked
    )
    return Started(challenge, learner, pack.slug, pack.fingerprint, mode, timer, layouts)


def spoken(times: Iterable[float | None]) -> str:
    """Problems' seconds as people say them: `2 minutes`, `90 seconds to 3 minutes`, `no clock`."""
    seconds = sorted({one for one in times if one is not None})
    if not seconds:
        return "no clock"
    low, high = _duration(seconds[0]), _duration(seconds[-1])
    return low if low == high else f"{low} to {high}"


def letter(place: int) -> str:
    """The letter of an option at a place of the shown order, from 1: `A`."""
    return chr(ord("A") + place - 1)


def _duration(seconds: float) -> str:
    """Whole minutes, and halves from two on, as minutes; what lies between as seconds."""
    minutes = seconds / 60
    if minutes.is_integer() or (minutes > 2 and (2 * minutes).is_integer()):
        return f"{minutes:g} minute" if minutes == 1 else f"{minutes:g} minutes"
    return f"{seconds:g} seconds"


def problem_of(item: Item, pack: Pack, mode: str) -> Problem:
    """What an item asks: the variant of its problem that was drawn. Raises LessonError for an unknown one."""
    return pack.problem(mode, item.problem).asked_as(item.layout.variant)


def step(state: Challenge | None, event: Event, now: datetime) -> tuple[Challenge, LogEntry | None]:
    """Rules on an event and returns the new state with its log entry.

    The entry is None where the event changes nothing, because it already happened.
    Raises AnswerRefused where it is not possible.
    """
    entry = judge(state, event, now)
    if entry is None:
        if state is None:
            raise InternalError("an event was ignored before the challenge began")
        return state, None
    return advance(state, entry), entry


def replay(entries: Iterable[LogEntry], state: Challenge | None = None) -> Challenge:
    """The state that a log leads to, or its rest from the state that its beginning led to.

    Raises LessonError for a log that does not begin with a start.
    """
    for entry in entries:
        state = advance(state, entry)
    if state is None:
        raise LessonError("no such challenge: its log is empty")
    return state


def judge(state: Challenge | None, event: Event, now: datetime) -> LogEntry | None:
    """The ruling on an event, or None where it changes nothing. Raises AnswerRefused."""
    if now.tzinfo is None:
        raise InternalError("now needs a time zone")
    if isinstance(event, Started):
        if state is not None:
            raise AnswerRefused("already-started", "this challenge has begun already")
        return LogEntry(now, event)
    if state is None:
        raise AnswerRefused("not-started", "this challenge has not begun")
    # A clock that is set back must not give time back, and the log stays in order.
    at = max(now, state.latest)
    if isinstance(event, Submitted) and event.key in state.answered:
        return None
    if isinstance(event, Reset):
        return None if state.reset_at else LogEntry(at, event)
    if state.reset_at is not None:
        raise AnswerRefused("reset", "the teacher has reset this challenge; begin another one")
    if isinstance(event, Ended):
        return None if state.finished_at else LogEntry(at, event)
    item = state.item(event.problem)
    if isinstance(event, Opened):
        return _judge_opening(item, event, at)
    if isinstance(event, Reopened):
        return None if item.closed_at is None else LogEntry(at, event)
    if isinstance(event, Closed) and item.closed_at is not None:
        return None
    if item.closed_at is not None:
        raise AnswerRefused("closed", f"problem {item.problem!r} is closed")
    if isinstance(event, Extended):
        return _judge_extension(item, event, at)
    if item.opened_at is None:
        raise AnswerRefused("not-open", f"problem {item.problem!r} has not been opened")
    return _judge_open(item, event, at)


def _judge_opening(item: Item, event: Opened, at: datetime) -> LogEntry | None:
    if item.opened_at is not None:
        return None
    if item.closed_at is not None:  # by the bell
        raise AnswerRefused("closed", f"problem {item.problem!r} is closed")
    seconds = item.layout.seconds
    return LogEntry(at, event, deadline=None if seconds is None else at + timedelta(seconds=seconds))


def _judge_extension(item: Item, event: Extended, at: datetime) -> LogEntry | None:
    """More time, or nothing: what is less than a problem has changes nothing."""
    before, after = item.layout.seconds, event.seconds
    if before is None or (after is not None and not before < after <= MOST_SECONDS):
        return None
    if item.opened_at is None or after is None:
        return LogEntry(at, event)
    return LogEntry(at, event, deadline=item.opened_at + timedelta(seconds=after))


def _judge_open(item: Item, event: OfProblem, at: datetime) -> LogEntry | None:
    match event:
        case Chose(option=option):
            marked = replace(event, option=item.layout.canonical(option, whole=False))
            return None if marked.option == (item.chosen or "") else LogEntry(at, marked)
        case HintTaken():
            return None if item.hint_taken else LogEntry(at, event)
        case Expired():
            if not item.is_late(at):
                raise AnswerRefused("not-expired", f"the time for problem {item.problem!r} is not over")
            return None if item.expired else LogEntry(at, event)
        case Submitted(option=option):
            given = replace(event, option=item.layout.canonical(option, whole=True))
            return LogEntry(at, given, ruling=_ruling(item, given, at))
        case _:
            return LogEntry(at, event)


def _ruling(item: Item, event: Submitted, at: datetime) -> Ruling:
    if not event.key:
        raise AnswerRefused("no-key", "an answer needs an idempotency key")
    if event.option in item.tried:
        raise AnswerRefused("tried", "this answer was tried already; choose another one")
    correct = item.layout.is_right(event.option)
    closes = correct or len(item.tried) + 1 >= ATTEMPTS
    points = item.worth(at) if correct else 0
    return Ruling(item.layout.in_keys(event.option), correct, item.is_late(at), closes, points)


def advance(state: Challenge | None, entry: LogEntry) -> Challenge:
    """The state after a log entry. Rules on nothing, so that old logs keep their meaning."""
    event = entry.event
    if isinstance(event, Started):
        items = tuple(Item(layout) for layout in event.layouts)
        return Challenge(
            id=event.challenge,
            learner=event.learner,
            pack=event.pack,
            fingerprint=event.fingerprint,
            mode=event.mode,
            timer=event.timer,
            started_at=entry.at,
            latest=entry.at,
            items=items,
        )
    if state is None:
        raise LessonError("a challenge's log must begin with its start")
    if isinstance(event, Reset):
        return replace(state, latest=entry.at, reset_at=entry.at)
    if isinstance(event, Ended):
        closed = (item if item.closed_at else replace(item, closed_at=entry.at) for item in state.items)
        return replace(state, latest=entry.at, items=tuple(closed))
    changed = _changed(state.item(event.problem), entry)
    items = tuple(changed if item.problem == event.problem else item for item in state.items)
    keys = {event.key} if isinstance(event, Submitted) else set()
    reopened = entry.at if isinstance(event, Reopened) else state.reopened_at
    return replace(state, items=items, latest=entry.at, answered=state.answered | keys, reopened_at=reopened)


def _changed(item: Item, entry: LogEntry) -> Item:
    match entry.event:
        case Opened():
            return replace(item, opened_at=entry.at, deadline=entry.deadline)
        case Chose(option=option):
            return replace(item, chosen=option)
        case HintTaken():
            return replace(item, hint_taken=True)
        case Expired():
            return replace(item, expired=True)
        case Closed():
            return replace(item, closed_at=entry.at)
        case Extended(seconds=seconds):
            layout = replace(item.layout, seconds=seconds)
            return replace(item, layout=layout, deadline=entry.deadline, expired=False, extended=True)
        case Reopened():
            return Item(item.layout, extended=item.extended, reopened=item.reopened + 1)
        case Submitted(option=option) if entry.ruling is not None:
            return replace(
                item,
                chosen=option,
                tried=(*item.tried, option),
                late=entry.ruling.late,
                correct=entry.ruling.correct,
                points=entry.ruling.points,
                closed_at=entry.at if entry.ruling.closes else None,
            )
    raise LessonError(f"a log entry of {item.problem!r} lacks its ruling")


def overdue(state: Challenge, now: datetime) -> tuple[Expired, ...]:
    """The events that time itself brings: problems whose time is over and whose log does not say so yet."""
    return tuple(
        Expired(item.problem)
        for item in (() if state.reset_at else state.items)
        if item.closed_at is None and not item.expired and item.is_late(max(now, state.latest))
    )


def rings(state: Challenge, until: datetime | None, now: datetime) -> tuple[Ended, ...]:
    """The event that the bell brings: what was open at its time ends, unless it was opened again since.

    Args:
        state: the challenge.
        until: when the bell rings, or None.
        now: the time.
    """
    over = until is not None and now > until + GRACE and not (state.reopened_at and state.reopened_at > until)
    return (Ended(),) if over and state.finished_at is None and state.reset_at is None else ()


# What a page may see --------------------------------------------------------------------------------------


def public_view(state: Challenge, pack: Pack, now: datetime, *, reviews: bool = True) -> dict[str, Any]:
    """What a page may show now, as JSON-ready values.

    Until an item closes there is nothing in it about which option is right, no feedback but on what was
    tried, no explanation, no hint, no option key; and until it is opened no question either, since its time
    has not begun. Without `reviews` a closed one says no more than whether the answer was right.
    """
    now = max(now, state.latest)
    items = [_item_view(state, item, pack, now, reviews=reviews) for item in state.items]
    return {
        "challenge": state.id,
        "lesson": pack.slug,
        "title": pack.title,
        "mode": state.mode,
        "timer": state.timer,
        "now": now.isoformat(),
        "items": items,
        "points": state.points,
        "possible": POINTS * len(state.items),
        "correct": state.correct,
        "finished": state.finished_at is not None,
        "earns_badge": state.earns_badge,
    }


def _item_view(state: Challenge, item: Item, pack: Pack, now: datetime, *, reviews: bool) -> dict[str, Any]:
    problem, layout = problem_of(item, pack, state.mode), item.layout
    status = item.status(now)
    view: dict[str, Any] = {
        "problem": item.problem,
        "title": problem.title,
        "kind": problem.kind,
        "level": problem.level,
        "seconds": layout.seconds,
        "status": status,
    }
    if status == "unopened":
        return view
    view |= {
        "form": layout.form,
        "prompt": problem.prompt,
        "code": [asdict(face) for face in problem.code],
        "options": [
            {"id": identity, "text": problem.option(key).text}
            for identity, key in layout.options
            if layout.form != "number"  # its options are what is asked for
        ],
        "partners": [
            {"id": identity, "text": partner(problem, layout, key)} for identity, key in layout.partners
        ],
        "chosen": item.chosen,
        "tried": list(item.tried),
        "deadline": item.deadline.isoformat() if item.deadline else None,
        "seconds_left": max(0.0, (item.deadline - now).total_seconds()) if item.deadline else None,
        "hint_taken": item.hint_taken,
        "feedback": {answer: feedback(problem, layout, answer) for answer in item.tried},
    }
    if status != "closed":
        return view | {"attempts_left": ATTEMPTS - len(item.tried), "worth": item.worth(now)}
    view |= {"correct": item.correct, "late": item.late, "points": item.points, "held": not reviews}
    if not reviews:
        return view | {"feedback": {}}
    said = {identity: problem.option(key).feedback for identity, key in layout.options}
    return view | {
        "answer": layout.answer,
        "options": solved(problem, layout, item.tried),
        "feedback": view["feedback"] | said,
        "explanation": problem.explanation,
        "hint": problem.hint,
        "experiment": problem.experiment,
    }


def hint(state: Challenge, pack: Pack, problem: str) -> str:
    """The hint, once asked for or once the problem has closed. Raises AnswerRefused before."""
    item = state.item(problem)
    if not item.hint_taken and item.closed_at is None:
        raise AnswerRefused("hint-not-taken", f"the hint for problem {problem!r} has not been asked for")
    return problem_of(item, pack, state.mode).hint
