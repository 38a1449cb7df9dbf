"""The challenge's rules: as examples, and as properties over every sequence of events."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headstart.errors import LessonError
from headstart.lesson.engine import attempts, logbook
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import (
    GRACE,
    LATE_COST,
    POINTS,
    RETRY_COST,
    Challenge,
    Chose,
    Closed,
    Ended,
    Expired,
    Extended,
    HintTaken,
    Opened,
    Reopened,
    Reset,
    Submitted,
    public_view,
    step,
)
from headstart.lesson.engine.pack import FORMS
from lesson_packs import forms_pack, right_answer, secret_pack, wrong_answer

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


def test_no_sequence_of_events_with_a_teachers_among_them_breaks_a_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    rules = import_module("rules")  # by hand it plays a million
    assert rules.play_many(0, 3000) > 50_000
    monkeypatch.setattr(attempts, "RETRY_COST", 20)
    with pytest.raises(AssertionError, match="points"):
        rules.play_many(0, 200)


def test_more_time_turns_overtime_back_and_less_changes_nothing() -> None:
    state = opened()
    late, _ = step(state, Expired(FIRST), seconds(130))
    for less in (60.0, 120.0):
        assert step(late, Extended(FIRST, less), seconds(131)) == (late, None)
    more, entry = step(late, Extended(FIRST, 180.0), seconds(131))
    assert more.item(FIRST).status(seconds(131)) == "open" and more.item(FIRST).deadline == seconds(180)
    answered, _ = step(more, Submitted(FIRST, right(more), "k"), seconds(181))
    assert answered.points == POINTS and not answered.item(FIRST).late
    without, _ = step(more, Extended(FIRST, None), seconds(132))
    assert not without.item(FIRST).is_late(seconds(10**6)) and without.item(FIRST).extended
    assert step(without, Extended(FIRST, 300.0), seconds(133))[1] is None, "no clock is the most"
    later, _ = step(started(), Extended("problem-2", 240.0), START)
    later, _ = step(later, Opened("problem-2"), seconds(10))
    assert later.item("problem-2").deadline == seconds(250)
    assert entry is not None and logbook.from_dict(logbook.to_dict(entry)) == entry


def test_a_problem_that_is_opened_again_is_new_but_an_old_form_counts_no_second_time() -> None:
    state = opened()
    state, _ = step(state, Submitted(FIRST, wrong(state)[0], "a"), START)
    state, _ = step(state, Submitted(FIRST, right(state), "b"), START)
    again, _ = step(state, Reopened(FIRST), seconds(300))
    assert again.points == 0 and again.item(FIRST).status(seconds(300)) == "unopened"
    assert "SECRETEXPLANATION 0" not in json.dumps(public_view(again, PACK, seconds(300)))
    again, _ = step(again, Opened(FIRST), seconds(310))
    assert again.item(FIRST).deadline == seconds(430)
    assert step(again, Submitted(FIRST, right(again), "b"), seconds(311)) == (again, None)
    done, _ = step(again, Submitted(FIRST, right(again), "c"), seconds(311))
    assert done.points == POINTS and done.item(FIRST).reopened == 1


def test_the_bell_ends_what_is_open_and_not_what_was_opened_again_after_it() -> None:
    state = opened()
    bell = seconds(60)
    assert attempts.rings(state, bell, seconds(62)) == () == attempts.rings(state, None, seconds(900))
    [ended] = attempts.rings(state, bell, seconds(62.1))
    over, _ = step(state, ended, seconds(63))
    assert over.finished_at == seconds(63) and over.points == 0
    assert refusal(over, Opened("problem-3"), seconds(64)) == "closed"
    assert attempts.rings(over, bell, seconds(64)) == ()
    again, _ = step(over, Reopened("problem-3"), seconds(100))
    assert attempts.rings(again, bell, seconds(1000)) == ()
    assert attempts.rings(again, seconds(500), seconds(1000)) != (), "another bell"


def test_a_challenge_that_was_reset_takes_nothing_and_earns_nothing() -> None:
    state = started()
    for item in state.items:
        state, _ = step(state, Opened(item.problem), START)
        state, _ = step(state, Submitted(item.problem, item.layout.answer, item.problem), START)
    assert state.earns_badge
    state, _ = step(state, Reset(), seconds(5))
    assert not state.earns_badge and step(state, Reset(), seconds(6))[1] is None
    for event in (Opened(FIRST), Reopened(FIRST), Ended(), Extended(FIRST, None)):
        assert refusal(state, event, seconds(7)) == "reset"
    assert attempts.overdue(state, seconds(9000)) == () == attempts.rings(state, START, seconds(9000))


def test_held_reviews_tell_whether_an_answer_was_right_and_nothing_else() -> None:
    state = opened()
    state, _ = step(state, Submitted(FIRST, wrong(state)[0], "a"), START)
    state, _ = step(state, Submitted(FIRST, right(state), "b"), START)
    item = public_view(state, PACK, START, reviews=False)["items"][0]
    said = json.dumps(item)
    assert (item["correct"], item["points"], item["held"]) == (True, POINTS - RETRY_COST, True)
    assert "SECRET" not in said and "secretkey" not in said
    assert "answer" not in item and not any("right" in option for option in item["options"])


FORMED = forms_pack()


def formed(form: str, seed: str = "s") -> Challenge:
    begun = attempts.begin(FORMED, challenge="c", learner="l", seed=seed)
    return step(step(None, begun, START)[0], Opened(form), START)[0]


@given(form=st.sampled_from(FORMS), seed=st.text(max_size=4), data=st.data())
@settings(deadline=None, max_examples=150)
def test_an_answer_counts_for_what_it_says_in_whatever_order_it_comes(
    form: str, seed: str, data: st.DataObject
) -> None:
    state = formed(form, seed)
    layout = state.item(form).layout
    ids, partners = [one for one, _ in layout.options], [one for one, _ in layout.partners]
    if form == "number":
        value = data.draw(st.floats(-50, 50, allow_nan=False))
        given_, right_one = f" {value:.3f} ", abs(round(value, 3) - 10) <= 1
    elif partners:
        rows = data.draw(st.permutations(ids))
        places = st.permutations(partners) if form == "order" else st.lists(
            st.sampled_from(partners), min_size=len(ids), max_size=len(ids)
        )  # fmt: skip
        pairs = [f"{one}={other}" for one, other in zip(rows, data.draw(places), strict=True)]
        given_, right_one = "  ".join(pairs), set(pairs) == set(layout.answer.split())
    else:
        most = 1 if form == "one" else len(ids)
        chosen = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=most))
        given_, right_one = " ".join(chosen), set(chosen) == set(layout.answer.split())
    marked, _ = step(state, Chose(form, given_), START)
    after, entry = step(marked, Submitted(form, given_, "k"), START)
    item, view = after.item(form), public_view(after, FORMED, START)["items"][FORMS.index(form)]
    assert item.correct == right_one == (item.closed_at is not None) and len(item.tried) == 1
    assert attempts.replay([logbook.from_dict(logbook.to_dict(entry))], marked) == after  # type: ignore[arg-type]
    if not right_one:
        again = " ".join(reversed(given_.split()))
        assert refusal(after, Submitted(form, again, "another")) == "tried"
        assert "SECRETHINT" not in json.dumps(view) and "secretkey" not in json.dumps(view)
        wrong_ones = set(item.tried[0].split()) - set(layout.answer.split())
        assert json.dumps(view).count("SECRETFEEDBACK") <= max(1, len(wrong_ones))


@given(
    form=st.sampled_from(FORMS), text=st.text(max_size=60) | st.text("0123456789abcdef= .,-+e", max_size=60)
)
@settings(deadline=None, max_examples=150)
def test_an_answer_that_nobody_was_offered_is_refused_and_changes_nothing(form: str, text: str) -> None:
    state = formed(form)
    with suppress(AnswerRefused):
        after, _ = step(state, Submitted(form, text, "k"), START)
        assert form == "number" and after.item(form).tried[0] == f"{float(after.item(form).tried[0]):.10g}"


def test_an_answer_that_is_not_whole_costs_no_attempt() -> None:
    for form in ("order", "match"):
        state = formed(form)
        most = " ".join(right_answer(state.item(form).layout).split()[1:])
        assert refusal(state, Submitted(form, most, "k")) == "incomplete"
    assert refusal(formed("several"), Submitted("several", " ", "k")) == "incomplete"
    assert refusal(formed("number"), Submitted("number", "about 10", "k")) == "no-number"
    state = formed("one")
    both = " ".join(identity for identity, _ in state.item("one").layout.options)
    assert refusal(state, Submitted("one", both, "k")) == "unknown-option"


def test_a_place_is_given_once_and_a_partner_as_often_as_it_fits() -> None:
    state = formed("order")
    ids = [identity for identity, _ in state.item("order").layout.options]
    assert refusal(state, Submitted("order", " ".join(f"{one}=1" for one in ids), "k")) == "incomplete"
    state = formed("match")
    layout = state.item("match").layout
    assert len(layout.partners) == 3 < len(layout.options), "two options have the same partner"
    assert step(state, Submitted("match", layout.answer, "k"), START)[0].item("match").correct


def test_feedback_on_a_miss_names_what_was_chosen_and_nothing_that_is_right() -> None:
    for form, expected in {
        "several": "SECRETFEEDBACK several",
        "order": "of 4 are right. SECRETFEEDBACK order",
        "match": "of 4 are right. SECRETFEEDBACK match",
        "number": "SECRETFEEDBACK number 2",
    }.items():
        state = formed(form)
        state, _ = step(state, Submitted(form, wrong_answer(state.item(form).layout), "k"), START)
        said = list(public_view(state, FORMED, START)["items"][FORMS.index(form)]["feedback"].values())
        assert len(said) == 1 and expected in said[0]
    state = formed("several")
    half = state.item("several").layout.answer.split()[0]
    state, _ = step(state, Submitted("several", half, "k"), START)
    item = public_view(state, FORMED, START)["items"][FORMS.index("several")]
    assert list(item["feedback"].values()) == ["What you marked is right, and something is missing."]


VARIED = replace(
    PACK,
    problem_sets={
        "challenge": tuple(
            replace(
                problem,
                variants=tuple(
                    replace(problem, variant=name, prompt=f"{name}?") for name in ("second", "third")
                ),
            )
            for problem in PACK.problems("challenge")
        )
    },
)


@given(seeds=st.lists(st.text(max_size=5), min_size=3, max_size=7))
@settings(deadline=None, max_examples=40)
def test_later_challenges_draw_the_variants_that_were_seen_least(seeds: list[str]) -> None:
    before: list[Challenge] = []
    for place, seed in enumerate(seeds):
        begun = attempts.begin(VARIED, challenge=f"c{place}", learner="l", seed=seed, earlier=before)
        state, _ = step(None, begun, START)
        for item in state.items:
            state, _ = step(state, Opened(item.problem), START)
            asked = public_view(state, VARIED, START)["items"][int(item.problem[-1])]["prompt"]
            assert item.layout.variant == "first" or asked == f"{item.layout.variant}?"
        before.append(state)
    for problem in VARIED.problems("challenge"):
        drawn = [state.item(problem.slug).layout.variant for state in before]
        counts = [drawn.count(name) for name in ("first", "second", "third")]
        assert max(counts) - min(counts) <= 1, drawn
    assert len({begun.layouts[0].variant for begun in (
        attempts.begin(VARIED, challenge="c", learner="l", seed=str(n)) for n in range(40)
    )}) == 3, "the first challenge draws any of them"  # fmt: skip


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
