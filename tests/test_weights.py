"""Images' weights from a column of the table: exact in ridge, in the loss of softmax, refused elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import shared_folders, write_photos
from headstart import fit, heads
from headstart.comparisons import compare, grid
from headstart.curation import corrections_of, retrain
from headstart.data.dataset import read_dataset
from headstart.errors import DatasetError, OptionError
from headstart.heads.ridge import standardised
from headstart.runs import FOLDS_FILE, read_images, read_predictions

FAST = {"backbone": "builtin", "size": 32, "layers": "last"}


def drawn(images: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and weights that depend on both."""
    random = np.random.default_rng(images)
    y = random.integers(0, 3, images)
    x = (random.normal(size=(images, width)) + np.eye(3, width)[y]).astype(np.float32)
    return x, y.astype(np.int64), random.uniform(0.2, 4, images) * (1 + y)


@pytest.mark.parametrize(("images", "width"), [(60, 8), (30, 50)])
@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 0.5]])
def test_leaving_weighted_images_out_is_exact(
    images: int, width: int, class_weights: list[float] | None
) -> None:
    x, y, own = drawn(images, width)
    for penalty in (0.01, 1.0):
        fitted = heads.fit_ridge(
            (x, heads.weighted_labels(y, own)),
            classes=3,
            class_weights=class_weights,
            penalties=[penalty],
            task=heads.Weighted(),
        )
        assert fitted.form == ("primal" if images > width else "dual")
        w = own * (1.0 if class_weights is None else np.array(class_weights)[y])
        z, _, _ = standardised(x, w, widths=[width])
        design = np.column_stack([np.ones(images), z.astype(np.float64)])
        ridge = np.diag([0.0] + [fitted.absolute_penalty] * width)
        error, right = 0.0, 0
        for i in range(images):
            rest = np.arange(images) != i
            weighted = design[rest].T * w[rest]
            solved = np.linalg.solve(weighted @ design[rest] + ridge, weighted @ np.eye(3)[y[rest]])
            said = design[i] @ solved
            error += w[i] * np.square(np.eye(3)[y[i]] - said).sum()
            right += int(said.argmax() == y[i])
        assert fitted.loo_error == pytest.approx(error / w.sum(), rel=1e-3)
        assert fitted.loo_accuracy == pytest.approx(right / images, abs=1e-9)


@pytest.mark.parametrize(("images", "width"), [(60, 8), (20, 50)])
def test_a_weight_of_two_does_what_the_image_twice_would(images: int, width: int) -> None:
    x, y, _ = drawn(images, width)
    times = np.random.default_rng(1).integers(1, 4, images)
    one = heads.fit_ridge(
        (x, heads.weighted_labels(y, times)), classes=3, penalties=[0.1], task=heads.Weighted()
    )
    again = heads.fit_ridge((x.repeat(times, axis=0), y.repeat(times)), classes=3, penalties=[0.1])
    np.testing.assert_allclose(one.head.weight, again.head.weight, atol=2e-4)
    np.testing.assert_allclose(one.head.bias, again.head.bias, atol=2e-4)


def test_batches_and_arrays_of_weighted_images_give_one_head() -> None:
    x, y, own = drawn(90, 8)
    labels = heads.weighted_labels(y, own)
    parts = [slice(at, at + 7) for at in range(0, 90, 7)]
    streamed = heads.fit_ridge(
        lambda: ((x[part], labels[part]) for part in parts), classes=3, task=heads.Weighted()
    )
    whole = heads.fit_ridge((x, labels), classes=3, task=heads.Weighted())
    assert streamed.penalty == whole.penalty
    np.testing.assert_allclose(streamed.head.weight, whole.head.weight, atol=1e-4)


def test_weights_of_one_change_nothing_that_matters() -> None:
    x, y, _ = drawn(60, 8)
    plain = heads.fit_ridge((x, y), classes=3)
    ones = heads.fit_ridge((x, heads.weighted_labels(y, np.ones(60))), classes=3, task=heads.Weighted())
    np.testing.assert_allclose(ones.head.weight, plain.head.weight, atol=1e-5)
    assert ones.loo_accuracy == plain.loo_accuracy


def test_labels_without_weights_are_not_taken_for_weights() -> None:
    x, y, _ = drawn(60, 8)
    with pytest.raises(OptionError, match="labels have no weights"):
        heads.fit_ridge((x, y), classes=3, task=heads.Weighted())


def test_layers_are_chosen_by_what_weighs() -> None:
    """Each of two layers knows one half of the images."""
    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    first = np.arange(200) < 100
    layers = {
        name: (random.normal(size=(200, 6)) + 4 * (y * side)[:, None]).astype(np.float32)
        for name, side in (("early", first), ("last", ~first))
    }
    options: dict[str, Any] = {"classes": 2, "last": "last", "images": 200, "task": heads.Weighted()}
    for side, name in ((first, "early"), (~first, "last")):
        labels = heads.weighted_labels(y, np.where(side, 1.9, 0.1))
        choice = heads.choose_layers(layers, labels, **options)
        single = [row for row in choice.table if len(row.layers) == 1]
        assert single[0].layers == (name,)
        ones = heads.choose_layers(layers, heads.weighted_labels(y, np.ones(200)), **options)
        plain = heads.choose_layers(layers, y, **{**options, "task": None})
        assert [row.error for row in ones.table] == pytest.approx([row.error for row in plain.table])


