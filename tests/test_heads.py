"""Heads: ridge against brute force, softmax against torch, the choice of layers, calibration."""

import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from headstart.errors import OptionError
from headstart.heads import (
    REGRESSION,
    LinearHead,
    Parts,
    Weighted,
    calibrate_temperature,
    choose_layers,
    comparable_images,
    fit_ridge,
    fit_softmax,
    ridge,
    task_of,
    weighted_labels,
)
from headstart.heads.linear import class_weight_vector, log_losses
from headstart.heads.ridge import multipliers
from headstart.heads.softmax import Adam, glorot_uniform
from headstart.heads.threads import _libraries, threads_for


def blobs(images=60, width=12, classes=3, *, seed=0, distance=1.5):
    """Features whose classes are blobs, in columns of different mean and scale."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(images) % classes)
    centres = random.standard_normal((classes, width)) * distance
    features = (random.standard_normal((images, width)) + centres[labels]) * random.uniform(0.2, 5, width)
    return (features + random.uniform(-20, 20, width)).astype(np.float32), labels


def in_batches(features, labels, size):
    """A walk that reuses its memory, as a reader of a cache may."""

    def walk():
        room = np.empty((size, features.shape[1]), np.float32)
        for start in range(0, len(labels), size):
            part = features[start : start + size]
            room[: len(part)] = part
            yield room[: len(part)], labels[start : start + size]

    return walk


def reference(features, labels, weights, penalty, *, classes, scale):
    """Weighted ridge with a free intercept, by the normal equations, on raw features."""
    x = features.astype(np.float64) * scale
    extended = np.hstack([x, np.ones((len(x), 1))])
    shrink = np.diag([penalty] * x.shape[1] + [0.0])
    gram = (extended * weights[:, None]).T @ extended + shrink
    solution = np.linalg.solve(gram, (extended * weights[:, None]).T @ np.eye(classes)[labels])
    return scale[:, None] * solution[:-1], solution[-1]


def scale_of(features, weights=None):
    """What `fit_ridge` multiplies raw columns by, computed apart from it."""
    x = features.astype(np.float64)
    deviation = np.sqrt(np.cov(x.T, aweights=weights, bias=True).diagonal())
    return 1 / (np.maximum(deviation, np.median(deviation)) * np.sqrt(x.shape[1]))


@pytest.mark.parametrize("width", [12, 90], ids=["primal", "dual"])
@pytest.mark.parametrize("class_weights", [None, {0: 3.0, 2: 0.5}])
def test_leave_one_out_equals_refitting_without_each_image(width, class_weights):
    features, labels = blobs(width=width, distance=0.5)
    weights = class_weight_vector(class_weights, np.bincount(labels))[labels]
    scale = scale_of(features, weights)
    for penalty in (0.01, 1.0):
        fit = fit_ridge((features, labels), classes=3, class_weights=class_weights, penalties=[penalty])
        scores = np.empty((len(labels), 3))
        for left_out in range(len(labels)):
            rest = np.arange(len(labels)) != left_out
            weight, bias = reference(
                features[rest], labels[rest], weights[rest], fit.absolute_penalty, classes=3, scale=scale
            )
            scores[left_out] = features[left_out] @ weight + bias
        errors = np.square(np.eye(3)[labels] - scores).sum(axis=1)
        assert fit.loo_accuracy == pytest.approx((scores.argmax(axis=1) == labels).mean())
        assert fit.loo_error == pytest.approx((weights @ errors) / weights.sum(), rel=1e-3)
        assert fit.form == ("dual" if width == 90 else "primal")


@pytest.mark.parametrize("width", [12, 90], ids=["primal", "dual"])
def test_the_head_is_the_ridge_solution_on_raw_features(width):
    features, labels = blobs(width=width)
    fit = fit_ridge((features, labels), classes=3, penalties=[0.1])
    weight, bias = reference(
        features, labels, np.ones(60), fit.absolute_penalty, classes=3, scale=scale_of(features)
    )
    np.testing.assert_allclose(fit.head.logits(features), features @ weight + bias, atol=2e-4)


def test_it_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs()
    fit = fit_ridge((features, labels), classes=3)
    z = features.astype(np.float64) * scale_of(features)
    theirs = linear_model.Ridge(alpha=fit.absolute_penalty).fit(z, np.eye(3)[labels])
    np.testing.assert_allclose(fit.head.logits(features), theirs.predict(z), atol=2e-4)
    absolute = [row.penalty * fit.absolute_penalty / fit.penalty for row in fit.table]
    chosen = linear_model.RidgeCV(alphas=absolute).fit(z, np.eye(3)[labels])
    assert chosen.alpha_ == pytest.approx(fit.absolute_penalty)


@settings(deadline=None, max_examples=25, derandomize=True)  # a tie of two penalties may go either way
@given(st.integers(1, 70), st.integers(0, 1000))
def test_streaming_equals_in_memory(size, seed):
    features, labels = blobs(seed=seed)
    whole = fit_ridge((features, labels), classes=3)
    streamed = fit_ridge(in_batches(features, labels, size), classes=3)
    assert streamed.penalty == whole.penalty
    assert streamed.loo_accuracy == whole.loo_accuracy
    np.testing.assert_allclose(streamed.head.logits(features), whole.head.logits(features), atol=2e-4)
    assert streamed.head.temperature == pytest.approx(whole.head.temperature, rel=0.01)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.lists(st.integers(0, 400), max_size=6),
    st.integers(0, 1000),
    st.sampled_from([None, "balanced", "weighted", "numbers"]),
    st.booleans(),
)
def test_the_head_is_the_same_to_a_millionth_however_images_lie(cuts, seed, kind, few):
    features, labels = blobs(40 if few else 400, width=48, seed=seed, distance=0.4)
    task, options = None, {"classes": 3}
    if kind == "balanced":
        options["class_weights"] = kind
    elif kind == "weighted":
        labels = weighted_labels(labels, np.random.default_rng(seed).uniform(0.5, 2, len(labels)))
        task = Weighted()
    elif kind == "numbers":
        labels, options = features[:, 0] + np.arange(len(labels)) / 100, {"classes": 1}
        task = task_of(REGRESSION, labels)
    whole = fit_ridge((features, labels), task=task, **options)
    order = np.random.default_rng(seed).permutation(len(labels))
    pieces = np.split(order, np.sort(np.minimum(cuts, len(labels))))  # some of them empty
    walks = tuple(in_batches(features[rows], labels[rows], 37) for rows in pieces)
    found = fit_ridge(Parts(walks), task=task, **options)
    assert (found.penalty, found.form, found.images) == (whole.penalty, whole.form, whole.images)
    assert found.loo_accuracy == pytest.approx(whole.loo_accuracy, abs=1e-6)
    largest = np.abs(whole.head.weight).max()
    np.testing.assert_allclose(found.head.weight, whole.head.weight, rtol=0, atol=1e-6 * largest)
    if kind != "numbers":
        np.testing.assert_allclose(
            found.head.probabilities(features), whole.head.probabilities(features), rtol=0, atol=1e-6
        )


def test_of_parts_an_even_sample_chooses_the_penalty_as_of_one(monkeypatch):
    features, labels = blobs(400, distance=0.5)
    monkeypatch.setattr(ridge, "MOST_SCORING", 400 * 12 * 13 * 3 // 7)
    monkeypatch.setattr(ridge, "_CALIBRATION_SCORES", 1000)
    whole = fit_ridge((features, labels), classes=3)
    walks = [
        in_batches(features[start : start + 90], labels[start : start + 90], 31)
        for start in range(0, 400, 90)
    ]
    found = fit_ridge(Parts(tuple(walks)), classes=3)
    assert [row.accuracy for row in found.table] == [row.accuracy for row in whole.table]
    assert found.head.temperature == pytest.approx(whole.head.temperature, rel=1e-5)


@pytest.mark.parametrize("width", [12, 90], ids=["primal", "dual"])
def test_of_many_images_and_classes_an_even_sample_chooses_the_penalty(width, monkeypatch):
    features, labels = blobs(width=width)
    whole = fit_ridge((features, labels), classes=3)
    monkeypatch.setattr(ridge, "MOST_SCORING", 60 * min(width, 60) * 13 * 3 // 3)
    scored = []
    inner = ridge.LeftOut.scores
    monkeypatch.setattr(
        ridge.LeftOut, "scores", lambda self, rows, y: scored.append(len(y)) or inner(self, rows, y)
    )
    sampled = fit_ridge(in_batches(features, labels, 7), classes=3)
    assert sum(scored) == 20 and sampled.images == 60
    assert sampled.loo_accuracy == pytest.approx(whole.loo_accuracy, abs=0.2)
    np.testing.assert_allclose(sampled.head.logits(features), whole.head.logits(features), atol=0.5)


def test_primal_and_dual_meet():
    features, labels = blobs(images=40, width=39)
    # A column that says nothing makes the same problem dual.
    padded = np.hstack([features, np.zeros((40, 1), np.float32)])
    primal = fit_ridge((features, labels), classes=3)
    dual = fit_ridge((padded, labels), classes=3, block_widths=[39, 1])
    assert (primal.form, dual.form) == ("primal", "dual")
    assert dual.loo_accuracy == primal.loo_accuracy
    same = fit_ridge((padded, labels), classes=3, block_widths=[39, 1], penalties=[primal.penalty * 39 / 40])
    np.testing.assert_allclose(same.head.logits(padded), primal.head.logits(features), atol=0.05)


def test_a_class_weight_of_two_does_what_its_images_twice_would():
    for width in (12, 150):
        features, labels = blobs(width=width)
        twice = np.concatenate([np.arange(60), np.flatnonzero(labels == 1)])
        weighted = fit_ridge((features, labels), classes=3, class_weights={1: 2.0}, penalties=[0.3])
        doubled = fit_ridge((features[twice], labels[twice]), classes=3, penalties=[0.3])
        assert weighted.absolute_penalty == pytest.approx(doubled.absolute_penalty, rel=1e-4)
        np.testing.assert_allclose(weighted.head.weight, doubled.head.weight, atol=1e-4)
        np.testing.assert_allclose(weighted.head.bias, doubled.head.bias, atol=2e-3)


def test_balanced_weights_raise_the_recall_of_a_rare_class():
    features, labels = blobs(images=600, distance=0.35)
    kept = (labels != 2) | (np.arange(600) % 10 == 0)
    features, labels = features[kept], labels[kept]

    def recall(class_weights):
        head = fit_ridge(in_batches(features, labels, 64), classes=3, class_weights=class_weights).head
        return (head.logits(features).argmax(axis=1) == labels)[labels == 2].mean()

    assert recall("balanced") > recall(None) + 0.2


def test_the_penalty_of_least_left_out_error_is_chosen_and_noise_wants_more_of_it():
    features, labels = blobs()
    fit = fit_ridge((features, labels), classes=3)
    assert fit.loo_error == min(row.error for row in fit.table)
    noise = fit_ridge((features, np.random.default_rng(1).permutation(labels)), classes=3)
    assert noise.penalty > fit.penalty


def test_large_means_cost_no_accuracy():
    features, labels = blobs(images=300)
    shifted = features + np.float32(1000)
    expected = fit_ridge((shifted - np.float32(1000), labels), classes=3)  # rounded alike
    fit = fit_ridge(in_batches(shifted, labels, 32), classes=3)
    assert fit.loo_error == pytest.approx(expected.loo_error, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_odd_data_never_gives_nan(images, width, classes, seed):
    """Constant, duplicate and nearly constant columns, classes with one image or none, one image in all."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((images, width)).astype(np.float32)
    kind = random.integers(0, 4, width)
    features[:, kind == 0] = 7.5
    features[:, kind == 1] = features[:, :1]
    features[:, kind == 2] = 1000 + 1e-4 * features[:, kind == 2]
    labels = random.integers(0, classes, images)
    fit = fit_ridge(in_batches(features, labels, 5), classes=classes)
    assert np.all(np.isfinite(fit.head.weight)) and np.all(np.isfinite(fit.head.bias))
    assert 0 <= fit.loo_accuracy <= 1 and np.isfinite(fit.loo_error)
    probabilities = fit.head.probabilities(features)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_column_that_is_almost_always_off_does_not_outshout_the_rest():
    features, labels = blobs(images=200)
    features[:, 0] = 0
    features[7, 0] = 1e-4
    weight = fit_ridge((features, labels), classes=3).head.weight
    scale = np.median(features.std(axis=0))
    assert np.abs(weight[0]).max() < 1 / scale
    factors = multipliers(features.mean(axis=0), features.var(axis=0), widths=(12,))
    assert factors[0] == pytest.approx(1 / (scale * np.sqrt(12)), rel=1e-3)


