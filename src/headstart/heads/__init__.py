"""Classifiers on top of features: ridge in closed form, softmax with Adam, and the choice of taps.

Everything here is NumPy and imports nothing heavier, so that predicting starts at once.
"""

from headstart.heads.linear import LinearHead, calibrate_temperature
from headstart.heads.ridge import PENALTIES, Batches, PenaltyScore, RidgeFit, fit_ridge
from headstart.heads.softmax import SoftmaxFit, fit_softmax
from headstart.heads.taps import TapCandidate, TapChoice, choose_taps, comparable_images, widest_taps

__all__ = [
    "PENALTIES",
    "Batches",
    "LinearHead",
    "PenaltyScore",
    "RidgeFit",
    "SoftmaxFit",
    "TapCandidate",
    "TapChoice",
    "calibrate_temperature",
    "choose_taps",
    "comparable_images",
    "fit_ridge",
    "fit_softmax",
    "widest_taps",
]
