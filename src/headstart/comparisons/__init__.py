"""Comparisons: candidates trained on one and the same split, what each got right and what it cost.

Reading and analysing a comparison is light; names that train are resolved on first use.
"""

from importlib import import_module
from typing import Any

from headstart.comparisons.analysis import (
    Difference,
    Summary,
    accuracy_by_depth,
    accuracy_by_images,
    choose,
    paired_difference,
    pareto_front,
    summaries,
    time_to_accuracy,
)
from headstart.comparisons.storage import find_comparison, read_comparison
from headstart.comparisons.values import Candidate, Comparison, Trial, same_split

_TRAINING = {
    "compare": "headstart.comparisons.training",
    "grid": "headstart.comparisons.training",
    "compare_runs": "headstart.comparisons.runs",
}

__all__ = [
    "Candidate",
    "Comparison",
    "Difference",
    "Summary",
    "Trial",
    "accuracy_by_depth",
    "accuracy_by_images",
    "choose",
    "compare",
    "compare_runs",
    "find_comparison",
    "grid",
    "paired_difference",
    "pareto_front",
    "read_comparison",
    "same_split",
    "summaries",
    "time_to_accuracy",
]


def __getattr__(name: str) -> Any:
    if name not in _TRAINING:
        raise AttributeError(f"module 'headstart.comparisons' has no attribute {name!r}")
    return getattr(import_module(_TRAINING[name]), name)
