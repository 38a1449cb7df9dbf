"""Tracking: what was written is read back with the readers of MLflow and TensorBoard."""

import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import headstart
from headstart.cli import cli
from headstart.comparisons import compare, grid
from headstart.errors import MissingExtra, OptionError
from headstart.runs import Run
from headstart.tracking import tracker
from headstart.tracking.mlflow_runs import MlflowTracker

FAST = {"backbone": "builtin", "size": 64, "precision": "f32"}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def run(photos: Path) -> Run:
    return headstart.fit(photos, head="softmax", epochs=3, **FAST)[1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's: its dozens of migrations take seconds, so they are made once."""
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowTracker(f"sqlite:///{file}", artifacts=None)
    return file


@pytest.fixture
def mlflow_client(database: Path) -> Iterator[Any]:
    """MLflow's own reader of what lies in ./mlruns; its dependencies' deprecations are its own."""
    Path("mlruns").mkdir()
    shutil.copy(database, "mlruns/mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        yield lambda: MlflowClient(tracking_uri=f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder)).Reload()
        return {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
        }


def test_mlflow_reads_parameters_metrics_curves_and_files_of_a_run(run: Run, mlflow_client: Any) -> None:
    line = tracker("mlflow").record(run)
    client = mlflow_client()
    experiment = client.get_experiment_by_name("photos")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.id and found.info.status == "FINISHED"
    assert found.data.params["backbone"] == "builtin" and found.data.params["epochs"] == "3"
    assert found.data.metrics["validation/accuracy"] == pytest.approx(run.accuracy["validation"])
    assert found.data.metrics["seconds/total"] == pytest.approx(run.seconds["total"])
    curve = client.get_metric_history(found.info.run_id, "epochs/loss")
    assert [(point.step, point.value) for point in curve] == [
        (entry["epoch"], pytest.approx(entry["loss"])) for entry in run.history
    ]
    files = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert {"model.onnx", "run.json", "classifier.json"} <= files
    assert "mlruns" in line and not (run.path / "mlruns").exists()


@pytest.mark.filterwarnings("ignore")  # MLflow's of its own dependencies
def test_mlflow_loads_and_registers_a_model_that_says_what_the_classifier_says(
    photos: Path, small_run: Path, mlflow_client: Any
) -> None:
    pyfunc, pandas = pytest.importorskip("mlflow.pyfunc"), pytest.importorskip("pandas")
    run = headstart.runs.read_run(small_run)
    for version in (1, 2):
        line = tracker("mlflow", register="shapes").record(run)
        assert f"registered as shapes version {version};" in line
    client = mlflow_client()
    known = client.get_model_version("shapes", "2")
    model = pyfunc.load_model(known.source)
    assert model.metadata.signature.inputs.to_dict() == [
        {"type": "binary", "name": "image", "required": True}
    ]
    files = sorted((photos / "bars").iterdir())[:5]
    found = model.predict(pandas.DataFrame({"image": [file.read_bytes() for file in files]}))
    said = headstart.load(small_run).predict(files).to_frame().drop(columns="path")
    pandas.testing.assert_frame_equal(found, said)
    assert [each["name"] for each in model.metadata.signature.outputs.to_dict()] == list(said.columns)
    with pytest.raises(Exception, match="row 1: not an image"):
        model.predict(pandas.DataFrame({"image": [files[0].read_bytes(), b"no image"]}))


def test_only_mlflow_has_a_registry() -> None:
    with pytest.raises(OptionError, match="--register shapes: only mlflow has a registry"):
        tracker("tensorboard", register="shapes")


def test_mlflow_keeps_the_trials_of_a_comparison_below_it(photos: Path, mlflow_client: Any) -> None:
    comparison = compare(
        photos,
        grid(backbones=["builtin"], size=64, heads=("ridge", "softmax"), epochs=2),
        precision="f32",
        seeds=2,
    )
    tracker("mlflow").record(comparison)
    client = mlflow_client()
    experiment = client.get_experiment_by_name(comparison.data)
    found = client.search_runs([experiment.experiment_id])
    (parent,) = [each for each in found if each.info.run_name == comparison.id]
    assert parent.data.params["choice"] == comparison.choice.candidate.name
    chosen = comparison.of(comparison.choice.candidate)
    right = sum(trial.accuracy for trial in chosen) / len(chosen)
    assert parent.data.metrics["validation/accuracy"] == pytest.approx(right)
    assert parent.data.metrics["seconds/total"] == pytest.approx(comparison.seconds)
    assert parent.data.metrics["predicted_seconds/median"] > 0
    below = [each for each in found if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == len(comparison.trials) == len(found) - 1
    assert sorted(each.data.metrics["validation/accuracy"] for each in below) == pytest.approx(
        sorted(trial.accuracy for trial in comparison.trials)
    )


def test_a_tracking_server_that_cannot_be_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, photos: Path, mlflow_client: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    result = CliRunner().invoke(cli, ["fit", str(photos), "--track", "mlflow", "--out", "run"])
    assert isinstance(result.exception, OptionError) and "MLFLOW_TRACKING_URI" in str(result.exception)
    assert not Path("run").exists()


def test_a_tracking_server_that_does_not_answer_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, mlflow_client: Any
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        begun, before = time.monotonic(), dict(os.environ)
        with pytest.raises(OptionError, match="check MLFLOW_TRACKING_URI"):
            tracker("mlflow")
    assert time.monotonic() - begun < 60  # MLflow left to itself tries for minutes
    assert dict(os.environ) == before


def test_tensorboard_reads_scores_and_curves_of_a_run(run: Run) -> None:
    pytest.importorskip("tensorboardX")
    tracker("tensorboard").record(run)
    scalars = _scalars(run.path / "tensorboard")
    assert scalars["validation/accuracy"] == [(0, pytest.approx(run.accuracy["validation"]))]
    assert [step for step, _ in scalars["epochs/loss"]] == [1, 2, 3]
    assert [value for _, value in scalars["epochs/loss"]] == pytest.approx(
        [entry["loss"] for entry in run.history], rel=1e-5
    )


def test_tensorboard_has_a_folder_for_every_trial(photos: Path) -> None:
    pytest.importorskip("tensorboardX")
    comparison = compare(
        photos,
        grid(backbones=["builtin"], size=64, heads=("ridge", "softmax"), epochs=2),
        precision="f32",
        seeds=1,
    )
    tracker("tensorboard").record(comparison)
    assert comparison.path is not None
    folders = sorted((comparison.path / "tensorboard").iterdir())
    accuracies = [_scalars(folder)["validation/accuracy"][0][1] for folder in folders]
    assert sorted(accuracies) == pytest.approx(sorted(trial.accuracy for trial in comparison.trials))


def test_fit_and_compare_track_on_the_command_line(photos: Path) -> None:
    pytest.importorskip("tensorboardX")
    words = [str(photos), "--size", "64", "--track", "tensorboard", "--json"]
    result = CliRunner().invoke(cli, ["fit", *words])
    assert result.exit_code == 0, result.output
    fitted = json.loads(result.stdout)
    assert "tensorboard --logdir" in fitted["tracked"]
    assert list((Path(fitted["path"]) / "tensorboard").glob("events.*"))
    result = CliRunner().invoke(cli, ["compare", *words, "--seeds", "1", "--out", "choice"])
    assert result.exit_code == 0, result.output
    assert list(Path("choice/tensorboard").rglob("events.*"))


@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize("verb", ["fit", "compare"])
def test_a_tracker_that_fails_after_the_work_is_a_warning_and_the_result_stands(
    photos: Path, monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str]
) -> None:
    class Gone:
        def record(self, thing: Any) -> str:
            raise OptionError("MLflow at http://gone: connection refused")

    monkeypatch.setattr(f"headstart.cli.{verb}.open_tracker", lambda *_, **__: Gone())
    options = [str(photos), "--size", "64", "--track", "mlflow", "--out", "result", *words]
    result = CliRunner().invoke(cli, [verb, *options])
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert "not tracked" in warning and "connection refused" in warning and "result" in warning
    assert "result" in result.stdout and "tracked" not in result.stdout
    if words:
        assert json.loads(result.stdout)["classes"]


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow"), ("tensorboard", "tensorboardX")])
def test_a_missing_package_is_one_line_before_any_work(
    photos: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    def absent(asked: str) -> Any:
        return None if asked == module else find_spec(asked)

    monkeypatch.setattr("headstart.tracking.find_spec", absent)
    result = CliRunner().invoke(cli, ["fit", str(photos), "--track", name, "--out", "run"])
    assert isinstance(result.exception, MissingExtra)
    assert f"headstart[{name}]" in str(result.exception) and not Path("run").exists()


def test_an_unknown_tracker_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="mlflow or tensorboard"):
        tracker("paper")
