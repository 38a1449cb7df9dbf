"""A classifier as MLflow's `pyfunc`: a column of image files' bytes in, a table of predictions out.

MLflow imports this module where a model is loaded, and calls `_load_pyfunc`
(https://mlflow.org/docs/latest/api_reference/python_api/mlflow.pyfunc.html, "loader_module").
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from headstart.classifier import MODEL_FILE, Classifier, Prediction, Predictions, PredictOptions, load
from headstart.classifier.predictions import columns
from headstart.data.dataset import Sample
from headstart.data.sources import BytesSource
from headstart.errors import ImageError, OptionError
from headstart.runs import CLASSIFIER_FILE, RUN_FILE

COLUMN = "image"
"""Of the input: an image file's bytes, as base64 in JSON."""

_NAMES = {"label": "string", "probability": "double", "labels": "string", "familiarity": "double"}
_KINDS = _NAMES | dict.fromkeys(("value", "low", "high"), "double")


def save_model(run: Path, folder: Path) -> None:
    """Write a run's classifier as a model of MLflow's, with the signature of what it takes and gives.

    Args:
        run: the run's folder.
        folder: a new one.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from headstart import __version__

    gives = Schema([ColSpec(_KINDS[name], name) for name in _given(load(run))])
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name) / "classifier"
        kept.mkdir()
        for file in (MODEL_FILE, CLASSIFIER_FILE, RUN_FILE):
            shutil.copy(run / file, kept)
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=__name__,
            data_path=str(kept),
            signature=ModelSignature(inputs=Schema([ColSpec("binary", COLUMN)]), outputs=gives),
            pip_requirements=[f"headstart=={__version__}", "pandas"],
        )


def _given(classifier: Classifier) -> list[str]:
    """The columns that it always fills."""
    silent = {"path", "known", *(() if classifier.tells_unknown else ("familiarity",))}
    silent |= {"labels"} if classifier.task != "multi-label" else {"probability"}
    silent |= {"low", "high"} if not classifier.errors else set()
    return [name for name in columns(classifier.task) if name not in silent]


class _Model:
    """What MLflow calls."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier, self._columns = classifier, _given(classifier)

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """A row for each image, in their order; one that cannot be read refuses them all."""
        if list(model_input.columns) != [COLUMN]:
            raise OptionError(f"expected one column, {COLUMN}, with the bytes of image files")
        given = [bytes(each) for each in model_input[COLUMN]]
        samples = [Sample(f"row {n}", -1, "test", BytesSource(data)) for n, data in enumerate(given)]
        found = Predictions()
        for each in self._classifier.predict_each(samples, PredictOptions(top=1)):
            if not isinstance(each, Prediction):
                raise ImageError(f"{each.name}: {each.reason}")
            found.append(each)
        import pandas

        return pandas.DataFrame([each.row() for each in found], columns=self._columns)


def _load_pyfunc(path: str) -> _Model:
    return _Model(load(path))
