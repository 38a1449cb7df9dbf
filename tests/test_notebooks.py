"""In a notebook: a live bar, summaries with pictures, figures, tables; and short words elsewhere."""

import base64
import io
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.classifier.onnx_graph import SavedGraph
from headstart.data.dataset import Dataset
from headstart.errors import OptionError
from headstart.runs import Run, read_run
from headstart.training.notebook import notebook_bars

CELLS = {
    "fit": "classifier, run = headstart.fit('photos', backbone='builtin@64', head='softmax', epochs=2)",
    "run": "run",
    "batch": "headstart.show_batch('photos', images=7)",
    "mistakes": "headstart.show_mistakes(run)",
    "confusion": "headstart.plot_confusion(run)",
    "table": "classifier.predict('photos/bars').to_frame()",
    "bare": "from headstart.training.notebook import notebook_bars; len(notebook_bars())",
}


@pytest.fixture
def fitted(small_run: Path) -> tuple[headstart.Classifier, Run]:
    return headstart.load(small_run), read_run(small_run)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's of itself
def test_a_notebook_shows_a_bar_a_summary_with_pictures_and_figures(photos: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib", reason="needs headstart[report]")
    updates: list[str] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc]
        def process_message(self, message: Any, *given: Any) -> Any:
            if message["header"]["msg_type"] == "update_display_data":
                updates.append(message["content"]["data"]["text/html"])
            return super().process_message(message, *given)

    where = {"metadata": {"path": str(photos.parent)}}
    cells = [nbformat.v4.new_code_cell(each) for each in ("import headstart", *CELLS.values())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    Client(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    shown: Mapping[str, Any] = {
        name: cell.outputs[-1]["data"]
        for name, cell in zip(CELLS, notebook.cells[1:], strict=True)
        if cell.outputs
    }
    assert any("reading images: 48 of 48" in each and "<progress" in each for each in updates)
    assert any("validation accuracy" in each for each in updates)
    assert shown["fit"]["text/html"].startswith("trained in ")
    summary = shown["run"]["text/html"]
    assert "95% interval" in summary and "Accuracy by epoch" in summary and "<svg" in summary
    assert summary.count("data:image/jpeg;base64,") == min(summary.count("<li>"), 8)
    assert summary.count("<script") == 0 and len(shown["run"]["text/plain"]) < 200
    for name in ("batch", "mistakes", "confusion"):
        picture = Image.open(io.BytesIO(base64.b64decode(shown[name]["image/png"]))).convert("RGB")
        assert picture.width > 100 and np.asarray(picture).std() > 20, name
    assert "<th>probability</th>" in shown["table"]["text/html"]
    assert shown["bare"]["text/plain"] == "1" and notebook_bars() == []


def test_what_a_prompt_prints_is_short_and_says_the_scores(
    fitted: tuple[headstart.Classifier, Run], tmp_path: Path
) -> None:
    classifier, run = fitted
    evaluation, _ = headstart.evaluate(classifier, Path(run.source or ""))
    many = Dataset("many", tuple(f"class {number}" for number in range(500)), ())
    for thing, said in (
        (run, "test accuracy"),
        (classifier, "3 classes: bars, "),
        (evaluation, f"48 images: accuracy {evaluation.accuracy:.1%} ("),
        (many, "500 classes (class 0, class 1, class 2, class 3, class 4, …)"),
        (headstart.report(run), "test images right"),
    ):
        assert said in repr(thing) and len(repr(thing)) < 220, repr(thing)


def test_a_summary_escapes_names_and_is_left_out_where_nothing_can_draw_it(
    fitted: tuple[headstart.Classifier, Run],
) -> None:
    pytest.importorskip("matplotlib", reason="needs headstart[report]")
    run = fitted[1]
    odd = replace(run, config=replace(run.config, data="<script>alert(1)</script>"))
    assert "&lt;script&gt;" in odd._repr_html_() and "<script" not in odd._repr_html_()
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import headstart; from headstart.runs import RunStore; from pathlib import Path\n"
        f"run = RunStore().find({str(run.path)!r}); print(run._repr_html_())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_figures_say_what_they_cannot_show(fitted: tuple[headstart.Classifier, Run], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs headstart[report]")
    run = fitted[1]
    figure = headstart.plot_confusion(run, split="validation")
    counts = [text.get_text() for text in figure.axes[0].texts]
    assert sum(map(int, counts)) == run.images["validation"]
    with pytest.raises(OptionError, match="no confusion matrix of other images"):
        headstart.plot_confusion(run, split="other")
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run/predictions.json").unlink()
    assert "no mistake" in headstart.show_mistakes(read_run(tmp_path / "run")).get_suptitle()


def test_a_table_has_plain_columns_and_the_numbers_of_the_predictions(
    fitted: tuple[headstart.Classifier, Run],
) -> None:
    pytest.importorskip("pandas", reason="needs headstart[notebook]")
    classifier, run = fitted
    images = Path(run.source or "") / "bars"
    found = classifier.predict(images, reject=0.05)
    table = found.to_frame()
    assert list(table.columns) == ["path", "label", "probability", "familiarity", "known"]
    assert table["probability"].tolist() == [each.probability for each in found]
    assert table["known"].dtype == bool and table["label"].iloc[0] == found[0].label
    assert list(classifier.predict(images).to_frame()) == ["path", "label", "probability", "familiarity"]


def test_features_are_what_the_head_reads(fitted: tuple[headstart.Classifier, Run]) -> None:
    classifier, run = fitted
    images = Path(run.source or "") / "bars"
    found = classifier.features(images)
    graph = SavedGraph.read(classifier.model)
    weight, bias = (graph.constant(name) for name in graph.head.input[1:])
    logits = found @ weight + bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        shares / shares.sum(1, keepdims=True), classifier.predict_proba(images), atol=1e-4
    )
    assert found.shape == (16, len(weight)) and len(classifier.features([])) == 0
