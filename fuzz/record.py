"""Fuzzes the reading of a run's folder: every file is read, or refused with an error of ours in one line.

python fuzz/record.py [SECONDS]
"""

import json
import tempfile
from pathlib import Path

from run import fuzz

_FOLDER = Path(tempfile.mkdtemp()) / "run"

_CONFIG = {
    **dict.fromkeys(("architecture", "class_weights", "epochs", "learning_rate", "layers")),
    **{"data": "photos", "backbone": "builtin", "size": 96, "depth": 9, "stages": 9, "head": "ridge"},
    **{"views": ["centre"], "pretrained": True, "runtime": "openvino", "precision": "bf16", "seed": 0},
    **{"batch_size": 32, "validation": 0.15, "test": 0.15},
}
_SCORES = {
    **dict.fromkeys(("accuracy", "macro_f1", "calibration_error", "log_loss"), 0.5),
    **{"images": 2, "interval": [0.1, 0.9], "confusion": [[1, 0], [1, 0]]},
    "per_class": [{"name": n, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 1} for n in "ab"],
}
_RUN = {
    **{"id": "run", "created": "2026-01-01T00:00:00+00:00", "config": _CONFIG, "classes": ["a", "b"]},
    **{"images": {"train": 4, "validation": 2}, "accuracy": {"validation": 0.5, "test": None}},
    **{"macro_f1": 0.5, "evaluation": {"validation": _SCORES}, "seconds": {"total": 1.5, "train": 1.0}},
    **{"cache": {"hits": 0}, "history": [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "accuracy": 0.5}]},
    **{"data": {"skipped": [], "leaks": [{"files": [{"name": "a/1.jpg"}]}]}, "notes": ["a note"]},
}
_IMAGE = {"path": "a/1.jpg", "label": "a", "split": "validation", "content": "00", "file": "/a/1.jpg"}
_ANSWER = {**_IMAGE, "predicted": "b", "probability": 0.5, "top": [["b", 0.5], ["a", 0.5]]}


def seeds() -> list[bytes]:
    """The record, the predictions and the images of a run."""
    found = (_RUN, {"split": "00", "images": [_ANSWER]}, [_IMAGE])
    return [json.dumps(each).encode() for each in found]


def target(data: bytes) -> None:
    """Let the input be each file of a run's folder in turn, and ask everything of it."""
    from headstart.errors import HeadstartError
    from headstart.reports import report
    from headstart.runs import read_images, read_predictions, read_run

    _FOLDER.mkdir(exist_ok=True)
    names = ("run.json", "predictions.json", "images.json")
    for name, whole in zip(names, seeds(), strict=True):
        (_FOLDER / name).write_bytes(whole)
    for name, whole in zip(names, seeds(), strict=True):
        (_FOLDER / name).write_bytes(data)
        for ask in (lambda: report(read_run(_FOLDER)).markdown(), lambda: read_predictions(_FOLDER)):
            try:
                ask()
                read_images(_FOLDER)
            except HeadstartError as error:
                if "\n" in str(error):
                    raise AssertionError(f"more than one line: {error!r}") from error
        (_FOLDER / name).write_bytes(whole)


if __name__ == "__main__":
    fuzz(
        target,
        seeds(),
        modules=["headstart.runs.record", "headstart.files.typed", "headstart.reports.run_facts"],
    )
