"""Predicting, remembering, keeping to a budget: with a clock that the tests hold."""

import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart
from headstart.backbones import load_backbone
from headstart.cli import cli
from headstart.cli.plan import lines
from headstart.costs import formulas as jobs
from headstart.costs.budgets import IMAGES_PER_CLASS, Settings, beginning, fit_into, interleaved, parse_budget
from headstart.costs.candidates import parse_candidates, sized
from headstart.costs.clock import process_age
from headstart.costs.estimates import Estimate, Range, add, from_dict, to_range
from headstart.costs.observing import Outcome, Watch, observations
from headstart.costs.timings import Observation, Rates, RateStore, machine, machine_digits, verdict
from headstart.dataset import Dataset, Sample, read_dataset
from headstart.errors import OptionError
from headstart.features import FeatureCache, Wanted, extract, missing_share
from headstart.images import parse_views
from headstart.runs import RunStore
from headstart.runtimes import select
from headstart.training.planned import allowance, memory_bytes, nested, room_for, stage_seconds
from headstart.training.planning import plan
from headstart.training.stopwatch import PrefixTiming, time_decoding, time_prefix, time_storage
from made_up_jobs import FakeClock, make_job

FAST: dict[str, Any] = {"size": 64, "precision": "f32"}


# ---------------------------------------------------------------------------------------- estimates


def test_a_range_holds_its_median_and_what_is_spent_is_certain() -> None:
    found = to_range(Estimate(10.0, 0.2), spent=5.0)
    assert found.low < found.median == 15.0 < found.high
    assert found.low > 5.0 + 10.0 / math.exp(1.645 * 0.2) - 1e-9
    assert to_range(Estimate(0.0, 0.0), spent=3.0) == Range(3.0, 3.0, 3.0)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 1.0)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_a_sum_is_no_less_certain_than_its_least_certain_part(parts: list[tuple[float, float]]) -> None:
    found = add(Estimate(*part) for part in parts)
    assert found.seconds == pytest.approx(sum(seconds for seconds, _ in parts))
    assert 0 <= found.spread <= max(spread for _, spread in parts) + 1e-9


def test_a_range_survives_json() -> None:
    found = Range(1.0, 2.0, 3.5)
    assert from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert from_dict({}) is None


# ---------------------------------------------------------------------------------------- memory


def test_unseen_machines_get_the_formula_and_a_wide_range() -> None:
    found = Rates().estimate("prefix", "net", base=2.0, spread=0.5)
    assert found == Estimate(2.0, 0.5)


def test_one_observation_moves_the_estimate_most_of_the_way_and_narrows_it() -> None:
    rates = Rates([Observation("prefix", "net", 3.0)])
    found = rates.estimate("prefix", "net", base=1.0, spread=0.5)
    assert 2.5 < found.seconds < 3.0
    assert 0.1 < found.spread < 0.2


def test_many_equal_observations_converge_and_stay_uncertain_by_a_few_percent() -> None:
    rates = Rates([Observation("prefix", "net", 3.0)] * 12)
    found = rates.estimate("prefix", "net", base=1.0, spread=0.5)
    assert found.seconds == pytest.approx(3.0, rel=0.1)
    assert 0.05 < found.spread < 0.2


def test_another_network_profits_from_what_was_seen_of_its_kind() -> None:
    rates = Rates([Observation("prefix", name, 4.0) for name in ("a", "b", "c")])
    found = rates.estimate("prefix", "new", base=1.0, spread=0.5)
    assert 2.0 < found.seconds < 4.0
    assert not rates.known("prefix", "new") and rates.known("prefix", "a")
    assert rates.estimate("decode", "new", base=1.0, spread=0.5).seconds == 1.0


def test_newer_observations_count_more_and_absurd_ones_do_not_count() -> None:
    newest_first = [Observation("check", "", 1.0), *[Observation("check", "", 4.0)] * 2]
    oldest_first = list(reversed(newest_first))
    assert (
        Rates(newest_first).estimate("check", "", base=1.0, spread=0.3).seconds
        < Rates(oldest_first).estimate("check", "", base=1.0, spread=0.3).seconds
    )
    assert Rates([Observation("check", "", 1e9)]).estimate("check", "", base=1.0, spread=0.3).seconds == 1.0


