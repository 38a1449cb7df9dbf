"""The challenge's rules against a model of them, over made-up sequences of events.

    python benchmarks/rules.py [--sequences 1000000] [--processes 2] [--first 0]

Every sequence is a challenge: learners open, mark, take hints, answer right, wrong, late, twice and with
options of other problems, give up; clocks jump both ways; a teacher gives more time, opens problems again,
rings the bell and resets. After each event the engine's state is compared with a ledger that is kept here in
another way: what is refused, whose time is over when, how many points there are. In the end the log is
replayed. The tests play some thousand of them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from headstart.lesson.engine import attempts, logbook
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import (
    Challenge,
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
    Submitted,
)
from lesson_packs import secret_pack

START = datetime(2030, 1, 1, tzinfo=UTC)
PROBLEMS = 3
JUMPS = (0.0, 0.5, 1.0, 10.0, 59.0, 61.0, 119.0, 120.0, 122.0, 122.5, 500.0, -40.0)
"""Seconds between two events; a problem has 120, and 2 of grace."""

LONGEST = 40
"""Events of a sequence."""


@dataclass
class Page:
    """What the ledger says of one problem."""

    slug: str
    right: str
    options: list[str]
    seconds: float | None
    opened: datetime | None = None
    tries: list[str] = field(default_factory=list)
    closed: bool = False
    correct: bool = False
    hint: bool = False
    marked: str = ""
    points: int = 0

    def ends(self) -> datetime | None:
        """When its time is over."""
        if self.opened is None or self.seconds is None:
            return None
        return self.opened + timedelta(seconds=self.seconds)

    def is_late(self, at: datetime) -> bool:
        """Whether an answer comes too late."""
        ends = self.ends()
        return ends is not None and at > ends + timedelta(seconds=2)


@dataclass
class Ledger:
    """The rules once more, as plain as can be."""

    pages: dict[str, Page]
    used: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    reset: bool = False

    def enter(self, event: Event, at: datetime) -> str:
        """`taken`, `nothing`, or the reason of a refusal."""
        if isinstance(event, Submitted) and event.key in self.used:
            return "nothing"
        if isinstance(event, Reset):
            was, self.reset = self.reset, True
            return "nothing" if was else "taken"
        if self.reset:
            return "reset"
        if isinstance(event, Ended):
            left = [page for page in self.pages.values() if not page.closed]
            for page in left:
                page.closed = True
            return "taken" if left else "nothing"
        page = self.pages.get(event.problem)  # type: ignore[union-attr]
        return "unknown-problem" if page is None else self._on(page, event, at)

    def _on(self, page: Page, event: Event, at: datetime) -> str:
        match event:
            case Opened():
                if page.opened is not None or page.closed:  # by the bell, unopened
                    return "nothing" if page.opened is not None else "closed"
                page.opened = at
                return "taken"
            case Reopened():
                if not page.closed:
                    return "nothing"
                self.pages[page.slug] = Page(page.slug, page.right, page.options, page.seconds)
                self.over.discard(page.slug)
                return "taken"
            case Closed() if page.closed:
                return "nothing"
        if page.closed:
            return "closed"
        if isinstance(event, Extended):
            if page.seconds is None or (event.seconds is not None and event.seconds <= page.seconds):
                return "nothing"
            page.seconds = event.seconds
            self.over.discard(page.slug)
            return "taken"
        return "not-open" if page.opened is None else self._on_open(page, event, at)

    def _on_open(self, page: Page, event: Event, at: datetime) -> str:
        match event:
            case Chose(option=option):
                if option not in page.options:
                    return "unknown-option"
                was, page.marked = page.marked, option
                return "nothing" if was == option else "taken"
            case HintTaken():
                was, page.hint = page.hint, True
                return "nothing" if was else "taken"
            case Expired():
                if not page.is_late(at):
                    return "not-expired"
                known = page.slug in self.over
                self.over.add(page.slug)
                return "nothing" if known else "taken"
            case Submitted(option=option, key=key):
                if option not in page.options:
                    return "unknown-option"
                if option in page.tries:
                    return "tried"
                self.used.add(key)
                page.tries.append(option)
                page.marked = option
                page.correct = option == page.right
                page.closed = page.correct or len(page.tries) == 2
                if page.correct:
                    page.points = 100 - 30 * (len(page.tries) - 1) - 30 * page.is_late(at)
                return "taken"
        page.closed = True
        return "taken"


@cache
def _begun(place: int) -> tuple[Challenge, LogEntry]:
    """A challenge that has begun: some orders of options, with a clock and without."""
    timer = (1.0, 1.0, 2.0, None)[place % 4]
    event = attempts.begin(
        secret_pack(problems=PROBLEMS), challenge="c", learner="l", seed=str(place), timer=timer
    )
    state, entry = attempts.step(None, event, START)
    assert entry is not None
    return state, entry


def play(seed: int) -> int:
    """One sequence; the number of its events. Raises AssertionError where engine and ledger disagree."""
    dice = random.Random(seed)
    state, first = _begun(dice.randrange(40))
    entries, now = [first], START
    ledger = Ledger(
        {
            item.problem: Page(
                item.problem, item.layout.answer, [one for one, _ in item.layout.options], item.layout.seconds
            )
            for item in state.items
        }
    )
    count = dice.randint(1, LONGEST)
    for _ in range(count):
        now += timedelta(seconds=dice.choice(JUMPS))
        event = _draw(dice, ledger)
        at, before = max(now, state.latest), state
        expected = ledger.enter(event, at)
        try:
            state, entry = attempts.step(state, event, now)
            found = "nothing" if entry is None else "taken"
        except AnswerRefused as refused:
            found, entry = refused.reason, None
        assert found == expected, (seed, event, found, expected)
        if entry is None:
            assert state is before, (seed, event, "changed")
        else:
            assert entry.at >= entries[-1].at, (seed, event, "an entry before the one before")
            entries.append(entry)
        _compare(seed, state, ledger, at)
    assert attempts.replay(entries) == state, (seed, "the log leads elsewhere")
    if seed % 20 == 0:
        stored = [logbook.from_dict(json.loads(json.dumps(logbook.to_dict(entry)))) for entry in entries]
        assert stored == entries, (seed, "the log cannot be kept")
    return count


def _compare(seed: int, state: Challenge, ledger: Ledger, at: datetime) -> None:
    right = 0
    for item in state.items:
        page = ledger.pages[item.problem]
        found = (item.opened_at, item.deadline, list(item.tried), item.closed_at is not None, item.correct)
        wanted = (page.opened, page.ends(), page.tries, page.closed, page.correct)
        assert found == wanted, (seed, item.problem, found, wanted)
        assert (item.points, item.hint_taken) == (page.points, page.hint), (seed, item.problem, "points")
        assert item.expired == (item.problem in ledger.over), (seed, item.problem, "expired")
        right += page.correct
    assert state.points == sum(page.points for page in ledger.pages.values())
    assert state.earns_badge == (right == PROBLEMS and not ledger.reset), (seed, "badge")
    finished = all(page.closed for page in ledger.pages.values())
    assert (state.finished_at is not None) == finished, (seed, "finished")
    late = {
        page.slug
        for page in ledger.pages.values()
        if not page.closed and page.slug not in ledger.over and page.is_late(at) and not ledger.reset
    }
    assert {one.problem for one in attempts.overdue(state, at)} == late, (seed, "overdue")


def _draw(dice: random.Random, ledger: Ledger) -> Event:
    slug = dice.choice(list(ledger.pages)) if dice.random() < 0.98 else "elsewhere"
    page = ledger.pages.get(slug) or next(iter(ledger.pages.values()))
    option = page.right if dice.random() < 0.35 else dice.choice(page.options)
    if dice.random() < 0.03:
        option = next(iter(ledger.pages.values())).options[0]  # of another problem, mostly
    seconds = dice.choice((60.0, 120.0, 180.0, 240.0, 300.0, None))
    kind = dice.random()
    if kind < 0.22:
        return Opened(slug)
    if kind < 0.62:
        return Submitted(slug, option, str(dice.randrange(30)))
    if kind < 0.70:
        return Chose(slug, option)
    if kind < 0.75:
        return HintTaken(slug)
    if kind < 0.82:
        return Expired(slug)
    if kind < 0.85:
        return Closed(slug)
    if kind < 0.92:
        return Extended(slug, seconds)
    if kind < 0.97:
        return Reopened(slug)
    return Ended() if kind < 0.992 else Reset()


def play_many(first: int, count: int) -> int:
    """Some sequences; the number of their events."""
    return sum(play(seed) for seed in range(first, first + count))


def main() -> None:
    """Plays, and prints how many."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    started, piece = time.perf_counter(), 5_000
    starts = range(options.first, options.first + options.sequences, piece)
    counts = [min(piece, options.first + options.sequences - start) for start in starts]
    with ProcessPoolExecutor(options.processes) as pool:
        events = sum(pool.map(play_many, starts, counts))
    seconds = time.perf_counter() - started
    print(f"{options.sequences:,} sequences of {events:,} events, none breaks a rule, {seconds:.0f} s")


if __name__ == "__main__":
    main()
