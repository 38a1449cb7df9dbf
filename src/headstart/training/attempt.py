"""One attempt at a fit, from its prediction to trained weights; and whether a deeper one is worth keeping."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.building import has_timm
from headstart.costs.clock import ending
from headstart.costs.estimates import Range
from headstart.costs.formulas import split_sizes
from headstart.errors import DatasetError, OptionError
from headstart.features import CacheUse, Progress
from headstart.formatting import human_seconds
from headstart.runs import FitConfig, seconds_since
from headstart.training.depth import FEWEST_IMAGES, HEAD_KEPT, judge, without_luck
from headstart.training.foresight import PATIENCE, Foresight, foresee
from headstart.training.prepared import Prepared
from headstart.training.requests import Request
from headstart.training.trained import Trained, predict_images, starting_point, train

DEEPER_STAGES = 2
"""Stages that `--freeze auto` thaws: the last ones are the least general, and most of the gain is theirs."""

_FEWEST_EPOCHS = 3
"""A deeper training of fewer epochs says little."""


@dataclass(frozen=True)
class Attempt:
    """What came of one request."""

    foresight: Foresight
    prepared: Prepared
    trained: Trained
    config: FitConfig
    seconds: dict[str, float]

    def learn(self, seconds: dict[str, float]) -> None:
        """Remember what this attempt took; ``seconds`` has the phases that came after it."""
        self.foresight.learn({**self.seconds, **seconds}, self.prepared.extraction.use)


@dataclass(frozen=True)
class Fitted:
    """What a fit keeps, everything it attempted (the first is what was predicted), and its notes."""

    kept: Attempt
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]

    @property
    def predicted(self) -> Range:
        """Seconds of the whole command, as said before the work."""
        return self.attempts[0].foresight.predicted

    @property
    def whole(self) -> bool:
        """Whether all was done that was predicted, by this very command."""
        seen = [each.foresight for each in self.attempts]
        return not any(each.cut_short or each.watch.resumed for each in seen)

    @property
    def predicted_phases(self) -> dict[str, float]:
        """Of them by phase, what was to come."""
        return self.attempts[0].foresight.phases

    @property
    def seconds(self) -> dict[str, float]:
        """By phase, summed over the attempts; timing the first images is part of computing features."""
        names = self.attempts[0].seconds
        found = {name: sum(each.seconds[name] for each in self.attempts) for name in names}
        found["features"] += sum(each.foresight.probe_seconds for each in self.attempts)
        return {name: round(seconds, 3) for name, seconds in found.items()}

    @property
    def use(self) -> CacheUse:
        """How what is kept used the cache; what this very command had put there before is no hit."""
        use, probed = self.kept.prepared.extraction.use, self.kept.foresight.probed
        own = min(use.hits, probed.misses)  # a budget may have cut views and images of those that were timed
        return CacheUse(use.hits - own, use.misses + own, use.bytes + probed.bytes)

    def learn(self, seconds: dict[str, float]) -> None:
        """Remember what everything took; ``seconds`` are the run's."""
        for each in self.attempts:
            closing = {name: seconds[name] for name in ("evaluate", "save")} if each is self.kept else {}
            whole = seconds["total"] + ending(seconds.get("startup", 0.0))
            total = {"total": whole} if each is self.attempts[0] else {}
            each.learn({**closing, **total})


def make(
    request: Request,
    *,
    deeper_epochs: int | None,
    budget: float | None,
    started: float,
    strict: bool,
    progress: Progress | None,
) -> Fitted:
    """Train what is asked for and, given epochs for it, the last stages too where that pays."""
    foresight = foresee(
        request,
        budget=budget,
        started=started,
        also=worth_trying(request, epochs=deeper_epochs),
        progress=progress,
    )
    first = attempt(foresight, strict=strict)
    if deeper_epochs is None:
        return Fitted(first, (first,), foresight.notes)
    second, kept_deeper, reason = try_deeper(first, epochs=deeper_epochs, budget=budget, progress=progress)
    attempts = (first,) if second is None else (first, second)
    notes = (*foresight.notes, *(second.foresight.notes if second else ()), reason)
    return Fitted(second if second is not None and kept_deeper else first, attempts, notes)