def test_past_errors_correct_the_next_prediction_but_a_single_one_hardly() -> None:
    one = Rates(verdict(10.0, 20.0, spread=0.2)).correction(0.2)
    many = Rates(verdict(10.0, 20.0, spread=0.2) * 30).correction(0.2)
    assert 1.0 < one.factor < 1.2 < many.factor < 2.0
    assert 1.0 < one.widening < many.widening
    assert Rates().correction(0.2).factor == 1.0
    assert verdict(0.0, 1.0, spread=0.2) == []


def test_predictions_that_are_always_right_narrow_the_range() -> None:
    rates = Rates(verdict(10.0, 10.0, spread=0.3) * 20)
    assert rates.correction(0.3).widening < 0.7
    assert rates.correction(0.3).factor == pytest.approx(1.0)
    assert rates.correction(0.1).widening == 1.0  # of those that rest on measurements they say nothing


def test_steps_that_are_well_known_leave_the_machines_own_unsteadiness() -> None:
    steady = jobs.corrected(Estimate(10.0, 0.0), Rates())
    assert steady.seconds == 10.0 and to_range(steady).high > 11.5
    doubtful = jobs.corrected(Estimate(10.0, 0.5), Rates())
    assert doubtful.spread == pytest.approx(0.5, rel=0.05)  # of a wide range it is next to nothing


def test_every_beginning_of_many_classes_has_them_all_in_turn() -> None:
    samples = tuple(Sample(f"{label}/{i}", label, None, None) for label in range(100) for i in range(12))  # type: ignore[arg-type]
    order = interleaved(Dataset("many", tuple(map(str, range(100))), samples))
    for images in (100, 200, 343):
        counts = np.bincount(beginning(order, images).labels, minlength=100)
        assert counts.max() - counts.min() <= 1


def test_the_store_remembers_newest_first_and_by_machine(tmp_path: Path) -> None:
    store = RateStore(tmp_path)
    assert store.observations() == []
    store.add([Observation("check", "", 2.0)])
    store.add([Observation("check", "", 3.0), Observation("hit", "photos", -1.0)])
    assert store.observations() == [Observation("check", "", 3.0), Observation("check", "", 2.0)]
    import sqlite3

    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE observations SET machine = 'elsewhere' WHERE ratio = 3.0")
    connection.close()
    assert store.observations() == [Observation("check", "", 2.0)]


def test_machines_are_told_apart_without_a_name_that_leaves_the_house(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = {}
    for name in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert machine().startswith(f"{name} ")
        named[name] = machine_digits()
    assert named["one"] != named["two"] and all(len(bytes.fromhex(each)) == 8 for each in named.values())


def test_a_damaged_store_costs_sharpness_and_nothing_else(tmp_path: Path) -> None:
    store = RateStore(tmp_path)
    store.path.write_bytes(b"no database" * 100)
    assert store.observations() == []
    store.add([Observation("check", "", 2.0)])


# ---------------------------------------------------------------------------------------- jobs


def test_what_is_cached_is_not_paid_again() -> None:
    cold = jobs.predict(make_job(), Rates())
    warm = jobs.predict(make_job(missing=0.0), Rates())
    half = jobs.predict(make_job(missing=500.0), Rates())
    assert warm.median < half.median < cold.median
    assert all(
        step.quantity not in ("open", "decode", "prefix")
        for step in jobs.steps(make_job(missing=0.0), Rates())
    )


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ({"images": 100, "missing": 100.0}, {}),
        ({}, {"views": 4}),
        ({}, {"prefix_macs": 300_000_000}),
        ({"head": "softmax", "epochs": 5}, {"head": "softmax", "epochs": 50}),
        ({"tail_macs": 1, "epochs": 5}, {"tail_macs": 10_000_000, "epochs": 5}),
        ({"tail_macs": 10_000_000, "epochs": 5}, {"tail_macs": 10_000_000, "epochs": 10}),
        ({}, {"choosing_taps": True}),
    ],
)
def test_more_work_is_predicted_to_take_longer(smaller: dict[str, Any], larger: dict[str, Any]) -> None:
    assert (
        jobs.predict(make_job(**smaller), Rates()).median < jobs.predict(make_job(**larger), Rates()).median
    )


def test_start_up_is_part_of_the_prediction() -> None:
    without, included = jobs.predict(make_job(), Rates()), jobs.predict(make_job(), Rates(), spent=2.0)
    assert included.low - without.low == pytest.approx(2.0)
    assert included.high - without.high == pytest.approx(2.0)


