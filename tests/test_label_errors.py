"""Confident learning finds wrong labels, says how many of the first ones are, and people can read them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from conftest import CLASSES, shared_folders, write_photos
from headstart import fit
from headstart.cli.check import command
from headstart.errors import OptionError, RunError
from headstart.heads import find_label_errors, fit_ridge
from headstart.runs import Run, RunStore, read_label_errors

FAST = {"backbone": "builtin", "size": 64, "layers": "last"}


def out_of_fold(x: NDArray[np.float32], y: NDArray[np.int64], *, folds: int = 5) -> NDArray[np.float32]:
    classes, fold = int(y.max()) + 1, np.random.default_rng(0).permutation(len(y)) % folds
    found = np.zeros((len(y), classes), np.float32)
    for each in range(folds):
        head = fit_ridge((x[fold != each], y[fold != each]), classes=classes).head
        found[fold == each] = head.probabilities(x[fold == each])
    return found


def spoilt(
    y: NDArray[np.int64], share: float, *, random: np.random.Generator, pairs: bool
) -> NDArray[np.int64]:
    """Labels of which a share is wrong: each of any other class, or of the next one."""
    classes = int(y.max()) + 1
    wrong = random.random(len(y)) < share
    steps = 1 if pairs else random.integers(1, classes, len(y))
    return np.where(wrong, (y + steps) % classes, y)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.2])
def test_of_the_first_suspects_as_many_are_wrong_as_was_said(share: float, pairs: bool) -> None:
    images, labels = load_digits(return_X_y=True)
    x, y = images.astype(np.float32), labels.astype(np.int64)
    given = spoilt(y, share, random=np.random.default_rng(1), pairs=pairs)
    wrong = given != y
    trained = fit_ridge((x, given), classes=10).head.probabilities(x)
    found = find_label_errors(out_of_fold(x, given), given, trained=trained)
    for first, careful in ((20, 0.1), (round(0.5 * wrong.sum()), 0.15), (round(0.7 * wrong.sum()), 0.25)):
        precision, said = wrong[found.images[:first]].mean(), found.wrong[:first].mean()
        assert precision - careful < said < precision + 0.1
        assert precision > 0.85
    assert found.rate == pytest.approx(wrong.mean(), abs=0.06)
    caught = found.images[wrong[found.images]]
    assert np.mean(found.classes[wrong[found.images]] == y[caught]) > 0.9


def test_it_ranks_better_than_the_most_confident_mistakes() -> None:
    """Three classes of which two resemble each other: there mistakes are confident, and labels right."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 1500)
    centres = np.eye(3, 24) * 3
    centres[1] = centres[0] + np.eye(3, 24)[2] * 0.9
    x = (random.standard_normal((1500, 24)) + centres[y]).astype(np.float32)
    precisions = []
    for _ in range(5):
        given = spoilt(y, 0.06, random=random, pairs=False)
        p = out_of_fold(x, given)
        confident = np.argsort(-np.where(p.argmax(1) != given, p.max(1), 0), kind="stable")
        found = find_label_errors(p, given)
        first = min(60, len(found.images))
        precisions.append([(given != y)[rows[:first]].mean() for rows in (found.images, confident)])
    ours, theirs = np.mean(precisions, axis=0)
    assert ours > theirs + 0.02


def test_an_image_that_its_own_training_does_not_persuade_is_likelier_wrong() -> None:
    """An unusual image is far off out of fold, and near in training; both have the same wrong label there."""
    p = np.array([[0.9, 0.1]] * 20 + [[0.1, 0.9]] * 20 + [[0.05, 0.95]] * 2, np.float32)
    y = np.array([0] * 20 + [1] * 20 + [0, 0])
    trained = p.copy()
    trained[40], trained[41] = (0.6, 0.4), (0.1, 0.9)
    assert sorted(find_label_errors(p, y).images) == [40, 41]
    found = find_label_errors(p, y, trained=trained)
    assert list(found.images) == [41, 40] and found.wrong[0] > found.wrong[1] + 0.05


def test_labels_that_are_right_are_not_said_to_be_wrong() -> None:
    images, labels = load_digits(return_X_y=True)
    x, y = images.astype(np.float32), labels.astype(np.int64)
    found = find_label_errors(out_of_fold(x, y), y)
    assert found.rate < 0.01 and found.wrong.sum() < 0.005 * len(y)


def test_the_joint_counts_what_reaches_the_mean_of_its_class() -> None:
    """By hand: means 0.7 and 0.65; the third reaches that of the other class, the last one neither."""
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.6, 0.4]], np.float32)
    found = find_label_errors(p, np.array([0, 0, 0, 1, 1]))
    assert list(found.images) == [2] and list(found.classes) == [1] and 0 < found.wrong[0] < 1


def test_a_class_without_images_and_unfit_shapes_are_no_trouble() -> None:
    p = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]], np.float32)
    assert len(find_label_errors(p, np.array([0, 1])).images) == 0
    assert len(find_label_errors(np.ones((3, 1), np.float32), np.zeros(3, np.int64)).images) == 0
    with pytest.raises(OptionError):
        find_label_errors(p, np.array([0, 3]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Run]:
    """A run with folds on photographs of which four lie in the wrong folder."""
    root = tmp_path_factory.mktemp("wrong")
    photos = write_photos(root / "photos", per_class=20)
    for number, name in enumerate(("bars", "bars", "discs", "squares")):
        file = sorted((photos / name).iterdir())[number]
        other = CLASSES[(CLASSES.index(name) + 1) % 3]
        file.rename(photos / other / f"wrong-{number}{file.suffix}")
    with shared_folders(root, compiled_models):
        yield fit(photos, folds=5, out=root / "run", **FAST)[1]


def test_a_run_with_folds_lists_labels_that_are_likely_wrong(run: Run) -> None:
    found = read_label_errors(run.path, classes=run.classes)
    assert [image["wrong"] for image in found] == sorted((image["wrong"] for image in found), reverse=True)
    first = [image["path"].split("/")[1] for image in found[:4]]
    assert sum(name.startswith("wrong-") for name in first) >= 3
    assert all(image["likely"] != image["label"] for image in found)


def test_check_shows_them_with_the_share_to_expect(run: Run) -> None:
    said = CliRunner().invoke(command, [str(run.path)], catch_exceptions=False).stdout
    assert "of 60 labels are likely wrong" in said.splitlines()[0]
    assert "expected to be wrong: of the first " in said and "wrong-" in said.splitlines()[2]
    RunStore().add(run)
    told = json.loads(CliRunner().invoke(command, [run.id, "--json"], catch_exceptions=False).stdout)
    assert told["run"] == run.id and len(told["label_errors"]) == int(said.split()[0])
    expected = told["expected"][str(len(told["label_errors"]))]
    assert expected == pytest.approx(np.mean([image["wrong"] for image in told["label_errors"]]))


def test_options_of_images_are_refused_with_a_run_and_a_run_without_folds_says_what_to_do(
    run: Run, own_run: Path
) -> None:
    done = CliRunner().invoke(command, [str(run.path), "--groups", "camera"])
    assert isinstance(done.exception, OptionError) and "--groups is for images" in str(done.exception)
    done = CliRunner().invoke(command, [str(own_run)])
    assert isinstance(done.exception, RunError) and "fit again with --folds 5" in str(done.exception)
