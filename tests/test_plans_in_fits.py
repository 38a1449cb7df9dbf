"""What a fit makes of plans: its prediction and how good that was, its budget and what it cuts."""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import headstart
from headstart.cli import cli
from headstart.costs.calibration import calibration
from headstart.costs.clock import ending
from headstart.costs.estimates import Estimate, Range
from headstart.costs.observing import Watch
from headstart.costs.timings import Observation, Rates, RateStore
from headstart.errors import OptionError
from headstart.runs import Run, RunStore, read_predictions
from made_up_jobs import FakeClock, make_job

FAST: dict[str, Any] = {"size": 64, "precision": "f32"}


def test_every_run_stores_predicted_and_actual(photos: Path) -> None:
    _, run = headstart.fit(photos, **FAST)
    assert set(run.predicted_seconds) == {"low", "median", "high"}
    record = json.loads((run.path / "run.json").read_text())
    assert record["predicted_seconds"] == dict(run.predicted_seconds)
    assert record["predicted_phases"].keys() == {"features", "check", "train", "evaluate", "save"}
    to_come = sum(record["predicted_phases"].values())
    assert 0 < to_come <= run.predicted_seconds["median"] + 0.01
    assert {"check", "evaluate", "save", "ridge"} <= {each.quantity for each in RateStore().observations()}
    found = calibration(RunStore().select())
    assert len(found.runs) == 1 and found.runs[0].actual == run.seconds["total"]
    low, high = run.predicted_seconds["low"], run.predicted_seconds["high"]
    assert found.share_inside == float(low - 5e-4 <= run.seconds["total"] <= high + 5e-4)
    assert found.median_absolute_error == abs(run.seconds["total"] / run.predicted_seconds["median"] - 1)


def test_the_same_fit_again_is_known_to_save_faster_and_another_one_is_not(photos: Path) -> None:
    def saves() -> list[str]:
        return [each.key for each in RateStore().observations() if each.quantity == "save"]

    headstart.fit(photos, **FAST)
    headstart.fit(photos, head="softmax", epochs=2, **FAST)
    headstart.fit(photos, **FAST)
    again, other, first = saves()
    assert again.endswith(" again")
    assert not first.endswith(" again") and not other.endswith(" again")


def test_runs_without_a_prediction_still_load_and_are_left_out(photos: Path) -> None:
    _, run = headstart.fit(photos, **FAST)
    record = json.loads((run.path / "run.json").read_text())
    del record["predicted_seconds"]
    older = Run.from_dict(record, path=run.path)
    assert older.predicted_seconds == {}
    assert calibration([older]).median_absolute_error is None


def test_start_up_that_the_caller_reports_is_part_of_the_total(photos: Path) -> None:
    _, run = headstart.fit(photos, spent=50.0, **FAST)
    assert run.seconds["startup"] == 50.0 and run.seconds["total"] > 50.0
    assert run.predicted_seconds["low"] > 50.0 + ending(50.0)
    (compared,) = calibration([run]).runs
    assert compared.actual == pytest.approx(run.seconds["total"] + ending(50.0))


def test_runs_calibration_shows_how_good_predictions_were(photos: Path) -> None:
    empty = CliRunner().invoke(cli, ["runs", "--calibration"])
    assert empty.exit_code == 0 and "no whole run" in empty.output
    headstart.fit(photos, **FAST)
    shown = CliRunner().invoke(cli, ["runs", "--calibration"])
    assert shown.exit_code == 0 and "median absolute error" in shown.output
    as_json = json.loads(CliRunner().invoke(cli, ["runs", "--calibration", "--json"]).output)
    assert len(as_json["runs"]) == 1 and as_json["median_absolute_error"] >= 0


def test_calibration_is_about_whole_runs_of_this_machine_however_many_others_came_since(
    photos: Path,
) -> None:
    _, run = headstart.fit(photos, **FAST)
    assert run.whole and run.machine and run.machine not in platform.node()
    others = [
        replace(run, whole=False),
        replace(run, machine="elsewhere"),
        replace(run, predicted_seconds={}),
    ]
    older = replace(run, machine="")
    assert [each.run for each in calibration([*others, run, older], most=1).runs] == [run.id]
    assert len(calibration([*others, run, older]).runs) == 2
    for number in range(3):
        evaluated = replace(run, id=f"later-{number}", created="2999", predicted_seconds={}, trained=False)
        RunStore().add(evaluated)
    shown = CliRunner().invoke(cli, ["runs", "--calibration", "--limit", "2"])
    assert run.id in shown.output