def test_split_sizes_follow_the_data_where_it_says(photos: Path) -> None:
    dataset = read_dataset(photos)
    assert jobs.split_sizes(dataset, validation=0.25, test=0.25) == (24, 24)
    given = [replace(sample, split="test" if i < 8 else "train") for i, sample in enumerate(dataset.samples)]
    marked = replace(dataset, samples=tuple(given))
    assert jobs.split_sizes(marked, validation=0.25, test=0.25) == (30, 18)


# ---------------------------------------------------------------------------------------- observing


def test_a_watched_pass_teaches_its_speed_apart_from_its_start() -> None:
    clock, job = FakeClock(), make_job(images=800, missing=800.0)
    watch = Watch(clock=clock)
    begun = clock.now
    watch.begin("features")
    clock.wait(2.0)  # compiling
    for done in range(8, 801, 8):
        watch("features", done, 800)
        clock.wait(0.08)
    outcome = Outcome({"features": clock.now - begun}, hits=0, misses=800)
    seen = {each.quantity: each for each in observations(job, outcome, watch, rates=Rates())}
    assert seen["open"].ratio * jobs.open_step(job).base == pytest.approx(2.0)
    assert seen["pass"].ratio * jobs.pass_base(job) == pytest.approx(0.01, rel=0.02)
    rates = Rates(seen.values())
    again = add(jobs.estimates(job, rates, phases=("features",)))
    assert again.seconds == pytest.approx(10.0, rel=0.3)


def test_a_pass_over_cached_features_teaches_the_speed_of_the_cache() -> None:
    job = make_job(missing=0.0)
    seen = observations(job, Outcome({"features": 0.5}, hits=1000, misses=0), Watch(), rates=Rates())
    assert "hit" in {each.quantity for each in seen}
    hit = add(jobs.estimates(job, Rates(seen), phases=("features",)))
    assert hit.seconds == pytest.approx(0.5, rel=0.3)


def test_hits_and_misses_at_once_teach_nothing_of_either() -> None:
    watch = Watch(clock=FakeClock(step=0.1))
    watch.begin("features")
    watch("features", 500, 1000)
    outcome = Outcome({"features": 0.5}, hits=500, misses=500)
    seen = observations(make_job(), outcome, watch, rates=Rates())
    assert not {each.quantity for each in seen} & {"hit", "pass", "prefix", "open"}


def test_epochs_are_timed_without_what_came_before_them() -> None:
    clock, job = FakeClock(), make_job(tail_macs=10_000_000, epochs=10)
    watch = Watch(clock=clock)
    begun = clock.now
    watch.begin("epochs")
    clock.wait(5.0)
    for epoch in range(1, 5):  # stopped early: four of ten
        clock.wait(2.0)
        watch("epochs", epoch, 10)
    seen = {
        each.quantity: each
        for each in observations(
            job, Outcome({"train": clock.now - begun}, hits=0, misses=0), watch, rates=Rates()
        )
    }
    assert seen["epoch"].ratio * jobs.epoch_base(job) == pytest.approx(2.0)
    assert seen["torch"].ratio * jobs.TORCH_START == pytest.approx(5.0)


