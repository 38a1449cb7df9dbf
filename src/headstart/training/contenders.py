"""The candidates of a choice while it goes on, and what is said of them at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.backbones import Backbone
from headstart.runs.formatting import human_seconds
from headstart.training.backbone_names import BackboneName
from headstart.training.expected_accuracy import HARDLY_BETTER, NOTHING_KNOWN, Expected, Probe
from headstart.training.published_accuracy import undominated


@dataclass
class Contender:
    """A backbone that may be taken, and what is known of it so far."""

    candidate: BackboneName
    backbone: Backbone
    published: float | None  # top-1 in percent
    looks: list[Probe] = field(default_factory=list)  # on growing parts of the images
    seconds_per_image: float | None = None  # of extraction, as measured
    expected: Expected = NOTHING_KNOWN
    left: str = ""  # why it is no longer in: "dominated", "probe", "budget"; "" for the chosen one

    @property
    def label(self) -> str:
        """For sentences: its name and size."""
        return f"{self.candidate.label} at {self.backbone.preprocess.size} px"

    @property
    def size(self) -> int:
        """Pixels a side of its images."""
        return self.backbone.preprocess.size

    @property
    def multiply_adds(self) -> float:
        """Of the whole network, for one view."""
        return float(sum(stage.multiply_adds for stage in self.backbone.stages))

    @property
    def probe(self) -> Probe | None:
        """The last look, which is the one at most images."""
        return self.looks[-1] if self.looks else None

    def to_dict(self) -> dict[str, Any]:
        """Its line in the table, as plain data for JSON."""
        probe = self.probe
        return {
            "backbone": self.candidate.name,
            "size": self.backbone.preprocess.size,
            "published_top1": self.published,
            "images": probe.images if probe else 0,
            "loo_accuracy": probe.loo_accuracy if probe else None,
            "expected_accuracy": self.expected.to_dict(),
            "seconds_per_image": self.seconds_per_image,
            "left": self.left,
        }


def why(labels: Sequence[str], expected: Sequence[Expected], seconds: Sequence[float], *, chosen: int) -> str:
    """Why one training is recommended, in a sentence: what it gives and takes, and what another would.

    The other one is the next better on the Pareto front; where there is none, the best of half the time.
    """
    accuracies = [each.accuracy for each in expected]
    gives = f"{expected[chosen].text} in {human_seconds(seconds[chosen])}"
    kept = undominated(seconds, accuracies)
    better = [index for index in kept if accuracies[index] >= accuracies[chosen] + HARDLY_BETTER]
    quicker = [index for index in kept if seconds[index] <= seconds[chosen] / 2]
    if not better and not quicker:
        return gives
    if better:
        other = min(better, key=lambda index: seconds[index])
    else:
        other = max(quicker, key=lambda index: accuracies[index])
    takes = f"{labels[other]} would take {human_seconds(seconds[other])}"
    return f"{gives}; {takes} and give {expected[other].brief}"