def test_a_wide_block_does_not_drown_a_narrow_one():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    narrow = random.standard_normal((200, 2)) + 1.5 * (2 * labels[:, None] - 1)
    features = np.hstack([narrow, random.standard_normal((200, 150))]).astype(np.float32)
    blocked = fit_ridge((features, labels), classes=2, block_widths=[2, 150])
    plain = fit_ridge((features, labels), classes=2)
    assert blocked.loo_error < plain.loo_error


def test_left_out_scores_are_calibrated():
    features, labels = blobs(images=400, distance=0.6)
    held_out, truth = blobs(images=400, distance=0.6)
    random = np.random.default_rng(5)
    held_out = held_out + random.normal(0, held_out.std(axis=0) * 0.1, held_out.shape).astype(np.float32)
    head = fit_ridge((features, labels), classes=3).head
    probabilities = head.probabilities(held_out)
    confidence = probabilities.max(axis=1).mean()
    accuracy = (probabilities.argmax(axis=1) == truth).mean()
    assert confidence == pytest.approx(accuracy, abs=0.06)


def test_the_temperature_is_the_one_of_least_log_loss():
    random = np.random.default_rng(0)
    logits = random.standard_normal((500, 4)).astype(np.float32)
    labels = np.array(
        [random.choice(4, p=p) for p in np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)]
    )
    found = calibrate_temperature(logits, labels)
    assert found == pytest.approx(1 / 3, rel=0.15)
    loss = log_losses(logits / np.float32(found), labels).mean()
    for other in (0.9 * found, 1.1 * found):
        assert loss < log_losses(logits / np.float32(other), labels).mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalties": [0.0]}, "penalties"),
        ({"penalties": []}, "penalties"),
        ({"class_weights": "even"}, "'balanced'"),
        ({"class_weights": {9: 1.0}}, "no class 9"),
        ({"class_weights": {0: 0.0}}, "above zero"),
        ({"class_weights": [1.0, 2.0]}, "expected 3"),
        ({"block_widths": [5, 5]}, "sum to 12"),
        ({"classes": 2}, "labels must be 0 to 1"),
    ],
)
def test_options_that_cannot_work_are_refused(change, message):
    with pytest.raises(OptionError, match=message):
        fit_ridge(blobs(), **({"classes": 3} | change))