# ---------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("2m", 120.0), ("1.5h", 5400.0), (12, 12.0), ("90", 90.0), (None, None)],
)
def test_times_are_read(text: Any, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0s", "-3", "5 days", ""])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="30s"):
        parse_budget(text)


def seconds_of(settings: Settings) -> Range:
    """A made-up job: one second fixed, and so on."""
    taps = 2.0 if settings.taps == "auto" else 0.0
    median = 1.0 + taps + settings.images * (0.01 * settings.views + 0.01 * settings.epochs)
    return Range(0.8 * median, median, 1.3 * median)


ASKED = Settings(epochs=20, views=4, taps="auto", images=100)


def test_what_fits_is_left_alone() -> None:
    cut = fit_into(60.0, ASKED, predict=seconds_of, classes=2)
    assert cut.settings == ASKED and cut.sentence(60.0) == ""


@given(st.floats(2.5, 40.0))
@settings(deadline=None, max_examples=60)
def test_a_cut_fits_and_says_what_it_cut(budget: float) -> None:
    cut = fit_into(budget, ASKED, predict=seconds_of, classes=2)
    assert seconds_of(cut.settings).median <= budget
    assert (cut.sentence(budget) == "") == (cut.settings == ASKED)
    assert "\n" not in cut.sentence(budget)
    for name in ("epochs", "views", "images"):
        assert getattr(cut.settings, name) >= 1


def test_epochs_go_before_views_and_views_before_images() -> None:
    assert fit_into(25.0, ASKED, predict=seconds_of, classes=2).settings == replace(ASKED, epochs=14)
    some = fit_into(14.0, ASKED, predict=seconds_of, classes=2).settings
    assert some.epochs < 20 and some.views < 4 and some.images == 100
    least = fit_into(2.5, ASKED, predict=seconds_of, classes=2)
    assert least.settings.images < 100 and least.settings.taps == "last"
    assert "images" in least.sentence(2.5) and "budget 2.5 s" in least.sentence(2.5)


def test_a_budget_below_the_smallest_job_is_refused_with_what_it_needs() -> None:
    with pytest.raises(OptionError, match=r"needs about \d"):
        fit_into(0.5, ASKED, predict=seconds_of, classes=2)


def make_dataset(sizes: list[int]) -> Dataset:
    class NoSource:
        def read(self) -> bytes:
            return b""

    samples = [
        Sample(f"{label}/{i}", label, None, NoSource())
        for label, size in enumerate(sizes)
        for i in range(size)
    ]
    return Dataset("made up", tuple(map(str, range(len(sizes)))), tuple(samples))


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=50)
def test_every_beginning_has_all_classes_in_proportion(sizes: list[int], share: float) -> None:
    dataset = make_dataset(sizes)
    mixed = interleaved(dataset)
    assert sorted(s.name for s in mixed.samples) == sorted(s.name for s in dataset.samples)
    assert interleaved(dataset) == mixed
    least = sum(min(size, IMAGES_PER_CLASS) for size in sizes)
    part = beginning(mixed, max(least, round(share * len(mixed))))
    counts = np.bincount(part.labels, minlength=len(sizes))
    for size, count in zip(sizes, counts, strict=True):
        assert count >= min(size, IMAGES_PER_CLASS)
        assert count >= size * (len(part) - least) / len(mixed) - 1


# ---------------------------------------------------------------------------------------- the clock


