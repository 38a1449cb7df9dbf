"""Budgets of comparisons: what they leave out, what they stop, and what they say of it."""

import threading
from functools import partial
from pathlib import Path

import pytest

from headstart.comparisons import (
    Candidate,
    compare,
    find_comparison,
)
from headstart.comparisons.schedule import Deadline, Forecast, Over, Schedule, shrink
from headstart.comparisons.training import grid as any_grid
from headstart.comparisons.trials import _Stop
from headstart.costs import CostEstimate
from headstart.costs.timings import remember
from headstart.errors import OptionError
from headstart.runs.callbacks import PhaseTimer
from headstart.runs.store import Timing
from made_up_comparisons import candidate
from made_up_jobs import FakeClock

FAST = {"precision": "f32"}
grid = partial(any_grid, backbones=["builtin"])


def foreseen(cost: dict[Candidate, float], *, passes: float = 2.0) -> Forecast:
    """A forecast in round seconds."""
    return Forecast(
        passes=dict.fromkeys(cost, CostEstimate({"features": passes}, 0.1)),
        trainings={each: CostEstimate({"train": seconds}, 0.1) for each, seconds in cost.items()},
        torch=CostEstimate({"train": 1.0}, 0.1),
    )


def test_a_budget_takes_seeds_before_candidates_and_names_what_is_left_out() -> None:
    cheap, dear, dearer = candidate("a"), candidate("b", depth=2), candidate("c", depth=2)
    groups = [[cheap], [dear], [dearer]]
    forecast = foreseen({cheap: 0.5, dear: 5.0, dearer: 20.0})
    whole = shrink(groups, forecast, seeds=3, budget=200.0, spent=0.0)
    assert (whole.seeds, whole.groups, whole.left_out) == (3, groups, ())
    fewer = shrink(groups, forecast, seeds=3, budget=80.0, spent=0.0)
    assert (fewer.seeds, fewer.groups, fewer.left_out) == (2, groups, ("2 of 3 seeds",))
    least = shrink(groups, forecast, seeds=3, budget=20.0, spent=0.0)
    assert (least.seeds, least.groups) == (2, [[cheap], [dear]])  # room for a seed again
    assert least.left_out == ("2 of 3 seeds", f"without {dearer.name}")
    with pytest.raises(OptionError, match=r"budget 5.0 s: the fastest 2 candidates with one seed need about"):
        shrink(groups, forecast, seeds=3, budget=5.0, spent=0.0)


def test_a_comparison_keeps_its_budget_although_trainings_take_longer_than_foreseen() -> None:
    first, second, third = candidate("a"), candidate("a", depth=2), candidate("a", depth=1)
    group, now = [first, second, third], [0.0]
    schedule = Schedule([group], 2, foreseen({first: 1.0, second: 1.0, third: 1.0}))
    deadline = Deadline(schedule, 10.0, 0.0, clock=lambda: now[0])
    trained = []
    for each in group:
        for seed in range(2 if each.random else 1):
            if deadline.allows(group, each, seed=seed):
                trained.append((each, seed))
                now[0] += 3.0
                deadline.note(each, 3.0)
    assert trained == [(first, 0), (second, 0), (third, 0)]  # one of each before a second of any
    now[0] = 10.5
    with pytest.raises(Over):
        deadline.any_pass().on_progress("features", 1, 2)


def test_a_training_looks_an_epoch_ahead_and_is_kept_if_it_is_the_first_of_its_candidate() -> None:
    clock = FakeClock()
    only = candidate(head="softmax", epochs=10)

    def stopped_at(*, keep: bool, interrupted: threading.Event | None = None) -> int | None:
        deadline = Deadline(Schedule([[only]], 1, foreseen({only: 1.0})), 30.0, clock.now, clock=clock)
        timer = PhaseTimer(clock)
        timer.on_phase_begin("epochs")
        stop = _Stop(deadline, timer, keep=keep, interrupted=interrupted)
        for epoch in range(1, 11):
            clock.wait(5.0)
            for each in (timer, stop):
                each.on_progress("epochs", epoch, 10)
            if stop.on_epoch_end({"epoch": epoch}):
                assert stop.said == f"{epoch} of 10 epochs"
                return epoch
        return None

    assert stopped_at(keep=True) == 5  # 25 s are over: another epoch and its evaluation would not fit
    with pytest.raises(Over):
        stopped_at(keep=False)
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(Over):
        stopped_at(keep=True, interrupted=interrupted)


