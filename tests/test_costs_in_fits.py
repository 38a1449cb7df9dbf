"""Costs beside real work: what a fit predicts and stores, keeps to and learns from; plans; the stopwatch."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import headstart
from conftest import CLASSES
from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.cli import cli
from headstart.cli.plan import lines
from headstart.costs import Budget, Timings, calibration
from headstart.costs.timings import remember
from headstart.data.dataset import read_dataset
from headstart.data.images import parse_views
from headstart.errors import OptionError
from headstart.features import FeatureCache, FeatureSpec, extract, missing_share
from headstart.runs import FitConfig, Run, RunStore, read_images, read_predictions
from headstart.runs.callbacks import Callback, Callbacks, PhaseTimer, Range
from headstart.runs.store import Timing
from headstart.training import prepare, resolve, train
from headstart.training.fitting import Start, starting_point
from headstart.training.planning import Plan, plan, room_for
from headstart.training.stopwatch import TRAINING_STEPS, time_training
from made_up_jobs import FakeClock

FAST: dict[str, Any] = {"backbone": "builtin", "size": 64, "precision": "f32"}


@dataclass
class Listener(Callback):
    """Notes what it is told, in order."""

    told: list[str] = field(default_factory=list)
    estimates: list[Range] = field(default_factory=list)

    def on_estimate(self, seconds: Range, phases: Mapping[str, float]) -> None:
        self.told.append("estimate")
        self.estimates.append(seconds)

    def on_phase_begin(self, phase: str) -> None:
        self.told.append(phase)

    def on_progress(self, phase: str, done: int, total: int) -> None:
        self.told.append("progress")


@dataclass
class Slow(Callback):
    """Lets time pass with every piece of a phase's work."""

    clock: FakeClock
    work: Mapping[str, float]

    def on_progress(self, phase: str, done: int, total: int) -> None:
        self.clock.wait(self.work.get(phase, 0.0))


# ------------------------------------------------------------------------------------- predictions


def test_a_run_stores_what_was_predicted_before_any_image_was_read(photos: Path) -> None:
    listener = Listener()
    _, run = headstart.fit(photos, callbacks=[listener], **FAST)
    assert listener.told[:3] == ["estimate", "features", "progress"]
    (predicted,) = listener.estimates
    record = json.loads((run.path / "run.json").read_text())
    assert record["predicted_seconds"] == predicted.to_dict() == dict(run.predicted_seconds)
    assert record["predicted_phases"].keys() == {"features", "check", "train", "evaluate", "save"}
    assert 0 < sum(record["predicted_phases"].values()) <= predicted.median + 0.01
    (found,) = calibration(RunStore().select()).runs
    assert found.actual == run.seconds["total"] and found.inside == predicted.holds(found.actual)
    assert found.error == found.actual / run.predicted_seconds["median"] - 1


def test_a_choice_is_predicted_before_it_is_made_and_the_run_stores_that(photos: Path) -> None:
    listener = Listener()
    names = ["builtin@32", "builtin@64"]
    _, run = headstart.fit(photos, backbone="auto", candidates=names, precision="f32", callbacks=[listener])
    assert listener.told[:2] == ["estimate", "choice"]
    assert run.predicted_seconds == listener.estimates[0].to_dict()
    assert run.predicted_phases["choice"] > 0 and run.seconds["choice"] > 0


def test_what_the_phases_of_a_fit_took_scales_the_next_prediction(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "many", per_class=24)  # a pass over fewer images teaches nothing
    _, first = headstart.fit(photos, **FAST)
    learnt = Timings.load()
    for step in ("open", "pass", "prefix", "check", "ridge", "evaluate", "save"):
        assert learnt.scale(step, "", spread=0.0)[0] != 1.0, step
    _, again = headstart.fit(photos, **FAST)
    assert Timings.load().scale("hit", "", spread=0.0)[0] != 1.0
    assert again.predicted_phases["features"] < 0.1 < first.predicted_phases["features"]  # cached by now
    for phase in ("check", "train", "evaluate"):
        assert again.predicted_phases[phase] == pytest.approx(first.seconds[phase], rel=0.1, abs=2e-3), phase


def test_calibration_is_about_whole_runs_of_this_machine_however_many_others_came_since(photos: Path) -> None:
    def shown(*options: str) -> str:
        return CliRunner().invoke(cli, ["runs", "--calibration", *options], catch_exceptions=False).output

    assert "no whole run" in shown()
    _, run = headstart.fit(photos, **FAST)
    assert run.whole and run.machine and run.machine not in platform.node()
    others = [replace(run, whole=False), replace(run, machine="elsewhere"), _unpredicted(run)]
    assert calibration(others).median_absolute_error is None
    older = replace(run, machine="")
    assert [each.run for each in calibration([*others, run, older], most=1).runs] == [run.id]
    assert len(calibration([*others, run, older]).runs) == 2
    for number in range(3):
        RunStore().add(replace(_unpredicted(run), id=f"later-{number}", created="2999", trained=False))
    assert run.id in shown("--limit", "2") and "median absolute error" in shown()
    found = json.loads(shown("--json"))
    assert len(found["runs"]) == 1 and found["median_absolute_error"] >= 0


