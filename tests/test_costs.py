"""Predicting, remembering, keeping to a budget: with a clock that the tests hold."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cli.terminal import left_of, process_age
from headstart.costs import CostEstimate, ImageCounts, Timings, Workload, parse_budget
from headstart.costs.budgets import IMAGES_PER_CLASS, beginning, fit_into, interleaved
from headstart.costs.formulas import NOTHING, steps
from headstart.costs.observed import of_closing, of_features, of_training
from headstart.costs.timings import machine_digits, remember
from headstart.data.dataset import Dataset, Sample, read_dataset
from headstart.errors import OptionError
from headstart.features import CacheUse, FeatureSpec
from headstart.runs import FitConfig, store
from headstart.runs.callbacks import Phase, PhaseTimer, Range
from headstart.runs.store import Timing
from headstart.training.backbone_names import parse_names, sized
from headstart.training.planning import allowance, memory_bytes
from made_up_jobs import FakeClock, make_job

UNKNOWN = Timings()
FOUR = FitConfig.from_options(views=4).views


def seconds(job: Workload, timings: Timings = UNKNOWN, *, phase: str | None = None) -> float:
    """As predicted, of all phases or of one."""
    return job.estimate(timings, phases=(phase,) if phase else None).seconds


# ------------------------------------------------------------------------------------------ ranges


def test_a_range_holds_its_median_and_what_is_spent_is_certain() -> None:
    found = Range.around(10.0, spread=0.2, spent=5.0)
    assert found.low < found.median == 15.0 < found.high
    assert found.low == pytest.approx(5.0 + 10.0 / math.exp(1.645 * 0.2))
    assert Range.around(0.0, spread=0.0, spent=3.0) == Range(3.0, 3.0, 3.0)
    assert found.holds(found.low) and found.holds(found.high + 4e-4) and not found.holds(found.high + 1e-3)
    assert Range.from_dict(json.loads(json.dumps(Range(1.0, 2.0, 3.5).to_dict()))) == Range(1.0, 2.0, 3.5)
    assert Range.from_dict({}) is None


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 1.0)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_a_sum_is_no_less_certain_than_its_least_certain_part(parts: list[tuple[float, float]]) -> None:
    found = sum((CostEstimate({"train": each}, spread) for each, spread in parts), NOTHING)
    assert found.seconds == pytest.approx(sum(each for each, _ in parts))
    assert 0 <= found.spread <= max(spread for _, spread in parts) + 1e-9


def test_steps_that_are_well_known_leave_the_machines_own_unsteadiness() -> None:
    steady = CostEstimate({"check": 10.0}, 0.0).range()
    assert steady.median == 10.0 and steady.low < 9.0 and steady.high > 11.5
    assert CostEstimate({"check": 10.0}, 0.5).range().high > steady.high


# ----------------------------------------------------------------------------------------- timings


@pytest.mark.parametrize(
    ("newest_first", "factor"),
    [
        ([], 1.0),
        ([3.0], 3.0),
        ([3.0, 3.0, 50.0], 3.0),  # one that was disturbed
        ([3.0] * 4 + [9.0] * 3, 3.0),
        ([3.0] * 4 + [9.0] * 3 + [1.0] * 90, 3.0),  # older than the last few
        ([1e9, 3.0, 1e-9], 3.0),  # a laptop that slept, a clock that was set
    ],
)
def test_the_median_of_the_last_few_ratios_scales_a_formula(newest_first: list[float], factor: float) -> None:
    timings = Timings(Timing("prefix", "net", ratio) for ratio in newest_first)
    assert timings.scale("prefix", "net", spread=0.5)[0] == pytest.approx(factor)
    assert timings.known("prefix", "net") == bool(newest_first)


def test_ranges_get_narrow_with_timings_that_agree_and_stay_wide_where_they_do_not() -> None:
    def spread(*ratios: float) -> float:
        timings = Timings(Timing("prefix", "net", ratio) for ratio in ratios)
        return timings.scale("prefix", "net", spread=0.5)[1]

    assert spread() == 0.5
    assert 0.05 < spread(3.0, 3.0, 3.0) < spread(3.0) < spread(1.0, 2.0, 4.0)


def test_another_network_profits_from_what_was_timed_of_its_kind() -> None:
    one = Timings([Timing("prefix", "a", 4.0)])
    many = Timings(Timing("prefix", name, 4.0) for name in "abc")
    factors = [each.scale("prefix", "new", spread=0.5)[0] for each in (UNKNOWN, one, many)]
    assert factors == sorted(factors) and factors[0] < factors[1] and factors[2] == pytest.approx(4.0)
    assert many.scale("prefix", "new", spread=0.5)[1] == 0.5
    assert many.scale("decode", "new", spread=0.5) == (1.0, 0.5)
    assert not many.known("prefix", "new")


def test_timings_are_remembered_newest_first_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {}
    for name in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert not Timings.load().known("check", "")
        remember([Timing("check", "", 2.0)] * 7)
        remember([Timing("check", "", 3.0)] * 7)
        assert Timings.load().scale("check", "", spread=0.3)[0] == 3.0
        named[name] = machine_digits()
    # A run that is given away says by these on which machine it was made, and not what that is called.
    assert named["one"] != named["two"] and all(len(bytes.fromhex(each)) == 8 for each in named.values())


def test_a_damaged_store_costs_sharpness_and_nothing_else() -> None:
    remember([Timing("check", "", 2.0)])
    store.store_file().write_bytes(b"no database" * 100)
    assert not Timings.load().known("check", "")
    remember([Timing("check", "", 2.0)])
    assert Timings.load().known("check", "")


# ---------------------------------------------------------------------------------------- formulas


def test_what_is_cached_is_not_paid_again() -> None:
    cold, half, warm = (make_job(missing=missing) for missing in (1000.0, 500.0, 0.0))
    assert seconds(warm) < seconds(half) < seconds(cold)
    found = steps(warm.config, warm.backbone, warm.counts, UNKNOWN)
    assert {each.name for each in found if each.phase == "features"} == {"hit"}


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ({"images": 100}, {}),
        ({}, {"views": FOUR}),
        ({}, {"size": 128}),
        ({"head": "softmax", "epochs": 5}, {"head": "softmax", "epochs": 50}),
        ({"depth": 8, "epochs": 5}, {"depth": 5, "epochs": 5}),
        ({"depth": 7, "epochs": 5}, {"depth": 7, "epochs": 10}),
        ({}, {"layers": "auto"}),
        ({}, {"layers": "all"}),
    ],
)
def test_more_work_is_predicted_to_take_longer(smaller: dict[str, Any], larger: dict[str, Any]) -> None:
    assert seconds(make_job(**smaller)) < seconds(make_job(**larger))


def test_split_sizes_follow_the_data_where_it_says(photos: Path) -> None:
    def sizes(dataset: Dataset) -> tuple[int, int]:
        found = ImageCounts.of(dataset, FitConfig(validation=0.25, test=0.25))
        return found.training, found.held_out

    dataset = read_dataset(photos)
    assert sizes(dataset) == (24, 24)
    marked = [replace(each, split="test" if i < 8 else "train") for i, each in enumerate(dataset.samples)]
    assert sizes(replace(dataset, samples=tuple(marked))) == (30, 18)


def test_saving_and_rendering_at_many_pixels_take_what_the_network_takes_there() -> None:
    small, large = make_job(), make_job(size=1024)
    macs = sum(stage.multiply_adds for stage in large.backbone.stages)
    batch = 32 * macs / 6e10
    assert seconds(small, phase="save") < 0.4
    assert batch < seconds(large, phase="save") < 2 * batch + 2
    cheap = Timings([Timing("prefix", "", 0.01)] * 3)  # what is left is reading and rendering
    larger = make_job(size=1280)
    assert seconds(larger, cheap, phase="features") > 4 * seconds(small, cheap, phase="features")


def test_fine_tuning_needs_more_memory_than_a_head() -> None:
    assert 10**8 < memory_bytes(make_job()) < memory_bytes(make_job(depth=5)) < 10**10


# ---------------------------------------------------------------------------------------- learning


def about(job: Workload) -> dict[str, Any]:
    return {"config": job.config, "backbone": job.backbone, "spec": FeatureSpec.of(job.config)}


def learnt_in_a_pass(job: Workload, phase: Phase, use: CacheUse) -> dict[str, Timing]:
    found = of_features(phase, use, images=job.counts.images, timings=UNKNOWN, **about(job))
    return {each.step: each for each in found}


def learnt_in_training(job: Workload, epochs: Sequence[int]) -> dict[str, Timing]:
    """From a training that took five seconds to begin, and two for each of these epochs."""
    clock = FakeClock()
    timer = PhaseTimer(clock)
    timer.on_phase_begin("train")
    clock.wait(5.0)
    timer.on_phase_begin("epochs")
    for epoch in epochs:
        clock.wait(2.0)
        timer.on_progress("epochs", epoch, 10)
    timer.on_phase_end("train", None)
    assert timer.resumed == (epochs[0] > 1)
    return {each.step: each for each in of_training(timer, counts=job.counts, **about(job))}


FULL_PASS = Phase(0.0, 9.92, first=(2.0, 8), last=(9.92, 800))
"""Two seconds until the first images were there, ten milliseconds for each of the others."""


def test_a_pass_teaches_its_speed_apart_from_its_start() -> None:
    job = make_job(images=800)
    seen = learnt_in_a_pass(job, FULL_PASS, CacheUse(misses=800))
    assert {"open", "pass", "prefix"} <= seen.keys()
    assert seen["open"].ratio * 0.5 == pytest.approx(2.0)
    again = Timings(seen.values())
    next_time = seconds(job, again, phase="features")
    assert 8.0 < next_time < 10.1  # loading what is compiled by now takes less
    assert seconds(make_job(images=1600), again, phase="features") - next_time == pytest.approx(8.0, rel=0.05)


def test_a_pass_over_cached_features_teaches_the_speed_of_the_cache() -> None:
    job = make_job(missing=0.0)
    seen = learnt_in_a_pass(job, Phase(0.0, 0.5), CacheUse(hits=1000))
    assert seen.keys() == {"hit"}
    assert seconds(job, Timings(seen.values()), phase="features") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("phase", "images", "use"),
    [
        (FULL_PASS, 800, CacheUse(hits=400, misses=400)),  # cached and computed at once
        (replace(FULL_PASS, last=(2.5, 40)), 40, CacheUse(misses=40)),  # over before the pipeline is full
    ],
)
def test_a_pass_that_cannot_be_told_apart_teaches_nothing(phase: Phase, images: int, use: CacheUse) -> None:
    assert learnt_in_a_pass(make_job(images=images), phase, use) == {}


def test_epochs_are_timed_without_what_came_before_them() -> None:
    job = make_job(depth=7, epochs=10)
    seen = learnt_in_training(job, range(1, 5))  # four of ten
    assert seen["torch"].ratio * 3.2 == pytest.approx(5.0)
    whole = Timings(seen.values())
    start = seconds(replace(job, config=replace(job.config, epochs=0)), whole, phase="train")
    assert seconds(job, whole, phase="train") - start == pytest.approx(20.0)
    resumed = learnt_in_training(job, range(7, 11))
    assert resumed["epoch"].ratio == pytest.approx(seen["epoch"].ratio)
    assert learnt_in_training(job, [1]) == {}  # one cannot be told from the start


def test_a_softmax_head_that_was_stopped_early_is_no_fast_one() -> None:
    job = make_job(images=20_000, head="softmax", epochs=10)
    stopped, whole = (learnt_in_training(job, range(1, last + 1))["softmax"].ratio for last in (5, 10))
    assert stopped == pytest.approx(whole, rel=0.25)


def test_evaluating_and_saving_teach_their_seconds() -> None:
    job = make_job()
    timings = Timings(of_closing({"evaluate": 0.3, "save": 4.0}, counts=job.counts, **about(job)))
    assert seconds(job, timings, phase="evaluate") == pytest.approx(0.3)
    assert seconds(job, timings, phase="save") == pytest.approx(4.0)


# ----------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("2m", 120.0), ("1.5h", 5400.0), (12, 12.0), ("90", 90.0), (None, None)],
)
def test_times_are_read(text: Any, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


def test_times_that_are_none_are_refused() -> None:
    for text in ("soon", "0s", "-3", "5 days", ""):
        with pytest.raises(OptionError, match="30s"):
            parse_budget(text)


ASKED = make_job(images=100, layers="auto", views=FOUR)
ASKED = replace(ASKED, config=replace(ASKED.config, epochs=20))
"""More than any one training has, so that everything can be cut."""


def made_up_seconds(job: Workload) -> float:
    """One second fixed, two for a choice of layers, and so much an image."""
    found = job.settings()
    return 1.0 + 2.0 * found["layers"] + found["images"] * (0.01 * found["views"] + 0.01 * found["epochs"])


def cut(limit: float) -> tuple[dict[str, int], tuple[str, ...]]:
    job, said = fit_into(ASKED, seconds=made_up_seconds, limit=limit)
    return job.settings(), said


@given(st.floats(2.5, 40.0))
@settings(deadline=None, max_examples=60)
def test_a_cut_fits_and_says_what_it_cut(limit: float) -> None:
    job, said = fit_into(ASKED, seconds=made_up_seconds, limit=limit)
    assert made_up_seconds(job) <= limit
    changed = {name for name, value in job.settings().items() if value != ASKED.settings()[name]}
    assert len(said) == len(changed)
    assert all(job.settings()[name] >= 1 for name in ("epochs", "views", "images"))


def test_epochs_go_before_views_and_views_before_images() -> None:
    asked = {"epochs": 20, "views": 4, "layers": 1, "images": 100}
    assert cut(60.0) == (asked, ())
    assert cut(21.01) == (asked | {"epochs": 14}, ("14 of 20 epochs",))
    some, _ = cut(14.5)
    assert some == asked | {"epochs": 10, "views": 1}
    one, _ = cut(8.0)
    assert one == asked | {"epochs": 4, "views": 1}
    least, said = cut(2.5)
    assert least["layers"] == 0 and 40 <= least["images"] < 100
    assert said[0] == "1 of 20 epochs" and said[2].endswith("of 100 images") and "last layer" in said[3]


def test_a_budget_below_the_smallest_job_is_refused_with_what_it_needs() -> None:
    with pytest.raises(OptionError, match=r"budget 0.59 s: .* needs about 2\.2 s"):
        cut(0.5)


def test_a_plan_says_what_of_a_job_a_budget_allows() -> None:
    job = make_job(depth=5, epochs=15, missing=0.0)
    whole = seconds(job)
    assert allowance(job, UNKNOWN, budget=None) == ("", True)
    assert allowance(job, UNKNOWN, budget=2 * whole) == ("all of it", True)
    words, fits = allowance(job, UNKNOWN, budget=whole)
    assert not fits and words.endswith("of 15 epochs")
    assert allowance(job, UNKNOWN, budget=0.01) == ("nothing within 0.01 s", False)


def make_dataset(sizes: Sequence[int]) -> Dataset:
    nothing: Any = None
    samples = [
        Sample(f"{label}/{i}", label, None, nothing) for label, size in enumerate(sizes) for i in range(size)
    ]
    return Dataset("made up", tuple(map(str, range(len(sizes)))), tuple(samples))


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=50)
def test_every_beginning_has_all_classes_in_proportion(sizes: list[int], share: float) -> None:
    dataset = make_dataset(sizes)
    mixed = interleaved(dataset)
    assert sorted(each.name for each in mixed.samples) == sorted(each.name for each in dataset.samples)
    assert interleaved(dataset) == mixed
    assert [dataset.samples[each.place].name for each in mixed.samples] == [s.name for s in mixed.samples]
    least = sum(min(size, IMAGES_PER_CLASS) for size in sizes)
    part = beginning(mixed, max(least, round(share * len(mixed))))
    counts = np.bincount(part.labels, minlength=len(sizes))
    for size, count in zip(sizes, counts, strict=True):
        assert count >= min(size, IMAGES_PER_CLASS)
        assert count >= size * (len(part) - least) / len(mixed) - 1


def test_every_beginning_of_many_classes_has_them_all_in_turn() -> None:
    order = interleaved(make_dataset([12] * 100))
    for images in (100, 200, 343):
        counts = np.bincount(beginning(order, images).labels, minlength=100)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("text", "left"), [(None, None), ("1m", 50.0), ("5s", 0.01)])
def test_the_start_of_the_process_counts_to_a_commands_budget(
    text: str | None, left: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.cli.terminal.process_age", lambda: 10.0)
    assert left_of(text) == left


def test_a_process_knows_its_age_start_up_included() -> None:
    code = (
        "import time; time.sleep(0.4)\nfrom headstart.cli.terminal import process_age\nprint(process_age())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = time.perf_counter() - started
    assert (0.39 if sys.platform == "linux" else 0.0) <= float(done.stdout) <= outside + 0.02


def test_without_a_process_table_the_processor_time_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> float:
        raise OSError("no /proc")

    monkeypatch.setattr("headstart.cli.terminal._age_on_linux", missing)
    assert 0 < process_age() <= time.process_time()


def test_backbones_are_named_with_or_without_a_size() -> None:
    names = ["builtin", "builtin@96", "weights/net.safetensors@160", "builtin"]
    own, small, file = parse_names(names)
    assert (own.name, own.size, small.name, small.size) == ("builtin", None, "builtin", 96)
    assert (file.name, file.size, file.label) == ("weights/net.safetensors", 160, "net.safetensors")
    assert sized(names[:2], size=64) == ("builtin@64", "builtin@96") and sized(None, size=64) is None
    with pytest.raises(OptionError, match="no backbones"):
        parse_names([" "])
