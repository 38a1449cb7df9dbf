"""The tables of a report: made once, shown on the page and in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from headstart.runs.formatting import interval, markdown_table, percent, points


@dataclass(frozen=True)
class TextTable:
    """Rows of text below a header.

    Attributes:
        header: names of the columns; empty where they need none.
        rows: as many cells each.
        words: columns that hold words and not numbers; the first of them names the row.
        marked: index of a row that stands out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    marked: int | None = None

    def markdown(self) -> str:
        """As a table of Markdown."""
        return markdown_table(self.header or [""] * len(self.rows[0]), self.rows)


_SCORE_COLUMNS = {
    SINGLE_LABEL: {
        "accuracy": "accuracy",
        "95% interval": "interval",
        "macro-F1": "macro_f1",
        "calibration error": "calibration_error",
    },
    MULTI_LABEL: {
        "mAP": "mean_average_precision",
        "95% interval": "mean_average_precision_interval",
        "micro-F1": "micro_f1",
        "macro-F1": "macro_f1",
        "every label right": "accuracy",
    },
    REGRESSION: {
        "R²": "r_squared",
        "95% interval": "r_squared_interval",
        "mean absolute error": "mean_absolute_error",
        "root mean squared error": "root_mean_squared_error",
        "within the 90% interval": "coverage",
    },
}
_OF_LABELS = {"average precision": "average_precision", "called from": "threshold"}


def tables(facts: dict[str, Any]) -> dict[str, TextTable]:
    """Every table of a report by its name; one that would have no rows is left out."""
    made = _of_run(facts) if facts["kind"] == "run" else _of_comparison(facts)
    return {name: table for name, table in made.items() if table.rows}


def _of_run(facts: dict[str, Any]) -> dict[str, TextTable]:
    folds = facts["cross_validation"] or {"accuracies": []}
    history, split = facts["history"], facts["calibration_split"]
    images = ", ".join(f"{count} {side}" for side, count in facts["images"].items())
    score = _SCORE_COLUMNS[facts["task"]]
    costs = {"mean cost": "mean_cost"} if any("mean_cost" in each for each in facts["scores"]) else {}
    return {
        "scores": _table(
            facts["scores"],
            {
                "images": "split",
                "number": "images",
                **score,
                **costs,
            },
        ),
        "folds": _table(
            [{"fold": n, "accuracy": each} for n, each in enumerate(folds["accuracies"], 1)],
            {"fold": "fold", "accuracy": "accuracy"},
        ),
        "setting": TextTable([], [*facts["setting"], ["images", images]], words=(0, 1)),
        "phases": _table(facts["phases"], {"phase": "phase", "seconds": "seconds", "predicted": "predicted"}),
        "history": TextTable(
            [key.replace("_", " ") for key in history[0]] if history else [],
            [[_plain(value) for value in entry.values()] for entry in history],
        ),
        "classes": _table(
            facts["per_class"],
            {
                "class": "name",
                "images": "support",
                "precision": "precision",
                "recall": "recall",
                "F1": "f1",
                **(_OF_LABELS if facts["task"] == MULTI_LABEL else {}),
            },
        ),
        "residuals": _table(
            sorted(facts["residuals"], key=lambda each: -each["error"])[:20],
            {"image": "path", "number": "number", "predicted": "value", "off by": "error"},
        ),
        "confusions": _table(
            [{**each, "called": each["predicted"], **each["images"][0]} for each in facts["confusions"][:20]],
            {"is": "label", "was called": "called", "images": "count", "for example": "path"},
        ),
        "calibration": _table(
            [{**found, "interval": (found["low"], found["high"])} for found in facts["calibration"]],
            {
                "probability": "interval",
                f"{split} images": "images",
                "mean probability": "confidence",
                "share right": "accuracy",
            },
        ),
        "precision_recall": _table(
            [
                {**row, "from": row["threshold"]}
                for row in (facts["precision_recall"] or {"rows": []})["rows"]
            ],
            {"called from": "from", "precision": "precision", "recall": "recall"},
        ),
        "skipped": _table(facts["skipped"], {"file": "path", "reason": "reason"}, words=(0, 1)),
    }


