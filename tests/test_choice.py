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
from headstart.data.dataset import read_dataset
from headstart.errors import BackboneError, OptionError
from headstart.features import missing_share
from headstart.heads import fit_ridge
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.training.backbone_choice import choose_backbone, default_candidates
from headstart.training.contenders import Probe
from headstart.training.depth_choice import cross_validated_outcomes, judge
from headstart.training.published_accuracy import POINTS_PER_HALVING, published_accuracy, undominated
from made_up_jobs import FakeClock


def blobs(*, apart: float, images: int = 90, width: int = 20, seed: int = 0) -> tuple[Any, Any]:
    """Three classes of Gaussian features whose means are so far apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    means = apart * random.normal(size=(3, width))
    return (means[labels] + random.normal(size=(images, width))).astype(np.float32), labels.astype(np.int64)


# ---------------------------------------------------------------------------------------- the probe


def test_the_probe_prefers_features_that_separate() -> None:
    good, bad = (Probe.of(fit_ridge(blobs(apart=apart), classes=3)) for apart in (1.0, 0.1))
    assert good.loo_accuracy > 0.95 > 0.7 > bad.loo_accuracy
    assert good.loo_error < bad.loo_error
    assert 0 < good.standard_error < bad.standard_error < 0.1


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_the_probe_does_not_depend_on_the_order_of_images(seed: int) -> None:
    features, labels = blobs(apart=0.4, seed=seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    first = fit_ridge((features, labels), classes=3)
    second = fit_ridge((features[order], labels[order]), classes=3)
    assert first.loo_accuracy == pytest.approx(second.loo_accuracy, abs=0.012)  # one image on the fence


# ---------------------------------------------------------------------------------------- the prior


def test_what_is_slower_and_worse_is_dominated_and_the_unknown_never() -> None:
    assert undominated([1.0, 2.0, 3.0], [70.0, 60.0, 80.0]) == [0, 2]
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


def test_halving_ends_with_two_finalists_on_all_images(photos: Path) -> None:
    found = choose(photos, "builtin@32", "builtin@48", "builtin@64", "builtin@96")
    left = {score.size: score.left for score in found.table}
    assert sorted(left.values()) == ["", "final", "probe", "probe"]
    assert left[found.backbone.preprocess.size] == ""
    finalists = [score for score in found.table if score.left in ("", "final")]
    assert len({score.probe.images for score in finalists}) == 1
    assert all(score.validation_accuracy is not None for score in finalists)
    assert any(f"at {found.backbone.preprocess.size} px" in reason for reason in found.reasons)
    (dropped,) = [reason for reason in found.reasons if reason.startswith("dropped after a look at")]
    first_look = min(score.probe.images for score in found.table)
    assert f"a look at {first_look} images, where it had " in dropped
    assert all(f"at {size} px" in dropped for size, why in left.items() if why == "probe")


def test_the_better_separating_candidate_wins(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an accuracy that grows with the size of the images, the largest is chosen."""
    from headstart.training import backbone_choice as choosing

    def accuracy(session: Any, contender: Any, **_: Any) -> None:
        size = contender.backbone.preprocess.size
        contender.probe = Probe.of(fit_ridge(blobs(apart=size / 100), classes=3))
        contender.held_out = contender.validation_accuracy = size / 100

    monkeypatch.setattr(choosing, "_look", accuracy)
    monkeypatch.setattr(choosing, "_run_in_full", accuracy)
    assert choose(photos, "builtin@32", "builtin@96", "builtin@48").candidate.size == 96


@pytest.mark.parametrize("layers", ["last", "all", "auto"])
def test_finalists_are_judged_by_the_head_that_a_fit_would_give_them(
    tmp_path: Path, make_photos: Any, layers: str
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=20)
    one, *others = sorted(photos.iterdir())
    for number, path in enumerate(sorted(one.iterdir())[::3]):  # labelled wrongly: nothing gets all right
        path.rename(others[number % len(others)] / f"wrong-{path.name}")
    found = choose(photos, "builtin@32", "builtin@48", layers=layers)
    for score in found.table:
        run = headstart.fit(
            photos,
            backbone="builtin",
            size=score.size,
            layers=layers,
            precision="f32",
            out=tmp_path / str(score.size),
        )[1]
        assert run.head_fit["loo_accuracy"] == score.probe.loo_accuracy < 1
        assert run.accuracy["validation"] == score.validation_accuracy


