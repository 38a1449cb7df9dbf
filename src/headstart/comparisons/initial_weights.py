"""Where trainings with fine-tuned stages begin: made once for all candidates and seeds that begin alike."""

import time
from dataclasses import replace
from importlib import import_module
from typing import Any

from headstart.backbones import Backbone
from headstart.backbones.building import require_timm
from headstart.comparisons.passes import Pass
from headstart.comparisons.values import Candidate
from headstart.runs import FitConfig
from headstart.training import Prepared
from headstart.training.fitting import Start, Trained, initial_head, with_logits


def start_torch(feature: str) -> None:
    """Import what the first training to be timed would otherwise pay for all.

    Raises:
        MissingExtra: PyTorch or timm is not installed.
    """
    require_timm(feature)
    import_module("timm")


class Starts:
    """Starting points of one pass: one network, one trainable part at a time, a head per choice of images.

    What they say of the validation images is computed once as well. From random weights each seed has a
    network of its own, of which nothing is kept.
    """

    def __init__(self, shared: Pass) -> None:
        self._shared = shared
        self._module: tuple[Any, float] | None = None
        self._trainable: tuple[int, Any, float] | None = None
        self._heads: dict[bytes, tuple[Trained, float]] = {}
        self._logits: dict[tuple[int, bytes], tuple[Any, float]] = {}

    def of(
        self, candidate: Candidate, prepared: Prepared, *, network: Backbone, config: FitConfig
    ) -> tuple[Start, float]:
        """Where this training begins, and the seconds that it would take to get there alone."""
        head, head_seconds = self._head(candidate, prepared, network=network, config=config)
        trainable, trainable_seconds = self._trainable_of(candidate, network=network)
        start, seconds = Start(trainable, head), head_seconds + trainable_seconds
        if not candidate.pretrained:
            return start, seconds
        key = candidate.depth, _images(prepared)
        if key not in self._logits:
            begun = time.perf_counter()
            known = with_logits(start, prepared, config=config)
            self._logits[key] = known.logits, time.perf_counter() - begun
        logits, logits_seconds = self._logits[key]
        return replace(start, logits=logits), seconds + logits_seconds

    def _trainable_of(self, candidate: Candidate, *, network: Backbone) -> tuple[Any, float]:
        if network is not self._shared.network:
            begun = time.perf_counter()
            return network.module().after(candidate.depth), time.perf_counter() - begun
        if self._module is None:
            begun = time.perf_counter()
            self._module = network.module(), time.perf_counter() - begun
        module, module_seconds = self._module
        if self._trainable is None or self._trainable[0] != candidate.depth:
            begun = time.perf_counter()
            self._trainable = candidate.depth, module.after(candidate.depth), time.perf_counter() - begun
        _, trainable, trainable_seconds = self._trainable
        return trainable, module_seconds + trainable_seconds

    def _head(
        self, candidate: Candidate, prepared: Prepared, *, network: Backbone, config: FitConfig
    ) -> tuple[Trained, float]:
        key = _images(prepared) if candidate.pretrained else b""
        if key not in self._heads:
            begun = time.perf_counter()
            found = initial_head(prepared, network, config=config)
            self._heads[key] = found, time.perf_counter() - begun
        return self._heads[key]


def _images(prepared: Prepared) -> bytes:
    """Names the choice of training images, which decides the head."""
    return prepared.images("train").tobytes()