def _unpredicted(run: Run) -> Run:
    """As an earlier version recorded it."""
    lacking = ("predicted_seconds", "whole", "machine")
    record = {name: each for name, each in run.to_dict().items() if name not in lacking}
    found = Run.from_dict(record, path=run.path)
    assert found.predicted_seconds == {} and found.whole
    return found


def test_the_cache_is_asked_how_much_is_there(photos: Path, tmp_path: Path) -> None:
    dataset, backbone = read_dataset(photos), load_backbone("builtin", size=64)
    runtime, cache = select(precision="f32"), FeatureCache(tmp_path / "cache")
    spec = FeatureSpec(depth=len(backbone.stages), views=parse_views(1))

    def missing(want: FeatureSpec = spec) -> float:
        return missing_share(dataset.samples, backbone, spec=want, runtime=runtime, cache=cache)

    assert missing() == 1.0
    extract(dataset.samples[:24], backbone, spec=spec, runtime=runtime, cache=cache)
    assert 0.3 < missing() < 0.7
    extract(dataset.samples, backbone, spec=spec, runtime=runtime, cache=cache)
    assert missing() == 0.0
    assert missing(replace(spec, views=parse_views("flip"))) == 1.0
    (photos / "discs" / "000.jpg").unlink()
    assert missing() == 0.0


