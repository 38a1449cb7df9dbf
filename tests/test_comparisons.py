"""Comparisons: what is shared, what is refused, and what the numbers mean."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart
from headstart.cli import cli
from headstart.comparisons import (
    Comparison,
    accuracy_by_depth,
    accuracy_by_images,
    choose,
    compare,
    compare_runs,
    find_comparison,
    paired_difference,
    parallel,
    pareto_front,
    summaries,
    time_to_accuracy,
)
from headstart.comparisons.analysis import seconds_to
from headstart.comparisons.command_lines import fit_command
from headstart.comparisons.epoch_times import timed_as
from headstart.comparisons.schedule import turns
from headstart.comparisons.training import grid as any_grid
from headstart.comparisons.values import disambiguate
from headstart.costs import timings
from headstart.errors import DatasetError, MissingExtra, OptionError, RunError
from headstart.features import extraction
from headstart.runs import DEFAULT_BACKBONE, store
from headstart.runs.callbacks import ProgressFunction
from headstart.training.depth_choice import judge
from made_up_comparisons import candidate, comparison, trial

FAST = {"precision": "f32"}
grid = partial(any_grid, backbones=["builtin"])


# --- the numbers


def test_a_clear_difference_on_the_same_images_is_significant_and_a_coin_flip_is_not() -> None:
    a, b, c = (candidate(name) for name in "abc")
    found = comparison(
        trial(a, [True] * 90 + [False] * 10),
        trial(b, [True] * 60 + [False] * 40),
        trial(c, [True] * 89 + [False] * 10 + [True]),
    )
    clear = paired_difference(found, a, b)
    assert clear.difference == pytest.approx(0.3) and clear.significant
    assert clear.interval[0] < 0.3 < clear.interval[1]
    assert not paired_difference(found, a, c).significant
    assert paired_difference(found, a, a).interval[0] < 0 < paired_difference(found, a, a).interval[1]


def test_the_interval_is_the_published_one_for_two_trials() -> None:
    # n12 = 12 images that only the first got right, n21 = 3 that only the second did, n = 50.
    a, b = candidate("a"), candidate("b")
    right_a = [True] * 12 + [False] * 3 + [True] * 35
    right_b = [False] * 12 + [True] * 3 + [True] * 35
    found = paired_difference(comparison(trial(a, right_a), trial(b, right_b)), a, b)
    p12, p21 = 13 / 52, 4 / 52
    half = 1.959964 * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / 52)
    assert found.interval == pytest.approx((p12 - p21 - half, p12 - p21 + half), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
@settings(deadline=None)
def test_swapping_the_two_sides_swaps_the_sign(pairs: list[tuple[bool, bool]]) -> None:
    a, b = candidate("a"), candidate("b")
    found = comparison(trial(a, [x for x, _ in pairs]), trial(b, [y for _, y in pairs]))
    one, other = paired_difference(found, a, b), paired_difference(found, b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


def test_seeds_that_disagree_widen_the_difference() -> None:
    a, b = candidate("a", head="softmax"), candidate("b", head="softmax")

    def of(shares: tuple[int, ...]) -> Comparison:
        seeds = [trial(a, [True] * n + [False] * (100 - n), seed=i) for i, n in enumerate(shares)]
        return comparison(*seeds, *(trial(b, [True] * 60 + [False] * 40, seed=i) for i in range(3)))

    steady, shaky = (paired_difference(of(shares), a, b) for shares in ((80, 80, 80), (60, 80, 100)))
    assert steady.difference == pytest.approx(shaky.difference)
    assert shaky.interval[1] - shaky.interval[0] > 1.5 * (steady.interval[1] - steady.interval[0])
    assert summaries(of((60, 80, 100)))[0].spread == (0.6, 1.0)


def test_a_side_with_one_seed_is_as_unsteady_as_the_other_and_ridge_is_steady() -> None:
    net, other, ridge = candidate("a", head="softmax"), candidate("b", head="softmax"), candidate("c")

    def right(count: int) -> list[bool]:
        return [True] * count + [False] * (100 - count)

    several = [trial(net, right(count), seed=seed) for seed, count in enumerate((70, 80, 90))]
    found = comparison(*several, trial(other, right(80)), trial(ridge, right(80)))
    against_one, against_ridge = (paired_difference(found, net, each) for each in (other, ridge))
    of_images = against_ridge.standard_error**2 - 0.01 / 3  # the seeds' variance is 0.01
    assert against_one.standard_error == pytest.approx(math.sqrt(of_images + 0.01 / 3 + 0.01))
    assert not against_one.seeds_unknown and not against_ridge.seeds_unknown
    unknown = paired_difference(found, other, ridge)
    assert unknown.seeds_unknown and "what seeds vary is not known" in unknown.points()


def test_pre_training_is_weighed_by_the_same_network_from_scratch() -> None:
    large, twin = candidate("large"), candidate("large", depth=0, pretrained=False)
    small = candidate("small", depth=0, pretrained=False)
    right, fewer, half = ([True] * n + [False] * (100 - n) for n in (90, 70, 50))
    both = choose(comparison(trial(large, right), trial(small, fewer), trial(twin, half)))
    assert any(each.startswith("pre-training is worth +40.0 points") for each in both.reasons)
    one_epoch = trial(twin, half, history=({"epoch": 1.0, "validation_accuracy": 0.5},))
    short = choose(comparison(trial(large, right), one_epoch))
    assert any(each.endswith("from scratch, trained for 1 epoch") for each in short.reasons)
    other = choose(comparison(trial(large, right), trial(small, fewer)))
    assert not any("pre-training" in each for each in other.reasons)
    assert any("+20.0 points" in each and "another network" in each for each in other.reasons)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 10)), min_size=1, max_size=8))
@settings(deadline=None)
def test_nothing_outside_the_front_is_better_in_both(points: list[tuple[int, int]]) -> None:
    trials = [
        trial(candidate(str(i)), [True] * right + [False] * (10 - right), seconds=float(seconds))
        for i, (seconds, right) in enumerate(points)
    ]
    rows = summaries(comparison(*trials))
    front = pareto_front(rows)
    assert front and {row.candidate for row in rows if row.on_front} == {row.candidate for row in front}
    for row in rows:
        better = [f for f in front if f.accuracy >= row.accuracy and f.seconds <= row.seconds]
        assert better


def test_the_choice_is_the_fastest_within_one_standard_error_and_says_so() -> None:
    best, close, far = candidate("best"), candidate("close"), candidate("far")
    found = comparison(
        trial(best, [True] * 90 + [False] * 10, seconds=100.0),
        trial(close, [True] * 89 + [False] * 11, seconds=10.0),
        trial(far, [True] * 50 + [False] * 50, seconds=1.0),
    )
    choice = choose(replace(found, source="my photos"))
    assert choice.candidate == close
    assert "10.0 times less" in " ".join(choice.reasons)
    assert any("best" in line for line in choice.not_significant)
    assert not any("far" in line for line in choice.not_significant)
    assert choice.command.startswith("headstart fit 'my photos' --backbone close")


def test_a_candidate_that_stands_alone_is_not_called_the_best() -> None:
    found = choose(comparison(trial(candidate("only"), [True, True, False, True])))
    assert not any("most accurate" in reason or "fastest" in reason for reason in found.reasons)
    assert "nothing else was trained to compare it with" in found.reasons


def test_fewer_images_take_no_part_in_the_front_or_the_choice() -> None:
    few, whole = candidate(images=5), candidate()
    found = comparison(trial(few, [True] * 10, seconds=0.6), trial(whole, [True] * 9 + [False], seconds=1.0))
    assert choose(found).candidate == whole
    assert [row.candidate for row in pareto_front(summaries(found))] == [whole]
    with pytest.raises(OptionError, match="all"):
        choose(comparison(trial(few, [True] * 10)))


def test_a_curve_says_when_an_accuracy_was_reached() -> None:
    history = tuple({"epoch": e, "validation_accuracy": 0.2 * e} for e in (1, 2, 3, 4))
    tail = candidate(depth=2)
    points = time_to_accuracy(comparison(trial(tail, [True] * 8 + [False] * 2, seconds=4.5, history=history)))
    assert points[tail] == ((1.5, 0.2), (2.5, 0.4), (3.5, pytest.approx(0.6)), (4.5, 0.8))
    assert seconds_to(points[tail], accuracy=0.5) == 3.5
    assert seconds_to(points[tail], accuracy=0.9) is None


def test_a_curve_begins_when_its_first_epoch_ended_and_goes_on_where_a_seed_stopped() -> None:
    tail = candidate(depth=2)
    right = [True] * 8 + [False] * 2

    def history(*reached: float) -> tuple[dict[str, float], ...]:
        return tuple(
            {"epoch": float(e), "validation_accuracy": accuracy, "seconds": 3.0 + e}
            for e, accuracy in enumerate(reached, 1)
        )

    found = comparison(
        trial(tail, right, seed=0, seconds=6.5, history=history(0.2, 0.4, 0.8)),
        trial(tail, right, seed=1, seconds=5.5, history=history(0.4, 0.6)),
    )
    points = time_to_accuracy(found)[tail]
    assert points == (
        (4.5, pytest.approx(0.3)),
        (5.5, pytest.approx(0.5)),
        (6.5, pytest.approx(0.7)),
    )


def test_networks_whose_files_have_one_name_are_told_apart() -> None:
    right = [True] * 5 + [False] * 5
    one, other = candidate("exp1/best.pth"), candidate("exp2/best.pth")
    views = candidate("exp2/best.pth", views=("centre", "flip"))
    assert one.name == other.name == views.name
    named = disambiguate([one, other, views, candidate("single.pth"), replace(one, images=3)])
    assert named == (one, other, views, candidate("single.pth"), replace(one, images=3))
    assert len({each.name for each in named}) == 5
    assert named[0].name == "best 64 px (exp1/best.pth, views centre), all frozen, ridge"
    assert named[3].name == "single 64 px, all frozen, ridge"
    assert named[4].whole.name == named[0].name
    assert disambiguate(named) == named and disambiguate(named)[0].name == named[0].name
    depths = [replace(each, depth=depth) for each in (one, other) for depth in (4, 2)]
    series = accuracy_by_depth(comparison(*(trial(each, right) for each in depths)))
    assert list(series) == ["best 64 px (exp1/best.pth)", "best 64 px (exp2/best.pth)"]
    assert all([row.candidate.depth for row in rows] == [2, 4] for rows in series.values())


def test_curves_by_depth_and_by_images_are_in_order() -> None:
    right = [True] * 5 + [False] * 5
    found = comparison(
        *(trial(candidate(depth=depth), right) for depth in (4, 0, 2)),
        *(trial(candidate(images=n), right, images=2 * n) for n in (10, 3)),
    )
    assert [row.candidate.depth for row in next(iter(accuracy_by_depth(found).values()))] == [0, 2, 4]
    assert [row.images for row in accuracy_by_images(found)[candidate()]] == [6, 20, 40]


def test_a_comparison_survives_json() -> None:
    found = comparison(trial(candidate(images=3, views=("centre", "flip")), [True, False]))
    found = replace(found, choice=choose(comparison(trial(candidate(), [True, False]))))
    written = json.loads(json.dumps(found.to_dict()))
    assert Comparison.from_dict(written) == found
    del written["source"], written["settings"]  # as earlier versions wrote it
    assert Comparison.from_dict(written) == found


def test_the_command_has_every_setting_that_decides_a_training() -> None:
    settings = {"class_weights": "balanced", "batch_size": 8, "learning_rate": None, "test": 0.2}
    tail = candidate(depth=2, epochs=3, views=("centre", "flip"), architecture="net_v2")
    assert fit_command(tail, source="my photos", settings=settings) == (
        "headstart fit 'my photos' --backbone net --size 64 --architecture net_v2 --freeze 2 --epochs 3 "
        "--views flip --class-weights balanced --batch-size 8 --test 0.2"
    )
    ridge = candidate(layers="all", views=("centre", "crop1", "crop2"))
    assert fit_command(ridge, source="photos", settings=settings) == (
        "headstart fit photos --backbone net --size 64 --head ridge --layers all --views 3 "
        "--class-weights balanced --test 0.2"
    )


# --- training


def test_one_pass_feeds_every_head_seed_and_number_of_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    compute = extraction._compute
    monkeypatch.setattr(
        extraction, "_compute", lambda rendered, *a, **k: (passes.append(1), compute(rendered, *a, **k))
    )
    candidates = grid(size=64, heads=("ridge", "softmax"), images=(4, None), epochs=2)
    found = compare(photos, candidates, seeds=2, **FAST)
    assert len(passes) == 1
    assert not any("did best" in note for note in found.notes)  # heads alone choose no epoch
    assert len(found.trials) == 2 + 2 + 1 + 2  # ridge on all images has nothing random in it
    assert {t.images for t in found.trials if t.candidate.images == 4} == {12}
    assert found.choice is not None and found.choice.candidate.images is None
    assert found.choice.test is not None and found.choice.test["images"] == found.images["test"]
    assert find_comparison(found.id) == found == find_comparison(found.path or "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_comparison_is_saved_whatever_its_folders_are_called(photos: Path, tmp_path: Path) -> None:
    source = photos.rename(photos.with_name(os.fsdecode(b"\xfc")))
    found = compare(source, grid(size=64), out=tmp_path / os.fsdecode(b"r\xff"), **FAST)
    assert found.choice is not None and "\\xfc" in found.choice.command
    assert found.choice.command.isascii() and found.source == str(source)
    assert find_comparison(found.id) == found == find_comparison(found.path or "")


def test_a_comparison_that_cannot_be_remembered_is_saved_and_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").touch()
    monkeypatch.setattr("headstart.comparisons.storage.home_folder", lambda: tmp_path / "no-folder")
    found = compare(photos, grid(size=64), out=tmp_path / "c", **FAST)
    assert found.notes[-1].startswith("saved, but not found by its id")
    assert find_comparison(tmp_path / "c").trials == found.trials


def taught_here() -> list[store.Timing]:
    return store.read_timings(timings._owner())


def test_a_comparison_teaches_the_next_prediction_as_a_fit_does(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "many", per_class=30)
    plain = grid(size=64, heads=("ridge", "softmax"), layers="last", epochs=2)
    compare(photos, plain, seeds=2, **FAST)
    taught = taught_here()
    counts = Counter(each.step for each in taught)
    assert counts["softmax"] == 2 and counts["ridge"] == 1 and counts["evaluate"]
    assert counts["pass"] == counts["prefix"] == counts["check"] == 1
    _, run = headstart.fit(photos, backbone="builtin", size=64, layers="last", **FAST)
    assert run.predicted_seconds["high"] < 20
    fitted = {(each.step, each.key) for each in taught_here()[: -len(taught)]}
    shared = {(each.step, each.key) for each in taught}
    assert {"ridge", "evaluate", "check"} <= {step for step, _ in fitted & shared}


def test_a_pass_with_several_cuts_says_nothing_of_a_plain_one(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "many", per_class=30)
    compare(photos, grid(size=64, depths=["all", 7], layers="last", epochs=3), seeds=1, **FAST)
    (cuts,) = {each.key for each in taught_here() if each.step == "pass"}
    kinds = {each.step for each in taught_here()}
    assert "epoch" in kinds and "torch" not in kinds
    shutil.rmtree(os.environ["HEADSTART_CACHE"])
    headstart.fit(photos, backbone="builtin", size=64, layers="last", out=tmp_path / "run", **FAST)
    both = {each.key for each in taught_here() if each.step == "pass"}
    assert len(both) == 2 and cuts in both


def test_shared_features_give_what_single_fits_give(photos: Path) -> None:
    candidates = grid(size=64, heads=("ridge", "softmax"), epochs=3)
    found = compare(photos, candidates, seeds=1, **FAST)
    for one in candidates:
        _, run = headstart.fit(
            photos, backbone="builtin", size=64, head=one.head, layers=one.layers, epochs=one.epochs, **FAST
        )
        (shared,) = found.of(one)
        assert shared.accuracy == run.accuracy["validation"]
        assert shared.log_loss == pytest.approx(run.evaluation["validation"]["log_loss"], abs=1e-6)


def test_fewer_images_are_among_more_and_a_seed_changes_which(photos: Path) -> None:
    from headstart.backbones import load_backbone
    from headstart.backbones.runtimes import select
    from headstart.comparisons.passes import look
    from headstart.comparisons.subsets import limit_images
    from headstart.data.dataset import read_dataset
    from headstart.runs import FitConfig

    candidates = grid(size=64)
    config = candidates[0].config(FitConfig(), seed=0)
    prepared = look(read_dataset(photos), candidates, config=config, runtime=select(precision="f32")).prepared
    assert load_backbone("builtin", size=64).weights_hash == prepared.extraction.backbone.weights_hash
    two, five, other = (
        set(limit_images(prepared, per_class=count, seed=seed).images("train").tolist())
        for count, seed in ((2, 0), (5, 0), (5, 1))
    )
    assert len(two) == 6 and len(five) == 15 and two < five and five != other
    whole = limit_images(prepared, per_class=None, seed=0)
    np.testing.assert_array_equal(whole.images("validation"), prepared.images("validation"))


def test_more_images_than_there_are_is_not_trained_twice(photos: Path) -> None:
    found = compare(photos, grid(size=64, images=(1000, None)), seeds=3, **FAST)
    assert len(found.trials) == 1


def test_a_second_comparison_computes_nothing_and_still_counts_cold_seconds(photos: Path) -> None:
    candidates = grid(size=64)
    first, second = (compare(photos, candidates, seeds=1, **FAST) for _ in range(2))
    assert second.passes[0]["misses"] == 0 and not second.passes[0]["measured"]
    assert second.trials[0].predicted == first.trials[0].predicted
    assert second.trials[0].seconds["features"] > 2 * second.passes[0]["seconds"]


def test_fine_tuned_depths_and_scratch_share_the_pass_of_the_frozen_one(photos: Path) -> None:
    pytest.importorskip("timm")
    candidates = grid(size=64, depths=("all", 5), scratch=True, epochs=1)
    found = compare(photos, candidates, seeds=1, **FAST)
    assert len(found.passes) == 1 and len(found.trials) == 3
    assert any("at the epoch that did best on the validation images" in note for note in found.notes)
    names = [row.candidate.name for row in summaries(found)]
    assert any("from scratch" in name for name in names) and any("5 of" in name for name in names)


def test_seeds_beside_each_other_give_what_single_fits_give(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    from headstart.backbones import backbone

    networks, at_once = [], []
    build, run = backbone.build, parallel.run
    monkeypatch.setattr(backbone, "build", lambda *a, **k: (networks.append(1), build(*a, **k))[1])
    monkeypatch.setattr(
        parallel,
        "run",
        lambda function, works, **k: (at_once.append(len(works)), run(function, works, **k))[1],
    )
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    candidates = grid(size=64, depths=(7, 6), epochs=2)
    found = compare(photos, candidates, seeds=3, **FAST)
    assert networks == [1] and at_once == [2, 2]
    for one in candidates:
        trials = found.of(one)
        assert [trial.seed for trial in trials] == [0, 1, 2]
        assert trials[0].seconds == trials[1].seconds == trials[2].seconds  # of the one that ran alone
        assert len({json.dumps(trial.history) for trial in trials}) == 3
        ends = [[entry["seconds"] for entry in trial.history] for trial in trials]
        assert ends[0] == ends[1] == ends[2] and 0 < ends[0][0] < ends[0][1] <= trials[0].seconds["train"]
    _, run_alone = headstart.fit(photos, backbone="builtin", size=64, freeze=6, epochs=2, seed=2, **FAST)
    last = found.of(candidates[1])[2]
    assert last.accuracy == run_alone.accuracy["validation"]
    assert last.log_loss == pytest.approx(run_alone.evaluation["validation"]["log_loss"], abs=1e-4)


def test_heads_alone_are_compared_without_pytorch(photos: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from headstart.comparisons import compare, grid\n"
        "candidates = grid(backbones=['builtin'], heads=['ridge', 'softmax'], size=64, epochs=2)\n"
        f"found = compare({str(photos)!r}, candidates, seeds=3)\n"
        "print(len(found.trials))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "4", done.stderr


def test_a_training_beside_others_has_the_pace_of_the_one_alone() -> None:
    alone = [{"epoch": e, "seconds": 3.0 + e} for e in (1.0, 2.0)]
    longer = timed_as([{"epoch": e} for e in (1.0, 2.0, 3.0)], alone)
    assert [entry["seconds"] for entry in longer] == [4.0, 5.0, 6.0]
    assert [entry["seconds"] for entry in timed_as([{"epoch": 1.0}], alone)] == [4.0]


def test_trainings_that_draw_random_numbers_run_one_by_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    from headstart.comparisons import trials

    train = trials.train
    monkeypatch.setattr(trials, "train", lambda *a, **k: replace(train(*a, **k), uses_rng=True))
    monkeypatch.setattr(parallel, "run", lambda *_, **__: pytest.fail("two at once"))
    found = compare(photos, grid(size=64, depths=(7,), epochs=1), seeds=3, **FAST)
    assert len(found.trials) == 3


@pytest.mark.parametrize(
    ("seeds", "cores", "expected"),
    [(1, 2, 1.0), (2, 2, 2.0), (3, 2, 2.5), (4, 2, 3.5), (5, 8, 2.5), (3, 1, 3.0)],
)
def test_seeds_beside_each_other_are_foreseen_as_such(
    seeds: int, cores: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.comparisons.schedule.cores", lambda: cores)
    assert turns(candidate(depth=2), seeds=seeds) == expected
    assert turns(candidate(head="softmax"), seeds=seeds) == seeds


def test_ctrl_c_stops_what_runs_beside() -> None:
    pytest.importorskip("torch")
    interrupted, seen = threading.Event(), []

    def work(number: int) -> int:
        if number == 0:
            raise KeyboardInterrupt
        seen.append(interrupted.wait(10.0))
        return number

    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, [0, 1], interrupted=interrupted)
    assert seen == [True]


def test_runs_on_one_split_can_be_compared_and_on_different_ones_cannot(photos: Path) -> None:
    _, one = headstart.fit(photos, backbone="builtin", size=64, **FAST)
    _, two = headstart.fit(photos, backbone="builtin", size=64, head="softmax", epochs=2, **FAST)
    found = compare_runs([one, two])
    assert [row.accuracy for row in summaries(found)] == sorted(
        (run.accuracy["validation"] for run in (one, two)), reverse=True
    )
    (photos / "bars" / "003.jpg").unlink()
    _, other = headstart.fit(photos, backbone="builtin", size=64, **FAST)
    with pytest.raises(RunError, match="different splits"):
        compare_runs([one, other])
    with pytest.raises(OptionError, match="two runs"):
        compare_runs([one])


def test_a_run_that_tried_a_deeper_training_says_that_it_took_longer(photos: Path) -> None:
    _, one = headstart.fit(photos, backbone="builtin", size=64, **FAST)
    _, two = headstart.fit(photos, backbone="builtin", size=64, head="softmax", epochs=2, **FAST)
    reason = judge(np.ones((2, 40), np.float32), np.ones((2, 40), np.float32), name="fine-tuning last").reason
    found = compare_runs([one, replace(two, notes=(*two.notes, reason))])
    assert f"a deeper training was tried and not kept, so more seconds: {two.id}" in found.notes


def test_runs_with_other_settings_are_no_seeds_of_one_candidate(photos: Path) -> None:
    _, plain = headstart.fit(photos, backbone="builtin", size=64, **FAST)
    _, weighted = headstart.fit(photos, backbone="builtin", size=64, class_weights="balanced", **FAST)
    found = compare_runs([plain, weighted])
    assert len(found.trials) == len(found.candidates) == 2
    names = [candidate.name for candidate in found.candidates]
    assert [name.partition("ridge")[2] for name in names] == [
        ", class weights as usual",
        ", class weights balanced",
    ]
    assert found.choice is not None and found.choice.command.startswith(f"headstart fit {photos} ")
    weighed = found.choice.candidate == found.candidates[1]
    assert ("--class-weights balanced" in found.choice.command) == weighed


def test_what_cannot_be_saved_or_trained_is_refused_before_the_work(photos: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(RunError, match="is there already"):
        compare(photos, grid(size=64), out=taken, callbacks=[ProgressFunction(_never)], **FAST)
    with pytest.raises(OptionError, match="batch_size=0"):
        compare(
            photos,
            grid(size=64, heads=["softmax"]),
            batch_size=0,
            callbacks=[ProgressFunction(_never)],
            **FAST,
        )


def _never(phase: str, done: int, total: int) -> None:
    raise AssertionError(f"{phase} began")


def test_a_candidate_that_fails_leaves_the_others(photos: Path) -> None:
    pytest.importorskip("timm")
    candidates = grid(size=64, depths=("all", 7), epochs=2)
    found = compare(photos, candidates, seeds=1, learning_rate=1e30, **FAST)
    assert [trial.candidate.depth for trial in found.trials] == [9]
    assert found.notes[0].startswith("left out: without ") and "diverged" in found.notes[0]


@pytest.mark.parametrize("budget", [None, "1h"])
def test_a_seed_that_fails_costs_that_seed_and_is_not_blamed_on_the_budget(
    photos: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None
) -> None:
    from headstart.comparisons import trials

    train = trials.train

    def diverging(*rest: Any, config: Any, **options: Any) -> Any:
        if config.seed == 1:
            raise OptionError("training diverged in epoch 2")
        return train(*rest, config=config, **options)

    monkeypatch.setattr(trials, "train", diverging)
    found = compare(photos, grid(size=64, heads=["softmax"], epochs=2), seeds=3, budget=budget, **FAST)
    (kept,) = found.trials
    assert (
        found.notes[0]
        == f"left out: without {kept.candidate.name} from seed 1 on: training diverged in epoch 2"
    )


@pytest.mark.parametrize("options", [{"depths": ("all", 7)}, {"scratch": True}])
def test_a_missing_pytorch_is_said_before_any_image_is_looked_at(
    photos: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    candidates = grid(size=64, **options)
    monkeypatch.setattr("headstart.backbones.building.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"headstart\[torch\]"):
        compare(photos, candidates, callbacks=[ProgressFunction(_never)], **FAST)


def test_the_command_that_is_printed_gives_what_was_chosen(photos: Path, tmp_path: Path) -> None:
    candidates = grid(size=64, heads=("ridge", "softmax"), epochs=2)
    found = compare(photos, candidates, seeds=1, out=tmp_path / "comparison")
    assert found.choice is not None
    program, *words = shlex.split(found.choice.command)
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "run"), "--json"])
    assert program == "headstart" and done.exit_code == 0, done.output
    (chosen,) = found.of(found.choice.candidate)
    assert json.loads(done.stdout)["accuracy"]["validation"] == chosen.accuracy
    assert json.loads(done.stdout)["accuracy"]["test"] == found.choice.test["accuracy"]


def test_scratch_against_pretrained_has_a_point_for_each_number_of_images(photos: Path) -> None:
    pytest.importorskip("timm")
    candidates = grid(size=64, scratch=True, images=(3, None), epochs=1)
    found = compare(photos, candidates, seeds=1, **FAST)
    assert sorted(len(rows) for rows in accuracy_by_images(found).values()) == [2, 2]


@pytest.mark.parametrize(
    "options",
    [{"heads": ("forest",)}, {"depths": (99,)}, {"images": (0,)}, {"backbones": ()}, {"layers": "some"}],
)
def test_a_grid_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        grid(**options)


def test_without_validation_images_there_is_nothing_to_compare_on(photos: Path) -> None:
    with pytest.raises(DatasetError, match="validation"):
        compare(photos, grid(size=64), validation=0.0, **FAST)


# --- the command


def test_the_command_prints_a_table_a_choice_and_how_to_have_it(photos: Path, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("headstart"),
        *("compare", photos, "--size", "64", "--heads", "ridge,softmax", "--epochs", "2", "--seeds", "1"),
    ]
    done = subprocess.run([*command, "--out", tmp_path / "c"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"take {DEFAULT_BACKBONE} 64 px" in done.stdout and f"headstart fit {photos} " in done.stdout
    assert done.stdout.isascii()
    found = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert len(found["trials"]) == len(found["summaries"]) == 2 and found["split"]
    wrong = subprocess.run([*command[:3], "--images", "some"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "some" in wrong.stderr


def test_the_command_refuses_what_has_no_effect_on_saved_runs(photos: Path) -> None:
    runs = [
        str(headstart.fit(photos, backbone="builtin", size=64, head=head, **FAST)[1].path)
        for head in ("ridge", "softmax")
    ]
    done = CliRunner().invoke(cli, ["compare", *runs])
    assert done.exit_code == 0 and "to have it: headstart fit" in done.output
    refused = CliRunner().invoke(cli, ["compare", *runs, "--out", "there", "--seeds", "2"])
    assert isinstance(refused.exception, OptionError) and "--out, --seeds: " in str(refused.exception)
    lonely = CliRunner().invoke(cli, ["compare", runs[0]])
    assert isinstance(lonely.exception, OptionError) and "two runs" in str(lonely.exception)
