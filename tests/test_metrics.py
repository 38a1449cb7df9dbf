"""Scores of a classifier, compared with scikit-learn's and with arithmetic by hand."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.heads.metrics import calibration_error, evaluate, wilson_interval

NAMES = ("cat", "dog", "owl", "yak")


def predictions(images=200, classes=4, *, seed=0):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), images)
    labels = np.array([random.choice(classes, p=row) for row in probabilities])
    return probabilities, labels


def test_it_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, labels = predictions()
    predicted = probabilities.argmax(axis=1)
    ours = evaluate(probabilities, labels, classes=NAMES)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert ours.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert ours.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    np.testing.assert_array_equal(ours.confusion, metrics.confusion_matrix(labels, predicted))
    theirs = metrics.precision_recall_fscore_support(labels, predicted)
    rows = [(c.precision, c.recall, c.f1, c.support) for c in ours.per_class]
    np.testing.assert_allclose(np.array(rows).T, np.array(theirs))
    assert [c.name for c in ours.per_class] == list(NAMES)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_macro_f1_agrees_with_scikit_learn_when_classes_are_missing(images, classes, seed):
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, labels = predictions(images, classes, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.f1_score(labels, probabilities.argmax(axis=1), average="macro")
    ours = evaluate(probabilities, labels, classes=[str(i) for i in range(classes)])
    assert ours.macro_f1 == pytest.approx(theirs)


def test_the_confusion_matrix_has_true_classes_in_rows():
    ours = evaluate(np.eye(3)[[1, 1, 2]], [0, 1, 2], classes=("a", "b", "c"))
    assert ours.confusion.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_calibration_error_by_hand():
    # Two images said with 0.9, one of them right; two with 0.6, both right: (|1.8 - 1| + |1.2 - 2|) / 4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(0.4)


def test_probabilities_that_mean_what_they_say_have_little_calibration_error():
    probabilities, labels = predictions(20_000)
    assert evaluate(probabilities, labels, classes=NAMES).calibration_error < 0.02
    overconfident = np.eye(4)[probabilities.argmax(axis=1)]
    assert evaluate(overconfident, labels, classes=NAMES).calibration_error > 0.3


def test_the_interval_is_wilsons():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_within_bounds(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high


def test_an_evaluation_is_ready_for_json():
    ours = evaluate(*predictions(), classes=NAMES)
    found = json.loads(json.dumps(ours.to_dict()))
    assert found["confusion"] == ours.confusion.tolist() and found["interval"] == list(ours.interval)
    assert [score["name"] for score in found["per_class"]] == list(NAMES)


def test_certainty_that_is_wrong_costs_much_but_not_everything():
    loss = evaluate(np.array([[1.0, 0.0]]), [1], classes=("a", "b")).log_loss
    assert 10 < loss < 20


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 4)), [], "no images"),
        (np.full((2, 3), 1 / 3), [0, 1], r"probabilities \[2, 4\]"),
        (np.full((2, 4), 0.25), [0, 4], "labels must be 0 to 3"),
        (np.array([[3.0, -1.0, 0.5, 0.2]]), [0], "logits"),
        (np.array([[np.nan, 0.5, 0.5, 0.0]]), [0], "logits"),
    ],
)
def test_what_cannot_be_is_refused(probabilities, labels, message):
    with pytest.raises(OptionError, match=message):
        evaluate(probabilities, labels, classes=NAMES)
