"""The candidates of a choice while it goes on, and what is said of them at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.heads import RidgeFit
from headstart.training.backbone_names import BackboneName


@dataclass(frozen=True)
class Probe:
    """What one look at some images says about a backbone.

    Attributes:
        images: how many it looked at.
        loo_accuracy: of the ridge head that a fit would give, each image left out once, 0 to 1; what the
            choice goes by.
        loo_error: its squared error, which breaks ties.
    """

    images: int
    loo_accuracy: float
    loo_error: float

    @classmethod
    def of(cls, fitted: RidgeFit) -> "Probe":
        """What a head says of the features it was fitted on."""
        return cls(images=fitted.images, loo_accuracy=fitted.loo_accuracy, loo_error=fitted.loo_error)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, of a share (binomial)."""
        share = min(max(self.loo_accuracy, 1 / (self.images + 2)), 1 - 1 / (self.images + 2))
        return float(np.sqrt(share * (1 - share) / self.images))


@dataclass(frozen=True)
class ContenderScore:
    """What is known of one candidate at the end."""

    candidate: BackboneName
    size: int
    prior: float | None  # published top-1 in percent
    probe: Probe | None  # the largest one
    seconds_per_image: float | None  # of extraction, as measured
    validation_accuracy: float | None  # finalists only
    left: str  # why it is no longer in: "dominated", "probe", "budget", "final"; "" for the chosen one

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = self.probe
        return {
            "backbone": self.candidate.name,
            "size": self.size,
            "published_top1": self.prior,
            "images": found.images if found else 0,
            "loo_accuracy": found.loo_accuracy if found else None,
            "seconds_per_image": self.seconds_per_image,
            "validation_accuracy": self.validation_accuracy,
            "left": self.left,
        }


@dataclass
class Contender:
    """A candidate while the choice is going on."""

    candidate: BackboneName
    backbone: Backbone
    prior: float | None
    probe: Probe | None = None
    looks: list[Probe] = field(default_factory=list)  # on growing parts of the images
    seconds_per_image: float | None = None
    validation_accuracy: float | None = None
    held_out: float | None = None  # share right of all images that were not fitted on; finalists only
    left: str = ""

    @property
    def label(self) -> str:
        """For people: its name and size."""
        return f"{self.candidate.label} at {self.backbone.preprocess.size} px"

    @property
    def multiply_adds(self) -> float:
        """Of the whole network, for one view."""
        return float(sum(stage.multiply_adds for stage in self.backbone.stages))

    @property
    def rank(self) -> tuple[float, float]:
        """How good the last look says it is; a tie goes to the smaller error."""
        return (self.probe.loo_accuracy, -self.probe.loo_error) if self.probe else (0.0, 0.0)


def score(contender: Contender) -> ContenderScore:
    """Its line in the table."""
    return ContenderScore(
        candidate=contender.candidate,
        size=contender.backbone.preprocess.size,
        prior=contender.prior,
        probe=contender.probe,
        seconds_per_image=contender.seconds_per_image,
        validation_accuracy=contender.validation_accuracy,
        left=contender.left,
    )


def reasons(chosen: Contender, contenders: Sequence[Contender]) -> list[str]:
    """Why this one, in plain words."""
    if len(contenders) == 1:
        return [f"backbone {chosen.label}: the only candidate here"]
    if chosen.probe is None:
        return [f"backbone {chosen.label}: the fastest, as no time was left for a look"]
    rival = next((each for each in contenders if each.left == "final" and each.held_out is not None), None)
    measured = f"{chosen.probe.loo_accuracy:.1%} leave-one-out on {chosen.probe.images} images"
    first = f"backbone {chosen.label}: {measured}"
    if rival is not None and rival.held_out is not None and chosen.held_out is not None:
        gap = 100 * (chosen.held_out - rival.held_out)
        if gap >= 0:
            first += f", {gap:.1f} points ahead of {rival.label} on all images"
        else:
            first += f", faster than {rival.label} and only {-gap:.1f} points behind"
    elif chosen.looks and chosen.held_out is None and not any(each.left == "budget" for each in contenders):
        first += ", so far ahead that no other was given a look at all of them"
    return [first, *_dropped(chosen, contenders)]


def _dropped(chosen: Contender, contenders: Sequence[Contender]) -> list[str]:
    """Who was left behind after which look, and what the chosen one had on the same images."""
    rungs: dict[int, list[tuple[str, float]]] = {}
    for each in contenders:
        if each.left == "probe" and each.probe is not None:
            rungs.setdefault(each.probe.images, []).append((each.label, each.probe.loo_accuracy))
    found = []
    for images, behind in sorted(rungs.items()):
        own = next((look.loo_accuracy for look in chosen.looks if look.images == images), None)
        against = "" if own is None else f", where it had {own:.1%}"
        behind.sort(key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {accuracy:.1%}" for label, accuracy in behind)
        found.append(f"dropped after a look at {images} images{against}: {others}")
    return found
