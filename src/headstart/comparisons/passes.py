"""The pass over the images that candidates share, and what it costs from an empty cache."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone, backbone_of
from headstart.backbones.runtimes import Runtime
from headstart.comparisons.values import Candidate
from headstart.data.dataset import Dataset, Sample
from headstart.data.images import View
from headstart.distributed import HERE, Place
from headstart.errors import DatasetError
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.features.coverage import spread
from headstart.runs import FitConfig, seconds_since
from headstart.runs.callbacks import Callback, Callbacks, PhaseTimer
from headstart.training import Prepared, prepare

FEW, MORE = 16, 80
"""Images timed where the cache was warm: the difference of the two is free of what starting up costs."""


@dataclass(frozen=True)
class Pass:
    """One look at every image for all candidates of a backbone.

    ``cold`` and ``cold_pixels`` are seconds from an empty cache, with the network and without it (which is
    all that training from scratch needs).
    """

    network: Backbone
    prepared: Prepared
    cold: float
    cold_pixels: float
    measured: bool  # whether this pass itself was cold; else the seconds are projected from a sample
    seconds: float  # of this pass

    def at(self, candidate: Candidate) -> Prepared:
        """The data set as the candidate's training reads it."""
        extraction = self.prepared.extraction.at(candidate.depth)
        spec = replace(
            extraction.spec,
            pooled=candidate.pretrained,
            layers=candidate.layers != "last" and candidate.pretrained,
        )
        return replace(self.prepared, extraction=replace(extraction, spec=spec))

    def cold_seconds(self, candidate: Candidate) -> float:
        """What the look alone would have cost this candidate."""
        return self.cold if candidate.pretrained else self.cold_pixels

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        use = self.prepared.extraction.use
        return {
            "backbone": self.network.name,
            "size": self.network.preprocess.size,
            "seconds": self.seconds,
            "cold_seconds": self.cold,
            "cold_pixels_seconds": self.cold_pixels,
            "measured": self.measured,
            "hits": use.hits,
            "misses": use.misses,
            "bytes": use.bytes,
        }


def look(
    dataset: Dataset,
    group: Sequence[Candidate],
    *,
    config: FitConfig,
    runtime: Runtime,
    network: Backbone | None = None,
    callbacks: Sequence[Callback] = (),
    place: Place = HERE,
) -> Pass:
    """Look at every image once, for all candidates of the group; ``network`` is theirs, loaded before.

    Raises:
        DatasetError: no image is held out to compare on.
    """
    first, timer = group[0], PhaseTimer()
    pretrained = any(candidate.pretrained for candidate in group)
    network = network or load_group(group)
    spec = union(group, views=first.views)
    watch = Callbacks([timer, *callbacks])
    prepared = prepare(dataset, network, config=config, spec=spec, runtime=runtime, watch=watch, place=place)
    if not len(prepared.images("validation")):
        raise DatasetError(
            f"{dataset.name}: no validation images, so nothing to compare on; raise --validation above 0"
        )
    pixels = replace(spec, depth=0, also=(), pooled=False, layers=False)
    measured = place is HERE and not prepared.extraction.use.hits
    seconds = cold = round(timer.seconds["features"], 3)
    cold_pixels = 0.0
    if not measured:
        cold = project(prepared.dataset.samples, network, spec=spec, runtime=runtime)
    if any(not candidate.pretrained for candidate in group):
        cold_pixels = (
            project(prepared.dataset.samples, network, spec=pixels, runtime=runtime) if pretrained else cold
        )
    return Pass(network, prepared, cold, cold_pixels, measured, seconds)


def load_group(group: Sequence[Candidate]) -> Backbone:
    """The network of candidates that share a pass: pre-trained where any of them is."""
    first, pretrained = group[0], any(candidate.pretrained for candidate in group)
    return backbone_of(replace(first, pretrained=pretrained))


def union(group: Sequence[Candidate], *, views: Sequence[str]) -> FeatureSpec:
    """What every candidate of the group needs, from one pass."""
    depths = sorted({candidate.depth for candidate in group}, reverse=True)
    return FeatureSpec(
        depth=depths[0],
        also=tuple(depths[1:]),
        views=tuple(View(name) for name in views),
        pooled=any(candidate.pretrained for candidate in group),
        layers=any(candidate.layers != "last" for candidate in group),
    )


def project(samples: Sequence[Sample], network: Backbone, *, spec: FeatureSpec, runtime: Runtime) -> float:
    """Seconds of a pass over all samples from an empty cache, from timing a few of them, evenly spread."""
    few, more = (spread(samples, count) for count in (FEW, MORE))
    if len(samples) <= FEW + MORE:
        return _time(samples, network, spec=spec, runtime=runtime)
    start = _time(few, network, spec=spec, runtime=runtime)
    rest = _time(more, network, spec=spec, runtime=runtime)
    each = max(0.0, rest - start) / (MORE - FEW)
    return round(start + each * (len(samples) - FEW), 3)


def _time(samples: Sequence[Sample], network: Backbone, *, spec: FeatureSpec, runtime: Runtime) -> float:
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        started = time.perf_counter()
        extract(samples, network, spec=spec, runtime=runtime, cache=FeatureCache(Path(folder)))
        return seconds_since(started)
