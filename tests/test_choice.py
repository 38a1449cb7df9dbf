"""Choosing a backbone and a depth: what wins, what is left out, and that the reasons are said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart
from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.costs import Budget, Timings, Workload
from headstart.costs.budgets import CAREFUL
from headstart.data.dataset import read_dataset
from headstart.errors import BackboneError, OptionError
from headstart.features import missing_share
from headstart.heads import fit_ridge
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.training.backbone_choice import choose_backbone, smaller_backbone
from headstart.training.backbone_names import BackboneName, default_candidates
from headstart.training.contenders import why
from headstart.training.depth_choice import cross_validated_outcomes, judge
from headstart.training.expected_accuracy import Expected, Probe, expectations, recommend
from headstart.training.probes import Probing
from headstart.training.published_accuracy import POINTS_PER_HALVING, published_accuracy, undominated
from headstart.training.resolving import resolve
from made_up_jobs import FakeClock


def blobs(*, apart: float, images: int = 90, width: int = 20, seed: int = 0) -> tuple[Any, Any]:
    """Three classes of Gaussian features whose means are so far apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    means = apart * random.normal(size=(3, width))
    return (means[labels] + random.normal(size=(images, width))).astype(np.float32), labels.astype(np.int64)


# ------------------------------------------------------------------------------- the accuracy to expect


