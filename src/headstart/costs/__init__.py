"""Plans: what a fit will cost, before it starts; and how to make it fit into a budget.

A prediction is a range. Steps have formulas, what this machine took before scales them, and every run is
compared with its prediction, so that the next one is better.
"""

from headstart.costs.budgets import OutOfTime, parse_budget
from headstart.costs.calibration import Calibration, calibration
from headstart.costs.clock import process_age
from headstart.costs.estimates import Range
from headstart.costs.timings import Rates, RateStore

__all__ = [
    "Calibration",
    "OutOfTime",
    "Range",
    "RateStore",
    "Rates",
    "calibration",
    "parse_budget",
    "process_age",
]
