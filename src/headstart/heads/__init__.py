"""Classifiers on top of features: ridge in closed form, softmax with Adam, and the choice of layers.

Everything here is NumPy and imports nothing heavier, so that predicting starts at once.
"""

from headstart.heads.familiarity import (
    FEWEST_KNOWN,
    Familiarity,
    even_sample,
    evenly,
    fit_familiarity,
)
from headstart.heads.label_errors import LabelErrors, find_label_errors
from headstart.heads.layer_choice import (
    LayerCandidate,
    LayerChoice,
    choose_layers,
    comparable_images,
    widest_layers,
)
from headstart.heads.linear import LinearHead, calibrate_temperature
from headstart.heads.prediction_sets import least_probability, right_probabilities
from headstart.heads.ridge import PENALTIES, Batches, Parts, PenaltyScore, RidgeFit, fit_ridge
from headstart.heads.softmax import SoftmaxFit, fit_softmax
from headstart.heads.tasks import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    TASKS,
    Task,
    Weighted,
    task_of,
    weighted_labels,
)

__all__ = [
    "FEWEST_KNOWN",
    "MULTI_LABEL",
    "PENALTIES",
    "REGRESSION",
    "SINGLE_LABEL",
    "TASKS",
    "Batches",
    "Familiarity",
    "LabelErrors",
    "LayerCandidate",
    "LayerChoice",
    "LinearHead",
    "Parts",
    "PenaltyScore",
    "RidgeFit",
    "SoftmaxFit",
    "Task",
    "Weighted",
    "calibrate_temperature",
    "choose_layers",
    "comparable_images",
    "even_sample",
    "evenly",
    "find_label_errors",
    "fit_familiarity",
    "fit_ridge",
    "fit_softmax",
    "least_probability",
    "right_probabilities",
    "task_of",
    "weighted_labels",
    "widest_layers",
]