def test_features_that_are_not_finite_are_refused():
    for width in (12, 90):
        features, labels = blobs(width=width)
        features[3, 4] = np.nan
        with pytest.raises(OptionError, match=r"1 of .* not finite"), np.errstate(invalid="ignore"):
            fit_ridge((features, labels), classes=3)


def test_no_images_and_ragged_batches_are_refused():
    with pytest.raises(OptionError, match="no images"):
        fit_ridge((np.zeros((0, 3)), np.zeros(0, int)), classes=2)
    with pytest.raises(OptionError, match="every batch must have 3"):
        fit_ridge(lambda: [(np.zeros((1, 3)), [0]), (np.zeros((1, 4)), [0])], classes=2)


def test_a_head_refuses_features_of_another_width():
    head = LinearHead("ridge", np.zeros((4, 2), np.float32), np.zeros(2, np.float32))
    with pytest.raises(OptionError, match=r"reads features \[N, 4\], got \[3, 5\]"):
        head.logits(np.zeros((3, 5)))


# --- softmax -----------------------------------------------------------------------------------------


def test_adam_steps_equal_torchs():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    ours = [random.standard_normal((5, 3)).astype(np.float32), np.zeros(3, np.float32)]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in ours]
    adam, reference_adam = Adam(0.01), torch.optim.Adam(theirs, lr=0.01, eps=1e-7)
    for _ in range(50):
        gradients = [random.standard_normal(p.shape).astype(np.float32) for p in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        adam.update(ours, gradients)
        reference_adam.step()
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other.detach().numpy(), atol=2e-5)


