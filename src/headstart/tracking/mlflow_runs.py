"""MLflow: a run each, a comparison with its trials below it; experiments are named after the data.

Without ``MLFLOW_TRACKING_URI`` it is written to ``./mlruns``, as a database with a folder of artifacts:
MLflow has stopped to support plain files for its records (https://mlflow.org/docs/latest/self-hosting).
"""

import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.comparisons import Comparison
from headstart.errors import OptionError
from headstart.runs import Run
from headstart.tracking.entries import Entry, of_comparison, of_run, of_whole

FOLDER = "mlruns"
MODEL = "model"
"""Of a run: where `mlflow.pyfunc.load_model` finds the classifier."""

_PARENT = "mlflow.parentRunId"
_BATCH = 500
"""Metrics a request; MLflow takes 1,000 entries at once."""

_ONE_TRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowTracker:
    """Writes through MLflow's client; nothing global of MLflow's is changed."""

    def __init__(self, uri: str, *, artifacts: str | None, register: str | None = None) -> None:
        with _said_plainly(uri):
            from mlflow.tracking import MlflowClient

            self._client: Any = MlflowClient(tracking_uri=uri)
            with _impatient():
                self._client.search_experiments(max_results=1)  # a server that is not there is told of now
        self._uri, self._artifacts, self._register = uri, artifacts, register

    def record(self, thing: Run | Comparison) -> str:
        """Write a run or a comparison; one line that says where to look."""
        with _said_plainly(self._uri):
            if isinstance(thing, Run):
                identity = self._write(of_run(thing), experiment=self._experiment(thing.config.data))
                known = self._write_model(thing, identity=identity)
            else:
                self._write_comparison(thing)
                known = ""
        return f"tracked in {self._uri}{known}; mlflow ui --backend-store-uri {self._uri}"

    def _write_model(self, run: Run, *, identity: str) -> str:
        """The classifier as an artifact ``model``, and in the registry where that was asked for."""
        from mlflow.exceptions import MlflowException

        from headstart.tracking.pyfunc import save_model

        with tempfile.TemporaryDirectory() as folder:
            save_model(run.path, Path(folder) / MODEL)
            self._client.log_artifacts(identity, str(Path(folder) / MODEL), MODEL)
        if self._register is None:
            return ""
        try:
            self._client.get_registered_model(self._register)
        except MlflowException:
            self._client.create_registered_model(self._register)
        source = f"{self._client.get_run(identity).info.artifact_uri}/{MODEL}"
        found = self._client.create_model_version(self._register, source, identity)
        return f", registered as {self._register} version {found.version}"

    def _write_comparison(self, comparison: Comparison) -> None:
        experiment = self._experiment(comparison.data)
        parent = self._write(of_whole(comparison), experiment=experiment)
        for entry in of_comparison(comparison):
            self._write(entry, experiment=experiment, parent=parent)

    def _experiment(self, data: str) -> str:
        name = data or "headstart"
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "active":
            return str(found.experiment_id)
        if found is not None:
            raise OptionError(f"MLflow's experiment {name} was deleted; restore it or rename the data")
        place = f"{self._artifacts}/{name}" if self._artifacts else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _write(self, entry: Entry, *, experiment: str, parent: str | None = None) -> str:
        from mlflow.entities import Metric, Param

        tags = {} if parent is None else {_PARENT: parent}
        identity = str(self._client.create_run(experiment, run_name=entry.name, tags=tags).info.run_id)
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in entry.metrics.items()]
        metrics += [Metric(name, value, now, epoch) for epoch, name, value in entry.curves]
        params = [Param(name, value[:6000]) for name, value in entry.parameters.items()]
        self._client.log_batch(identity, params=params)
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(identity, metrics=metrics[start : start + _BATCH])
        for file in entry.files:
            self._client.log_artifact(identity, str(file))
        self._client.set_terminated(identity)
        return identity


@contextmanager
def _impatient() -> Iterator[None]:
    """One try of ten seconds, where MLflow's own settings try a dead server for minutes before they say so.

    They are read from the environment at each request (https://mlflow.org/docs/latest, "Environment
    Variables"); what the user set stays.
    """
    ours = {name: value for name, value in _ONE_TRY.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextmanager
def _said_plainly(uri: str) -> Iterator[None]:
    """MLflow's failures as one line; its own warnings about its own dependencies are not the user's."""
    import logging

    logger = logging.getLogger("alembic")
    level, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OptionError:
        raise
    except Exception as error:  # MLflow raises its own, requests' and SQLAlchemy's kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OptionError(f"MLflow at {uri}: {reason}; check MLFLOW_TRACKING_URI") from error
    finally:
        logger.disabled = level


def open_tracker(register: str | None = None) -> MlflowTracker:
    """The tracker at ``MLFLOW_TRACKING_URI``, or one in the working directory."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return MlflowTracker(uri, artifacts=None, register=register)
    folder = Path(FOLDER).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: {error.strerror}; set MLFLOW_TRACKING_URI") from error
    place, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
    return MlflowTracker(place, artifacts=artifacts, register=register)
