"""Putting labels right and adding new ones, and seeing at once what that does.

`Corrections` lie over a data set like a transparency; `retrain` fits the head again from what is cached;
`nearest_training_images` and `most_useful` say which labels are worth a look.
"""

from headstart.curation.corrections import Correction, Corrections
from headstart.curation.images import corrections_for, corrections_of
from headstart.curation.retraining import retrain
from headstart.curation.selection import Neighbour, Suggestion, most_useful, nearest_training_images

__all__ = [
    "Correction",
    "Corrections",
    "Neighbour",
    "Suggestion",
    "corrections_for",
    "corrections_of",
    "most_useful",
    "nearest_training_images",
    "retrain",
]
