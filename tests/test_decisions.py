"""Costs of mistakes and shares of classes: which class is called, from every door."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from starlette.testclient import TestClient

from conftest import shared_folders, write_photos
from headstart import fit, load
from headstart.cli import cli
from headstart.comparisons import compare_runs
from headstart.curation import corrections_of, retrain
from headstart.errors import DatasetError, OptionError, RunError
from headstart.explanations import heat_map
from headstart.exports import export
from headstart.exports.cards import card, markdown
from headstart.exports.formats import find_format
from headstart.exports.programs.shared import answer
from headstart.exports.quantisation import cost
from headstart.exports.subject import Subject
from headstart.heads import LinearHead, fit_ridge
from headstart.heads.decisions import decide, with_priors
from headstart.heads.metrics import evaluate
from headstart.reports import report
from headstart.reports.tables import tables
from headstart.runs import FitConfig, Run, read_images, read_label_errors, read_predictions, read_run
from headstart.runs.formatting import percent
from headstart.serving.app import create_app
from headstart.serving.limits import Limits
from headstart.serving.models import Models, fixed
from headstart.tracking.entries import of_run
from headstart.training.decisions import read_costs, read_priors, with_config_priors
from headstart.training.evaluation import evaluate as evaluate_on

FAST = {"backbone": "builtin", "size": 32, "layers": "last"}
CLASSES = ("bars", "discs", "squares")
COSTS = "true,bars,discs,squares\nbars,0,400,1\ndiscs,1,0,1\nsquares,1,400,0\n"
"""Whoever calls something else discs pays four hundred times."""


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_called_is_what_costs_least_to_expect(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    p, costs = random.dirichlet(np.ones(classes), 20), random.random((classes, classes))
    expected = [[sum(row[k] * costs[k, j] for k in range(classes)) for j in range(classes)] for row in p]
    assert list(decide(p, costs)) == [int(np.argmin(row)) for row in expected]
    alike = 1 - np.eye(classes)
    assert list(decide(p, alike)) == list(p.argmax(axis=1)) == list(decide(p))


def test_two_classes_have_the_threshold_that_their_costs_say() -> None:
    """Missing the second class costs nine times a false alarm: it is called from a tenth on."""
    p = np.array([[0.95, 0.05], [0.91, 0.09], [0.89, 0.11], [0.4, 0.6]])
    assert list(decide(p, [[0, 1], [9, 0]])) == [0, 0, 1, 1]


def test_priors_give_the_probabilities_of_bayes_rule_and_are_part_of_the_head() -> None:
    random = np.random.default_rng(0)
    head = LinearHead("ridge", random.normal(size=(6, 3)).astype(np.float32), np.zeros(3, np.float32), 0.3)
    x, trained, there = random.normal(size=(50, 6)).astype(np.float32), [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]
    expected = head.probabilities(x) * (np.array(there) / trained)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        with_priors(head, there, trained=trained).probabilities(x), expected, atol=1e-5
    )


def test_priors_that_are_right_predict_better_where_the_shares_are_others() -> None:
    random = np.random.default_rng(0)

    def drawn(shares: list[float], count: int) -> tuple[np.ndarray, np.ndarray]:
        y = random.choice(3, count, p=shares)
        return (random.normal(size=(count, 8)) + np.eye(3, 8)[y] * 1.5).astype(np.float32), y.astype(np.int64)

    (x, y), there = drawn([0.34, 0.33, 0.33], 3000), [0.05, 0.05, 0.9]
    unseen, truth = drawn(there, 3000)
    head = fit_ridge((x, y), classes=3).head
    adjusted = with_priors(head, there, trained=(np.bincount(y) / len(y)).tolist())
    before, after = (
        evaluate(each.probabilities(unseen), truth, classes=CLASSES) for each in (head, adjusted)
    )
    assert after.accuracy > before.accuracy + 0.05 and after.log_loss < before.log_loss


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the table is empty; expected a header"),
        ("x,bars,discs\nbars,0,1\ndiscs,1,0\n", "header: squares is missing; expected all 3 classes"),
        (COSTS.replace(",squares\n", ",round\n"), "header: 'round' is no class; the classes are bars, discs"),
        (COSTS.replace("squares,1", "discs,1"), "first column: discs is there twice; keep one"),
        (COSTS.replace("0,400,1", "0,400"), "row 2 has 3 cells, the header 4"),
        (COSTS.replace("discs,1,0", "discs,much,0"), "row 3, bars: 'much' is no number"),
        (COSTS.replace("discs,1,0", "discs,nan,0"), "row 3, bars: 'nan' is no number"),
        (COSTS.replace("discs,1,0", "discs,-1,0"), "a cost is below zero"),
        (COSTS.replace("400", "0").replace("1", "0"), "every cost is 0"),
        ("\x00", "is no class|no table|is missing"),
    ],
)
def test_a_table_of_costs_that_cannot_be_is_refused_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(OptionError, match=said):
        read_costs(str(tmp_path / "costs.csv"), CLASSES)


def test_tables_are_read_in_any_order_and_as_spreadsheets_write_them(tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    file.write_bytes(
        "\ufefftrue;squares;bars;discs\r\nsquares;0;1;40\r\n\r\ndiscs;1;1;0\r\nbars;1;0;40\r\n".encode()
    )
    assert read_costs(str(file), CLASSES).tolist() == [[0, 40, 1], [1, 0, 1], [1, 40, 0]]
    (tmp_path / "priors.csv").write_text("class,share\nsquares,6\nbars,3\ndiscs,1\n")
    assert read_priors(str(tmp_path / "priors.csv"), CLASSES) == pytest.approx([0.3, 0.1, 0.6])
    assert read_priors("uniform", CLASSES) == pytest.approx([1 / 3] * 3)
    for text, said in (
        ("a,b\nbars,1\ndiscs,1\nsquares,0\n", "above zero"),
        ("a,b\nbars,1,2\n", "discs is missing"),
    ):
        (tmp_path / "priors.csv").write_text(text)
        with pytest.raises(OptionError, match=said):
            read_priors(str(tmp_path / "priors.csv"), CLASSES)
    with pytest.raises(OptionError, match=r"costs: .*none\.csv: "):
        read_costs(str(tmp_path / "none.csv"), CLASSES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("costs")
    photos = write_photos(root / "photos", per_class=20)
    for one, other in (("discs", "squares"), ("squares", "discs")):  # so that nothing is certain
        for number, file in enumerate(sorted((photos / one).glob("*.jpg"))[::5]):
            file.rename(photos / other / f"from-{one}-{number}.jpg")
    (root / "costs.csv").write_text(COSTS)
    (root / "priors.csv").write_text("class,share\nbars,0.02\ndiscs,0.49\nsquares,0.49\n")
    with shared_folders(root, compiled_models):
        yield root


@pytest.fixture(scope="module")
def runs(world: Path) -> dict[str, Run]:
    asked = {
        "plain": {},
        "costs": {"costs": str(world / "costs.csv")},
        "priors": {"priors": str(world / "priors.csv")},
    }
    return {
        name: fit(world / "photos", out=world / name, folds=3, validation=0.3, **options, **FAST)[1]
        for name, options in asked.items()
    }


def test_costs_change_what_is_called_and_no_probability(runs: dict[str, Run], world: Path) -> None:
    plain, costly = runs["plain"], runs["costs"]
    assert (plain.path / "model.onnx").read_bytes() == (costly.path / "model.onnx").read_bytes()
    assert "mean_cost" not in plain.evaluation["validation"]
    before, after = (read_predictions(run.path)["images"] for run in (plain, costly))
    assert [image["top"] for image in before] == [image["top"] for image in after]
    calls = [sum(image["predicted"] == "discs" for image in images) for images in (before, after)]
    assert calls[1] < calls[0]
    found = evaluate_on(load(costly.path), world / "photos")[0]
    assert found.mean_cost is not None and "costs least" in " ".join(costly.notes)
    said = load(costly.path).predict(world / "photos")
    for image in said:
        row = dict(image.top)
        expected = np.array([row[name] for name in CLASSES]) @ read_costs(str(world / "costs.csv"), CLASSES)
        assert image.label == CLASSES[int(expected.argmin())] and image.probability == row[image.label]


def test_a_report_and_the_json_say_the_mean_cost(runs: dict[str, Run]) -> None:
    run = read_run(runs["costs"].path)
    costs = read_costs(str(run.path / "costs.csv"), CLASSES)
    images = [each for each in read_predictions(run.path)["images"] if each["split"] == "validation"]
    pairs = [(CLASSES.index(each["label"]), CLASSES.index(each["predicted"])) for each in images]
    assert run.evaluation["validation"]["mean_cost"] == pytest.approx(
        np.mean([costs[pair] for pair in pairs])
    )
    assert "mean cost" in report(run).markdown() and "--costs" in report(run).facts["command"]


def test_of_equal_costs_a_program_calls_the_likelier_class_as_headstart_does() -> None:
    """Where two classes cost the same, as kinds of one thing do."""
    random = np.random.default_rng(0)
    costs = np.array([[0, 0, 5, 1e6], [0, 0, 5, 1e6], [3, 3, 0, 1], [7, 7, 1, 0]], float)
    card = {"classes": [*"abcd"], "costs": costs.tolist()}
    rows = random.dirichlet(np.ones(4), 300).astype(np.float32)
    said = [answer(row.tolist(), card)["label"] for row in rows]
    assert said == ["abcd"[call] for call in decide(rows, costs)]
    assert {"a", "b"} <= set(said)  # neither always the first nor always the last


def test_eight_bits_are_judged_by_what_costs_least() -> None:
    costs = np.array([[0, 1], [9, 0]], float)
    original = np.array([[0.95, 0.05], [0.85, 0.15], [0.2, 0.8]], np.float32)
    found = np.array([[0.95, 0.05], [0.95, 0.05], [0.2, 0.8]], np.float32)
    labels = np.array([0, 1, 1])
    assert cost(found, original, labels=labels, calibration=7).agreement == 1
    judged = cost(found, original, labels=labels, calibration=7, costs=costs)
    assert judged.agreement == pytest.approx(2 / 3) and judged.points == pytest.approx(100 / 3)


def test_what_is_printed_of_a_photograph_is_of_the_label_that_is_called(
    runs: dict[str, Run], world: Path
) -> None:
    photos = sorted(map(str, (world / "photos").glob("*/*.jpg")))
    lines = CliRunner().invoke(cli, ["predict", str(runs["costs"].path), *photos]).stdout.splitlines()
    sets = CliRunner().invoke(cli, ["predict", str(runs["costs"].path), "--coverage", "0.5", *photos]).stdout
    said = load(runs["costs"].path).predict(photos, coverage=0.5)
    moved = 0
    for line, with_set, each in zip(lines, sets.splitlines(), said, strict=True):
        moved += each.label != each.top[0][0]
        others = ", ".join(f"{name} {percent(share)}" for name, share in each.top if name != each.label)
        assert line == f"{each.path}\t{each.label}\t{percent(each.probability)}\t({others})"
        assert each.labels is not None and each.label in each.labels and each.top[0][0] in each.labels
        assert with_set == line.replace("\t(", f"\t{' or '.join(each.labels)}\t(")
    assert moved


def test_a_heat_map_speaks_for_the_label_that_is_called(runs: dict[str, Run], world: Path) -> None:
    classifier = load(runs["costs"].path)
    said = classifier.predict(world / "photos")
    moved = next(each for each in said if each.label != each.top[0][0])
    found = heat_map(classifier, moved.path)
    assert found.label == moved.label and found.probability == pytest.approx(moved.probability, abs=1e-5)


def test_the_mean_cost_is_said_wherever_scores_are(runs: dict[str, Run], world: Path) -> None:
    run = runs["costs"]
    done = CliRunner().invoke(cli, ["evaluate", str(run.path), str(world / "photos")])
    assert "mean cost" in done.stdout
    found = run.evaluation["validation"]["mean_cost"]
    assert of_run(run).metrics["validation/mean_cost"] == found
    assert "mean cost" in markdown(card(Subject.of(run), find_format("onnx"), parity=None))
    assert report(run).html().count("mean cost") >= 2  # in the headline and in the table


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_export_calls_what_the_classifier_calls(runs: dict[str, Run], world: Path, form: str) -> None:
    made = export(runs["costs"], to=form, out=world / f"exported-{form}")
    photos = sorted(map(str, (world / "photos").glob("*/*.jpg")))
    done = subprocess.run(
        [sys.executable, str(made.path / "predict.py"), "--json", *photos],
        capture_output=True,
        text=True,
        check=True,
    )
    labels = [each["label"] for each in json.loads(done.stdout)]
    said = load(runs["costs"].path).predict(photos)
    assert labels == [each.label for each in said]
    assert any(each.label != each.top[0][0] for each in said)


def test_priors_are_in_the_saved_model(runs: dict[str, Run], world: Path) -> None:
    plain, adjusted = (load(runs[name].path).predict(world / "photos") for name in ("plain", "priors"))
    count = np.array([runs["plain"].data["classes"][name]["train"] for name in CLASSES])
    ratio = np.array([0.02, 0.49, 0.49]) / (count / count.sum())
    for before, after in zip(plain, adjusted, strict=True):
        expected = np.array([dict(before.top)[name] for name in CLASSES]) * ratio
        found = [dict(after.top)[name] for name in CLASSES]
        np.testing.assert_allclose(found, expected / expected.sum(), atol=2e-3)


@pytest.mark.parametrize("method", [{"head": "softmax", "epochs": 3}, {"freeze": 8, "epochs": 1}], ids=str)
def test_costs_and_priors_go_with_every_head_and_with_fine_tuned_stages(
    world: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    tables = {"costs": str(world / "costs.csv"), "priors": str(world / "priors.csv")}
    options = {"backbone": "builtin", "size": 32, "validation": 0.3, **method}
    plain, run = fit(world / "photos", out=tmp_path / "plain", **options)
    adjusted, _ = fit(world / "photos", out=tmp_path / "adjusted", **options, **tables)
    count = np.array([run.data["classes"][name]["train"] for name in CLASSES])
    costs = read_costs(tables["costs"], CLASSES)
    for before, after in zip(*(each.predict(world / "photos") for each in (plain, adjusted)), strict=True):
        expected = np.array([dict(before.top)[name] for name in CLASSES]) * [0.02, 0.49, 0.49] / count
        found = np.array([dict(after.top)[name] for name in CLASSES])
        np.testing.assert_allclose(found, expected / expected.sum(), atol=5e-3)
        assert after.label == CLASSES[int((found @ costs).argmin())]


def test_priors_are_those_of_the_weights_that_images_had(world: Path, tmp_path: Path) -> None:
    lines = ["path,label,weight"]
    for number, file in enumerate(sorted((world / "photos").glob("*/*.jpg"))):
        weight = {"bars": 8, "discs": 1, "squares": 2}[file.parent.name] * (1 + number % 3)
        lines.append(f"{file.relative_to(world)},{file.parent.name},{weight}")
    (world / "weighted.csv").write_text("\n".join(lines))
    options = {"weights_column": "weight", "validation": 0.3, **FAST}
    plain, run = fit(world / "weighted.csv", out=tmp_path / "plain", **options)
    adjusted, _ = fit(world / "weighted.csv", out=tmp_path / "adjusted", priors="uniform", **options)
    mass = dict.fromkeys(CLASSES, 0.0)
    for image in read_images(run.path):
        if image["split"] == "train":
            mass[image["label"]] += image.get("weight", 1.0)
    for before, after in zip(*(each.predict(world / "photos") for each in (plain, adjusted)), strict=True):
        expected = np.array([dict(before.top)[name] / mass[name] for name in CLASSES])
        found = [dict(after.top)[name] for name in CLASSES]
        np.testing.assert_allclose(found, expected / expected.sum(), atol=5e-3)


def test_runs_that_differ_in_costs_or_priors_alone_are_compared(runs: dict[str, Run], tmp_path: Path) -> None:
    found = compare_runs(list(runs.values()))
    said = [trial.candidate.name for trial in found.trials]
    assert len(set(said)) == 3
    assert "costs as usual" in said[0] and "costs costs.csv" in said[1] and "priors priors.csv" in said[2]
    other = replace(runs["costs"], id="other", path=tmp_path / "other")
    shutil.copytree(runs["costs"].path, other.path)
    (other.path / "costs.csv").write_text(COSTS.replace("400", "40"))  # of the same name
    assert len({each.candidate.name for each in compare_runs([runs["costs"], other]).trials}) == 2


def test_likely_label_errors_do_not_depend_on_where_the_classifier_will_be_used(runs: dict[str, Run]) -> None:
    plain, priors = (read_label_errors(runs[name].path, classes=CLASSES) for name in ("plain", "priors"))
    assert plain
    assert [[each[key] for key in ("path", "likely", "wrong")] for each in plain] == [
        [each[key] for key in ("path", "likely", "wrong")] for each in priors
    ]


def test_a_class_that_a_head_never_saw_is_not_called_for_its_share(tmp_path: Path) -> None:
    """As in a fold of a cross-validation whose other folds have no image of the class."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 4000)
    x = (random.normal(size=(4000, 8)) + 3 * np.eye(3, 8)[y]).astype(np.float32)
    head = fit_ridge((x, y), classes=3).head
    config = FitConfig(priors="uniform")
    shifted = with_config_priors(head, config=config, classes=CLASSES, labels=y, weights=None)
    before, after = head.probabilities(x), shifted.probabilities(x)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() > 0.99
    assert (after[:, 2] <= before[:, 2] * 1.2).all()