def test_the_first_pass_ends_where_a_training_of_its_images_would_no_longer_fit() -> None:
    clock = FakeClock()
    cheap, dear = candidate(), candidate(depth=2)
    schedule = Schedule([[cheap, dear]], 1, foreseen({cheap: 10.0, dear: 99.0}))
    alarm = Deadline(schedule, 30.0, clock.now, clock=clock).first_pass([cheap, dear], classes=3)
    check = alarm.on_progress
    assert check("features", 50, 100) is False
    clock.wait(24.0)
    assert check("features", 23, 100) is False  # of each class there must be some
    assert check("features", 100, 100) is False
    assert check("features", 24, 100) is False  # PyTorch's start and a quarter of the training still fit
    assert check("features", 50, 100) is True


def test_a_first_pass_that_runs_out_of_time_compares_on_the_images_so_far(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deadline, "leaves", lambda self, seconds=0.0: False)
    found = compare(photos, grid(size=64, heads=("ridge", "softmax")), seeds=1, budget="1h", **FAST)
    used = sum(found.images[side] for side in ("train", "validation", "test"))
    assert 24 <= used < 48 and len(found.trials) == 1  # the first training begins whatever the time
    assert f"{used} of 48 images used" in found.notes[0] and "without builtin 64 px" in found.notes[0]
    assert found.passes[0]["measured"] and found.passes[0]["misses"] == used
    assert found.passes[0]["hits"] == 0 and found.trials[0].seconds["features"] > 0


def test_a_training_that_is_stopped_says_so_wherever_it_is_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.runs.callbacks.Phase.pace", lambda self: 1e6)
    candidates = grid(size=64, heads=("ridge", "softmax"), epochs=9)
    found = compare(photos, candidates, seeds=3, budget="1h", **FAST)
    ridge, softmax = found.trials  # whose other seeds would not be like it
    assert ridge.candidate == candidates[0] and len(softmax.history) == 1
    assert softmax.candidate.name == f"{candidates[1].name}, 1 of 9 epochs"
    assert found.notes[0] == f"budget 60.0 min: {candidates[1].name}: stopped after 1 of 9 epochs"


def test_a_budget_holds_although_the_training_takes_far_longer_than_foreseen(photos: Path) -> None:
    remember([Timing("softmax", "", 0.02)] * 12)
    only = grid(size=64, heads=["softmax"], epochs=200_000)
    found = compare(photos, only, seeds=1, budget=8, **FAST)
    (kept,) = found.trials
    assert 0 < len(kept.history) < 200_000 and "of 200000 epochs" in kept.candidate.name
    assert found.seconds < 12


def test_what_this_machine_took_before_decides_what_a_budget_leaves_out(photos: Path) -> None:
    remember([Timing("softmax", "", 90.0)] * 12)
    slow = grid(size=64, heads=["softmax"], epochs=20_000)
    found = compare(photos, [*grid(size=64), *slow, *grid(size=32)], seeds=1, budget="1m", **FAST)
    assert {trial.candidate.size for trial in found.trials} == {32, 64} and len(found.trials) == 2
    assert found.notes[0] == f"budget 60 s: without {slow[0].name}"


def test_a_comparison_stores_its_prediction_and_what_the_budget_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = grid(heads=["ridge", "softmax"], size=64, layers="last", epochs=2)
    free = compare(photos, candidates, seeds=2, out=tmp_path / "free", **FAST)
    assert (
        0 < free.predicted_seconds["low"] < free.predicted_seconds["median"] < free.predicted_seconds["high"]
    )
    assert find_comparison(tmp_path / "free").predicted_seconds == free.predicted_seconds
    slow = foreseen(dict(zip(candidates, (1.0, 1000.0), strict=True)))
    monkeypatch.setattr("headstart.comparisons.training.forecast", lambda *_, **__: slow)
    found = compare(photos, candidates, seeds=2, budget="2000s", out=tmp_path / "kept", **FAST)
    assert len(found.trials) == 2 and found.notes[0] == "budget 33.3 min: 1 of 2 seeds"
