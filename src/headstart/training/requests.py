"""A config meets data and a network: the fit that is then asked for."""

from dataclasses import dataclass, replace

from headstart.backbones import Backbone
from headstart.backbones.building import require_timm
from headstart.costs import formulas as jobs
from headstart.costs.budgets import Settings, beginning
from headstart.costs.timings import Rates
from headstart.dataset import Dataset
from headstart.errors import OptionError
from headstart.features import FeatureCache, Wanted, missing_share
from headstart.files import cache_folder
from headstart.runs import FitConfig
from headstart.runtimes import Runtime
from headstart.training.looks import Outlook


@dataclass(frozen=True)
class Request:
    """A fit whose data and network are known and of which nothing has been computed.

    ``shared`` is what its pass computes, where others read the same one too.
    """

    dataset: Dataset
    backbone: Backbone
    runtime: Runtime
    config: FitConfig
    shared: Wanted | None = None

    @property
    def wanted(self) -> Wanted:
        """The features that its pass computes."""
        return self.shared or Wanted.of(self.config)

    def job(self, *, missing: float, rates: Rates) -> jobs.Job:
        """What the formulas need."""
        job = jobs.describe(
            self.dataset, self.backbone, wanted=self.wanted, config=self.config, missing=missing
        )
        return replace(job, compiled=jobs.is_compiled(job, rates))

    def missing(self) -> float:
        """Share of the images whose features are not in the cache, from a sample."""
        return missing_share(
            self.dataset.samples,
            self.backbone,
            wanted=self.wanted,
            runtime=self.runtime,
            cache=FeatureCache(cache_folder()),
        )

    def with_settings(self, settings: Settings) -> "Request":
        """The same fit with what a budget leaves of it."""
        config = replace(
            self.config,
            epochs=settings.epochs or None,
            views=self.config.views[: settings.views],
            taps=None if settings.taps == "last" else self.config.taps,
        )
        return replace(self, dataset=beginning(self.dataset, settings.images), config=config)


def requests(config: FitConfig, dataset: Dataset, found: Outlook, *, runtime: Runtime) -> list[Request]:
    """The fits of those networks among which one will be chosen, as far as they can be.

    Raises:
        OptionError: none of them can be.
    """
    made, refusal = [], None
    for candidate, network in found.candidates:
        try:
            made.append(request(replace(config, backbone=candidate.name), dataset, network, runtime=runtime))
        except OptionError as error:
            refusal = error
    if refusal is not None and not made:
        raise refusal
    return made


def request(config: FitConfig, dataset: Dataset, network: Backbone, *, runtime: Runtime) -> Request:
    """The fit of this network on these images.

    Raises:
        OptionError: the network has no such depth, or its stages cannot be thawed.
        MissingExtra: stages are to be thawed, and what trains them is not installed.
    """
    depth = network.depth("all" if config.freeze == "auto" else config.freeze) if config.pretrained else 0
    if depth < len(network.stages):
        if network.recipe is None:
            raise OptionError(
                f"freeze={config.freeze}: the stages of backbone {network.name} are a Keras model's and stay "
                "frozen here; take freeze=all, or thaw them in Keras and train with headstart.keras.fit"
            )
        require_timm(f"freeze={config.freeze}: training stages of {network.name}")
    settled = jobs.settle(config, dataset, network, depth=depth, runtime=runtime)
    return Request(dataset, network, runtime, settled)