def test_a_server_calls_what_costs_least(runs: dict[str, Run], world: Path) -> None:
    said = load(runs["costs"].path).predict(world / "photos")
    moved = next(each for each in said if each.label != each.top[0][0])
    app = create_app(Models(fixed(runs["costs"].path), batch=1), limits=Limits(), watch_seconds=0)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        answer = client.post("/predict", files={"images": Path(moved.path).read_bytes()}).json()
    assert answer["predictions"][0]["label"] == moved.label


def test_a_head_trained_again_keeps_costs_and_priors(runs: dict[str, Run], world: Path) -> None:
    (world / "costs.csv").rename(world / "moved.csv")
    run = runs["costs"]
    image = read_predictions(run.path)["images"][0]
    other = next(name for name in CLASSES if name != image["label"])
    corrections_of(run).add(image["path"], other, content=image["content"], was=image["label"])
    classifier, new = retrain(run, corrections_of(run), out=world / "again")
    corrections_of(run).undo()
    (world / "moved.csv").rename(world / "costs.csv")
    assert classifier.costs == load(run.path).costs and "mean_cost" in new.evaluation["validation"]


def test_tables_that_do_not_fit_are_refused_before_any_image_is_read(world: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("x,bars,discs\nbars,0,1\ndiscs,1,0\n")
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(OptionError, match="no class"):
        fit(tmp_path / "broken", costs=str(tmp_path / "few.csv"), **FAST)
    with pytest.raises(DatasetError):
        fit(tmp_path / "broken", **FAST)
    with pytest.raises(OptionError, match="do not go with freeze='auto'"):
        fit(world / "photos", priors="uniform", freeze="auto")


def test_a_saved_classifier_whose_costs_are_of_other_classes_is_refused(
    runs: dict[str, Run], world: Path
) -> None:
    classifier = load(runs["costs"].path)
    replace(classifier, costs=((0.0, 1.0), (1.0, 0.0))).save(world / "damaged")
    with pytest.raises(RunError, match="costs of 3 x 3 classes"):
        load(world / "damaged")


def test_a_report_on_two_classes_has_a_precision_recall_curve_and_no_other_has(
    world: Path, runs: dict[str, Run], tmp_path: Path
) -> None:
    shutil.copytree(world / "photos", tmp_path / "two", ignore=shutil.ignore_patterns("bars"))
    for file in sorted((tmp_path / "two" / "squares").iterdir())[::2]:
        file.unlink()
    _, run = fit(tmp_path / "two", out=tmp_path / "run", validation=0.5, test=0.0, **FAST)
    made = report(run)
    found = made.facts["precision_recall"]
    images = read_predictions(run.path)["images"]
    scores = np.array([dict(image["top"])["squares"] for image in images])
    positive = np.array([image["label"] == "squares" for image in images])
    assert found["class"] == "squares"
    assert found["average_precision"] == pytest.approx(average_precision_score(positive, scores), abs=1e-6)
    for row in found["rows"]:
        called = scores >= row["threshold"]
        assert row["recall"] == pytest.approx((called & positive).sum() / positive.sum())
        right = positive[called].mean() if called.any() else None
        assert row["precision"] == (None if right is None else pytest.approx(right))
    assert "Precision and recall of squares" in made.html() and "called from" in made.markdown()
    assert [row[0] for row in tables(made.facts)["precision_recall"].rows][:3] == ["5%", "10%", "20%"]
    assert report(runs["plain"]).facts["precision_recall"] is None
    assert "Precision and recall" not in report(runs["plain"]).html()