def test_a_run_of_which_less_was_done_than_predicted_says_so(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training.foresight import Foresight

    def stop(self: Foresight, done: int, total: int) -> bool:
        self.cut_short = True
        return True

    monkeypatch.setattr(Foresight, "stop_training", stop)
    _, run = headstart.fit(photos, head="softmax", epochs=9, budget="10m", **FAST)
    assert not run.whole and not json.loads((run.path / "run.json").read_text())["whole"]
    assert calibration([run]).runs == ()
    record = {
        k: v for k, v in run.to_dict().items() if k not in ("whole", "machine")
    }  # of an earlier version
    assert Run.from_dict(record, path=run.path).whole


def test_a_generous_budget_changes_no_setting(photos: Path) -> None:
    _, run = headstart.fit(photos, budget="1h", head="softmax", epochs=4, **FAST)
    assert run.config.epochs == 4 and len(run.history) == 4
    assert not any("budget" in note for note in run.notes)


def test_a_tight_budget_cuts_epochs_and_says_so_in_one_line(photos: Path) -> None:
    _, first = headstart.fit(photos, head="softmax", epochs=3, **FAST)
    RateStore().add([Observation("softmax", "", 90.0)] * 12)
    # A machine on which this head is very slow: the asked 20,000 epochs would take hours.
    _, run = headstart.fit(photos, head="softmax", epochs=20_000, budget=60, **FAST)
    assert run.config.epochs is not None and run.config.epochs < 20_000
    assert sum("budget" in note and "epochs" in note for note in run.notes) == 1
    assert run.seconds["total"] < 66
    assert first.images == run.images


def test_a_budget_that_nothing_fits_into_is_refused_before_the_work(photos: Path) -> None:
    with pytest.raises(OptionError, match="the smallest job needs about"):
        headstart.fit(photos, budget=100, spent=99.99, **FAST)
    assert RunStore().select() == []


def test_out_of_time_while_reading_goes_on_with_the_images_so_far(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training.foresight import Foresight

    looks = iter([1.0])

    def late(self: Foresight) -> float:
        return next(looks, 1e6)  # the second look finds the budget long spent

    monkeypatch.setattr(Foresight, "elapsed", property(late))
    _, run = headstart.fit(photos, budget="10m", **FAST)
    used = sum(run.images[split] for split in ("train", "validation", "test"))
    assert 24 <= used < 48
    assert any("images used" in note for note in run.notes)


def test_training_stops_when_another_epoch_would_break_the_budget(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training.foresight import Foresight

    monkeypatch.setattr(Foresight, "begin_training", lambda self: self.request.config)
    asked = []

    def stop(self: Foresight, done: int, total: int) -> bool:
        asked.append(done)
        return done == 2

    monkeypatch.setattr(Foresight, "stop_training", stop)
    _, run = headstart.fit(photos, head="softmax", epochs=9, budget="10m", **FAST)
    assert asked == [1, 2] and len(run.history) == 2


def test_stopping_is_decided_by_the_last_epochs_and_what_must_follow(photos: Path) -> None:
    from headstart.training.foresight import Foresight
    from headstart.training.requests import Request

    _, run = headstart.fit(photos, **FAST)  # for a config
    nothing: Any = None

    clock = FakeClock()
    watch = Watch(clock=clock)
    foresight = Foresight(
        request=Request(nothing, nothing, nothing, run.config),
        job=make_job(tail_macs=1_000_000, epochs=10, held_out=10),
        rates=Rates(),
        predicted=Range(1, 2, 3),
        phases={},
        rest=Estimate(2.0, 0.1),
        spent=0.0,
        watch=watch,
        budget=30.0,
        started=clock.now,
    )
    watch.begin("epochs")
    stopped_at = None
    for epoch in range(1, 11):
        clock.wait(5.0)
        watch("epochs", epoch, 10)
        if foresight.stop_training(epoch, 10):
            stopped_at = epoch
            break
    assert stopped_at == 5  # 25 s are over: 5 more and the saving would not fit, the saving alone does
    assert foresight.notes == ("budget 30 s: stopped after 5 of 10 epochs",)
    assert foresight.request.config.epochs == 5


def test_what_comes_before_the_first_epoch_is_no_part_of_its_pace() -> None:
    clock = FakeClock()
    watch = Watch(clock=clock)
    watch.begin("epochs")
    clock.wait(7.0)  # PyTorch starts, the network is made
    watch.ready("epochs")
    clock.wait(0.5)
    watch("epochs", 1, 10)
    assert watch.pace("epochs") == 0.5


def test_a_thawed_fit_says_when_its_epochs_begin(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    said: list[str] = []
    monkeypatch.setattr(Watch, "ready", lambda self, phase: said.append(phase))
    headstart.fit(photos, freeze=7, epochs=1, **FAST)
    headstart.fit(photos, **FAST)
    assert said == ["epochs"]


def test_a_budget_that_cuts_nothing_trains_the_same_model(photos: Path) -> None:
    options: dict[str, Any] = {"head": "softmax", "epochs": 3, **FAST}
    free, kept = (headstart.fit(photos, budget=budget, **options)[1] for budget in (None, "10m"))
    assert not any("budget" in note for note in kept.notes)
    assert kept.history == free.history
    assert read_predictions(kept.path)["images"] == read_predictions(free.path)["images"]
