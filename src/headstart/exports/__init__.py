"""Exports: a trained classifier in a format that runs without Headstart, checked against the original.

An export is a folder: the model, `predict.py` (runs it with NumPy, Pillow and the format's runtime alone; it
reads images by `decoding`, a copy of the code that the training read them by), and the model card, `card.md`
for people and `card.json` for programs. It appears under its name complete and checked, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import Classifier
from headstart.errors import OptionError
from headstart.exports.cards import card, write_card
from headstart.exports.formats import FORMATS, SAME_NUMBERS, ExportFormat, find_format
from headstart.exports.parity import (
    Parity,
    compare,
    refuse_if_different,
    run_program,
    write_program,
)
from headstart.exports.quantisation import CALIBRATION_IMAGES, Int8Cost, cost, quantise, refuse_if_too_dear
from headstart.exports.subject import Images, Sides, Subject, find_images, render
from headstart.files import OUTPUT_MARKER, mark_output
from headstart.heads.tasks import REGRESSION, only_single_label
from headstart.runs import Run, check_place, new_folder

__all__ = ["FORMATS", "Export", "Int8Cost", "Parity", "export"]

PARITY_IMAGES = 200
"""Images that every export is compared on."""

INT8_POINTS = 1.0
"""Points of accuracy that eight bits may cost unless the user allows more."""

_COST_IMAGES = 5000
"""Held-out images that the cost of int8 is measured on at most: beyond, its error is below half a point."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Export:
    """An export that is written and checked.

    Attributes:
        path: its folder.
        form: the format's name.
        files: what is in the folder, by name, with bytes.
        parity: how it compares with the original.
        int8: what eight bits cost; None without `--int8`.
    """

    path: Path
    form: str
    files: dict[str, int]
    parity: Parity
    int8: Int8Cost | None

    def to_dict(self) -> dict[str, Any]:
        """What `headstart export --json` prints."""
        return {
            "path": str(self.path),
            "to": self.form,
            "files": self.files,
            "parity": self.parity.to_dict(),
            "int8": self.int8.to_dict() if self.int8 else None,
        }


def export(
    run_or_classifier: str | Path | Run | Classifier,
    to: str,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    int8: bool = False,
    int8_cost: float = INT8_POINTS,
    progress: Progress | None = None,
) -> Export:
    """Write a classifier in another format, check it on real images, and put a model card beside it.

    Args:
        run_or_classifier: a run, its folder or id, or a classifier that lies in a run's folder.
        to: "onnx", "openvino", "safetensors", "torchscript", "tflite" or "saved_model".
        out: the folder to make; `exports/FORMAT` in the run's folder by default.
        images: where the run's images lie now, if they have moved, or any images to compare on.
        int8: eight-bit weights and activations (onnx and openvino), calibrated with the training images.
        int8_cost: percentage points of accuracy that int8 may cost on the run's held-out images.
        progress: told the phase, how far, and how far it goes.

    Raises:
        OptionError: the format is unknown, cannot hold int8 or this network, or int8 costs too much.
        MissingExtra: what writes or runs the format is not installed.
        RunError: no such run, or ``out`` is taken.
        DatasetError: there is no image to check with.
        ParityError: the export does not say what the classifier says; nothing is kept.
    """
    form = find_format(to)
    form.require(int8=int8)
    if not int8_cost >= 0:
        raise OptionError(f"--int8-cost {int8_cost:g}: expected points of accuracy, 0 or more")
    subject = Subject.of(run_or_classifier)
    if int8:
        only_single_label(subject.classifier.task, "int8", instead="leave --int8 out")
    name = f"{form.name}-int8" if int8 else form.name
    path = Path(out) if out is not None else subject.folder / "exports" / name
    check_place(path)
    sides = find_images(subject, images)
    tell = progress or (lambda phase, done, total: None)
    with new_folder(path) as folder:
        tell("convert", 0, 1)
        if int8:
            calibration, kept = _calibrate(subject, sides, folder, form=form)
        else:
            calibration, kept = 0, 0
            form.write(subject, folder)
        tell("convert", 1, 1)
        parity, spent = _check(subject, sides, folder, form=form, calibration=calibration, tell=tell)
        if spent is not None:
            spent = replace(spent, float_layers=kept)
            refuse_if_too_dear(spent, most=int8_cost)
        refuse_if_different(parity, form=form.name)
        write_card(folder, card(subject, form, parity=parity, int8=spent))
        mark_output(folder)
        files = {
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != OUTPUT_MARKER
        }
    return Export(path, form.name, files, parity, spent)


def _calibrate(subject: Subject, sides: Sides, folder: Path, *, form: ExportFormat) -> tuple[int, int]:
    """Write the eight-bit model; how many training images set its ranges, how many layers stay float."""
    if not sides.train or not (sides.validation or sides.test):
        raise OptionError(
            "--int8 needs the run's own training and held-out images, and they were not found; "
            "give their folder or zip with --images, or export without --int8"
        )
    calibration = render(subject.exact, sides.train, most=CALIBRATION_IMAGES)
    kept = quantise(subject, folder, to=form.name, calibration=calibration)
    return len(calibration), kept


def _check(
    subject: Subject, sides: Sides, folder: Path, *, form: ExportFormat, calibration: int, tell: Progress
) -> tuple[Parity, Int8Cost | None]:
    """Run the export by its own program on real images and compare."""
    eight = calibration > 0
    shown = render(subject.exact, sides.for_parity, most=_COST_IMAGES if eight else PARITY_IMAGES)
    tell("check", 0, len(shown))
    original = subject.exact.probabilities(shown.pixels)
    write_program(folder, form=form.name)
    write_card(folder, _draft(subject, form, shown, original))  # the program reads it
    found, said = run_program(folder, shown)
    tell("check", len(shown), len(shown))
    allowed = SAME_NUMBERS if subject.exact.task == REGRESSION else form.tolerance
    parity = compare(found, original, tolerance=None if eight else allowed, of=subject.exact, said=said)
    if not eight:
        return parity, None
    of = subject.exact
    return parity, cost(found, original, labels=shown.labels, calibration=calibration, costs=of.cost_matrix)


def _draft(
    subject: Subject, form: ExportFormat, shown: Images, original: NDArray[np.float32]
) -> dict[str, Any]:
    """The card before the comparison: a perfect one."""
    return card(
        subject, form, parity=compare(original, original, tolerance=None, of=subject.exact), int8=None
    )
