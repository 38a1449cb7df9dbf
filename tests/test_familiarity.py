"""How familiar an image is: the numbers, the model that gives them, and what is made of them."""

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from headstart import heads
from headstart.classifier import MODEL_FILE, load
from headstart.cli import cli
from headstart.data.dataset import read_dataset
from headstart.errors import OptionError
from headstart.heads import even_sample, evenly, fit_familiarity, least_probability, right_probabilities
from headstart.heads.familiarity import normalised
from headstart.heads.ridge import standardised
from headstart.training import fit

CLASSES, WIDTH = 3, 24


def features(count, *, seed, strange=0.0):
    """Three clusters, or a place beside them all."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = 3 * np.eye(CLASSES, WIDTH)
    found = (
        centres[labels] * (1 - strange) + rng.normal(size=(count, WIDTH)) + 20 * strange * np.eye(WIDTH)[-1]
    )
    return found.astype(np.float32), labels


@pytest.mark.parametrize("images", [18, 300])  # fewer than dimensions, and more
def test_the_distance_is_the_relative_mahalanobis_distance_and_a_residual(images):
    x, labels = features(images, seed=0)
    found = fit_familiarity(x, labels, widths=[WIDTH], held_out=features(40, seed=1)[0])
    new, _ = features(9, seed=2, strange=0.3)

    z, mean, multiplier = standardised(normalised(x, [WIDTH]), np.ones(images), widths=[WIDTH])
    means = np.stack([z[labels == c].mean(axis=0) for c in range(CLASSES)])
    penalty = 2 * np.trace(z.T @ z) / WIDTH * np.eye(WIDTH)
    within = images * np.linalg.inv((z - means[labels]).T @ (z - means[labels]) + penalty)
    total = images * np.linalg.inv(z.T @ z + penalty)
    q = (normalised(new, [WIDTH]) - mean) * multiplier
    away = q[:, None] - means
    relative = np.einsum("ncd,de,nce->nc", away, within, away).min(axis=1) - np.einsum(
        "nd,de,ne->n", q, total, q
    )
    outside = np.square(q).sum(axis=1) - np.square(q @ found.directions).sum(axis=1)
    assert found.strangeness(new) == pytest.approx(relative + found.weight * outside, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("held_out", [True, False])
def test_of_known_images_a_share_falls_below_it_and_of_strange_ones_nearly_all(held_out):
    x, labels = features(600, seed=0)
    found = fit_familiarity(
        x, labels, widths=[WIDTH], held_out=features(400, seed=1)[0] if held_out else None
    )
    known, strange = (found.of(features(2000, seed=2, strange=each)[0]) for each in (0.0, 1.0))
    for share in (0.05, 0.2, 0.5):
        assert np.mean(known < share) == pytest.approx(share, abs=0.04)
    assert np.mean(strange < 0.05) > 0.95
    assert known.min() > 0 and known.max() <= 1


def test_too_few_images_say_nothing():
    x, labels = features(12, seed=0)
    assert fit_familiarity(x, labels, widths=[WIDTH]) is None
    assert fit_familiarity(x, labels, widths=[WIDTH], held_out=x[:5]) is None


def test_features_that_never_vary_do_no_harm():
    x, labels = np.ones((60, WIDTH), np.float32), np.arange(60) % CLASSES
    found = fit_familiarity(x, labels, widths=[WIDTH])
    assert found is None or np.isfinite(found.of(x)).all()


def test_a_sample_is_even_over_the_classes():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50)
    kept = even_sample(labels, most=30)
    assert np.bincount(labels[kept]).tolist() == [10, 3, 10]
    assert (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == 102


def test_very_many_held_out_images_are_thinned_over_all_classes(photos, tmp_path, monkeypatch):
    labels = np.repeat([0, 1, 2], [5000, 100, 4900])
    kept = evenly(np.arange(len(labels)), most=1000)
    assert np.bincount(labels[kept]) == pytest.approx([500, 10, 490], abs=2) and (np.diff(kept) > 0).all()
    assert evenly(kept, most=1000) is kept
    measured = []
    monkeypatch.setattr(heads, "evenly", lambda images: evenly(images, most=21))
    monkeypatch.setattr(heads, "fit_familiarity", lambda *_, held_out, **__: measured.append(len(held_out)))
    fit(photos, validation=0.5, backbone="builtin", size=64, out=tmp_path / "run")
    assert measured == [21]


# --- in a saved model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(small_run):
    return load(small_run)


def test_the_model_gives_what_the_features_say(run, photos):
    assert run.tells_unknown
    samples = read_dataset(photos).samples
    pixels = np.stack(run.render(samples))
    session = onnxruntime.InferenceSession(run.model)
    probabilities, familiarity = session.run(None, {"pixels": pixels})
    answers = run.answers(pixels)
    assert answers[:, :-1] == pytest.approx(probabilities, abs=1e-3)
    assert np.mean(np.abs(answers[:, -1] - familiarity) < 1e-6) > 0.9  # a step of the share on another side
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    assert run.answers(noise)[:, -1].max() < familiarity.mean()


def test_what_is_unlike_the_training_images_is_unknown(run, photos):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (strange,) = run.predict(noise, reject=0.1)
    assert strange.known is False and strange.familiarity < 0.1
    (unasked,) = run.predict(noise)
    assert unasked.known is None and unasked.familiarity == strange.familiarity
    known = run.predict(photos / "discs", reject=0.1)
    assert np.mean([each.known for each in known]) > 0.5


@pytest.mark.parametrize("share", [0, 1, -0.1, 5, float("nan")])
def test_a_share_is_between_nothing_and_all(run, share):
    with pytest.raises(OptionError, match="between 0 and 1, such as"):
        run.predict(np.zeros((8, 8, 3), np.uint8), reject=share)


def test_on_the_command_line(small_run, photos, tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    words = ["predict", str(small_run), str(tmp_path / "noise.png"), "--reject", "0.1"]
    shown = CliRunner().invoke(cli, words)
    assert "\tunknown (most like " in shown.output
    (told,) = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)
    assert told["known"] is False and 0 < told["familiarity"] < 0.1


def test_a_model_of_an_earlier_version_predicts_and_cannot_reject(own_run):
    file = own_run / "classifier.json"
    facts = json.loads(file.read_text())
    facts["about"].pop("familiarity")
    file.write_text(json.dumps(facts))
    old = load(own_run)
    (said,) = old.predict(np.zeros((8, 8, 3), np.uint8))
    assert "familiarity" not in said.to_dict()
    with pytest.raises(OptionError, match=r"cannot tell unknown images: .* fit again"):
        old.predict(np.zeros((8, 8, 3), np.uint8), reject=0.05)


def test_without_images_that_were_held_out_training_images_are_measured_by_each_other(photos, tmp_path):
    classifier, _ = fit(photos, validation=0, test=0, backbone="builtin", size=64, out=tmp_path / "run")
    assert classifier.about["familiarity"] == len(read_dataset(photos))
    assert (tmp_path / "run" / MODEL_FILE).exists()


# --- sets of labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_right_label_as_often_as_promised(coverage):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 4000)
    scores = rng.normal(size=(4000, CLASSES)) + 1.2 * np.eye(CLASSES)[labels]
    said = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    least = least_probability(right_probabilities(said[:1000], labels[:1000]), coverage=coverage)
    inside = said[1000:] >= least
    assert inside[np.arange(3000), labels[1000:]].mean() == pytest.approx(coverage, abs=0.03)
    assert least_probability(right_probabilities(said[:9], labels[:9]), coverage=0.95) is None
    assert least_probability((0.2, 0.8), coverage=5e-324) == 0.8
    assert least_probability((), coverage=0.5) is None


def test_a_set_begins_with_the_likeliest_label_and_grows_with_the_coverage(small_run, photos):
    classifier = replace(load(small_run), right=tuple(np.linspace(0.05, 0.9, 99)))
    for narrow, wide in zip(
        classifier.predict(photos, coverage=0.5), classifier.predict(photos, coverage=0.98), strict=True
    ):
        assert narrow.labels[0] == narrow.label and set(narrow.labels) <= set(wide.labels)
    for refused in (0, 1, 1.5):
        with pytest.raises(OptionError, match=r"coverage=.* between 0 and 1"):
            classifier.predict(photos, coverage=refused)
    few = replace(classifier, right=(0.5, 0.6))
    with pytest.raises(OptionError, match=r"cannot promise a coverage of 0\.9: .* fit again"):
        few.predict(photos, coverage=0.9)
