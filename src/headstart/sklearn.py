"""A scikit-learn estimator: `ImageClassifier` for pipelines, cross-validation and grid searches.

Features are computed once for each image and shared by all folds and candidates, through the feature cache.
Needs scikit-learn, which no other part of Headstart does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.classifier import MODEL_FILE, Classifier, load
from headstart.data.dataset import Dataset, Sample
from headstart.data.sources import ArraySource, FileSource, Source
from headstart.errors import MissingExtra
from headstart.runs import CLASSIFIER_FILE

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtra("headstart.sklearn", extra="sklearn") from None

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAME = "images"


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """`headstart.fit` as scikit-learn has it: every image that `fit` is given is trained on.

    ``X`` is a sequence of paths, or of images, uint8 [H, W], [H, W, 3] or [N, H, W, 3]; ``y`` holds a label
    for each, of any kind that scikit-learn takes. What holds images out (a fold, a test set) is around it, so
    it keeps none for itself.

    Args:
        backbone: see `headstart.FitConfig`, as all of these.
        size: pixels a side; None for the backbone's own.
        freeze: stages that stay as they are.
        head: "ridge" or "softmax".
        layers: "auto", "last", "all", or names.
        views: 1, "flip", or a number of crops.
        epochs: of "softmax" and of fine-tuning.
        seed: Random seed.

    Attributes:
        classes_: the labels, sorted, in the order of the probabilities.
        run_: the record of the training; its folder is gone, and no list of runs has it.
    """

    def __init__(
        self,
        backbone: str = "default",
        *,
        size: int | None = None,
        freeze: Any = "all",
        head: str = "ridge",
        layers: Any = "auto",
        views: Any = 1,
        epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.size = size
        self.freeze = freeze
        self.head = head
        self.layers = layers
        self.views = views
        self.epochs = epochs
        self.seed = seed

    def fit(self, X: Any, y: Any) -> ImageClassifier:
        """Train on every image.

        Raises:
            ValueError: no labels, or not one for each image.
            UserError: an image cannot be read, or an option cannot work.
        """
        from headstart.training import fit

        if y is None:
            raise ValueError("ImageClassifier needs labels: y is None")
        sources, labels = [_source(each) for each in _listed(X)], column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if len(sources) != len(labels):
            raise ValueError(f"{len(sources)} images and {len(labels)} labels: expected as many of each")
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        samples = tuple(
            Sample(name, int(number), "train", source)
            for (name, source), number in zip(sources, numbers, strict=True)
        )
        dataset = Dataset(_NAME, tuple(map(str, self.classes_)), samples)
        with tempfile.TemporaryDirectory() as folder:
            options = self.get_params(deep=False)
            options = {name: value for name, value in options.items() if value is not None}
            _, self.run_ = fit(
                dataset,
                out=Path(folder) / "run",
                listed=False,
                strict=True,
                validation=0.0,
                test=0.0,
                **options,
            )
            kept = (MODEL_FILE, CLASSIFIER_FILE)
            self.files_ = {name: (self.run_.path / name).read_bytes() for name in kept}
        self.__dict__.pop("_loaded", None)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities, float32 [N, C], in the order of ``classes_``."""
        check_is_fitted(self)
        return self._classifier().predict_proba(_listed(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest label of each image."""
        found: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return found

    def _classifier(self) -> Classifier:
        """The trained classifier; its files travel with the estimator, so that it can be pickled."""
        found: Classifier | None = getattr(self, "_loaded", None)
        if found is None:
            folder = tempfile.mkdtemp(prefix="headstart-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            for name, data in self.files_.items():
                (Path(folder) / name).write_bytes(data)
            found = self._loaded = load(folder)
        return found

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_loaded"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def _listed(X: Any) -> list[Any]:
    """Paths as text, or images as arrays; ValueError where it is neither."""
    if isinstance(X, str | os.PathLike) or not hasattr(X, "__len__"):
        raise ValueError(f"expected a sequence of paths or images, got {type(X).__name__}")
    found = list(np.asarray(X).ravel() if getattr(X, "dtype", None) == np.dtype(object) else X)
    if not found:
        raise ValueError("0 images: expected one or more")
    for each in found:
        picture = isinstance(each, np.ndarray) and each.dtype == np.uint8 and each.ndim in (2, 3)
        if not (picture or isinstance(each, str | os.PathLike)):
            raise ValueError(
                "expected paths of images, or images as uint8 [H, W] or [H, W, 3], got "
                f"{_shape(each)}; a table of numbers holds no images"
            )
    return [str(each) if isinstance(each, str) else each for each in found]


def _shape(each: Any) -> str:
    return f"{each.dtype} {list(each.shape)}" if isinstance(each, np.ndarray) else type(each).__name__


def _source(each: Any) -> tuple[str, Source]:
    if isinstance(each, np.ndarray):
        return "array", ArraySource(each)
    return os.fspath(each), FileSource(os.fspath(each))