def test_the_probe_prefers_features_that_separate() -> None:
    good, bad = (Probe.of(fit_ridge(blobs(apart=apart), classes=3)) for apart in (1.0, 0.1))
    assert good.loo_accuracy > 0.95 > 0.7 > bad.loo_accuracy
    (sure, _), (unsure, error) = good.log_odds, bad.log_odds
    assert sure > unsure and 0 < error < 0.5


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_the_probe_does_not_depend_on_the_order_of_images(seed: int) -> None:
    features, labels = blobs(apart=0.4, seed=seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    first = fit_ridge((features, labels), classes=3)
    second = fit_ridge((features[order], labels[order]), classes=3)
    assert first.loo_accuracy == pytest.approx(second.loo_accuracy, abs=0.012)  # one image on the fence


def expect(
    *looks: tuple[float | None, float | None], images: int = 72, training: int = 700
) -> list[Expected]:
    """Of backbones with such published and leave-one-out accuracies on so many images of five classes."""
    probes = [None if each is None else Probe(images, each) for _, each in looks]
    found = expectations([each for each, _ in looks], probes, training_images=training, classes=5)
    return [found.of(index) for index in range(len(looks))]


@given(st.floats(0, 1), st.floats(40, 95), st.integers(2, 500), st.integers(2, 10**6))
@settings(deadline=None, max_examples=60)
def test_a_range_is_between_none_and_all_and_holds_what_is_expected(
    right: float, published: float, images: int, training: int
) -> None:
    for each in expect((published, right), (None, None), (None, right), images=images, training=training):
        assert 0 < each.low < each.accuracy < each.high < 1


def test_a_look_at_more_photographs_narrows_the_range() -> None:
    (few,), (many,) = (expect((70.0, 0.9), images=images, training=1000) for images in (36, 720))
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.9 < many.high


def test_training_on_more_photographs_than_the_look_had_is_expected_to_be_better() -> None:
    (same,), (more,) = (expect((70.0, 0.8), training=training) for training in (72, 7200))
    assert more.accuracy > same.accuracy + 0.02


def test_what_was_not_looked_at_is_expected_beside_what_was_and_less_surely() -> None:
    measured, same, worse = expect((70.0, 0.85), (70.0, None), (64.0, None))
    assert worse.accuracy < measured.accuracy == pytest.approx(same.accuracy, abs=0.01)
    assert same.high - same.low > measured.high - measured.low
    assert (measured.source, same.source) == ("72 photos", "published")
    _, hard = expect((70.0, 0.4), (70.0, None))
    assert hard.accuracy < 0.7


def test_of_two_equal_looks_the_published_accuracy_decides() -> None:
    worse, better = expect((64.0, 0.85), (76.0, 0.85))
    assert better.accuracy > worse.accuracy


def test_where_nothing_was_looked_at_the_published_accuracy_is_shown_and_no_other() -> None:
    known, unknown = expect((75.1, None), (None, None))
    assert str(known) == "75% on ImageNet" and str(unknown) == "unknown"
    assert Expected.from_dict(known.to_dict()) == known


def test_with_stages_fine_tuned_the_head_alone_says_it_less_surely() -> None:
    (head,) = expect((70.0, 0.85))
    deeper = head.fine_tuned()
    assert deeper.accuracy == pytest.approx(head.accuracy)
    assert deeper.low < head.low and deeper.high > head.high and "head" in deeper.source


def test_looking_on_is_worth_less_the_further_the_two_are_apart() -> None:
    probes = [Probe(72, 0.9), Probe(72, 0.88), Probe(72, 0.5)]
    found = expectations([70.0] * 3, probes, training_images=700, classes=5)
    assert found.gain(1, over=0, images=144) > 0.002 > found.gain(2, over=0, images=144) >= 0
    assert found.gain(0, over=1, images=144) > found.gain(1, over=0, images=144)
    assert found.gain(1, over=0, images=1000) > found.gain(1, over=0, images=144)


def test_the_most_accurate_within_the_limit_is_recommended_or_a_quicker_one_that_is_as_good() -> None:
    accuracies, seconds = [0.80, 0.903, 0.906, 0.95], [1.0, 4.0, 9.0, 90.0]
    assert recommend(accuracies, seconds, limit=100.0) == 3
    assert recommend(accuracies, seconds, limit=None) == 1  # within a minute; 0.903 is hardly worse
    assert recommend(accuracies, seconds, limit=2.0) == 0
    assert recommend(accuracies, seconds, limit=0.5) == 0  # nothing stays within it
    slow = [100 * each for each in seconds]
    assert recommend(accuracies, slow, limit=None) == 1  # ten times the quickest


def test_the_reason_says_what_one_gives_and_takes_and_what_another_would() -> None:
    rows = expect((64.0, 0.8), (75.0, 0.9), images=400, training=400)
    small, large = (f"about {100 * each.accuracy:.0f}%" for each in rows)
    said = why(["small", "large"], rows, [1.0, 4.0], chosen=1)
    assert (
        said.startswith(large) and f"small would take 1.0 s and give {small}" in said and "in 4.0 s" in said
    )
    assert "large would take 4.0 s" in why(["small", "large"], rows, [1.0, 4.0], chosen=0)
    assert ";" not in why(["small"], rows[:1], [1.0], chosen=0)


# ---------------------------------------------------------------------------------------- the prior


def test_what_is_slower_and_worse_is_dominated_and_the_unknown_never() -> None:
    assert undominated([1.0, 2.0, 3.0], [70.0, 60.0, 80.0]) == [0, 2]
    assert undominated([1.0, 2.0, 1.0], [70.0, 70.0, 60.0]) == [0]
    assert undominated([1.0, 9.0], [70.0, None]) == [0, 1]
    assert undominated([1.0, 1.0], [70.0, 70.0]) == [0, 1]


def test_published_accuracy_belongs_to_an_architecture_and_a_size() -> None:
    backbone = replace(load_backbone("builtin"), name="mobilenetv2_100", architecture="mobilenetv2_100")

    def at(size: int) -> float | None:
        return published_accuracy(replace(backbone, preprocess=replace(backbone.preprocess, size=size)))

    assert at(224) == pytest.approx(72.976)
    assert at(112) == pytest.approx(72.976 - POINTS_PER_HALVING)
    assert at(448) == at(224)
    assert published_accuracy(replace(backbone, architecture="nobody_knows")) is None
    assert published_accuracy(replace(backbone, pretrained=False)) is None


def test_a_builtin_counts_with_its_record_at_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import published_accuracy as prior

    facts = {"preprocess": {"size": 128}}
    monkeypatch.setattr(prior, "WEIGHTS", tmp_path)
    (tmp_path / "builtin.json").write_text(json.dumps(facts))
    assert published_accuracy(load_backbone("builtin")) is None
    (tmp_path / "builtin.json").write_text(json.dumps(facts | {"transfer": 60.0}))
    assert published_accuracy(load_backbone("builtin")) == 60.0
    assert published_accuracy(load_backbone("builtin", size=64)) == 60.0 - POINTS_PER_HALVING
    assert published_accuracy(load_backbone("builtin", size=192)) == 60.0


# ---------------------------------------------------------------------------------------- the choice


def choose(photos: Path, *candidates: str, **options: Any) -> Any:
    """The choice that a fit would make; where nothing is said of layers, by the last layer."""
    config = FitConfig.from_options(
        candidates=candidates, layers=options.pop("layers", "last"), views=options.pop("views", 1)
    )
    return choose_backbone(read_dataset(photos), config, runtime=select(precision="f32"), **options)


def test_rounds_of_looks_drop_the_worse_half_and_say_so(tmp_path: Path, make_photos: Any) -> None:
    photos = make_photos(tmp_path / "photos", per_class=60)
    found = choose(photos, "builtin@32", "builtin@48", "builtin@64", "builtin@96")
    left = {each.size: each.left for each in found.table}
    assert sorted(left.values()) == ["", "probe", "probe", "probe"]
    assert left[found.backbone.preprocess.size] == ""
    assert {each.looks[0].images for each in found.table} == {72}
    assert all(each.looks[-1].images <= 144 for each in found.table)
    assert found.reasons[0].startswith(f"backbone builtin at {found.candidate.size} px: about ")
    (first, *_) = [reason for reason in found.reasons if reason.startswith("left after a look at 72 images")]
    assert ", where it had " in first


def looks_like(monkeypatch: pytest.MonkeyPatch, accuracy: Any, **paces: float) -> None:
    """A look says what the test wants of a size of images, and takes no time."""

    def look(self: Any, contender: Any, *, images: int) -> None:
        contender.looks.append(Probe(images, accuracy(contender.size)))
        contender.seconds_per_image = paces.get(f"at_{contender.size}")

    monkeypatch.setattr(Probing, "look", look)


def test_the_better_separating_candidate_wins(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an accuracy that grows with the size of the images, the largest is chosen."""
    looks_like(monkeypatch, lambda size: size / 100)
    assert choose(photos, "builtin@32", "builtin@96", "builtin@48").candidate.size == 96


@pytest.mark.parametrize("layers", ["last", "all", "auto"])
def test_a_look_at_everything_is_the_head_that_a_fit_would_give(
    tmp_path: Path, make_photos: Any, layers: str
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=20)
    one, *others = sorted(photos.iterdir())
    for number, path in enumerate(sorted(one.iterdir())[::3]):  # labelled wrongly: nothing gets all right
        path.rename(others[number % len(others)] / f"wrong-{path.name}")
    found = choose(photos, "builtin@32", "builtin@48", layers=layers)
    for each in found.table:
        run = headstart.fit(
            photos,
            backbone="builtin",
            size=each.size,
            layers=layers,
            precision="f32",
            out=tmp_path / str(each.size),
        )[1]
        assert run.head_fit["loo_accuracy"] == each.probe.loo_accuracy < 1


def test_a_clear_lead_spares_the_other_one_a_second_look(
    tmp_path: Path, make_photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=60)
    looks_like(monkeypatch, lambda size: 0.95 if size == 48 else 0.4)
    found = choose(photos, "builtin@96", "builtin@48")
    assert found.candidate.size == 48
    assert {each.size: len(each.looks) for each in found.table} == {48: 1, 96: 1}


def test_of_two_that_are_equally_good_the_faster_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_like(monkeypatch, lambda size: 0.8)
    monkeypatch.setattr("headstart.training.backbone_choice.published_accuracy", lambda _: 70.0)
    assert choose(photos, "builtin@96", "builtin@32").candidate.size == 32


def test_a_tight_budget_leaves_out_what_is_too_slow_and_says_so(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_like(monkeypatch, lambda size: size / 100, at_96=1.0, at_32=0.001)
    found = choose(photos, "builtin@96", "builtin@32", seconds=12.0)
    assert found.candidate.size == 32
    assert {each.size: each.left for each in found.table}[96] == "budget"
    assert any("all images would take 4" in reason for reason in found.reasons)
    assert choose(photos, "builtin@96", "builtin@32", seconds=200.0).candidate.size == 96


def slowly(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, paces: dict[int, float]
) -> list[tuple[int, int, int]]:
    """Computing an image takes so long by the test's clock; returns (size, views, images) of each pass."""
    from headstart.training import probes

    passes = []
    extract = probes.extract

    def run(samples: Any, backbone: Any, *, spec: Any, progress: Any, **rest: Any) -> Any:
        size, views, before = backbone.preprocess.size, len(spec.views), 0
        passes.append((size, views, len(samples)))
        missing = missing_share(samples, backbone, spec=spec, runtime=rest["runtime"], cache=rest["cache"])

        def told(phase: str, done: int, total: int) -> None:
            nonlocal before
            clock.wait((done - before) * paces[size] * views * missing)
            before = done
            progress(phase, done, total)

        return extract(samples, backbone, spec=spec, progress=told, **rest)

    monkeypatch.setattr(probes, "extract", run)
    return passes


def test_what_all_views_would_take_counts_and_not_the_centre_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    passes = slowly(monkeypatch, clock, {32: 0.1, 48: 0.1})
    found = choose(photos, "builtin@32", "builtin@48", views=8, clock=clock, seconds=30.0)
    assert [(size, views) for size, views, _ in passes] == [(32, 1), (48, 1)]
    assert all(each.seconds_per_image == pytest.approx(0.1) for each in found.table)
    assert any("all images would take" in reason for reason in found.reasons)  # 8 views of 48 images


def test_a_candidate_whose_looks_were_cached_is_no_faster_for_that(
    tmp_path: Path, make_photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=100)
    clock = FakeClock()
    slowly(monkeypatch, clock, {32: 0.001, 48: 0.1})
    for _ in range(2):  # the second time every image that is looked at first is there
        found = choose(photos, "builtin@32", "builtin@48", clock=clock, seconds=20.0)
        assert {each.size: each.left for each in found.table} == {32: "", 48: "budget"}
        assert any("all images would take" in reason for reason in found.reasons)


def test_a_look_that_takes_too_long_ends_with_the_allowance_and_the_best_so_far_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    passes = slowly(monkeypatch, clock, {32: 0.1, 48: 1.0, 64: 1.0})
    found = choose(photos, "builtin@64", "builtin@48", "builtin@32", clock=clock, seconds=40.0)
    assert [size for size, _, _ in passes] == [32, 48]  # the fastest first, the second one in vain
    assert found.seconds <= 20.0 + 8 * 1.0  # it is asked after every few images
    assert {each.size: each.left for each in found.table} == {32: "", 48: "budget", 64: "budget"}
    assert any("no time was left for a look" in reason for reason in found.reasons)


def test_a_second_round_without_time_for_all_takes_the_one_that_is_ahead(
    tmp_path: Path, make_photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=100)
    clock = FakeClock()
    slowly(monkeypatch, clock, {32: 0.1, 48: 0.1})
    monkeypatch.setattr("headstart.training.backbone_choice.HARDLY_BETTER", 0.0)
    found = choose(photos, "builtin@32", "builtin@48", clock=clock, seconds=45.0)
    assert found.seconds <= 22.5 + 8 * 0.1
    assert any("no time was left for a look at 144 images by all" in reason for reason in found.reasons)


def test_without_time_for_a_look_published_accuracy_decides_and_a_fit_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.training.backbone_choice._Race._round", lambda *_, **__: [])
    names = ["builtin@96", "builtin@64"]
    _, run = headstart.fit(photos, backbone="auto", candidates=names, precision="f32", budget="10m")
    assert run.images["train"] > 20 and run.config.size == 96
    assert any("on ImageNet" in note and note.endswith("published") for note in run.notes)


def test_a_candidate_that_cannot_be_loaded_is_named_and_passed_over(photos: Path) -> None:
    found = choose(photos, "nowhere/weights.safetensors", "builtin@32")
    assert found.candidate.name == "builtin"
    assert any("weights.safetensors is left out" in reason for reason in found.reasons)
    with pytest.raises(BackboneError, match="left out"):
        choose(photos, "nowhere/weights.safetensors")


def test_a_choice_never_looks_at_given_test_images(tmp_path: Path, make_photos: Any) -> None:
    for split, count, seed in (("train", 8, 1), ("val", 4, 2), ("test", 3, 3)):
        make_photos(tmp_path / "data" / split, per_class=count, seed=seed)
    for path in (tmp_path / "data" / "test").rglob("*.jpg"):
        path.write_bytes(b"")  # whoever reads one has nothing to decode
    found = choose(tmp_path / "data", "builtin@32", "builtin@48")
    chosen = next(each for each in found.table if not each.left)
    assert chosen.probe.images == 24


def test_two_images_are_enough_for_a_choice(tmp_path: Path, make_photos: Any) -> None:
    photos = make_photos(tmp_path / "photos", per_class=1, classes=("discs", "bars"))
    found = choose(photos, "builtin@48", "builtin@32", layers="auto")
    assert found.candidate.size in (32, 48) and found.table[0].looks[0].images == 2


def test_what_is_here_is_considered_at_several_sizes() -> None:
    here = {(each.name, each.size) for each in default_candidates()}
    assert {("builtin", 96), ("builtin", 128), ("builtin-large", None)} <= here
    lite = {size for name, size in here if name == "efficientnet_lite0"}
    assert lite in ({128, 160, 224}, set())


# ------------------------------------------------------------------------- a smaller one for a budget


@pytest.fixture
def many(tmp_path: Path, make_photos: Any) -> Path:
    """So many that seconds depend on the network."""
    photos: Path = make_photos(tmp_path / "many", per_class=100)
    return photos


def smaller(
    photos: Path, name: str, seconds: float | None, *, network: Any = None, **options: Any
) -> tuple[str, int, tuple[str, ...]]:
    """Name, size and note of what a budget leaves of a backbone, by the formulas, as no time passes."""
    asked = FitConfig.from_options(backbone=name, layers="last", **options)
    budget, runtime = Budget(seconds, clock=FakeClock()), select(precision="f32")
    found, backbone, notes = smaller_backbone(
        asked, read_dataset(photos), network or load_backbone(name), runtime=runtime, budget=budget
    )
    return found, backbone.preprocess.size, notes


def whole(photos: Path, name: str, size: int) -> float:
    """The budget that all of a fit just keeps."""
    dataset, backbone, runtime = read_dataset(photos), load_backbone(name, size=size), select(precision="f32")
    asked = FitConfig.from_options(backbone=name, layers="last")
    config = resolve(asked, dataset, backbone, runtime=runtime)
    job = Workload.of(config, dataset, backbone, runtime=runtime)
    return 1.001 * job.estimate(Timings()).seconds / CAREFUL


def test_a_budget_takes_a_smaller_size_before_it_takes_images_and_says_what_that_costs(many: Path) -> None:
    enough, less = whole(many, "builtin", 128), whole(many, "builtin", 96)
    assert smaller(many, "builtin", None) == ("builtin", 128, ())
    assert smaller(many, "builtin", enough) == ("builtin", 128, ())
    name, size, (note,) = smaller(many, "builtin", 0.98 * less)
    assert (name, size) == ("builtin", 96)
    assert "builtin at 96 px instead of builtin at 128 px" in note
    assert float(note.split(" ")[-2]) == pytest.approx(1.0, abs=0.9)  # points
    assert smaller(many, "builtin", less, size=128) == ("builtin", 128, ())  # as was asked for


def test_of_the_default_any_smaller_backbone_may_be_taken(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (BackboneName("builtin", 96), BackboneName("builtin", 128), BackboneName("builtin-large", 224))
    monkeypatch.setattr("headstart.training.backbone_choice.default_candidates", lambda: names)
    large = {"network": load_backbone("builtin-large", size=224)}
    small = whole(many, "builtin", 128)
    assert smaller(many, "builtin-large", small, **large)[:2] == ("builtin-large", 224)
    assert smaller(many, "default", small, **large)[:2] == ("builtin", 128)
    assert smaller(many, "default", 0.01, **large)[:2] == ("builtin", 96)  # which will say what it needs


# ---------------------------------------------------------------------------------------- the depth


def said(right: Any) -> Any:
    """Outcomes of one classifier whose loss is 0.1 where it is right and 2 where it is wrong."""
    return np.stack([right, np.where(right, 0.1, 2.0)]).astype(np.float32)


def test_deeper_is_kept_only_beyond_one_standard_error() -> None:
    head = np.arange(100) < 70
    much = np.arange(100) < 80
    assert judge(said(head), said(much), name="fine_tuning").deeper
    mixed = np.roll(head, 20) | (np.arange(100) == 99)  # 40 images differ, for a gain of one
    verdict = judge(said(head), said(mixed), name="fine_tuning")
    assert not verdict.deeper and verdict.gain == pytest.approx(0.01, abs=1e-6)
    assert "the head alone is kept" in verdict.reason and "+1.0 points" in verdict.reason
    assert not judge(said(head), said(head), name="fine_tuning").deeper


def test_a_smaller_loss_tells_of_a_gain_that_so_few_images_cannot_and_no_points_may_be_lost() -> None:
    head, surer = said(np.arange(100) < 70), said(np.arange(100) < 70)
    surer[1] *= 0.8
    assert judge(head, surer, name="fine_tuning").deeper
    surer[0, 69] = 0
    assert not judge(head, surer, name="fine_tuning").deeper


def guesses(*, epochs: int, images: int, share: float, seed: int) -> Any:
    """Outcomes of epochs that are all equally good, as `FineTuneResult` has them."""
    right = np.random.default_rng(seed).random((epochs, images)) < share
    return np.stack([said(each) for each in right])


def test_the_luck_of_the_best_of_many_epochs_is_no_gain() -> None:
    """Epochs that are no better than the head: at the best one they seem to be, halved they do not."""
    labels = np.arange(45) % 3
    lucky, fair = [], []
    for seed in range(200):
        answers = guesses(epochs=16, images=45, share=0.7, seed=seed)
        head = said(np.random.default_rng([1, seed]).random(45) < 0.7)
        best = answers[answers[:, 1].mean(axis=1).argmin()]
        lucky.append(judge(head, best, name="fine_tuning"))
        fair.append(judge(head, cross_validated_outcomes(answers, labels), name="fine_tuning"))
    assert np.mean([verdict.gain for verdict in lucky]) > 0.08
    assert abs(np.mean([verdict.gain for verdict in fair])) < 0.02
    assert np.mean([verdict.deeper for verdict in lucky]) > 0.5
    assert np.mean([verdict.deeper for verdict in fair]) < 0.25  # one standard error: about a sixth


def test_an_epoch_that_is_really_better_is_found_in_either_half() -> None:
    answers = guesses(epochs=6, images=60, share=0.4, seed=0)
    answers[4, 0] = 1.0
    answers[4, 1] = 0.1
    assert cross_validated_outcomes(answers, np.arange(60) % 4)[0].all()


# ---------------------------------------------------------------------------------------- in the main job


def test_fit_with_backbone_auto_says_why_and_computes_nothing_twice(photos: Path) -> None:
    _, run = headstart.fit(photos, backbone="auto", candidates=["builtin@32", "builtin@64"], precision="f32")
    assert run.config.backbone == "builtin" and run.config.size in (32, 64)
    assert any(note.startswith("backbone builtin at") for note in run.notes)
    assert run.cache["misses"] + run.cache["hits"] == 48
    assert run.cache["hits"] >= run.images["train"]  # the choice looked at those that are trained on
    assert run.seconds["choice"] > 0


def test_the_choice_is_predicted_before_it_begins_and_remembered(photos: Path) -> None:
    said: list[Any] = []

    class Listener(Callback):
        def on_progress(self, phase: str, done: int, total: int) -> None:
            said.append(phase)

        def on_estimate(self, seconds: Any, phases: Any) -> None:
            said.append(seconds)

        def on_epoch_end(self, epoch: Any) -> None:
            raise AssertionError("a ridge head has no epochs")

    options = {"backbone": "auto", "candidates": ["builtin@32", "builtin@64"], "precision": "f32"}
    _, run = headstart.fit(photos, callbacks=[Listener()], **options)
    assert said[0].to_dict() == run.predicted_seconds  # before any image
    assert run.predicted_phases["choice"] > 0
    assert sum(run.predicted_phases.values()) <= run.predicted_seconds["median"] + 0.01
    assert run.predicted_seconds["high"] > 1.2 * run.predicted_seconds["low"]  # nothing is known here yet
    _, again = headstart.fit(photos, **options)
    assert again.predicted_phases["choice"] < run.predicted_phases["choice"]  # the looks are cached


def test_scratch_has_no_backbone_to_choose(photos: Path) -> None:
    with pytest.raises(OptionError, match="exclude"):
        headstart.fit(photos, backbone="auto", scratch=True)


def test_a_deeper_training_that_fails_costs_the_head_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("headstart.training.depth_choice.FEWEST_IMAGES", 5)
    _, run = headstart.fit(
        photos,
        freeze="auto",
        epochs=2,
        learning_rate=1e30,
        backbone="builtin",
        size=64,
        precision="f32",
        validation=0.3,
    )
    assert run.config.depth == run.config.stages and run.accuracy["validation"] > 0.5
    (said,) = [note for note in run.notes if "diverged" in note]
    assert said.startswith("the head alone is kept")


def test_too_few_validation_images_leave_the_head_alone_and_say_so(photos: Path) -> None:
    _, run = headstart.fit(photos, freeze="auto", backbone="builtin", size=64, precision="f32")
    assert run.config.depth == run.config.stages
    assert any("too few to tell" in note for note in run.notes)


def test_freeze_auto_compares_on_validation_and_gives_its_verdict(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("headstart.training.depth_choice.FEWEST_IMAGES", 5)
    _, run = headstart.fit(
        photos,
        freeze="auto",
        epochs=1,
        backbone="builtin",
        size=64,
        precision="f32",
        validation=0.3,
        test=0.1,
    )
    said = [note for note in run.notes if "standard error" in note]
    assert len(said) == 1 and "validation images" in said[0]
    kept_deeper = "is kept" in said[0] and "head alone" not in said[0]
    assert (run.config.depth < run.config.stages) == kept_deeper
    assert run.path.joinpath("model.onnx").exists()