@pytest.mark.parametrize("bad", [[1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0]])
def test_weights_that_are_none_are_refused(bad: list[float]) -> None:
    with pytest.raises(OptionError, match="numbers above zero"):
        heads.weighted_labels([0, 1], bad)


def test_softmax_moves_towards_what_weighs_more() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 4)).astype(np.float32)
    y = (np.arange(200) % 2).astype(np.int64)  # nothing to learn but how often a class comes
    weights = np.where(y == 1, 9.0, 1.0)
    often = [
        heads.fit_softmax(x, y, classes=2, epochs=40, learning_rate=0.03, image_weights=each)
        .head.probabilities(x)[:, 1]
        .mean()
        for each in (weights, None)
    ]
    assert often[0] > 0.75 and often[1] < 0.6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Path]:
    """Photographs in a table whose trust in each label is a weight: those of `doubtful` are wrong."""
    root = tmp_path_factory.mktemp("weights")
    photos = write_photos(root / "photos", per_class=24, classes=("discs", "squares"))
    lines = ["path,label,trust"]
    for number, file in enumerate(sorted(photos.glob("*/*.jpg"))):
        label, doubtful = file.parent.name, number % 3 == 0
        if doubtful:
            label = "discs" if label == "squares" else "squares"
        lines.append(f"{file.relative_to(photos)},{label},{0.01 if doubtful else 1.0}")
    (photos / "table.csv").write_text("\n".join(lines))
    with shared_folders(root, compiled_models):
        yield photos / "table.csv"


def test_a_column_of_weights_is_what_the_training_goes_by(world: Path) -> None:
    plain, weighted = (
        fit(world, out=world.parent.parent / f"{name}", weights_column=name, validation=0.0, test=0.0, **FAST)
        for name in (None, "trust")
    )
    truth = {str(path): path.parent.name for path in world.parent.glob("*/*.jpg")}
    right = [
        np.mean([each.label == truth[each.path] for each in classifier.predict(sorted(truth))])
        for classifier, _ in (plain, weighted)
    ]
    assert right[1] > right[0] and right[1] > 0.97
    kept = {image["path"]: image.get("weight", 1.0) for image in read_images(weighted[1].path)}
    assert set(kept.values()) == {0.01, 1.0}
    image = next(each for each in read_images(weighted[1].path) if each.get("weight"))
    corrections = corrections_of(weighted[1])
    other = "discs" if image["label"] == "squares" else "squares"
    corrections.add(image["path"], other, content=image["content"], was=image["label"])
    classifier, new = retrain(weighted[1], corrections, out=world.parent.parent / "again")
    corrections.undo()
    assert {each.get("weight", 1.0) for each in read_images(new.path)} == {0.01, 1.0}
    assert np.mean([each.label == truth[each.path] for each in classifier.predict(sorted(truth))]) > 0.95


def test_softmax_takes_them_and_folds_do(world: Path) -> None:
    truth = {str(path): path.parent.name for path in world.parent.glob("*/*.jpg")}
    softmax: dict[str, Any] = {"head": "softmax", "epochs": 20, "validation": 0.0, "test": 0.0, **FAST}
    of_softmax, of_folds = [], []  # mean probability of what each photograph truly shows
    for name in (None, "trust"):
        place = world.parents[1]
        classifier, _ = fit(world, out=place / f"softmax-{name}", weights_column=name, **softmax)
        said = classifier.predict(sorted(truth))
        of_softmax.append(np.mean([dict(each.top)[truth[each.path]] for each in said]))
        _, run = fit(world, out=place / f"folds-{name}", weights_column=name, folds=3, **FAST)
        images = read_predictions(run.path, name=FOLDS_FILE)["images"]
        of_folds.append(np.mean([dict(each["top"])[Path(each["path"]).parent.name] for each in images]))
    assert of_softmax[1] > of_softmax[0] + 0.05 and of_folds[1] > of_folds[0] + 0.05, (of_softmax, of_folds)


@pytest.mark.parametrize(("value", "said"), [("", "''"), ("much", "'much'"), ("0", "'0'"), ("-2", "'-2'")])
def test_a_weight_that_is_none_is_refused_with_its_row(tmp_path: Path, value: str, said: str) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"listed, not decoded")
    (tmp_path / "t.csv").write_text(f"path,label,split,w\n1.png,a,train,1\n2.png,b,train,{value}\n")
    with pytest.raises(DatasetError, match=f"row 3: the weight {said} is no number above zero"):
        read_dataset(tmp_path / "t.csv", weights_column="w")


def test_weights_are_refused_where_stages_are_trained(world: Path) -> None:
    """By whatever way they come."""
    dataset = read_dataset(world, weights_column="trust")
    for options in ({"freeze": "auto"}, {"scratch": True}, {"freeze": 2}, {"backbone": "auto"}):
        asked: dict[str, Any] = {**FAST, **options}
        with pytest.raises(OptionError, match=r"weigh.* for a head alone"):
            fit(world, weights_column="trust", **asked)
        with pytest.raises(OptionError, match="weights of images are for a head alone"):
            fit(dataset, **asked)
    with pytest.raises(OptionError, match="comparing: weights of images are for a head alone"):
        compare(dataset, grid(backbones=["builtin"], size=32))
    with pytest.raises(DatasetError, match="--weights-column: the column weight is not there"):
        fit(world, weights_column="weight", **FAST)