def _of_comparison(facts: dict[str, Any]) -> dict[str, TextTable]:
    rows = [
        {**row, "number": number, "name": row["name"] + (" (the choice)" if row["chosen"] else "")}
        for number, row in enumerate(facts["rows"], 1)
    ]
    score = {"accuracy": "accuracy", "95% interval": "interval", "over seeds": "spread", "images": "images"}
    by = {"candidate": "name", "frozen": "frozen", "images": "images", "accuracy": "accuracy"}
    curves = [
        {"name": found["name"], "seconds": seconds, "accuracy": accuracy}
        for found in facts["time_to_accuracy"]
        for seconds, accuracy in found["points"]
    ]
    return {
        "candidates": _table(
            rows,
            {"#": "number", "candidate": "name", **score, "seconds": "seconds", "Pareto front": "on_front"},
            words=(1, 7),
            marked=next((place for place, row in enumerate(rows) if row["chosen"]), None),
        ),
        "differences": _table(
            [{**row, "limits": row["interval"]} for row in facts["differences"]],
            {
                "candidate": "name",
                "difference in points": "difference",
                "95% interval": "limits",
                "told apart": "significant",
            },
            words=(0, 3),
        ),
        "time_to_accuracy": _table(
            curves, {"candidate": "name", "seconds": "seconds", "accuracy": "accuracy"}
        ),
        **{
            key: _table(
                [{**row, "name": found["name"]} for found in facts[key] for row in found["points"]],
                {**by, "over seeds": "spread"},
            )
            for key in ("by_depth", "by_images")
        },
        "passes": _table(
            facts["passes"],
            {
                "backbone": "backbone",
                "pixels": "size",
                "seconds": "seconds",
                "from an empty cache": "cold_seconds",
                "measured": "measured",
                "found in the cache": "hits",
                "computed": "misses",
            },
        ),
    }


def _table(
    items: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    words: Sequence[int] = (0,),
    marked: int | None = None,
) -> TextTable:
    """A table of facts; ``columns`` has the fact that each column shows, by the column's name."""
    rows = [[_shown(item, key) for key in columns.values()] for item in items]
    return TextTable(list(columns), rows, words, marked)


def _shown(item: Mapping[str, Any], key: str) -> str:
    value = item[key]
    if key == "spread" and item["trials"] == 1:
        return "one"
    return _SHOWN.get(key, _plain)(value)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4f}"
    return str(value)


_SHOWN: dict[str, Callable[[Any], str]] = {
    "from": "{:.0%}".format,
    **dict.fromkeys(("precision", "recall", "confidence"), percent),
    **dict.fromkeys(("interval", "spread"), interval),
    **dict.fromkeys(("macro_f1", "calibration_error", "f1"), "{:.3f}".format),
    **dict.fromkeys(("seconds", "cold_seconds", "predicted"), _seconds),
    **dict.fromkeys(("significant", "measured"), lambda value: "yes" if value else "no"),
    "accuracy": percent,
    "coverage": percent,
    **dict.fromkeys(
        ("mean_average_precision", "micro_f1", "r_squared", "average_precision", "threshold"),
        lambda value: "-" if value is None else f"{value:.3f}",
    ),
    **dict.fromkeys(
        ("mean_average_precision_interval", "r_squared_interval"),
        lambda value: f"{value[0]:.3f} to {value[1]:.3f}",
    ),
    **dict.fromkeys(
        ("mean_absolute_error", "root_mean_squared_error", "number", "value", "error"), "{:.4g}".format
    ),
    "difference": points,
    "limits": lambda value: f"{points(value[0])} to {points(value[1])}",
    "on_front": lambda value: "yes" if value else "",
}
"""How a fact is written, by its name; others as numbers and text are."""