def test_a_process_knows_its_age_start_up_included() -> None:
    code = (
        "import time; time.sleep(0.4)\n"
        "from headstart.costs.clock import ending, process_age, _age_on_linux\n"
        "print(process_age())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = time.perf_counter() - started
    age = float(done.stdout)
    if sys.platform == "linux":
        assert 0.39 <= age <= outside + 0.02
    assert 0 < age <= outside + 0.02


def test_without_a_process_table_the_processor_time_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> float:
        raise OSError("no /proc")

    monkeypatch.setattr("headstart.costs.clock._age_on_linux", missing)
    assert 0 < process_age() <= time.process_time()


# ---------------------------------------------------------------------------------------- the cache


def test_the_cache_is_asked_how_much_is_there(photos: Path, tmp_path: Path) -> None:
    dataset, backbone, runtime = (
        read_dataset(photos),
        load_backbone("builtin", size=64),
        select(precision="f32"),
    )
    wanted = Wanted(depth=len(backbone.stages), views=parse_views(1))
    cache = FeatureCache(tmp_path / "cache")

    def missing(want: Wanted = wanted) -> float:
        return missing_share(dataset.samples, backbone, wanted=want, runtime=runtime, cache=cache)

    assert missing() == 1.0
    extract(dataset.samples[:24], backbone, wanted=wanted, runtime=runtime, cache=cache)
    assert 0.3 < missing() < 0.7
    extract(dataset.samples, backbone, wanted=wanted, runtime=runtime, cache=cache)
    assert missing() == 0.0
    assert missing(replace(wanted, views=parse_views("flip"))) == 1.0
    (photos / "discs" / "000.jpg").unlink()
    assert missing() == 0.0


# ---------------------------------------------------------------------------------------- timing


def test_timing_divides_what_the_clock_says_by_the_work(photos: Path) -> None:
    backbone, runtime = load_backbone("builtin", size=64), select(precision="f32")
    samples = read_dataset(photos).samples[:10]
    seconds, pixels = time_decoding(
        samples, backbone.preprocess, views=parse_views(1), clock=FakeClock(step=5.0)
    )
    assert seconds == pytest.approx(0.5) and pixels.shape == (10, 64, 64, 3)
    timing = time_prefix(
        backbone, pixels, runtime=runtime, depth=9, taps=False, batch_size=4, clock=FakeClock(step=6.0)
    )
    assert timing == PrefixTiming(depth=9, batch_size=4, open_seconds=6.0, seconds_per_image=0.5)
    storage = time_storage(1000, clock=FakeClock(step=3.2))
    assert storage.write == pytest.approx(0.1) and storage.read == pytest.approx(0.1)


def test_a_few_training_steps_are_timed_with_the_loop_that_trains() -> None:
    pytest.importorskip("timm")
    from headstart.training.stopwatch import TRAINING_STEPS, time_training

    network = load_backbone("builtin", size=32)
    options = {"depth": 8, "classes": 3, "batch_size": 4}
    clock = FakeClock(step=1.2)
    opened, each = time_training(network, **options, clock=clock)
    assert each == pytest.approx(1.2 / 4)
    assert opened == pytest.approx(0.0)
    assert clock.now - 100.0 == pytest.approx(
        1.2 * (1 + TRAINING_STEPS)
    )  # asked at the start and after each step
    busy = FakeClock(step=1.2)
    assert time_training(network, **options, most=2.0, clock=busy)[1] == pytest.approx(1.2 / 4)
    assert busy.now - 100.0 == pytest.approx(1.2 * (1 + 2))  # left after the second step


def test_stages_share_what_was_timed_by_their_multiply_adds() -> None:
    backbone = load_backbone("builtin")
    whole, part = PrefixTiming(9, 32, 0.1, 0.010), PrefixTiming(4, 32, 0.1, 0.007)
    alone = stage_seconds(backbone, [whole])
    assert sum(alone.values()) == pytest.approx(0.010)
    small = PrefixTiming(9, 8, 0.1, 0.020)  # another batch size says nothing of how the stages share
    busy = PrefixTiming(2, 32, 0.1, 0.008)  # two stages cannot take longer than the four they are among
    every = [whole, small, busy, part, PrefixTiming(6, 32, 0.1, 0.009)]
    assert [(each.depth, each.batch_size) for each in nested(every)] == [(4, 32), (6, 32), (9, 32)]
    several = stage_seconds(backbone, every)
    assert list(several) == [stage.name for stage in backbone.stages]
    assert sum(list(several.values())[:4]) == pytest.approx(0.007)
    assert sum(list(several.values())[4:6]) == pytest.approx(0.002)
    assert sum(several.values()) == pytest.approx(0.010)


# ---------------------------------------------------------------------------------------- plan


def test_a_plan_says_where_a_fit_would_have_no_room(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, reason = room_for(reading=0.001, computing=0.01, needed=10, free=100)
    assert kept == "cache" and reason == "reading takes 1 ms an image, computing 10 ms"
    full = shutil.disk_usage(photos)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    row = plan(photos, backbones=["builtin@64"], depths=["all"], precision="f32").rows[0]
    assert row.keep == "no room" and "a fit stores nothing" in row.reason
    _, run = headstart.fit(photos, **FAST)
    _, again = headstart.fit(photos, **FAST)
    assert run.cache["misses"] == again.cache["misses"] == sum(run.images.values())


def test_a_budget_row_says_what_of_the_job_it_allows() -> None:
    job = make_job(tail_macs=50_000_000, epochs=15)
    whole = jobs.predict(job, Rates()).median
    assert allowance(job, Rates(), budget=None, spent=0.0) == ("", True)
    assert allowance(job, Rates(), budget=2 * whole, spent=0.0) == ("all of it", True)
    words, fits = allowance(job, Rates(), budget=0.7 * whole, spent=0.0)
    assert not fits and words.endswith("of 15 epochs")
    assert "nothing" in allowance(job, Rates(), budget=0.01, spent=0.0)[0]


def test_thawing_needs_more_memory_than_a_head() -> None:
    backbone = load_backbone("builtin")
    head = memory_bytes(make_job(), backbone, depth=9)
    tail = memory_bytes(make_job(tail_macs=10_000_000), backbone, depth=5)
    assert 10**8 < head < tail < 10**10


def test_a_plan_has_a_row_for_every_backbone_and_depth_and_trains_nothing(photos: Path) -> None:
    found = plan(
        photos, backbones=["builtin@64", "builtin@32"], depths=["all", "7"], precision="f32", budget="1h"
    )
    assert {(row.size, row.depth) for row in found.rows} == {(64, 9), (64, 7), (32, 9), (32, 7)}
    for row in found.rows:
        assert 0 < row.seconds.low < row.seconds.median < row.seconds.high
        assert row.cache_bytes > 0 and row.memory_bytes > 10**8 and row.reason and row.missing == 1.0
        assert row.allowed == "all of it"
    assert [row.seconds.median for row in found.rows] == sorted(row.seconds.median for row in found.rows)
    assert RunStore().select() == []
    json.dumps(found.to_dict())


def test_a_second_plan_remembers_and_times_nothing_again(photos: Path) -> None:
    first = plan(photos, backbones=["builtin@64"], depths=["all"], precision="f32")
    assert first.rows[0].basis == "timed now" and {t.batch_size for _, t in first.prefixes} >= {16}
    (shares,) = first.stages.values()
    assert sum(shares.values()) == pytest.approx(first.prefixes[0][1].seconds_per_image)
    (said,) = [line for line in lines(first) if "in batches of 16" in line]
    assert (
        "in batches of 16" in said
        and "split by multiply-adds" in said
        and all(name in said for name in shares)
    )
    second = plan(photos, backbones=["builtin@64"], depths=["all"], precision="f32")
    assert second.rows[0].basis == "remembered" and second.prefixes == ()


def test_a_plan_that_runs_out_of_its_allowance_says_that_it_estimates(photos: Path) -> None:
    found = plan(
        photos, backbones=["builtin@64"], depths=["all"], precision="f32", clock=FakeClock(step=10.0)
    )
    assert found.rows[0].basis == "estimated"
    assert any("longer than a plan may" in note for note in found.notes)


def test_the_start_of_the_command_counts_in_what_a_plan_may_take(photos: Path) -> None:
    options = {"backbones": ["builtin@64"], "depths": ["all"], "precision": "f32"}
    late = plan(photos, spent=100.0, **options)
    assert late.rows[0].basis == "estimated" and late.seconds > 100.0
    assert plan(photos, **options).rows[0].basis == "timed now"


def test_a_plan_counts_on_what_is_cached(photos: Path) -> None:
    headstart.fit(photos, **FAST)
    found = plan(photos, backbones=["builtin@64"], depths=["all"], precision="f32")
    assert found.rows[0].missing == 0.0


def test_the_command_prints_a_row_and_json(photos: Path) -> None:
    arguments = ["plan", str(photos), "--backbones", "builtin@64", "--depths", "all", "--precision", "f32"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0 and "48 images in 3 classes" in shown.output and "cache" in shown.output
    as_json = json.loads(CliRunner().invoke(cli, [*arguments, "--budget", "1h", "--json"]).output)
    assert as_json["rows"][0]["predicted_seconds"].keys() == {"low", "median", "high"}
    assert as_json["rows"][0]["fits"] is True


def test_backbones_are_named_with_or_without_a_size() -> None:
    names = ["builtin", "builtin@96", "weights/net.safetensors@160", "builtin"]
    found = parse_candidates(names)
    assert [(each.name, each.size) for each in found] == [
        ("builtin", None),
        ("builtin", 96),
        ("weights/net.safetensors", 160),
    ]
    assert found[2].label == "net.safetensors"
    assert sized(names[:2], size=64) == ("builtin@64", "builtin@96") and sized(None, size=64) is None
    with pytest.raises(OptionError, match="no backbones"):
        parse_candidates([" "])


def test_saving_and_rendering_at_many_pixels_take_what_the_network_takes_there() -> None:
    small = make_job(prefix_macs=31_000_000, side=128)
    large = replace(small, prefix_macs=int(small.prefix_macs * (2000 / 128) ** 2), side=2000)

    def seconds(job: jobs.Job) -> dict[str, float]:
        return dict(jobs.phase_seconds(job, Rates()))

    assert seconds(small)["save"] < 0.4
    batch = 32 * large.prefix_macs / jobs.prefix_rate(large.precision)
    assert batch < seconds(large)["save"] < 2 * batch + 2
    assert jobs.decode_base(large) > 10 * jobs.decode_base(small)
    assert jobs.decode_base(replace(small, side=224)) == jobs.decode_base(small)
