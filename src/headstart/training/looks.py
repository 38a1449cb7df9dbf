"""What looks at images cost a choice: formulas, scaled by what this machine took before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from headstart.backbones import Backbone
from headstart.costs import formulas as jobs
from headstart.costs.candidates import Candidate
from headstart.costs.estimates import Estimate, add
from headstart.costs.timings import Observation, Rates
from headstart.dataset import Dataset, Sample
from headstart.features import FeatureCache, Wanted, missing_share
from headstart.files import cache_folder
from headstart.images import CENTRE, View
from headstart.runtimes import Runtime

_LOOK = "look"
"""What a look took is remembered under this name alone: of a few images it says too little of thousands for
the prediction of a fit."""

_CHOICE = "choice"
_SPREAD = 0.5
_HEAD = 0.2
"""Seconds to fit a head on what a look gave, taps chosen."""

_UNDECIDED = 0.5
"""How far a choice's seconds may be off beside its looks': who goes on, and how soon it is clear, is open."""


@dataclass(frozen=True)
class Outlook:
    """What a choice will take, said before it looks at an image, and what it is between."""

    seconds: Estimate
    candidates: tuple[tuple[Candidate, Backbone], ...]


@dataclass
class Costs:
    """Seconds that looks with this runtime at these images take; learns while they go on."""

    dataset: Dataset
    runtime: Runtime
    taps: bool
    remembered: Sequence[Observation]
    seen: list[Observation] = field(default_factory=list)
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(self.remembered)

    def wanted(self, backbone: Backbone, views: tuple[View, ...]) -> Wanted:
        """The features that a look needs."""
        return Wanted(depth=len(backbone.stages), views=views, taps=self.taps)

    def look(self, backbone: Backbone, samples: Sequence[Sample], *, views: tuple[View, ...]) -> Estimate:
        """Seconds to have these views of some images; those that are in the cache cost nothing."""
        cache = FeatureCache(cache_folder())
        wanted = self.wanted(backbone, views)
        share = missing_share(samples, backbone, wanted=wanted, runtime=self.runtime, cache=cache)
        images, network = share * len(samples), self._network(backbone)
        if not images:
            return Estimate(0.0, 0.0)
        rates, key = self.rates, f"{network} {self._data(backbone)}"
        looked = rates.known(_LOOK, key)
        kind, base = ("loaded", jobs.LOAD) if looked else ("compiled", jobs.COMPILE)
        opening = rates.estimate("open", f"{network} {kind}", base=base, spread=_SPREAD)
        decode, run = (images * each for each in self._bases(backbone, views=len(views)))
        if looked:
            return add([opening, rates.estimate(_LOOK, key, base=decode + run, spread=_SPREAD)])
        decoding = rates.estimate("decode", self._data(backbone), base=decode, spread=_SPREAD)
        return add([opening, decoding, rates.estimate("prefix", network, base=run, spread=_SPREAD)])

    def learn(self, backbone: Backbone, seconds: float) -> None:
        """The centre view of an image, computed, took so long."""
        key = f"{self._network(backbone)} {self._data(backbone)}"
        base = sum(self._bases(backbone, views=len((CENTRE,))))
        self._remember(Observation(_LOOK, key, seconds / base))

    def choice(self, looks: Sequence[Estimate]) -> Estimate:
        """Seconds of a whole choice of so many looks, their heads fitted."""
        found = add(looks)
        base = found.seconds + _HEAD * len(looks)
        usual = self.rates.estimate(_CHOICE, "", base=base, spread=_UNDECIDED)
        return Estimate(usual.seconds, math.hypot(usual.spread, found.spread))

    def learn_choice(self, looks: Sequence[Estimate], seconds: float) -> None:
        """A whole choice that was foreseen to have these looks took so long."""
        base = add(looks).seconds + _HEAD * len(looks)
        self._remember(Observation(_CHOICE, "", seconds / base))

    def _remember(self, seen: Observation) -> None:
        self.seen.append(seen)
        self.rates = Rates([*reversed(self.seen), *self.remembered])

    def _bases(self, backbone: Backbone, *, views: int) -> tuple[float, float]:
        """Seconds an image by the formulas: to decode and render it, to run the network over its views."""
        work = sum(stage.multiply_adds for stage in backbone.stages)
        return jobs.DECODE + views * jobs.RENDER, views * work / jobs.prefix_rate(self.runtime.precision)

    def _network(self, backbone: Backbone) -> str:
        wanted = self.wanted(backbone, (CENTRE,))
        return jobs.network_key(
            backbone, wanted=wanted, runtime=self.runtime.name, precision=self.runtime.precision
        )

    def _data(self, backbone: Backbone) -> str:
        return jobs.data_key(self.dataset.name, backbone)
