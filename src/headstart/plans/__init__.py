"""Plans: what a fit will cost, before it starts; and how to make it fit into a budget.

A prediction is a range. Steps have formulas, what this machine took before scales them, and every run is
compared with its prediction, so that the next one is better.
"""

from headstart.plans.budgets import OutOfTime, parse_budget
from headstart.plans.calibration import Calibration, calibration
from headstart.plans.clock import process_age
from headstart.plans.estimates import Range, human_seconds
from headstart.plans.memory import Rates, RateStore

__all__ = [
    "Calibration",
    "OutOfTime",
    "Range",
    "RateStore",
    "Rates",
    "calibration",
    "human_seconds",
    "parse_budget",
    "process_age",
]
