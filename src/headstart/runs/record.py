"""The record of a run, `run.json` in its folder. It may be anybody's: size, depth and types are checked."""

import secrets
import shlex
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_type_hints

from headstart import __version__
from headstart.errors import RunError, printable
from headstart.files import MEBI, Mistyped, Unreadable, checker, read_json, record
from headstart.runs.config import FitConfig, todays_names
from headstart.runs.formatting import human_seconds
from headstart.runs.scores import headline

RUN_FILE = "run.json"
CLASSIFIER_FILE = "classifier.json"

_LARGEST = 64 * MEBI
"""Bytes of a record: two confusion matrices of 2,000 classes."""


@dataclass(frozen=True)
class Run:
    """One training: its config, history, evaluation and cost. Seconds are wall-clock.

    Where ``trained`` is False it is an evaluation alone, of a classifier that was trained elsewhere: all its
    images are test images, it has no history and nothing was predicted.

    ``evaluation`` maps a split's name to `metrics.Evaluation.to_dict()`; ``accuracy`` to the share that is
    right, None where a split is empty.
    """

    id: str
    path: Path
    created: str
    config: FitConfig
    classes: tuple[str, ...]
    images: Mapping[str, int]
    accuracy: Mapping[str, float | None]
    macro_f1: float | None
    evaluation: Mapping[str, Any]
    seconds: Mapping[str, float]
    cache: Mapping[str, int]
    history: tuple[Mapping[str, Any], ...] = ()
    #: Of ``folds``: accuracy over all images with its interval, of each fold, their standard deviation.
    cross_validation: Mapping[str, Any] | None = None
    #: Penalty, leave-one-out accuracy, choice of layers.
    head_fit: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)  #: the DataReport
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    #: Low, median, high of the whole command, set before the work; empty in runs of earlier versions.
    predicted_seconds: Mapping[str, float] = field(default_factory=dict)
    predicted_phases: Mapping[str, float] = field(default_factory=dict)  #: of the median, what was to come
    trained: bool = True
    source: str | None = None  #: folder, table or zip of the images; None for arrays and in earlier versions
    corrections: str | None = None  #: file of the labels that lay over the images' own
    whole: bool = True  #: False: done elsewhere, or less than predicted: time ran out, a killed one went on
    machine: str = ""  #: which one trained it, in hex digits; empty in runs of earlier versions

    def __repr__(self) -> str:
        scores = [f"{side} {headline(found)}" for side, found in self.evaluation.items() if found]
        said = ", ".join(reversed(scores)) or "nothing was held out"
        return f"Run({self.id!r}: {said}; {human_seconds(self.seconds['total'])})"

    def _repr_html_(self) -> str | None:
        import headstart

        found: str | None = headstart.report(self)._repr_html_()
        return found

    def to_dict(self) -> dict[str, Any]:
        """What `headstart fit --json` prints and `run.json` holds."""
        depth = "all" if self.config.depth == self.config.stages else self.config.depth
        return {
            "run": self.id,
            "path": str(self.path),
            "backbone": self.config.backbone,
            "depth": depth if self.config.stages else None,
            "head": self.config.head,
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name != "path"},
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, path: Path) -> "Run":
        """The inverse of `to_dict`; ``path`` is where the folder lies now.

        Raises:
            Mistyped: a field is missing, or is not what it should be.
        """
        checked = _RECORD({**data, "head_fit": todays_names(data.get("head_fit", {}))})
        for name, part in (("images", "train"), ("seconds", "total")):
            if part not in checked[name]:
                raise Mistyped(f"{part} in {name}", checked[name])
        classes = len(checked["classes"])
        config = FitConfig.from_dict(checked["config"])
        if config.task not in _EVALUATIONS:
            raise Mistyped(f"one of {', '.join(_EVALUATIONS)} as task in config", config.task)
        evaluated = _EVALUATIONS[config.task]
        for split, scores in checked["evaluation"].items():
            evaluated(scores)
            if config.task == "regression":
                continue
            found = scores.get("confusion", ())  # of single labels alone
            if config.task == "single-label" and {classes, *map(len, found)} != {len(found)}:
                raise Mistyped(f"a confusion matrix of the {classes} classes in evaluation, {split}", scores)
            if len(scores["per_class"]) != classes:
                raise Mistyped(f"scores of the {classes} classes in evaluation, {split}", scores)
        known = {each.name: checked[each.name] for each in fields(cls) if each.name in checked}
        known["history"] = tuple(map(_numbers, known.get("history", ())))
        return cls(**{**known, "path": path, "config": config})