def test_a_clear_lead_spares_the_other_finalist_a_look_at_all_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import backbone_choice as choosing

    def look(session: Any, contender: Any, **_: Any) -> None:
        good = contender.backbone.preprocess.size == 48
        contender.probe = Probe.of(fit_ridge(blobs(apart=1.0 if good else 0.1), classes=3))

    monkeypatch.setattr(choosing, "_look", look)
    found = choose(photos, "builtin@96", "builtin@48")
    assert found.candidate.size == 48
    assert {score.size: score.left for score in found.table} == {48: "", 96: "probe"}
    assert all(score.validation_accuracy is None for score in found.table)


def test_of_two_that_are_equally_good_the_faster_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import backbone_choice as choosing

    def same(session: Any, contender: Any, **_: Any) -> None:
        contender.probe = Probe.of(fit_ridge(blobs(apart=0.5), classes=3))
        contender.held_out = contender.validation_accuracy = 0.8

    monkeypatch.setattr(choosing, "_look", same)
    monkeypatch.setattr(choosing, "_run_in_full", same)
    assert choose(photos, "builtin@96", "builtin@32").candidate.size == 32


def test_a_tight_allowance_leaves_out_what_is_too_slow_and_says_so(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import backbone_choice as choosing

    def slow(session: Any, contender: Any, **_: Any) -> None:
        contender.probe = Probe.of(fit_ridge(blobs(apart=0.5), classes=3))
        contender.seconds_per_image = 0.1 if contender.backbone.preprocess.size == 96 else 0.001

    monkeypatch.setattr(choosing, "_look", slow)
    found = choose(photos, "builtin@96", "builtin@32", allowance=6.0)
    assert found.candidate.size == 32
    assert {score.size: score.left for score in found.table}[96] == "budget"
    assert any("all images would take" in reason for reason in found.reasons)


def slowly(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, paces: dict[int, float]
) -> list[tuple[int, int, int]]:
    """Computing an image takes so long by the test's clock; returns (size, views, images) of each pass."""
    from headstart.training import backbone_choice as choosing

    passes = []
    extract = choosing.extract

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

    monkeypatch.setattr(choosing, "extract", run)
    return passes


def test_what_all_views_would_take_counts_and_not_the_centre_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    passes = slowly(monkeypatch, clock, {32: 0.1, 48: 0.1})
    options = {"clock": clock, "allowance": 30.0}
    found = choose(photos, "builtin@32", "builtin@48", views=8, **options)
    assert passes == [(32, 1, 48), (48, 1, 48)]  # 8 views of all images are foreseen to take too long
    assert found.seconds == pytest.approx(9.6)
    assert all(score.seconds_per_image == pytest.approx(0.1) for score in found.table)
    assert sorted(score.left for score in found.table) == ["", "budget"]
    assert any("no time was left" in reason or "would take" in reason for reason in found.reasons)


def test_a_candidate_whose_looks_were_cached_is_no_faster_for_that(
    tmp_path: Path, make_photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos", per_class=100)
    clock = FakeClock()
    passes = slowly(monkeypatch, clock, {32: 0.001, 48: 0.1})
    for _ in range(2):  # the second time every image that is looked at first is there
        passes.clear()
        found = choose(photos, "builtin@32", "builtin@48", clock=clock, allowance=15.0)
        assert {score.size: score.left for score in found.table} == {32: "", 48: "budget"}
        assert any("all images would take" in reason for reason in found.reasons)
        assert all(images == 103 for _, _, images in passes)


def test_a_look_that_takes_too_long_ends_with_the_allowance_and_the_best_so_far_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    passes = slowly(monkeypatch, clock, {32: 0.1, 48: 1.0, 64: 1.0})
    found = choose(photos, "builtin@64", "builtin@48", "builtin@32", clock=clock, allowance=20.0)
    assert [size for size, _, _ in passes] == [32, 48]  # the fastest first, the second one in vain
    assert found.seconds <= 20.0 + 8 * 1.0  # it is asked after every few images
    assert {score.size: score.left for score in found.table} == {32: "", 48: "budget", 64: "budget"}
    assert any("no time was left for a look" in reason for reason in found.reasons)


def test_a_pass_that_takes_too_long_ends_with_the_allowance_and_gives_its_reason(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import backbone_choice as choosing

    clock = FakeClock()
    slowly(monkeypatch, clock, {32: 1.0, 48: 1.0})
    monkeypatch.setattr(
        choosing,
        "_look",
        lambda session, contender, **_: setattr(
            contender, "probe", Probe.of(fit_ridge(blobs(apart=0.5), classes=3))
        ),
    )
    found = choose(photos, "builtin@32", "builtin@48", clock=clock, allowance=60.0)
    assert found.seconds <= 60.0 + 8 * 1.0
    assert {score.size: score.left for score in found.table} == {32: "", 48: "budget"}
    assert any("a look at all images by both" in reason for reason in found.reasons)


def test_without_time_for_a_look_the_fastest_is_taken_and_a_fit_goes_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.training import backbone_choice as choosing

    monkeypatch.setattr(choosing, "_pays", lambda *_, **__: False)
    _, run = headstart.fit(
        photos, backbone="auto", candidates=["builtin@64", "builtin@32"], precision="f32", budget="10m"
    )
    assert run.config.size == 32 and run.images["train"] > 20
    assert any("the fastest, as no time was left" in note for note in run.notes)


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
    chosen = next(score for score in found.table if not score.left)
    assert chosen.probe.images == 24 and chosen.validation_accuracy is not None


def test_two_images_are_enough_for_a_choice(tmp_path: Path, make_photos: Any) -> None:
    photos = make_photos(tmp_path / "photos", per_class=1, classes=("discs", "bars"))
    found = choose(photos, "builtin@48", "builtin@32", layers="auto")
    assert found.candidate.size == 32  # nothing is right about anything, so the faster one


def test_what_is_here_are_the_builtins_at_two_sizes() -> None:
    assert {("builtin", 128), ("builtin", 192)} <= {(each.name, each.size) for each in default_candidates()}


# ---------------------------------------------------------------------------------------- the depth


def test_deeper_is_kept_only_beyond_one_standard_error() -> None:
    head = np.arange(100) < 70
    much = np.arange(100) < 80
    assert judge(head, much, name="fine_tuning").deeper
    mixed = np.roll(head, 20) | (np.arange(100) == 99)  # 40 images differ, for a gain of one
    verdict = judge(head, mixed, name="fine_tuning")
    assert (
        not verdict.deeper and verdict.gain == pytest.approx(0.01, abs=1e-9) and verdict.standard_error > 0.05
    )
    assert "the head alone is kept" in verdict.reason and "+1.0 points" in verdict.reason
    assert not judge(head, head, name="fine_tuning").deeper


def guesses(*, epochs: int, images: int, share: float, seed: int) -> Any:
    """Outcomes of epochs that are all equally good, as `FineTuneResult` has them."""
    right = np.random.default_rng(seed).random((epochs, images)) < share
    return np.stack([right, 1.0 - right], axis=1).astype(np.float32)


def test_the_luck_of_the_best_of_many_epochs_is_no_gain() -> None:
    """Epochs that are no better than the head: at the best one they seem to be, halved they do not."""
    labels = np.arange(45) % 3
    lucky, fair = [], []
    for seed in range(200):
        answers = guesses(epochs=16, images=45, share=0.7, seed=seed)
        head = np.random.default_rng([1, seed]).random(45) < 0.7
        best = answers[answers[:, 0].mean(axis=1).argmax(), 0] > 0
        lucky.append(judge(head, best, name="fine_tuning"))
        fair.append(judge(head, cross_validated_outcomes(answers, labels), name="fine_tuning"))
    assert np.mean([verdict.gain for verdict in lucky]) > 0.08
    assert abs(np.mean([verdict.gain for verdict in fair])) < 0.02
    assert np.mean([verdict.deeper for verdict in lucky]) > 0.5
    assert np.mean([verdict.deeper for verdict in fair]) < 0.25  # one standard error: about a sixth


def test_an_epoch_that_is_really_better_is_found_in_either_half() -> None:
    answers = guesses(epochs=6, images=60, share=0.4, seed=0)
    answers[4, 0] = 1.0
    answers[4, 1] = 0.0
    assert cross_validated_outcomes(answers, np.arange(60) % 4).all()


# ---------------------------------------------------------------------------------------- in the main job


def test_fit_with_backbone_auto_says_why_and_computes_nothing_twice(photos: Path) -> None:
    _, run = headstart.fit(photos, backbone="auto", candidates=["builtin@32", "builtin@64"], precision="f32")
    assert run.config.backbone == "builtin" and run.config.size in (32, 64)
    assert any(note.startswith("backbone builtin at") for note in run.notes)
    assert run.cache["misses"] == 0 and run.cache["hits"] == 48
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
    assert run.predicted_seconds["high"] > 2 * run.predicted_seconds["low"]  # nothing is known here yet
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