# ----------------------------------------------------------------------------------------- budgets


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the budgets of fits go by."""
    found = FakeClock()
    monkeypatch.setattr("headstart.training.Budget", partial(Budget, clock=found))
    return found


def test_a_budget_that_cuts_nothing_trains_the_same_model(photos: Path) -> None:
    options: dict[str, Any] = {"head": "softmax", "epochs": 3, **FAST}
    free, kept = (headstart.fit(photos, budget=budget, **options)[1] for budget in (None, "1h"))
    assert not any("budget" in note for note in kept.notes) and kept.whole
    assert kept.config.epochs == 3 and kept.history == free.history
    assert read_predictions(kept.path)["images"] == read_predictions(free.path)["images"]


def test_a_tight_budget_cuts_epochs_and_says_so_in_one_line(photos: Path) -> None:
    remember([Timing("softmax", "", 90.0)] * 12)
    # A machine on which this head is very slow: the 20,000 epochs that are asked for would take hours.
    _, run = headstart.fit(photos, head="softmax", epochs=20_000, budget=60, **FAST)
    assert run.config.epochs is not None and 0 < run.config.epochs < 20_000
    (note,) = [each for each in run.notes if "budget" in each]
    assert note == f"budget 60 s: {run.config.epochs:,} of 20,000 epochs"
    assert run.predicted_seconds["median"] <= 60 and run.seconds["total"] < 66 and run.whole


def test_a_budget_that_nothing_fits_into_is_refused_before_the_work(photos: Path) -> None:
    listener = Listener()
    with pytest.raises(OptionError, match="the smallest job needs about"):
        headstart.fit(photos, budget=0.01, callbacks=[listener], **FAST)
    assert RunStore().select() == [] and listener.told == []


def test_out_of_time_while_reading_goes_on_with_the_images_so_far(photos: Path, clock: FakeClock) -> None:
    _, run = headstart.fit(photos, budget="10m", callbacks=[Slow(clock, work={"features": 700.0})], **FAST)
    used = sum(run.images[split] for split in ("train", "validation", "test"))
    assert 24 <= used < 48
    counts = np.bincount([CLASSES.index(each["label"]) for each in read_images(run.path)])
    assert counts.sum() == used and counts.max() - counts.min() <= 1
    said = f"budget 10.0 min: reading took longer than predicted, {used} of 48 images used"
    assert (run.cache["hits"], run.cache["misses"]) == (0, used)
    assert [each for each in run.notes if "budget" in each] == [said]
    assert not run.whole and not json.loads((run.path / "run.json").read_text())["whole"]
    assert calibration([run]).runs == ()


def test_a_callback_may_end_reading_and_training_and_such_a_run_is_not_whole(photos: Path) -> None:
    class Enough(Callback):
        def on_progress(self, phase: str, done: int, total: int) -> bool:
            return phase == "features" and done >= 40

        def on_epoch_end(self, epoch: Mapping[str, Any]) -> bool:
            return epoch["epoch"] == 2

    _, run = headstart.fit(photos, head="softmax", epochs=9, callbacks=[Enough()], **FAST)
    used = sum(run.images[split] for split in ("train", "validation", "test"))
    assert 40 <= used < 48 and len(run.history) == 2 and not run.whole
    assert (run.cache["hits"], run.cache["misses"]) == (0, used)  # nothing was looked at twice
    assert calibration([run]).runs == ()


def test_training_stops_when_another_epoch_would_break_the_budget(photos: Path, clock: FakeClock) -> None:
    slow = Slow(clock, work={"epochs": 5.0})
    _, run = headstart.fit(photos, head="softmax", epochs=10, budget=30, callbacks=[slow], **FAST)
    # 25 s are over: 5 more and the saving would not fit, the saving alone does.
    assert len(run.history) == 5 and not run.whole
    assert [each for each in run.notes if "budget" in each] == ["budget 30 s: stopped after 5 of 10 epochs"]


def settled(photos: Path, **options: Any) -> dict[str, Any]:
    """What `fit` knows before a budget cuts it, for `Budget.fit_into` and `prepare`."""
    dataset, backbone, runtime = read_dataset(photos), load_backbone("builtin", size=64), select()
    config = resolve(FitConfig.from_options(**options), dataset, backbone, runtime=runtime)
    return {"config": config, "dataset": dataset, "backbone": backbone, "runtime": runtime}


def test_a_deeper_training_is_predicted_as_far_as_the_seconds_allow(photos: Path, clock: FakeClock) -> None:
    known = settled(photos)
    deeper = replace(known["config"], depth=7, epochs=15, layers=None)
    alone = Budget(clock=clock).fit_into(**known)[2].seconds
    both = Budget(clock=clock).fit_into(**known, deeper=deeper)[2].seconds
    within = Budget(2 * alone, clock=clock).fit_into(**known, deeper=deeper)[2].seconds
    assert alone < within < both and within == pytest.approx(2 * alone)


def test_starting_pytorch_is_no_part_of_an_epochs_pace(
    photos: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm", reason="needs headstart[torch]")

    def slowly(*arguments: Any, **options: Any) -> Start:
        clock.wait(400.0)
        return starting_point(*arguments, **options)

    monkeypatch.setattr("headstart.training.fitting.starting_point", slowly)
    budget, known = Budget(600, clock=clock), settled(photos, freeze=8, epochs=2)
    config = budget.fit_into(**known)[0]
    watch = Callbacks([Slow(clock, work={"epochs": 60.0}), budget])
    trained = train(prepare(**known, watch=budget), config=config, watch=watch)
    assert len(trained.history) == 2 and budget.notes == () and budget.left == 600 - 400 - 2 * 60


def test_a_training_that_went_on_from_a_killed_one_is_known_as_resumed(photos: Path) -> None:
    pytest.importorskip("timm", reason="needs headstart[torch]")

    class Killed(Callback):
        def on_epoch_end(self, epoch: Mapping[str, Any]) -> None:
            raise InterruptedError

    known, resumed = settled(photos, freeze=8, epochs=2), PhaseTimer()
    prepared = prepare(**known)
    with pytest.raises(InterruptedError):
        train(prepared, config=known["config"], watch=Killed())
    assert len(train(prepared, config=known["config"], watch=resumed).history) == 2
    assert resumed.resumed and len(resumed.epochs) == 1


# ------------------------------------------------------------------------------------------- plans


def planned(photos: Path, *, backbones: tuple[str, ...] = ("builtin@64",), **options: Any) -> Plan:
    """On a machine that takes 20 ms for whatever is timed."""
    usual = {"depths": ["all"], "clock": FakeClock(step=0.02)}
    return plan(photos, backbones=backbones, precision="f32", **(usual | options))


def test_a_plan_has_a_row_for_every_backbone_and_depth_and_saves_nothing(photos: Path) -> None:
    found = planned(photos, backbones=("builtin@64", "builtin@32"), depths=["all", "7"], budget="1h")
    assert {(row.size, row.depth) for row in found.rows} == {(64, 9), (64, 7), (32, 9), (32, 7)}
    for row in found.rows:
        assert 0 < row.seconds.low < row.seconds.median < row.seconds.high
        assert sum(row.phases.values()) == pytest.approx(row.seconds.median)
        assert row.cache_bytes > 0 and row.memory_bytes > 10**8
        assert row.keep == "cache" and row.allowed == "all of it" and row.fits
        assert 0 < row.accuracy.low < row.accuracy.accuracy < row.accuracy.high < 1
        assert row.accuracy.images > 20 and row.accuracy.head_only == (row.depth == 9)
    assert [row.seconds.median for row in found.rows] == sorted(row.seconds.median for row in found.rows)
    assert RunStore().select() == []
    json.dumps(found.to_dict())


def test_a_plan_recommends_one_row_of_the_front_and_says_why(photos: Path) -> None:
    found = planned(photos, backbones=("builtin@64", "builtin@32"), budget="1h")
    chosen = found.recommended
    assert chosen.front and [row for row in found.rows if row.recommended] == [chosen]
    assert found.why.startswith(f"{chosen.name}: about {chosen.accuracy} in ")
    assert any(f"recommended: {found.why}" == line for line in lines(found))
    assert not any(row.front for row in found.rows if row.accuracy.accuracy < chosen.accuracy.accuracy - 0.3)


def test_a_budget_that_only_the_quicker_row_keeps_recommends_it(photos: Path) -> None:
    clock = FakeClock(step=0.02)
    names = ("builtin@256", "builtin@32")
    slow, quick = reversed(planned(photos, backbones=names, clock=clock).rows)
    assert (slow.size, quick.size) == (256, 32)
    between = (slow.seconds.median + quick.seconds.median) / 2 / 0.85
    found = planned(photos, backbones=names, budget=between, clock=clock)
    assert found.recommended.size == 32 and not found.rows[-1].fits


def test_the_features_of_a_plan_are_those_of_the_fit_that_follows(photos: Path) -> None:
    (row,) = planned(photos).rows
    _, run = headstart.fit(photos, **FAST)
    assert run.cache["hits"] == row.accuracy.images > 0
    assert run.cache["hits"] + run.cache["misses"] == 48


def test_a_second_plan_looks_at_what_is_cached_and_says_the_same(photos: Path) -> None:
    first = planned(photos)
    assert first.rows[0].basis == "timed now" and 0 < first.rows[0].missing < 0.7
    second = planned(photos)
    assert second.rows[0].accuracy == first.rows[0].accuracy and second.rows[0].basis != "timed now"


def test_a_plan_without_time_for_a_look_shows_what_is_published(photos: Path) -> None:
    found = planned(photos, clock=FakeClock(step=5.0))
    (row,) = found.rows
    assert row.basis == "estimated" and str(row.accuracy) == "59% on ImageNet" and not row.accuracy.images
    assert any(note.startswith("not measured") and "builtin at 64 px" in note for note in found.notes)
    assert "about" not in found.why


def test_a_plan_where_nothing_can_be_kept_still_rests_on_what_it_timed(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("home").write_text("a file where a folder should be")
    monkeypatch.setenv("HEADSTART_HOME", str(Path("home").absolute()))
    assert planned(photos).rows[0].basis == "timed now"


def test_a_plan_says_where_a_fit_would_have_no_room(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_for(needed=10, free=100) == ("cache", "")
    full = shutil.disk_usage(photos)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    row = planned(photos).rows[0]
    assert row.keep == "no room" and "a fit stores nothing" in row.reason
    _, run = headstart.fit(photos, **FAST)
    _, again = headstart.fit(photos, **FAST)
    assert run.cache["misses"] == again.cache["misses"] == sum(run.images.values())


def test_the_command_prints_a_row_and_json(photos: Path) -> None:
    arguments = ["plan", str(photos), "--backbones", "builtin@64", "--depths", "all", "--precision", "f32"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0 and "48 images in 3 classes" in shown.output and "cache" in shown.output
    as_json = json.loads(CliRunner().invoke(cli, [*arguments, "--budget", "1h", "--json"]).output)
    assert as_json["rows"][0]["predicted_seconds"].keys() == {"low", "median", "high"}
    (row,) = as_json["rows"]
    assert row["fits"] is True and row["depth"] == "all" and row["name"] == "builtin@64"
    assert row["recommended"] and row["front"] and as_json["recommended"] == "builtin@64"
    assert row["accuracy"]["low"] < row["accuracy"]["accuracy"] < row["accuracy"]["high"]


# --------------------------------------------------------------------------------------- stopwatch


def test_a_few_training_steps_are_timed_with_the_loop_that_trains() -> None:
    pytest.importorskip("timm", reason="needs headstart[torch]")
    network = load_backbone("builtin", size=32)
    options = {"depth": 8, "classes": 3, "batch_size": 4}
    clock, busy = FakeClock(step=1.2), FakeClock(step=1.2)
    opened, each = time_training(network, **options, clock=clock)
    assert each == pytest.approx(1.2 / 4) and opened == pytest.approx(0.0)
    assert clock.now - 100.0 == pytest.approx(1.2 * (1 + TRAINING_STEPS))  # at the start, after each step
    assert time_training(network, **options, most=2.0, clock=busy)[1] == pytest.approx(1.2 / 4)
    assert busy.now - 100.0 == pytest.approx(1.2 * (1 + 2))  # left after the second step