def attempt(foresight: Foresight, *, strict: bool) -> Attempt:
    """Prepare and train what was foreseen."""
    prepared = foresight.prepare(strict=strict)
    config, backbone = foresight.begin_training(), foresight.request.backbone
    begun = time.perf_counter()
    start = None
    if config.thawed:
        start = starting_point(prepared, backbone, config=config)
        foresight.watch.ready("epochs")
    trained = train(
        prepared,
        backbone,
        config=config,
        progress=foresight.watch,
        stop=foresight.stop_training,
        start=start,
    )
    seconds = {**prepared.seconds, "train": seconds_since(begun)}
    config = replace(config, taps=trained.taps)
    return Attempt(foresight, prepared, trained, config, seconds)


def worth_trying(request: Request, *, epochs: int | None) -> Request | None:
    """What will be tried after this fit; None where nothing deeper is asked for or can be judged."""
    _, held_out = split_sizes(request.dataset, validation=request.config.validation, test=0.0)
    if epochs is None or why_not_deeper(request.backbone, held_out):
        return None
    return deeper_request(request, epochs=epochs)


def deeper_request(request: Request, *, epochs: int) -> Request:
    """The same fit with the last stages thawed."""
    depth = max(0, len(request.backbone.stages) - DEEPER_STAGES)
    return replace(request, config=replace(request.config, depth=depth, epochs=epochs, taps=None))


def try_deeper(
    first: Attempt, *, epochs: int, budget: float | None, progress: Progress | None
) -> tuple[Attempt | None, bool, str]:
    """Train the last stages too: the attempt (None: not made), whether to keep it, and why."""
    foreseen, reason = _foresee_deeper(first, epochs=epochs, budget=budget, progress=progress)
    if foreseen is None:
        first.foresight.cut_short = True
        return None, False, f"the head alone is trained: {reason}"
    try:
        second = attempt(foreseen, strict=False)
    except (DatasetError, OptionError) as error:  # no room for maps, a rate too high: the head is there
        first.foresight.cut_short = True
        return None, False, f"{HEAD_KEPT}{error}"
    first.foresight.cut_short |= second.foresight.cut_short
    if len(second.prepared.dataset) != len(first.prepared.dataset):
        return second, False, f"{HEAD_KEPT}the deeper training did not get to all images in time"
    thawed = foreseen.request.backbone.stages[foreseen.request.config.depth :]
    verdict = judge(_right(first), _right(second), name=f"thawing {', '.join(each.name for each in thawed)}")
    return second, verdict.deeper, verdict.reason


def _foresee_deeper(
    first: Attempt, *, epochs: int, budget: float | None, progress: Progress | None
) -> tuple[Foresight | None, str]:
    """The deeper training's prediction, or why there will be none."""
    reason = why_not_deeper(first.foresight.request.backbone, len(first.prepared.images("validation")))
    if reason:
        return None, reason
    old = first.foresight
    request = deeper_request(old.request, epochs=epochs)
    try:
        foresight = foresee(
            request, budget=budget, started=old.started, progress=progress, clock=old.watch.clock
        )
    except OptionError:
        return None, "nothing deeper fits into the budget"
    taken = foresight.request
    planned = taken.config.epochs or 0
    if len(taken.dataset) < len(request.dataset) or planned < min(epochs, _FEWEST_EPOCHS):
        return None, "too little of the budget is left for anything deeper"
    expected = foresight.predicted.median - foresight.spent
    if budget is None and expected > PATIENCE:
        return None, f"anything deeper would take about {human_seconds(expected)}; --budget allows it"
    return foresight, ""


def why_not_deeper(backbone: Backbone, validation_images: int) -> str:
    """Why a deeper training cannot be judged or made; empty where it can."""
    if backbone.recipe is None:
        return f"the stages of {backbone.name} are a Keras model's; headstart.keras.fit trains them"
    if not has_timm():
        return "training deeper needs PyTorch (pip install 'headstart[torch]')"
    if validation_images < FEWEST_IMAGES:
        return f"{validation_images} validation images are too few to tell whether more is better"
    return ""


def _right(made: Attempt) -> NDArray[np.bool_]:
    """Which validation images an attempt got right, in the order of their content.

    Of a training in epochs, without the luck of the one that did best on these images.
    """
    images = made.prepared.images("validation")
    order = np.argsort([made.prepared.extraction.hashes[i] for i in images], kind="stable")
    labels = made.prepared.labels(images)
    answers = made.trained.answers
    if answers is not None:
        return without_luck(answers[:, :, order], labels[order])
    probabilities = predict_images(made.prepared, made.trained, images=images[order])
    found: Any = probabilities.argmax(axis=1) == labels[order]
    return np.asarray(found, dtype=bool)
