"""Scores, streaks and item statistics; the review schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lesson_packs
from headstart.errors import LessonError
from headstart.lesson.engine import review, scores

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PACK = lesson_packs.secret_pack()


taken = partial(lesson_packs.taken, pack=PACK, seconds=10.0)


def test_a_score_counts_what_happened() -> None:
    score = scores.score(taken("ada", "rrsw-", hint=True))
    assert (score.correct, score.problems, score.hints, score.retries, score.late) == (3, 5, 5, 2, 0)
    assert score.points == 100 + 100 + 70 and score.possible == 500 and score.seconds == 40.0


def test_facility_counts_first_answers_only() -> None:
    statistics = scores.item_statistics([taken("a", "rrrrr"), taken("b", "srrrr"), taken("c", "wrrrr")])
    first = statistics[0]
    assert first.taken == 3 and first.facility == pytest.approx(1 / 3)
    assert first.first_answers["secretkey-0-0"] == 1 and sum(first.first_answers.values()) == 3
    assert first.median_seconds == 10.0 and first.hint_share == 0.0


def test_discrimination_tells_a_good_problem_from_a_broken_one() -> None:
    strong = [taken(f"strong{n}", "rrrrw") for n in range(5)]
    weak = [taken(f"weak{n}", "wwwwr") for n in range(5)]
    statistics = scores.item_statistics([*strong, *weak])
    assert statistics[0].discrimination == pytest.approx(1.0)
    assert statistics[4].discrimination == pytest.approx(-1.0)


def test_statistics_that_are_undefined_are_none_and_not_zero() -> None:
    alone = scores.item_statistics([taken("a", "r----")])
    assert alone[0].discrimination is None and alone[0].facility == 1.0
    assert (alone[1].facility, alone[1].median_seconds, alone[1].hint_share) == (None, None, None)
    assert scores.item_statistics([taken("a", "rrrrr"), taken("b", "rrrrr")])[0].discrimination is None
    assert scores.item_statistics([]) == []


def test_variants_of_a_problem_are_counted_apart() -> None:
    problems = PACK.problems("challenge")
    varied = tuple(replace(one, variants=(replace(one, variant="other"),)) for one in problems)
    pack = replace(PACK, problem_sets={"challenge": varied})
    learners = [lesson_packs.taken(f"learner {n}", "rwrwr", pack=pack, seed=str(n)) for n in range(12)]
    found = scores.item_statistics(learners)
    first = [one for one in found if one.problem == problems[0].slug]
    assert sorted(one.variant for one in first) == ["first", "other"] and first == found[:2]
    assert sum(one.taken for one in first) == 12 and all(one.facility == 1.0 for one in first)


def test_a_learners_second_challenge_says_nothing_about_a_problem() -> None:
    again = taken("a", "rrrrr")
    first = taken("a", "wwwww")
    assert scores.item_statistics([first, again])[0].facility == 0.0


@given(st.sets(st.integers(0, 30)))
@settings(deadline=None)
def test_a_streak_agrees_with_counting_by_hand(offsets: set[int]) -> None:
    start = date(2030, 1, 1)
    today = start + timedelta(days=30)
    result = scores.streak([start + timedelta(days=offset) for offset in offsets], today)
    end = 30 if 30 in offsets else 29
    current = 0
    while end - current in offsets:
        current += 1
    text = "".join("x" if day in offsets else " " for day in range(31))
    assert result == scores.Streak(current, max(map(len, text.split()), default=0))


# The review schedule


def test_an_easy_card_comes_back_later_than_a_hard_one() -> None:
    due = {rating: review.review(None, rating, NOW, card="card")[0].due for rating in review.RATINGS}
    assert NOW < due["again"] < due["hard"] < due["good"] < due["easy"]


@given(st.lists(st.tuples(st.sampled_from(list(review.RATINGS)), st.floats(0, 60)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_the_schedule_is_pure_and_its_log_rebuilds_it(history: list[tuple[str, float]]) -> None:
    now, memory, log = NOW, None, []
    for rating, days in history:
        now += timedelta(days=days)
        before = memory
        memory, line = review.review(before, rating, now, card="card")
        assert review.review(before, rating, now, card="card") == (memory, line)
        assert memory.due > now
        log.append(review.Reviewed.from_dict(line.to_dict()))
    assert review.replay(log) == {"card": memory}


def test_overdue_cards_come_first_then_new_ones() -> None:
    memory, _ = review.review(None, "good", NOW, card="other")
    memories = {"other": memory}
    slugs = [card.slug for card in review.due(PACK.cards, memories, memory.due)]
    assert slugs == ["other", "card"]
    assert [card.slug for card in review.due(PACK.cards, memories, NOW)] == ["card"]


def test_a_clock_set_back_and_an_unknown_rating_do_no_harm() -> None:
    memory, _ = review.review(None, "good", NOW, card="card")
    _, line = review.review(memory, "good", NOW - timedelta(days=3), card="card")
    assert line.at == NOW
    with pytest.raises(LessonError, match="again, hard, good, easy"):
        review.review(memory, "perfect", NOW, card="card")
