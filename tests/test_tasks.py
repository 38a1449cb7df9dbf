"""Several labels for an image, or a number: how each is said, found, trained, measured and asked again."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw
from sklearn import metrics as sklearn_metrics
from starlette.testclient import TestClient

import headstart
from conftest import shared_folders
from headstart.classifier.classifier import check_parity
from headstart.cli import cli
from headstart.comparisons import Candidate
from headstart.curation import nearest_training_images
from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError, OptionError, ParityError
from headstart.explanations import heat_map
from headstart.heads import MULTI_LABEL, REGRESSION, Parts, fit_ridge, metrics, ridge, task_of
from headstart.heads.metrics import average_precisions, evaluate_labels, evaluate_numbers, largest_error
from headstart.heads.tasks import best_thresholds, calibrate_labels
from headstart.reports import report
from headstart.reports.run_facts import _mistakes
from headstart.runs import RunStore
from headstart.serving.app import create_app
from headstart.serving.limits import Limits
from headstart.serving.models import Models, fixed
from headstart.training import planning
from studio_worlds import studio_worlds

NAMES = ("blue", "green", "red")


def picture(has: tuple[bool, ...], *, seed: int) -> Image.Image:
    """A blue square, a green bar and a red disk, each where it is asked for, on noise."""
    image = Image.fromarray((np.random.default_rng(seed).random((48, 48, 3)) * 90).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    shapes = (draw.rectangle, draw.rectangle, draw.ellipse)
    places = ((2, 2, 20, 20), (26, 2, 46, 22), (10, 26, 34, 46))
    colours = ((60, 60, 250), (30, 230, 30), (230, 30, 30))
    for on, shape, place, colour in zip(has, shapes, places, colours, strict=True):
        if on:
            shape(place, fill=colour)
    return image


def write(file: Path, rows: list[list[object]]) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety pictures with none to three labels in `flags.csv`, and as many grey ones in `greys.csv`."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    flags: list[list[object]] = [["path", *NAMES]]
    greys: list[list[object]] = [["path", "brightness"]]
    for number in range(90):
        has = tuple(bool(on) for on in rng.random(3) < 0.45)
        picture(has, seed=number).save(folder / f"{number}.png")
        flags.append([f"{number}.png", *map(int, has)])
        level = rng.random()
        grey = np.clip(255 * level + 20 * rng.standard_normal((48, 48, 3)), 0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"grey{number}.png")
        greys.append([f"grey{number}.png", round(40 + 7 * level, 3)])
    write(folder / "flags.csv", flags)
    write(folder / "greys.csv", greys)
    return folder


@pytest.fixture(scope="module")
def trained(
    shapes: Path, tmp_path_factory: pytest.TempPathFactory, compiled_models: Path
) -> dict[str, tuple[headstart.Classifier, headstart.Run]]:
    """What was trained on the two tables, in folders of its own."""
    with shared_folders(tmp_path_factory.mktemp("trained"), compiled_models):
        return {
            name: headstart.fit(shapes / f"{name}.csv", backbone="builtin", out=shapes / f"of-{name}")
            for name in ("flags", "greys")
        }


@pytest.fixture
def several(trained) -> tuple[headstart.Classifier, headstart.Run]:
    return trained["flags"]


@pytest.fixture
def numbers(trained) -> tuple[headstart.Classifier, headstart.Run]:
    return trained["greys"]


# --- how several labels are said ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def labels_by_name(dataset: headstart.Dataset) -> dict[str, str]:
    return {sample.name: dataset.label_of(sample) for sample in dataset.samples}


def test_the_spellings_of_several_labels_say_the_same(folder):
    flags = write(
        folder / "flags.csv", [["path", "cat", "dog"], ["0.png", 1, 1], ["1.png", 0, 1], ["2.png", 1, 0]]
    )
    bars = write(
        folder / "bars.csv", [["path", "label"], ["0.png", "cat|dog"], ["1.png", "dog"], ["2.png", "cat"]]
    )
    rows = [["path", "label"], ["0.png", "cat"], ["0.png", "dog"], ["1.png", "dog"], ["2.png", "cat"]]
    repeated = write(folder / "repeated.csv", rows)
    lists = folder / "lists.jsonl"
    lines = [{"path": "0.png", "label": ["dog", "cat"]}, {"path": "1.png", "label": ["dog"]}]
    lists.write_text("\n".join(map(json.dumps, [*lines, {"path": "2.png", "label": ["cat"]}])))
    expected = {"0.png": "cat|dog", "1.png": "dog", "2.png": "cat"}
    for source, task in ((flags, None), (bars, None), (lists, None), (repeated, MULTI_LABEL)):
        dataset = read_dataset(source, task=task)
        assert dataset.task == MULTI_LABEL and dataset.classes == ("cat", "dog")
        assert labels_by_name(dataset) == expected, source
        assert dataset.labels.tolist() == [[1, 1], [0, 1], [1, 0]]


def test_an_image_without_a_label_counts_where_several_were_asked_for(folder):
    rows = [["path", "label"], ["0.png", "cat|dog"], ["1.png", ""], ["2.png", "dog"], ["3.png", "cat"]]
    table = write(folder / "some.csv", rows)
    found = labels_by_name(read_dataset(table, task=MULTI_LABEL))
    assert found == {"0.png": "cat|dog", "1.png": "", "2.png": "dog", "3.png": "cat"}
    with pytest.raises(DatasetError, match=r"row 3: label is empty.*--task multi-label, or none"):
        read_dataset(table)


def test_rows_may_repeat_an_image_as_often_as_it_has_labels(folder):
    names = ["cat", "dog", "owl", "yak"]
    rows = [[f"{number}.png", name] for number in range(3) for name in names[number:]]
    found = read_dataset(write(folder / "many.csv", [["path", "label"], *rows]), task=MULTI_LABEL)
    assert labels_by_name(found) == {"0.png": "cat|dog|owl|yak", "1.png": "dog|owl|yak", "2.png": "owl|yak"}


def test_a_number_may_differ_by_the_rounding_of_features_and_no_more(numbers, shapes):
    classifier, run = numbers
    samples = read_dataset(shapes / "greys.csv", task=REGRESSION).samples[:8]
    expected = classifier.probabilities(np.stack(classifier.render(samples)))
    assert check_parity(samples, expected + 0.01 * classifier.spread, where=run.path, computed="f32") > 0.009
    with pytest.raises(ParityError, match="the saved model's value"):
        check_parity(samples, expected + 0.5 * classifier.spread, where=run.path, computed="f32")


def test_a_list_column_of_parquet_has_several_labels(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"path": ["0.png", "1.png", "2.png"], "label": [["a", "b"], [], ["b"]]})
    parquet.write_table(table, folder / "lists.parquet")
    dataset = read_dataset(folder / "lists.parquet")
    assert labels_by_name(dataset) == {"0.png": "a|b", "1.png": "", "2.png": "b"}
    numbers = pyarrow.table({"path": ["0.png", "1.png"], "label": [[3, 7], [7]]})
    parquet.write_table(numbers, folder / "numbers.parquet")
    assert read_dataset(folder / "numbers.parquet").classes == ("3", "7")


def test_links_in_several_class_folders_are_several_labels(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number, of in enumerate((("cat", "dog"), ("cat",), ("dog",))):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "set" / of[0] / f"{number}.png")
        for other in of[1:]:
            os.link(tmp_path / "set" / of[0] / f"{number}.png", tmp_path / "set" / other / f"{number}.png")
    os.symlink("../cat/1.png", tmp_path / "set" / "dog" / "1.png")
    dataset = read_dataset(tmp_path / "set", task=MULTI_LABEL)
    assert sorted(map(dataset.label_of, dataset.samples)) == ["cat|dog", "cat|dog", "dog"]
    assert read_dataset(tmp_path / "set").task == "single-label"  # links alone are no sign


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["0.png", "cat"], ["0.png", "dog"], ["1.png", "dog"]],
            "row 3: 0.png has label 'dog' .*--task multi-label",
        ),
        (
            [["0.png", "cat"], ["1.png", "cat|bird"], ["2.png", "dog"]],
            "'cat' and 'bird' together.*--task multi-label",
        ),
        ([["0.png", "cat|dog"], ["1.png", "cat|dog"], ["2.png", "dog"]], "together.*--task multi-label"),
        ([["0.png", "cat, dog"], ["1.png", "cat"], ["2.png", "dog"]], "together.*--task multi-label"),
    ],
)
def test_what_may_be_several_labels_is_asked_about(folder, rows, message):
    table = write(folder / "labels.csv", [["path", "label"], *rows])
    with pytest.raises(DatasetError, match=message):
        read_dataset(table)
    assert read_dataset(table, task=MULTI_LABEL).task == MULTI_LABEL


def test_a_check_takes_the_task_that_a_fit_would_take(folder):
    rows = [["path", "label"], ["0.png", "cat"], ["0.png", "dog"], ["1.png", "dog"], ["2.png", "cat"]]
    words = ["check", str(write(folder / "labels.csv", rows))]
    assert "say --task multi-label" in str(CliRunner().invoke(cli, words).exception)
    told = CliRunner().invoke(cli, [*words, "--task", "multi-label"], catch_exceptions=False)
    assert told.exit_code == 0 and told.stdout.startswith("multi-label: 3 images with 2 labels")


def test_one_label_can_be_insisted_on(folder):
    rows = [["0.png", "cat|dog"], ["1.png", "cat"], ["2.png", "dog"]]
    table = write(folder / "labels.csv", [["path", "label"], *rows])
    assert read_dataset(table, task="single-label").classes == ("cat", "cat|dog", "dog")
    assert "say --task single-label" in read_dataset(table).notes[-1]


# --- numbers ------------------------------------------------------------------------------------------------


def test_numbers_with_fractions_are_predicted_as_numbers_and_that_is_said(folder):
    rows = [[f"{number}.png", 0.5 + 1.37 * number] for number in range(8)]
    table = write(folder / "sizes.csv", [["path", "size"], *rows])
    dataset = read_dataset(table)
    assert dataset.task == REGRESSION and dataset.labels.dtype == np.float64
    assert dataset.labels[1] == pytest.approx(1.87)
    assert (
        "numbers with fractions: regression; if each is a class, say --task single-label" in dataset.notes[-1]
    )
    assert len(read_dataset(table, task="single-label", for_training=False).classes) == 8


def test_whole_numbers_stay_classes_unless_the_task_says_so(folder):
    rows = [[f"{number}.png", number // 2] for number in range(8)]
    table = write(folder / "counts.csv", [["path", "count"], *rows])
    assert read_dataset(table).classes == ("0", "1", "2", "3")
    assert read_dataset(table, task=REGRESSION).labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    words = write(
        folder / "words.csv", [["path", "label"], ["0.png", "7"], ["1.png", "many"], ["2.png", "7"]]
    )
    with pytest.raises(DatasetError, match="the label 'many' is no number"):
        read_dataset(words, task=REGRESSION)
    same = write(folder / "same.csv", [["path", "label"], ["0.png", "7"], ["1.png", "7"]])
    with pytest.raises(DatasetError, match="every image has the same number"):
        read_dataset(same, task=REGRESSION)
    with pytest.raises(OptionError, match="task='numbers': expected one of single-label"):
        read_dataset(same, task="numbers")


# --- heads --------------------------------------------------------------------------------------------------


def test_left_out_numbers_are_what_refitting_without_each_gives():
    rng = np.random.default_rng(0)
    for images, width in ((40, 6), (12, 30)):
        x = rng.standard_normal((images, width)).astype(np.float32)
        y = 100 + 10 * x[:, 0].astype(np.float64) + rng.standard_normal(images)
        fit = fit_ridge((x, y), classes=1, task=task_of(REGRESSION, y), penalties=[0.3])
        assert fit.form == ("primal" if images > width else "dual")
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        z = (x - mean) / np.maximum(deviation, np.median(deviation)) / np.sqrt(width)
        missed = []
        for left in range(images):
            keep = np.arange(images) != left
            a, b = z[keep] - z[keep].mean(axis=0), y[keep] - y[keep].mean()
            solution = np.linalg.solve(a.T @ a + fit.absolute_penalty * np.eye(width), a.T @ b)
            missed.append(abs(y[keep].mean() + (z[left] - z[keep].mean(axis=0)) @ solution - y[left]))
        assert fit.head.errors == pytest.approx(sorted(missed), rel=1e-3, abs=1e-3)
        assert fit.loo_accuracy == pytest.approx(
            1 - np.square(missed).sum() / np.square(y - y.mean()).sum(), abs=1e-4
        )


@pytest.mark.parametrize("width", [8, 120])
def test_several_labels_are_one_head_for_each(width):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, width)).astype(np.float32) + 2
    y = (x @ rng.standard_normal((width, 3)) > 0.5).astype(np.uint8)
    options = {"task": task_of(MULTI_LABEL, y), "penalties": [0.1]}
    together = fit_ridge((x, y), classes=3, **options).head.probabilities(x)
    for label in range(3):
        alone = fit_ridge((x, y[:, label : label + 1]), classes=1, **options)
        assert together[:, label] == pytest.approx(alone.head.probabilities(x)[:, 0], abs=1e-4)
    batches = [(x[i : i + 7], y[i : i + 7]) for i in range(0, 60, 7)]
    streamed = fit_ridge(lambda: batches, classes=3, **options)
    assert streamed.head.probabilities(x) == pytest.approx(together, abs=1e-3)


def test_calibrated_scores_are_as_likely_as_they_say():
    rng = np.random.default_rng(2)
    truth = rng.random((4000, 2)) * [1, 0.1]
    labels = (rng.random((4000, 2)) < truth).astype(np.uint8)
    scores = (np.log(truth / (1 - truth)) / 7 + 0.3).astype(np.float32)
    slope, shift = calibrate_labels(scores, labels)
    assert slope == pytest.approx([7, 7], rel=0.15) and shift == pytest.approx([-2.1, -2.1], abs=0.5)
    slope, shift = calibrate_labels(scores, np.zeros_like(labels))
    assert (slope == 0).all() and (shift < -5).all()  # a label that nothing has


@pytest.mark.parametrize("budget", ["kept", "scored"])
def test_a_label_of_few_images_is_found_among_many(budget, monkeypatch):
    """Where only a part of the left-out scores is kept, or made; in one part and in several."""
    rng = np.random.default_rng(0)
    images, labels = 6000, 12
    y = np.zeros((images, labels), np.uint8)
    for label in range(labels - 2):
        y[rng.choice(images, 6, replace=False), label] = 1
    y[:, -2] = rng.random(images) < 0.3
    y[:, -1] = 1
    y[rng.choice(images, 6, replace=False), -1] = 0  # all but a few have the last one
    x = (y + 0.05 * rng.standard_normal((images, labels))).astype(np.float32)
    every = fit_ridge((x, y), classes=labels, task=task_of(MULTI_LABEL, y)).head
    if budget == "kept":
        monkeypatch.setattr(ridge, "_CALIBRATION_SCORES", 13 * labels * 200)
    else:
        monkeypatch.setattr(ridge, "MOST_SCORING", 13 * labels * labels * 200)
    cut = tuple(lambda at=at: [(x[at : at + 2000], y[at : at + 2000])] for at in range(0, images, 2000))
    heads = [
        fit_ridge(data, classes=labels, task=task_of(MULTI_LABEL, y)).head for data in ((x, y), Parts(cut))
    ]
    assert heads[0].probabilities(x) == pytest.approx(heads[1].probabilities(x), abs=1e-4)
    for head in heads:
        assert ((head.probabilities(x) > 0.5) == y).all()
        assert head.platt[0] == pytest.approx(every.platt[0], rel=0.35)


def test_a_label_that_every_image_has_goes_with_several_views():
    rng = np.random.default_rng(0)
    y = (rng.random((60, 3)) < [0.5, 0.5, 1]).astype(np.uint8)
    x = (y + 0.2 * rng.standard_normal((60, 3))).astype(np.float32)
    task = task_of(MULTI_LABEL, y)
    first = fit_ridge((x, y), classes=3, task=task, penalties=[0.1]).head
    both = fit_ridge((np.tile(x, (2, 1)), np.tile(y, (2, 1))), classes=3, task=task, penalties=[0.1]).head
    found = task.widened(both, first).probabilities(x)
    assert (found[:, 2] > 0.9).all() and found[:, :2] == pytest.approx(
        first.probabilities(x)[:, :2], abs=0.05
    )


def test_the_interval_of_map_is_that_of_scoring_each_draw(monkeypatch):
    rng = np.random.default_rng(6)
    labels = (rng.random((70, 4)) < [0.4, 0.3, 0.02, 0]).astype(np.int64)
    probabilities = np.round(rng.random((70, 4)), 1)  # with ties
    scores = []
    for rows in metrics._draws(70):
        each = average_precisions(probabilities[rows], labels[rows])
        scores.append(each[~np.isnan(each)].mean())
    for at_once in (70, 70 * 7, 2**21):
        monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", at_once)
        found = evaluate_labels(probabilities, labels, classes="abcd").mean_average_precision_interval
        assert found == pytest.approx(np.quantile(scores, (0.025, 0.975)))


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    labels = (rng.random((50, 4)) < 0.4).astype(np.int64)
    probabilities = np.round(rng.random((50, 4)), 1)  # with ties
    ours = evaluate_labels(probabilities, labels, classes="abcd")
    called = probabilities >= 0.5
    assert ours.mean_average_precision == pytest.approx(
        sklearn_metrics.average_precision_score(labels, probabilities, average="macro")
    )
    assert ours.micro_f1 == pytest.approx(sklearn_metrics.f1_score(labels, called, average="micro"))
    assert ours.macro_f1 == pytest.approx(sklearn_metrics.f1_score(labels, called, average="macro"))
    assert ours.accuracy == sklearn_metrics.accuracy_score(labels, called)
    numbers, found = rng.standard_normal(50), rng.standard_normal(50)
    ours = evaluate_numbers(found, numbers)
    assert ours.r_squared == pytest.approx(sklearn_metrics.r2_score(numbers, found))
    assert ours.mean_absolute_error == pytest.approx(sklearn_metrics.mean_absolute_error(numbers, found))
    assert np.isnan(average_precisions(probabilities, np.zeros_like(labels))).all()


def test_thresholds_give_the_best_f1_of_any():
    rng = np.random.default_rng(4)
    labels = (rng.random((60, 2)) < [0.3, 0.02]).astype(np.int64)
    probabilities = np.clip(0.3 * labels + rng.random((60, 2)) / 2, 0, 1)
    first, rare = best_thresholds(probabilities, labels)
    scores = [
        sklearn_metrics.f1_score(labels[:, 0], probabilities[:, 0] >= limit, zero_division=0)
        for limit in np.linspace(0, 1, 1001)
    ]
    chosen = sklearn_metrics.f1_score(labels[:, 0], probabilities[:, 0] >= first)
    assert chosen == pytest.approx(max(scores)) and labels[:, 1].sum() < 3 and rare == 0.5
    near = np.array([[0.871], [0.87099], [0.87101], [0.87098]], np.float32)  # apart in the fifth digit
    (limit,) = best_thresholds(near, np.array([[1], [0], [1], [0]]), fewest=1)
    assert list(near[:, 0] >= limit) == [True, False, True, False]


def test_intervals_hold_as_many_numbers_as_is_asked():
    rng = np.random.default_rng(5)
    errors = tuple(np.sort(np.abs(rng.standard_normal(400))))
    half = largest_error(errors, coverage=0.9)
    assert (np.abs(rng.standard_normal(20000)) <= half).mean() == pytest.approx(0.9, abs=0.03)
    assert largest_error(errors[:5], coverage=0.9) is None


# --- from the data to the answer ----------------------------------------------------------------------------


def test_several_labels_from_fit_to_predict(several, shapes):
    classifier, run = several
    assert run.config.task == classifier.task == MULTI_LABEL
    assert run.evaluation["test"]["mean_average_precision"] > 0.9
    loaded = headstart.load(run.path)
    assert len(loaded.thresholds) == 3
    answer, nothing = loaded.predict(
        [np.asarray(picture(has, seed=1000)) for has in ((True, False, True), (False, False, False))]
    )
    assert set(answer.labels) == {"blue", "red"} and nothing.labels == ()
    assert dict(answer.top).keys() == set(NAMES) and sum(p for _, p in answer.top) > 1.2
    with pytest.raises(OptionError, match="multi-label: a coverage is not done"):
        loaded.predict([np.asarray(picture((True, True, True), seed=0))], coverage=0.9)
    again = headstart.evaluate(loaded, shapes / "flags.csv")[0]
    assert again.images == 90 and again.mean_average_precision > 0.9


def test_numbers_from_fit_to_predict(numbers, shapes):
    classifier, run = numbers
    assert run.config.task == classifier.task == REGRESSION and run.config.precision == "f32"
    assert run.evaluation["test"]["r_squared"] > 0.9 and run.accuracy["test"] is None
    grey = np.full((48, 48, 3), 128, np.uint8)
    (answer,) = headstart.load(run.path).predict(grey)
    assert (
        answer.value == pytest.approx(43.5, abs=1) and answer.interval[0] < answer.value < answer.interval[1]
    )
    (wide,) = classifier.predict(grey, coverage=0.95)
    assert wide.interval[0] <= answer.interval[0]
    scores, _ = headstart.evaluate(classifier, shapes / "greys.csv")
    assert scores.r_squared > 0.9 and 0.8 < scores.coverage <= 1


def test_a_saved_model_ends_in_what_its_task_says(several, numbers):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    for (classifier, _), name in ((several, "probabilities"), (numbers, "value")):
        session = onnxruntime.InferenceSession(classifier.model)
        assert session.get_outputs()[0].name == name
        found = session.run([name], {"pixels": pixels})[0]
        assert found == pytest.approx(classifier.probabilities(pixels), rel=1e-3, abs=1e-3)


def test_commands_say_the_task_and_its_scores(several, numbers, shapes, tmp_path):
    def run(*words: object) -> str:
        result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "mAP" in run("evaluate", several[1].path, shapes / "flags.csv")
    assert "mean absolute error" in run("evaluate", numbers[1].path, shapes / "greys.csv")
    (said,) = json.loads(run("predict", several[1].path, shapes / "0.png", "--json"))
    assert "labels" in said and "probability" in said
    (said,) = json.loads(run("predict", numbers[1].path, shapes / "grey0.png", "--json"))
    assert said.keys() >= {"value", "interval"} and not said.keys() & {"label", "probability", "top"}
    assert " to " in run("predict", numbers[1].path, shapes / "grey0.png")
    for fitted, names in ((several, "path,label,probability"), (numbers, "path,value,low,high")):
        run("predict", fitted[1].path, shapes / "0.png", "--csv", tmp_path / "table.csv")
        assert (tmp_path / "table.csv").read_text(encoding="utf-8-sig").startswith(names)
    out = run(
        "fit",
        shapes / "flags.csv",
        "--backbone",
        "builtin",
        "--validation",
        0,
        "--test",
        0,
        "--out",
        tmp_path / "run",
    )
    assert out.startswith("multi-label: 90 images with 3 labels") and "leave-one-out mAP" in out


def test_numbers_that_differ_too_little_for_their_size_are_refused(shapes, tmp_path):
    """A model computes in single precision, which has seven digits."""
    rows = list(csv.reader((shapes / "greys.csv").read_text().splitlines()))[1:]
    for offset, refused in ((1.6e9, True), (2000, False)):
        lines = [["path", "brightness"], *([str(shapes / path), float(grey) + offset] for path, grey in rows)]
        table = write(tmp_path / "offset.csv", lines)
        if refused:
            with pytest.raises(OptionError, match=r"subtract 160000004\d from all of them"):
                headstart.fit(table, backbone="builtin", task=REGRESSION)
        else:
            _, found = headstart.fit(table, backbone="builtin", task=REGRESSION, out=tmp_path / "run")
            assert found.evaluation["validation"]["r_squared"] > 0.9


def test_what_is_called_from_a_threshold_on_has_features_in_single_precision(several, shapes):
    assert several[1].config.precision == "f32"
    with pytest.raises(OptionError, match="multi-label: features in bf16 would move the labels"):
        headstart.fit(shapes / "flags.csv", backbone="builtin", precision="bf16")


@pytest.mark.parametrize(
    "options",
    [
        {"head": "softmax"},
        {"freeze": "auto"},
        {"freeze": 2},
        {"scratch": True},
        {"class_weights": "balanced"},
        {"folds": 3},
        {"costs": "costs.csv"},
        {"priors": "uniform"},
        {"backbone": "auto"},
    ],
)
def test_what_is_not_done_for_a_task_is_refused_by_its_name(shapes, options):
    with pytest.raises(OptionError, match=r"multi-label: .* is not done yet"):
        headstart.fit(shapes / "flags.csv", **{"backbone": "builtin", **options})


def test_a_run_of_several_labels_is_repeated_with_its_task_and_not_told_to_take_folds(several):
    command = report(several[1]).facts["command"]
    assert "--task multi-label" in command
    done = CliRunner().invoke(cli, ["check", str(several[1].path)])
    assert "--folds" not in str(done.exception) and "multi-label: looking for labels" in str(done.exception)


def test_the_surest_mistake_is_of_a_label_that_was_called_wrongly():
    def said(label: str, predicted: str, **top: float) -> dict[str, Any]:
        return {
            "path": predicted,
            "label": label,
            "predicted": predicted,
            "probability": 1.0,
            "top": [*top.items()],
        }

    doubtful = said("red", "blue|red", red=0.99, blue=0.6)
    missed = said("blue|red", "red", red=0.98, blue=0.1)
    sure = said("green", "blue|green", blue=0.9, green=0.8)
    found = _mistakes([doubtful, missed, sure], task=MULTI_LABEL)
    assert [each["predicted"] for each in found] == ["blue|green", "blue|red", "red"]


def test_a_run_without_a_task_has_one_label_for_each_image(several):
    from headstart.runs import FitConfig

    recorded = several[1].config.to_dict()
    del recorded["task"]
    assert FitConfig.from_dict(recorded).task == "single-label"


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_an_export_gives_the_same_labels(several, shapes, form, tmp_path):
    classifier, run = several
    said, card = exported(run, form, image=shapes / "0.png", out=tmp_path / form)
    (expected,) = replace(classifier, precision="f32").predict(shapes / "0.png")
    assert said["labels"] and set(said["labels"]) == set(expected.labels)
    assert "mAP" in card
    with pytest.raises(OptionError, match="multi-label: int8 is not done yet"):
        headstart.export(run, "onnx", int8=True, out=tmp_path / "int8")


@pytest.mark.parametrize("form", ["openvino", "safetensors"])
def test_an_export_gives_the_same_number(numbers, shapes, form, tmp_path):
    classifier, run = numbers
    said, card = exported(run, form, image=shapes / "grey0.png", out=tmp_path / form)
    assert said["value"] == pytest.approx(classifier.predict(shapes / "grey0.png")[0].value, rel=1e-4)
    assert "R²" in card


def exported(run: headstart.Run, form: str, *, image: Path, out: Path) -> tuple[dict[str, Any], str]:
    """What the exported program says of an image, and the model card."""
    made = headstart.export(run, form, out=out)
    assert made.parity.images > 5 and made.parity.changed == 0 and made.parity.largest_difference < 1e-3
    command = [sys.executable, out / "predict.py", image, "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)[0], (out / "card.md").read_text(encoding="utf-8")


def test_a_server_answers_for_each_task(several, numbers, shapes):
    for (classifier, run), file in ((several, "0.png"), (numbers, "grey0.png")):
        models = Models(fixed(run.path), batch=1)
        app = create_app(models, limits=Limits(), watch_seconds=0)
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:
            answer = client.post("/predict", files={"images": (shapes / file).read_bytes()})
            said = answer.json()["predictions"][0]
            (expected,) = classifier.predict(shapes / file)
            schema = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]
            assert set(schema["required"]) <= said.keys() <= schema["properties"].keys()
            if run is several[1]:
                assert said["labels"] == list(expected.labels)
                files = {"images": (shapes / file).read_bytes()}
                refused = client.post("/predict?coverage=0.9", files=files)
                assert refused.status_code == 422 and "multi-label: a coverage" in refused.json()["error"]
                assert "gives any of 3 labels" in client.get("/docs").text
            else:
                assert said["value"] == expected.value and "label" not in said
                assert "predicts a number" in client.get("/docs").text


def test_the_studio_lists_runs_of_every_task_and_says_what_it_does_not_show(several, numbers, shapes):
    with studio_worlds(shapes) as make:
        world = make()
        for _, run in (several, numbers):
            RunStore().add(run)
        listed = world.browser.get("/runs").text
        assert "mAP " in listed and "R² " in listed
        shown = world.browser.get(f"/runs/{numbers[1].id}")
        assert shown.status_code == 200 and "R² " in shown.text
        answer = world.browser.get(f"/runs/{numbers[1].id}/export")
        assert answer.status_code == 400
        assert "regression: this page of the studio is not done yet" in answer.text


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda run, data: headstart.compare(data, [Candidate("builtin")]), "comparing"),
        (lambda run, data: heat_map(headstart.load(run.path), data.parent / "0.png"), "an explanation"),
        (lambda run, data: nearest_training_images(run, data.parent / "0.png"), "correcting labels"),
        (lambda run, data: planning.plan(data, backbones="builtin"), "a plan"),
        (lambda run, data: headstart.fit(data, backbone="builtin", folds=3), "cross-validation"),
        (lambda run, data: headstart.fit(data, backbone="auto"), "--backbone auto"),
    ],
)
def test_other_doors_name_the_task_that_they_are_not_made_for(several, shapes, what, message):
    with pytest.raises(OptionError, match=f"multi-label: {message}.* is not done yet"):
        what(several[1], shapes / "flags.csv")


def test_reports_have_the_scores_of_each_task_and_photographs_behind_the_dots(several, numbers):
    told = report(several[1])
    assert "| mAP |" in told.markdown() and "average precision" in told.markdown()
    page = told.html()
    assert "mAP, " in page and "every label right" in page and "multi-label, 3 labels" in page
    page = report(numbers[1]).html()
    dots = re.findall(r'href="#(residuals-photograph-\d+)"', page)
    assert len(set(dots)) == numbers[1].images["validation"]
    assert all(f'<li id="{each}"' in page for each in dots)
    assert "R² " in report(numbers[1]).markdown().splitlines()[0]
    assert json.loads(report(numbers[1]).json())["residuals"][0].keys() >= {
        "number",
        "value",
        "error",
        "path",
    }
