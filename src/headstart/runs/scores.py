"""The scores of an evaluation by the names that `run.json` has for them, and how each is written."""

from collections.abc import Callable, Mapping
from typing import Any

from headstart.runs.formatting import interval, percent

SCORES = {"single-label": "accuracy", "multi-label": "mean_average_precision", "regression": "r_squared"}
"""What a run of each task is first judged by."""

FURTHER = (
    *("mean_cost", "micro_f1", "macro_f1", "calibration_error"),
    *("mean_absolute_error", "root_mean_squared_error", "coverage"),
)
"""What `headstart evaluate` says beside it."""

_WRITTEN: dict[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("accuracy", percent),
    "mean_average_precision": ("mAP", "{:.3f}".format),
    "r_squared": ("R²", "{:.3f}".format),
    "mean_cost": ("mean cost", "{:.3g}".format),
    "micro_f1": ("micro-F1", "{:.3f}".format),
    "macro_f1": ("macro-F1", "{:.3f}".format),
    "calibration_error": ("calibration error", "{:.3f}".format),
    "mean_absolute_error": ("mean absolute error", "{:.4g}".format),
    "root_mean_squared_error": ("root mean squared error", "{:.4g}".format),
    "coverage": ("within the 90% interval", percent),
}


def score_of(evaluation: Mapping[str, Any]) -> str:
    """The name of the score that an evaluation is first judged by."""
    return next(name for name in reversed(SCORES.values()) if name in evaluation)


def in_words(name: str, value: float | None) -> str:
    """A score with its name; a dash where there is none."""
    called, write = _WRITTEN[name]
    return f"{called} {'-' if value is None else write(value)}"


def name_in_words(name: str) -> str:
    """What people call a score."""
    return _WRITTEN[name][0]


def span_in_words(evaluation: Mapping[str, Any]) -> str:
    """The 95 % interval of what an evaluation is first judged by."""
    name = score_of(evaluation)
    if name == "accuracy":
        return interval(evaluation["interval"])
    low, high = evaluation[f"{name}_interval"]
    return f"{value_in_words(name, low)} to {value_in_words(name, high)}"


def value_in_words(name: str, value: float | None) -> str:
    """A score without its name."""
    return "-" if value is None else _WRITTEN[name][1](value)


def headline(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation is first judged by, with its 95 % interval; of several labels, all right as well."""
    name = score_of(evaluation)
    said = f"{in_words(name, evaluation[name])} ({span_in_words(evaluation)})"
    if name != "accuracy" and "accuracy" in evaluation:
        said += f", every label right {percent(evaluation['accuracy'])}"
    return said
