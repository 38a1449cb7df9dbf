"""The scikit-learn estimator: in pipelines, folds and searches, pickled and cloned, and bad input refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs headstart[sklearn]")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from headstart.errors import ImageError
from headstart.runs import RunStore
from headstart.sklearn import ImageClassifier


def small(**options: Any) -> ImageClassifier:
    return ImageClassifier("builtin", size=64, layers="last", **options)


@pytest.fixture
def labelled(photos: Path) -> tuple[list[str], list[str]]:
    files = sorted(photos.rglob("*.jpg"))
    return [str(each) for each in files], [each.parent.name for each in files]


def test_it_fits_predicts_and_travels_as_scikit_learn_expects(labelled: tuple[list[str], list[str]]) -> None:
    paths, labels = labelled
    fitted = small().fit(paths, labels)
    assert fitted.classes_.tolist() == sorted(set(labels))
    assert fitted.run_.images["train"] == len(paths)
    assert RunStore().get(fitted.run_.id) is None  # its folder is gone
    with pytest.raises(ValueError, match="1d array"):
        small().fit(paths, np.stack([labels, labels], axis=1))
    found = fitted.predict_proba(paths)
    assert found.shape == (len(paths), 3) and found.sum(axis=1) == pytest.approx(1, abs=1e-3)
    assert fitted.score(paths, labels) > 0.9
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(paths[:3]), found[:3])
    assert not hasattr(clone(fitted), "classes_") and clone(fitted).get_params() == fitted.get_params()


def test_arrays_and_labels_of_other_kinds_are_taken(labelled: tuple[list[str], list[str]]) -> None:
    from PIL import Image

    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in labelled[0]])
    numbers = np.unique(labelled[1], return_inverse=True)[1] * 10
    fitted = small().fit(pixels, numbers)
    assert fitted.predict(pixels[:2]).dtype == numbers.dtype
    assert set(fitted.predict(pixels)) <= {0, 10, 20}


def test_folds_searches_and_pipelines_work_on_paths(labelled: tuple[list[str], list[str]]) -> None:
    paths, labels = np.array(labelled[0]), np.array(labelled[1])
    assert cross_val_score(small(), paths, labels, cv=2).mean() > 0.6
    search = GridSearchCV(small(), {"layers": ["last", "auto"]}, cv=2).fit(paths, labels)
    assert search.best_score_ > 0.6 and search.best_score_ == max(search.cv_results_["mean_test_score"])
    refitted = clone(search.best_estimator_).fit(paths, labels)
    assert refitted.run_.cache["misses"] == 0  # folds and candidates share the features
    piped = make_pipeline(FunctionTransformer(), small()).fit(paths, labels)
    assert piped.score(paths, labels) > 0.9


@pytest.mark.parametrize(
    "check",
    [
        checks.check_no_attributes_set_in_init,
        checks.check_parameters_default_constructible,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_mixin_order,
    ],
    ids=lambda check: check.__name__,
)
def test_the_checks_of_scikit_learn_that_need_no_table_of_numbers_pass(check: Any) -> None:
    check("ImageClassifier", small())


def test_what_is_no_image_or_label_is_refused(labelled: tuple[list[str], list[str]], tmp_path: Path) -> None:
    paths, labels = labelled
    for wrong, said in (
        (np.zeros((4, 8)), "a table of numbers holds no images"),
        (paths[0], "a sequence of paths"),
        ([], "0 images"),
        (paths[:3], "expected as many of each"),
    ):
        with pytest.raises(ValueError, match=said):
            small().fit(wrong, labels[:4])
    with pytest.raises(ValueError, match="y is None"):
        small().fit(paths, None)
    with pytest.raises(ValueError, match="continuous"):
        small().fit(paths, np.linspace(0, 1, len(paths)))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        small().fit(paths, labels).predict([str(tmp_path / "broken.jpg")])
