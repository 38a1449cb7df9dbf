"""What is written of a run or a comparison, in the words that both trackers share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.comparisons import Comparison
from headstart.runs import Run
from headstart.runs.scores import SCORES

_SCORES = ("accuracy", "macro_f1", "log_loss", "calibration_error")
_OTHERS = (
    "mean_cost",
    "mean_average_precision",
    "micro_f1",
    "mean_absolute_error",
    "r_squared",
    "root_mean_squared_error",
)
"""Where mistakes have costs, of several labels and of numbers."""


@dataclass(frozen=True)
class Entry:
    """One training.

    Attributes:
        name: for people.
        parameters: what decided it.
        metrics: what came of it, one number each; names have a slash after their group.
        curves: (epoch, name, value), in order.
        files: of its folder.
    """

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    curves: tuple[tuple[int, str, float], ...]
    files: tuple[Path, ...] = ()


def of_run(run: Run) -> Entry:
    """A run as its folder tells it."""
    metrics: dict[str, float] = {}
    for side, found in run.evaluation.items():
        metrics |= {
            f"{side}/{score}": float(found[score]) for score in (*_SCORES, *_OTHERS) if score in found
        }
    metrics |= {f"seconds/{phase}": float(value) for phase, value in run.seconds.items()}
    metrics |= {f"predicted_seconds/{end}": float(value) for end, value in run.predicted_seconds.items()}
    metrics |= {f"images/{side}": float(count) for side, count in run.images.items()}
    if run.head_fit.get("loo_accuracy") is not None:
        name = SCORES[run.config.task]
        metrics[f"train/leave_one_out_{name}"] = float(run.head_fit["loo_accuracy"])
    return Entry(
        run.id,
        _parameters({**run.config.to_dict(), **{f"version_{n}": v for n, v in run.versions.items()}}),
        metrics,
        tuple(_curve(run.history)),
        _files(run.path),
    )


def of_whole(comparison: Comparison) -> Entry:
    """A comparison as its folder tells it: what was chosen, and what all of it took."""
    metrics = {"seconds/total": comparison.seconds, "trials": float(len(comparison.trials))}
    metrics |= {
        f"predicted_seconds/{end}": float(value) for end, value in comparison.predicted_seconds.items()
    }
    metrics |= {f"images/{side}": float(count) for side, count in comparison.images.items()}
    parameters: dict[str, str] = {}
    if comparison.choice is not None:
        chosen = comparison.choice.candidate
        parameters = _parameters({"choice": chosen.name, "command": comparison.choice.command})
        metrics["validation/accuracy"] = float(comparison.correct(chosen).mean())
        if comparison.choice.test is not None:
            metrics["test/accuracy"] = float(comparison.choice.test["accuracy"])
    return Entry(comparison.id, parameters, metrics, (), _files(comparison.path))


def of_comparison(comparison: Comparison) -> tuple[Entry, ...]:
    """One entry per trial of a comparison."""
    entries = []
    for trial in comparison.trials:
        metrics = {f"validation/{score}": float(getattr(trial, score)) for score in _SCORES}
        metrics |= {f"seconds/{phase}": float(value) for phase, value in trial.seconds.items()}
        metrics |= {"seconds/total": trial.total, "images/train": float(trial.images)}
        parameters = _parameters({**trial.candidate.to_dict(), "seed": trial.seed})
        name = f"{trial.candidate.name}, seed {trial.seed}"
        entries.append(Entry(name, parameters, metrics, tuple(_curve(trial.history))))
    return tuple(entries)


def _files(folder: Path | None) -> tuple[Path, ...]:
    return () if folder is None else tuple(sorted(file for file in folder.iterdir() if file.is_file()))


def _parameters(facts: Mapping[str, Any]) -> dict[str, str]:
    """As text; what was left open is left out."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in facts.items()
        if value is not None
    }


def _curve(history: tuple[Mapping[str, Any], ...]) -> Iterator[tuple[int, str, float]]:
    for entry in history:
        for name, value in entry.items():
            if name != "epoch" and isinstance(value, int | float):
                yield int(entry["epoch"]), f"epochs/{name}", float(value)
