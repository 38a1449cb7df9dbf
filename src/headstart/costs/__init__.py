"""Costs: what a training will take, before it starts; and how to make it fit into a budget.

Steps have formulas, what this machine took before scales them, and a prediction is a range.
"""

from headstart.costs.budgets import Budget, Workload, parse_budget
from headstart.costs.formulas import CostEstimate, ImageCounts
from headstart.costs.prediction_error import Calibration, calibration
from headstart.costs.timings import Timings

__all__ = [
    "Budget",
    "Calibration",
    "CostEstimate",
    "ImageCounts",
    "Timings",
    "Workload",
    "calibration",
    "parse_budget",
]
