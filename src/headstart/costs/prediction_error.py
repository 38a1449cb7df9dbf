"""How good the predictions have been: predicted against actual seconds of stored runs."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headstart.costs.timings import machine_digits
from headstart.runs import Run
from headstart.runs.callbacks import Range


@dataclass(frozen=True)
class PredictedRun:
    """One run: what was predicted, what it took."""

    run: str
    predicted: Range
    actual: float

    @property
    def error(self) -> float:
        """Actual over predicted, less one: 0.1 is a tenth longer than predicted."""
        return self.actual / self.predicted.median - 1

    @property
    def inside(self) -> bool:
        """Whether the actual seconds lie in the printed range."""
        return self.predicted.holds(self.actual)


@dataclass(frozen=True)
class Calibration:
    """Predicted against actual over runs, the newest first."""

    runs: tuple[PredictedRun, ...]

    @property
    def median_absolute_error(self) -> float | None:
        """As a share of the predicted seconds; None without runs."""
        return statistics.median(abs(each.error) for each in self.runs) if self.runs else None

    @property
    def share_inside(self) -> float | None:
        """Share of the runs inside their printed range; nine in ten are meant to be."""
        return sum(each.inside for each in self.runs) / len(self.runs) if self.runs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "runs": [
                {
                    "run": each.run,
                    "predicted_seconds": each.predicted.to_dict(),
                    "actual_seconds": each.actual,
                    "error": round(each.error, 4),
                    "inside": each.inside,
                }
                for each in self.runs
            ],
            "median_absolute_error": self.median_absolute_error,
            "share_inside": self.share_inside,
        }


def calibration(runs: Iterable[Run], *, most: int | None = None) -> Calibration:
    """Of the first so many runs that can be compared with what was predicted of them.

    Those are whole runs of this machine with a prediction, as the next predictions learn from them. Runs of
    earlier versions do not say on which machine they were; they count.
    """
    found, here = [], machine_digits()
    for run in runs:
        predicted = Range.from_dict(run.predicted_seconds)
        if predicted is None or predicted.median <= 0 or not run.whole or run.machine not in ("", here):
            continue
        found.append(PredictedRun(run.id, predicted, run.seconds["total"]))
    return Calibration(tuple(found[:most]))