def test_epochs_of_one_full_batch_equal_torchs():
    torch = pytest.importorskip("torch")
    features, labels = blobs(images=64)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    fit = fit_softmax(features, labels, classes=3, epochs=11, batch_size=64, seed=4)
    layer = torch.nn.Linear(12, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(glorot_uniform(12, 3, generator=np.random.default_rng(4)).T))
        layer.bias.zero_()
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, eps=1e-7)
    x, y = torch.tensor(features), torch.tensor(labels)
    for row in fit.history:
        logits = layer(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert row["accuracy"] == pytest.approx(float((logits.argmax(1) == y).float().mean()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_the_running_accuracy_is_over_batches_as_they_were_seen():
    features, labels = blobs(images=5, classes=5)
    fit = fit_softmax(features, labels, classes=5, epochs=1)  # one batch of five: nothing learned before it
    assert fit.history[0]["accuracy"] * 5 == pytest.approx(round(fit.history[0]["accuracy"] * 5))
    easy, truth = blobs(images=2000, distance=4)
    fit = fit_softmax(easy, truth, classes=3, epochs=1, standardise=True, learning_rate=0.01)
    final = (fit.head.logits(easy).argmax(axis=1) == truth).mean()
    assert fit.history[0]["accuracy"] < final


def test_the_seed_decides_everything():
    features, labels = blobs()
    one, same, other = (fit_softmax(features, labels, classes=3, epochs=2, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.head.weight, same.head.weight)
    assert one.history == same.history
    assert not np.array_equal(one.head.weight, other.head.weight)


def test_validation_is_reported_and_progress_called_each_epoch():
    features, labels = blobs(images=300)
    seen = []
    fit = fit_softmax(
        features[:200], labels[:200], classes=3, epochs=4, validation=(features[200:], labels[200:]),
        standardise=True, calibrate=True, progress=seen.append,
    )  # fmt: skip
    assert tuple(seen) == fit.history
    assert [row["epoch"] for row in seen] == [1, 2, 3, 4]
    accuracy = (fit.head.logits(features[200:]).argmax(axis=1) == labels[200:]).mean()
    assert fit.history[-1]["validation_accuracy"] == pytest.approx(accuracy)
    calibrated = log_losses(
        fit.head.logits(features[200:]) / np.float32(fit.head.temperature), labels[200:]
    ).mean()
    assert calibrated < fit.history[-1]["validation_loss"]


def test_a_class_weight_multiplies_the_losses():
    features, labels = blobs(images=30)
    plain = fit_softmax(features, labels, classes=3, epochs=1)
    weighted = fit_softmax(features, labels, classes=3, epochs=1, class_weights=[2.0, 2.0, 2.0])
    assert weighted.history[0]["loss"] == pytest.approx(2 * plain.history[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"calibrate": True}]
)
def test_softmax_options_that_cannot_work_are_refused(change):
    with pytest.raises(OptionError, match=next(iter(change)).replace("calibrate", "calibrating")):
        fit_softmax(*blobs(), classes=3, **change)


# --- layers --------------------------------------------------------------------------------------------


def layers_where(informative, *, images=200, seed=0):
    """Three layers, of which the informative ones see the classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    layers = {}
    for name, width in (("early", 20), ("middle", 60), ("last", 40)):
        centres = random.standard_normal((4, width)) * (0.5 if name in informative else 0)
        noise = random.standard_normal((images, width))
        layers[name] = ((centres[labels] + noise) * random.uniform(0.1, 10)).astype(np.float32)
    return layers, labels


def test_the_last_layer_is_kept_where_it_is_as_good_as_any():
    layers, labels = layers_where({"last"})
    choice = choose_layers(layers, labels, classes=4, last="last")
    assert choice.layers == ("last",)
    assert choice.loo_accuracy == choice.last_loo_accuracy > 0.5


def test_another_layer_is_chosen_where_only_it_sees_the_classes():
    layers, labels = layers_where({"early"})
    choice = choose_layers(layers, labels, classes=4, last="last")
    assert choice.layers == ("early",)
    assert choice.loo_accuracy > choice.last_loo_accuracy + 0.2


def test_layers_that_see_different_things_are_concatenated():
    random = np.random.default_rng(0)
    labels = np.arange(300) % 4
    layers = {
        "early": (2 * (labels % 2)[:, None] + random.standard_normal((300, 10))).astype(np.float32),
        "last": (2 * (labels // 2)[:, None] + random.standard_normal((300, 200))).astype(np.float32),
        "noise": random.standard_normal((300, 30)).astype(np.float32),
    }
    choice = choose_layers(layers, labels, classes=4, last="last")
    assert set(choice.layers) == {"early", "last"}
    fit = fit_ridge(
        (np.hstack([layers[name] for name in choice.layers]), labels),
        classes=4,
        block_widths=[layers[name].shape[1] for name in choice.layers],
    )
    assert fit.loo_accuracy == pytest.approx(choice.loo_accuracy)
    assert fit.loo_error == pytest.approx(choice.table[0].error, rel=1e-3)


def test_concatenations_wider_than_allowed_are_not_tried():
    layers, labels = layers_where({"early", "last"})
    tried = [row.layers for row in choose_layers(layers, labels, classes=4, last="last", widest=70).table]
    assert {layers for layers in tried if len(layers) == 1} == {("early",), ("middle",), ("last",)}
    assert all(sum({"early": 20, "middle": 60, "last": 40}[t] for t in layers) <= 70 for layers in tried)


def test_candidates_are_compared_on_an_even_draw_of_the_classes():
    layers, labels = layers_where({"last"}, images=400)
    seen = {name: _Recording(x) for name, x in layers.items()}
    choice = choose_layers(seen, labels, classes=4, last="last", images=100)
    assert choice.images == 100
    assert Counter(labels[seen["last"].rows]) == {0: 25, 1: 25, 2: 25, 3: 25}


@pytest.mark.parametrize(("classes", "each"), [(400, 10), (80, 4), (1000, 3), (2000, 2)])
def test_with_more_classes_than_images_to_compare_on_a_layer_that_sees_them_wins(classes, each):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    seen = random.standard_normal((classes, 24))[labels] + 0.2 * random.standard_normal((len(labels), 24))
    layers = {
        "early": seen.astype(np.float32),
        "deaf": random.standard_normal((len(labels), 8)).astype(np.float32),
        "last": random.standard_normal((len(labels), 16)).astype(np.float32),
    }
    choice = choose_layers(layers, labels, classes=classes, last="last")
    assert choice.layers == ("early",) and choice.loo_accuracy > choice.last_loo_accuracy + 0.2
    assert choice.images <= 320 and choice.classes >= 80
    swapped = {"last": layers["early"], "early": layers["last"], "deaf": layers["deaf"]}
    assert choose_layers(swapped, labels, classes=classes, last="last").layers == ("last",)


def test_classes_of_one_image_take_no_part_in_the_comparison_and_alone_keep_the_last_layer():
    layers, _ = layers_where({"early"}, images=40)
    assert choose_layers(layers, np.arange(40), classes=40, last="last").layers == ("last",)
    labels = np.array([0, 0, 0, 1, 1, *range(2, 37)])
    assert comparable_images(labels, np.arange(40), most=320).tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=400), st.integers(8, 100), st.integers(0, 9))
def test_images_to_compare_on_are_several_of_a_class_the_same_in_any_order(drawn, most, seed):
    labels, names = np.array(drawn), np.random.default_rng(0).permutation(len(drawn))
    rows = comparable_images(labels, names, most=most)
    counts = np.bincount(labels)
    assert len(rows) <= most
    assert not len(rows) or np.unique(labels[rows], return_counts=True)[1].min() >= 2
    assert len(rows) or np.count_nonzero(counts > 1) < 2
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    again = comparable_images(labels[shuffled], names[shuffled], most=most)
    assert set(names[shuffled][again]) == set(names[rows])


class _Recording:
    """Features that note which rows were read."""

    def __init__(self, values):
        self.values, self.rows = values, None

    def __getitem__(self, rows):
        self.rows = rows
        return self.values[rows]


def test_an_unknown_last_layer_is_refused():
    layers, labels = layers_where({"last"})
    with pytest.raises(OptionError, match="no layer 'final'; there are early, middle, last"):
        choose_layers(layers, labels, classes=4, last="final")


def test_importing_heads_loads_nothing_heavy():
    heavy = "{'torch', 'scipy', 'sklearn', 'openvino', 'timm', 'pandas'}"
    code = f"import sys, headstart.heads, headstart.heads.metrics; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_layers_wider_than_allowed_are_not_tried_but_the_last_one_is() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    wide = np.eye(3)[labels].repeat(20, axis=1) + random.normal(0, 0.1, (60, 60))
    noise = random.normal(size=(60, 40))
    features = {"wide": wide.astype(np.float32), "last": noise.astype(np.float32)}
    assert choose_layers(features, labels, classes=3, last="last", widest=60).layers == ("wide",)
    assert choose_layers(features, labels, classes=3, last="last", widest=30).layers == ("last",)


# --- threads ----------------------------------------------------------------------------------------------


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    _libraries.cache_clear()  # other tests load further ones
    with threadpool_limits(2, "blas"):
        yield


def test_little_linear_algebra_runs_on_one_thread_and_much_on_all(two_threads):
    with threads_for(12 * 600**2):
        assert blas_threads() == {1}
        with threads_for(12 * 300**2):
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    with threads_for(12 * 5000**2):
        assert blas_threads() == {2}


def test_the_last_of_several_who_asked_for_one_thread_gives_the_others_back(two_threads):
    entered, go = threading.Event(), threading.Event()

    def other():
        with threads_for(1):
            entered.set()
            go.wait(60)

    with threads_for(1):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(60)
    assert blas_threads() == {1}
    go.set()
    thread.join(60)
    assert blas_threads() == {2}


@pytest.mark.parametrize("fit", ["primal", "dual", "softmax", "layers"])
def test_heads_of_few_images_are_fitted_on_one_thread(fit, two_threads, monkeypatch):
    seen = []
    eigh, update = np.linalg.eigh, Adam.update
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: seen.append(blas_threads()) or eigh(matrix))
    monkeypatch.setattr(Adam, "update", lambda *given: seen.append(blas_threads()) or update(*given))
    features, labels = blobs(width=90 if fit == "dual" else 12)
    if fit == "softmax":
        fit_softmax(features, labels, classes=3, epochs=1)
    elif fit == "layers":
        choose_layers({"last": features}, labels, classes=3, last="last")
    else:
        fit_ridge((features, labels), classes=3)
    assert seen and all(each == {1} for each in seen)
    assert blas_threads() == {2}
