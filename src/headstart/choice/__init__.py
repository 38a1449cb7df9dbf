"""Choice: which backbone, and whether to train deeper than the head.

A prior (published accuracy over speed) narrows the candidates, a probe (closed-form ridge, each image left
out once) halves them on growing parts of the images, and two finalists see all of them.
"""

from headstart.choice.choosing import BackboneChoice, choose_backbone, default_candidates
from headstart.choice.costs import Outlook
from headstart.choice.entrants import Probe, Score
from headstart.choice.freezing import Verdict, judge, without_luck

__all__ = [
    "BackboneChoice",
    "Outlook",
    "Probe",
    "Score",
    "Verdict",
    "choose_backbone",
    "default_candidates",
    "judge",
    "without_luck",
]
