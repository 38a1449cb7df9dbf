"""Times a fit's phases, and remembers what they took, so that the next prediction is better."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart.costs import Timings
from headstart.costs.formulas import ImageCounts
from headstart.costs.observed import of_check, of_closing, of_features, of_training
from headstart.costs.timings import remember
from headstart.distributed import HERE
from headstart.features import FeatureSpec
from headstart.runs import FitConfig
from headstart.runs.callbacks import PhaseTimer, Range
from headstart.runs.store import Timing
from headstart.training.fitting import Trained
from headstart.training.preparation import Prepared
from headstart.training.scores import Scores


@dataclass
class Recorder(PhaseTimer):
    """The timer of a fit.

    Attributes:
        predicted: seconds of the whole job, as first said.
        predicted_phases: of them by phase, what was to come then.
    """

    predicted: Range | None = None
    predicted_phases: Mapping[str, float] = field(default_factory=dict)
    _prepared: Prepared | None = None
    _scores: Scores | None = None
    _seen: list[Timing] = field(default_factory=list)

    def on_estimate(self, seconds: Range, phases: Mapping[str, float]) -> None:
        """Keeps the first one, which is about the whole job."""
        if self.predicted is None:
            self.predicted, self.predicted_phases = seconds, phases

    def on_phase_end(self, phase: str, result: Any) -> None:
        """Learns what the phase took; everything is written down once the run is saved."""
        super().on_phase_end(phase, result)
        if phase == "check":
            self._prepared = result
        elif phase == "train" and self._prepared is not None:
            self._seen += seen_in_training(self, self._prepared, result)
            self._seen += seen_in_pass(self, self._prepared, result.config)
        elif phase == "evaluate":
            self._scores = result
        elif phase == "save" and self._scores is not None:
            self._seen += seen_at_the_end(self, self._scores.prepared, self._scores.trained)
            remember(self._seen)


def counts(prepared: Prepared) -> ImageCounts:
    """Of images that have been looked at."""
    training = len(prepared.images("train"))
    held_out = len(prepared.images("validation")) + len(prepared.images("test"))
    return ImageCounts(len(prepared.dataset.classes), training, held_out, missing=0.0)


def seen_in_pass(timer: PhaseTimer, prepared: Prepared, config: FitConfig) -> list[Timing]:
    """What looking at every image took."""
    extraction = prepared.extraction
    if prepared.place is not HERE:  # what other machines take says nothing of this one
        return of_check(timer.phases["check"], counts(prepared))
    found = of_features(
        timer.phases["features"],
        extraction.use,
        config=config,
        backbone=extraction.backbone,
        images=len(prepared.dataset),
        spec=extraction.spec,
        timings=Timings.load(),
    )
    return found + of_check(timer.phases["check"], counts(prepared))


def seen_in_training(timer: PhaseTimer, prepared: Prepared, trained: Trained) -> list[Timing]:
    """What the training took that has just ended."""
    return of_training(
        timer,
        config=trained.config,
        backbone=prepared.extraction.backbone,
        counts=counts(prepared),
        spec=FeatureSpec.of(trained.config),
    )


def seen_at_the_end(timer: PhaseTimer, prepared: Prepared, trained: Trained) -> list[Timing]:
    """What evaluating and saving took."""
    return of_closing(
        timer.seconds,
        config=trained.config,
        backbone=prepared.extraction.backbone,
        counts=counts(prepared),
        spec=FeatureSpec.of(trained.config),
    )
