"""The challenge's rules: as examples, and as properties over every sequence of events."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headstart.errors import LessonError
from headstart.lesson.engine import attempts, logbook
from headstart.lesson.engine.attempts import (
    GRACE,
    LATE_COST,
    POINTS,
    RETRY_COST,
    AnswerRefused,
    Challenge,
    Chose,
    Closed,
    Expired,
    HintTaken,
    Opened,
    Submitted,
    public_view,
    step,
)
from lesson_packs import secret_pack

START = datetime(2030, 1, 1, tzinfo=UTC)
PACK = secret_pack()
FIRST = "problem-0"


def seconds(number: float) -> datetime:
    return START + timedelta(seconds=number)


def started(*, timer: float | None = 1.0, seed: str = "seed") -> Challenge:
    event = attempts.begin(PACK, challenge="c1", learner="ada", seed=seed, timer=timer)
    return step(None, event, START)[0]


def opened(**options: object) -> Challenge:
    return step(started(**options), Opened(FIRST), START)[0]  # type: ignore[arg-type]


def right(state: Challenge, problem: str = FIRST) -> str:
    return state.item(problem).layout.answer


def wrong(state: Challenge, problem: str = FIRST) -> list[str]:
    layout = state.item(problem).layout
    return [identity for identity, _ in layout.options if identity != layout.answer]


def refusal(state: Challenge | None, event: attempts.Event, now: datetime = START) -> str:
    with pytest.raises(AnswerRefused) as caught:
        step(state, event, now)
    return caught.value.reason


def test_a_right_answer_in_time_earns_full_points_and_closes() -> None:
    state = opened()
    state, entry = step(state, Submitted(FIRST, right(state), "k"), seconds(5))
    item = state.item(FIRST)
    assert (item.correct, item.points, item.closed_at) == (True, POINTS, seconds(5))
    assert entry is not None and entry.ruling is not None and entry.ruling.option == "secretkey-0-0"


@pytest.mark.parametrize(
    ("hinted", "retried", "late", "expected"),
    [
        (True, False, False, POINTS),
        (False, True, False, POINTS - RETRY_COST),
        (False, False, True, POINTS - LATE_COST),
        (True, True, True, POINTS - RETRY_COST - LATE_COST),
    ],
)
def test_second_attempt_and_lateness_cost_points_and_the_hint_is_free(
    hinted: bool, retried: bool, late: bool, expected: int
) -> None:
    state = opened()
    if hinted:
        state, _ = step(state, HintTaken(FIRST), START)
    if retried:
        state, _ = step(state, Submitted(FIRST, wrong(state)[0], "a"), START)
    now = seconds(500) if late else seconds(5)
    assert public_view(state, PACK, now)["items"][0]["worth"] == expected
    state, _ = step(state, Submitted(FIRST, right(state), "b"), now)
    assert state.points == expected > 0 and state.item(FIRST).correct


def test_the_second_wrong_answer_closes_and_no_third_is_possible() -> None:
    state = opened()
    first, second, _ = wrong(state)
    state, _ = step(state, Submitted(FIRST, first, "a"), START)
    assert state.item(FIRST).closed_at is None
    state, _ = step(state, Submitted(FIRST, second, "b"), START)
    assert state.item(FIRST).closed_at is not None and state.points == 0
    assert refusal(state, Submitted(FIRST, right(state), "c")) == "closed"
    assert refusal(state, Chose(FIRST, right(state))) == "closed"


def test_a_double_click_costs_no_attempt() -> None:
    state = opened()
    once, _ = step(state, Submitted(FIRST, wrong(state)[0], "same"), START)
    twice, entry = step(once, Submitted(FIRST, wrong(state)[0], "same"), seconds(1))
    assert twice == once and entry is None
    assert refusal(once, Submitted(FIRST, wrong(state)[0], "another key")) == "tried"


def test_the_deadline_is_fixed_at_opening_whatever_happens_later() -> None:
    state = opened()
    assert state.item(FIRST).deadline == seconds(120)
    state, entry = step(state, Opened(FIRST), seconds(60))
    assert entry is None and state.item(FIRST).deadline == seconds(120)


def test_lateness_has_one_rule_with_a_grace() -> None:
    state = opened()
    in_time, _ = step(state, Submitted(FIRST, right(state), "k"), seconds(120) + GRACE)
    late, _ = step(
        state, Submitted(FIRST, right(state), "k"), seconds(120) + GRACE + timedelta(microseconds=1)
    )
    assert (in_time.item(FIRST).late, late.item(FIRST).late) == (False, True)


def test_a_clock_set_back_gives_no_time_back() -> None:
    state, _ = step(opened(), Opened("problem-1"), seconds(300))
    state, _ = step(state, Submitted(FIRST, right(state), "k"), seconds(10))
    assert state.item(FIRST).late
    assert public_view(state, PACK, START)["now"] == seconds(300).isoformat()


def test_nobody_is_stuck_at_zero() -> None:
    state = opened()
    view = public_view(state, PACK, seconds(1000))["items"][0]
    assert (view["status"], view["seconds_left"], view["attempts_left"]) == ("overtime", 0.0, 2)
    assert attempts.overdue(state, seconds(1000)) == (Expired(FIRST),)
    state, _ = step(state, Expired(FIRST), seconds(1000))
    assert attempts.overdue(state, seconds(1000)) == ()
    assert refusal(state, Expired("problem-1")) == "not-open"
    closed, _ = step(state, Closed(FIRST), seconds(1001))
    assert closed.item(FIRST).status(seconds(1001)) == "closed"


def test_time_cannot_be_declared_over_early() -> None:
    assert refusal(opened(), Expired(FIRST), seconds(119)) == "not-expired"


def test_the_timer_can_be_off_or_tenfold_and_nothing_else() -> None:
    assert opened(timer=None).item(FIRST).deadline is None
    assert not opened(timer=None).item(FIRST).is_late(seconds(1e9))
    assert opened(timer=10.0).item(FIRST).deadline == seconds(1200)
    for timer in (0.5, 10.5, float("nan")):
        with pytest.raises(LessonError, match="timer"):
            started(timer=timer)


def test_what_is_not_open_takes_no_answer() -> None:
    state = started()
    assert refusal(None, Opened(FIRST)) == "not-started"
    assert refusal(state, Submitted(FIRST, right(state), "k")) == "not-open"
    assert refusal(state, HintTaken(FIRST)) == "not-open"
    assert refusal(state, Opened("elsewhere")) == "unknown-problem"
    assert refusal(opened(), Chose(FIRST, "elsewhere")) == "unknown-option"
    assert refusal(opened(), Submitted(FIRST, right(opened()), "")) == "no-key"


def test_options_are_shuffled_by_the_seed_and_their_ids_tell_nothing() -> None:
    layouts = {started(seed=f"seed {n}").item(FIRST).layout for n in range(200)}
    orders = {tuple(key for _, key in layout.options) for layout in layouts}
    assert len(orders) == 24, "200 shuffles of four options should show every order"
    places = [[i for i, _ in layout.options].index(layout.answer) for layout in layouts]
    assert all(25 <= places.count(place) <= 75 for place in range(4))
    assert started(seed="a") == started(seed="a")


def test_a_choice_survives_without_being_submitted() -> None:
    state = opened()
    state, _ = step(state, Chose(FIRST, wrong(state)[0]), seconds(1))
    state, _ = step(state, Chose(FIRST, right(state)), seconds(2))
    assert public_view(state, PACK, seconds(3))["items"][0]["chosen"] == right(state)


def test_a_hint_comes_only_when_asked_for_or_afterwards() -> None:
    state = opened()
    with pytest.raises(AnswerRefused, match="hint"):
        attempts.hint(state, PACK, FIRST)
    taken, _ = step(state, HintTaken(FIRST), START)
    assert attempts.hint(taken, PACK, FIRST) == "SECRETHINT 0"
    assert step(taken, HintTaken(FIRST), START)[1] is None
    closed, _ = step(state, Closed(FIRST), START)
    assert attempts.hint(closed, PACK, FIRST) == "SECRETHINT 0"


def test_a_closed_item_explains_every_option() -> None:
    state, _ = step(opened(), Closed(FIRST), START)
    item = public_view(state, PACK, START)["items"][0]
    assert item["answer"] == right(state) and item["explanation"] == "SECRETEXPLANATION 0"
    assert sorted(item["feedback"].values()) == [f"SECRETFEEDBACK 0/{i}" for i in range(4)]


@given(st.lists(st.sampled_from(["open", "choose", "hint", "wait"]), max_size=12))
@settings(deadline=None, max_examples=50)
def test_before_an_answer_the_view_does_not_depend_on_which_option_is_right(actions: list[str]) -> None:
    """Non-interference: move the key to another option, and the page cannot tell."""
    views = []
    for answer in (0, 3):
        pack = secret_pack(answer=answer)
        state, _ = step(None, attempts.begin(pack, challenge="c", learner="l", seed="s"), START)
        now = START
        for action in ["open", *actions]:
            now += timedelta(seconds=50 if action == "wait" else 1)
            option = state.items[0].layout.options[1][0]
            event: attempts.Event = {
                "choose": Chose(FIRST, option),
                "hint": HintTaken(FIRST),
                "open": Opened(FIRST),
                "wait": Opened(FIRST),
            }[action]
            state, _ = step(state, event, now)
        views.append(public_view(state, pack, now))
    assert views[0] == views[1]


class AnyLearner(RuleBasedStateMachine):
    """Sends every event at every moment, sensible or not."""

    @initialize(timer=st.sampled_from([None, 1.0, 10.0]), seed=st.text(max_size=5))
    def start(self, timer: float | None, seed: str) -> None:
        self.now = START
        self.entries: list[attempts.LogEntry] = []
        event = attempts.begin(PACK, challenge="c", learner="l", seed=seed, timer=timer)
        self.state, entry = step(None, event, START)
        assert entry is not None
        self.entries.append(entry)

    def send(self, event: attempts.Event) -> None:
        before = self.state
        was_closed = before.item(event.problem).closed_at is not None  # type: ignore[union-attr]
        try:
            self.state, entry = step(before, event, self.now)
        except AnswerRefused:
            assert self.state is before
            return
        if entry is None:
            assert self.state == before
        else:
            assert not was_closed, "an event was accepted after the item closed"
            self.entries.append(entry)

    problems = st.sampled_from([*(f"problem-{n}" for n in range(5)), FIRST, FIRST])
    places = st.integers(0, 3)

    @rule(problem=problems)
    def open(self, problem: str) -> None:
        self.send(Opened(problem))

    @rule(problem=problems, place=places)
    def choose(self, problem: str, place: int) -> None:
        self.send(Chose(problem, self.state.item(problem).layout.options[place][0]))

    @rule(problem=problems, place=places, key=st.sampled_from("abcdef"))
    def submit(self, problem: str, place: int, key: str) -> None:
        self.send(Submitted(problem, self.state.item(problem).layout.options[place][0], key))

    @rule(problem=problems)
    def submit_right(self, problem: str) -> None:
        self.send(Opened(problem))
        self.send(Submitted(problem, right(self.state, problem), f"right-{problem}"))

    @rule(problem=problems)
    def take_hint(self, problem: str) -> None:
        self.send(HintTaken(problem))

    @rule(problem=problems)
    def expire(self, problem: str) -> None:
        self.send(Expired(problem))

    @rule(problem=problems)
    def close(self, problem: str) -> None:
        self.send(Closed(problem))

    @rule(by=st.sampled_from([-100.0, 0.5, 60.0, 5000.0]))
    def wait(self, by: float) -> None:
        self.now += timedelta(seconds=by)

    @invariant()
    def no_secret_shows_before_closing(self) -> None:
        view = public_view(self.state, PACK, self.now)
        assert "secretkey" not in json.dumps(view)
        for item in view["items"]:
            text = json.dumps(item)
            if item["status"] != "closed":
                tried = set(item.get("feedback", ()))
                assert tried == set(item.get("tried", ())) and text.count("SECRET") == len(tried)
                assert not {"answer", "correct", "explanation", "points", "experiment"} & set(item)
            if item["status"] == "unopened":
                assert "Prompt" not in text and "Text" not in text

    @invariant()
    def attempts_and_points_stay_in_bounds(self) -> None:
        for item in self.state.items:
            assert len(item.tried) <= attempts.ATTEMPTS and len(set(item.tried)) == len(item.tried)
            assert 0 <= item.points <= POINTS
            assert item.correct == (item.points > 0)
            answers = [
                e for e in self.entries if isinstance(e.event, Submitted) and e.event.problem == item.problem
            ]
            assert len(answers) == len(item.tried)
        assert 0 <= self.state.points <= 5 * POINTS

    @invariant()
    def a_badge_needs_five_correct(self) -> None:
        judged = {e.event.problem for e in self.entries if e.ruling and e.ruling.correct}  # type: ignore[union-attr]
        assert self.state.earns_badge == (len(judged) == 5)

    @invariant()
    def the_log_rebuilds_the_state(self) -> None:
        stored = [logbook.from_dict(json.loads(json.dumps(logbook.to_dict(entry)))) for entry in self.entries]
        assert stored == self.entries
        assert attempts.replay(stored) == self.state
        assert all(a.at <= b.at for a, b in itertools.pairwise(stored))


AnyLearner.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestAnyLearner = AnyLearner.TestCase


def test_a_log_keeps_its_meaning_when_the_rules_change(monkeypatch: pytest.MonkeyPatch) -> None:
    state, entries = None, []
    for event in (attempts.begin(PACK, challenge="c", learner="l", seed="s"), Opened(FIRST)):
        state, entry = step(state, event, START)
        entries.append(entry)
    assert state is not None
    state, entry = step(state, Submitted(FIRST, right(state), "k"), START)
    monkeypatch.setattr(attempts, "POINTS", 7)
    assert attempts.replay([e for e in [*entries, entry] if e]).points == 100


def test_an_unreadable_log_entry_is_refused() -> None:
    with pytest.raises(LessonError, match="cannot be read"):
        logbook.from_dict({"at": "2030-01-01T00:00:00+00:00", "kind": "teleported", "event": {}})
    with pytest.raises(LessonError, match="empty"):
        attempts.replay([])