def _numbers(epoch: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn of an epoch: a loss may have been no number."""
    return {name: value for name, value in epoch.items() if type(value) in (int, float) and isfinite(value)}


@dataclass(frozen=True)
class UnreadableRun:
    """A run that cannot be read: shown with its reason, so that it costs no other run anything.

    Attributes:
        id: as the index knows it; else the folder's name.
        path: where it lies.
        created: ISO 8601, as far as that is known; else empty.
        reason: one line.
    """

    id: str
    path: Path
    created: str
    reason: str


class _Score(TypedDict):
    name: str
    precision: float
    recall: float
    f1: float
    support: int


class _Evaluation(TypedDict):
    images: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    calibration_error: float
    log_loss: float
    confusion: list[list[int]]
    per_class: list[_Score]
    mean_cost: NotRequired[float]


class _LabelScore(TypedDict):
    name: str
    average_precision: float | None
    precision: float
    recall: float
    f1: float
    support: int
    threshold: float


class _MultiLabelEvaluation(TypedDict):
    images: int
    accuracy: float
    interval: tuple[float, float]
    mean_average_precision: float
    mean_average_precision_interval: tuple[float, float]
    micro_f1: float
    macro_f1: float
    per_class: list[_LabelScore]


class _RegressionEvaluation(TypedDict):
    images: int
    mean_absolute_error: float
    mean_absolute_error_interval: tuple[float, float]
    r_squared: float
    r_squared_interval: tuple[float, float]
    root_mean_squared_error: float
    coverage: float | None


_EVALUATIONS = {
    "single-label": checker(_Evaluation),
    "multi-label": checker(_MultiLabelEvaluation),
    "regression": checker(_RegressionEvaluation),
}
"""What a split's evaluation has, by the task."""


class _File(TypedDict):
    name: str


class _Group(TypedDict):
    files: NotRequired[list[_File]]


class _Report(TypedDict, total=False):
    contradictions: list[_Group]
    leaks: list[_Group]
    exact_duplicates: list[_Group]
    near_duplicates: list[_Group]
    odd_sizes: list[_File]
    skipped: list[_File]
    imbalance: float | None


class _HeadFit(TypedDict, total=False):
    loo_accuracy: float | None
    retrained_from: str


class _CrossValidation(TypedDict):
    folds: int
    images: int
    accuracy: float
    interval: tuple[float, float]
    spread: float
    accuracies: list[float]
    label_errors: NotRequired[int]
    wrong_labels: NotRequired[float]


class _Epoch(TypedDict):
    epoch: float


_PRECISELY = {
    "config": dict[str, Any],
    "evaluation": Mapping[str, dict[str, Any]],
    "history": tuple[_Epoch, ...],
    "cross_validation": _CrossValidation | None,
    "head_fit": _HeadFit,
    "data": _Report,
}
"""What others can rely on of the fields that hold records of others."""

_RECORD = record(
    {name: hint for name, hint in (get_type_hints(Run) | _PRECISELY).items() if name != "path"},
    optional={each.name for each in fields(Run) if not (each.default is each.default_factory is MISSING)},
)
"""Runs of earlier versions lack what has a default."""


def new_id(backbone: str) -> str:
    """An id that sorts by time, says what it is, and is unique."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{Path(backbone).stem[:24]}-{secrets.token_hex(2)}"


def timestamp() -> str:
    """Now, in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_run(folder: Path) -> Run:
    """The run that lies in ``folder``.

    Raises:
        RunError: the folder has no readable `run.json`.
    """
    file, shown = folder / RUN_FILE, printable(folder)
    try:
        return Run.from_dict(read_json(file, limit=_LARGEST, below=folder), path=folder)
    except Unreadable as error:
        if file.is_symlink() or file.exists():
            raise RunError(f"{shown}/{RUN_FILE} cannot be read: {error}; restore the folder") from None
        if (folder / CLASSIFIER_FILE).exists():
            raise RunError(
                f"{shown} has a classifier and no record of a run; to have one, measure it on labelled "
                f"images: headstart evaluate {shlex.quote(str(folder))} DATA --record"
            ) from None
        raise RunError(f"{shown} is no run: it has no {RUN_FILE}; headstart runs lists the runs") from None
    except Mistyped as error:
        raise RunError(
            f"{shown}/{RUN_FILE} is damaged or of another version: {printable(str(error))}; "
            "fit again or restore the folder"
        ) from None


def look_at(folder: Path) -> Run | UnreadableRun:
    """The run that lies in ``folder``, or why it cannot be read."""
    try:
        return read_run(folder)
    except (RunError, OSError) as error:
        return UnreadableRun(folder.name, folder, "", printable(str(error)))


def software() -> dict[str, str]:
    """The versions of what decides a run's numbers."""
    import platform
    from importlib.metadata import version

    return {
        "headstart": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "openvino", "pillow")},
    }


def seconds_since(start: float) -> float:
    """Wall-clock seconds since ``start`` (of `time.perf_counter`), to the millisecond."""
    return round(time.perf_counter() - start, 3)
