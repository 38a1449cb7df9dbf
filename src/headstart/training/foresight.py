"""The main job's view of the time: predicts what is to come, keeps to a budget, learns from what it took."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headstart.costs import formulas as jobs
from headstart.costs.budgets import (
    CAREFUL,
    IMAGES_PER_CLASS,
    OutOfTime,
    Settings,
    beginning,
    fit_into,
    interleaved,
)
from headstart.costs.estimates import Estimate, Range, add, to_range, unsteady
from headstart.costs.observing import Outcome, Watch, observations
from headstart.costs.timings import Observation, Rates, RateStore, verdict
from headstart.features import CacheUse, FeatureCache, Progress, extract
from headstart.features.lookup import spread
from headstart.files import cache_folder
from headstart.formatting import human_seconds
from headstart.runs import FitConfig
from headstart.training.prepared import Prepared, prepare
from headstart.training.requests import Request

_PROBE_FROM = 2.0
"""Seconds of computing features from which a network that was never timed here is timed first."""

_PROBE_IMAGES = 72
_PROBE_SPREAD = 0.3
"""How well so few images foretell thousands, each of which took 0.5 to 1.0 as long."""

_PROBE_SHARE = 0.2
"""Of what a budget leaves, what that may be predicted to take."""

PATIENCE = 600.0
"""Seconds that a deeper training may be predicted to take where no budget says otherwise."""

_RESERVE = 0.15
"""Share by which what is still to come may take longer than predicted without breaking the budget."""

_FEATURE_PHASES = ("features",)
_BEYOND_FEATURES = ("check", "train", "evaluate", "save")
_AFTER_FEATURES = ("train", "evaluate", "save")
_CLOSING_PHASES = ("evaluate", "save")
_OF_DEEPER = ("features", "check", "train")
"""Phases that a deeper attempt goes through before it is known whether it is kept."""


@dataclass
class Foresight:
    """One fit's prediction, deadline and notes.

    Attributes:
        request: what will be done, after the cuts of the budget.
        predicted: seconds of the whole command.
        phases: of them by phase, what was to come.
        rest: what of it was to come, before past errors correct it.
        notes: what was cut, one sentence each.
        watch: the progress callback to use; it notes times and keeps to the budget.
        sides: images to train on and images held out, once they are prepared.
        probed: what timing the first images put into the cache, which the fit then finds there.
        probe_seconds: what that took.
    """

    request: Request
    job: jobs.Job
    rates: Rates
    predicted: Range
    phases: dict[str, float]
    rest: Estimate
    spent: float
    watch: Watch
    budget: float | None
    started: float
    notes: tuple[str, ...] = ()
    cut_short: bool = False
    sides: tuple[int, int] = (0, 0)
    probed: CacheUse = field(default_factory=CacheUse)
    probe_seconds: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of the command so far."""
        return self.watch.clock() - self.started

    def prepare(self, *, strict: bool) -> Prepared:
        """Look at every image, or at as many as the budget allows."""
        self.watch.begin("features")
        try:
            if self.budget is not None:
                self.watch.alarm = self._features_alarm
            prepared = self._prepare(strict=strict)
        except OutOfTime as stop:
            images = len(self.request.dataset)
            kept = beginning(self.request.dataset, stop.done)
            self.request = replace(self.request, dataset=kept)
            self._say(f"reading took longer than predicted, {len(kept):,} of {images:,} images used")
            self.watch.alarm, self.cut_short = None, True
            prepared = self._prepare(strict=strict)
        finally:
            self.watch.alarm = None
        training, validation, test = (len(prepared.images(side)) for side in ("train", "validation", "test"))
        self.sides = training, validation + test
        return prepared

    def _prepare(self, *, strict: bool) -> Prepared:
        request = self.request
        return prepare(
            request.dataset,
            request.backbone,
            wanted=request.wanted,
            runtime=request.runtime,
            config=request.config,
            strict=strict,
            progress=self.watch,
        )

    def _features_alarm(self, phase: str, done: int, total: int) -> None:
        """Stop reading images when what must follow would no longer fit."""
        needed = IMAGES_PER_CLASS * len(self.request.dataset.classes)
        if phase != "features" or self.budget is None or done >= total or done < needed:
            return
        shrunk = replace(self.job, epochs=min(1, self.job.epochs), images=done, training=done, missing=0)
        rest = add(jobs.estimates(shrunk, self.rates)).seconds
        if self.elapsed + (1 + _RESERVE) * rest > self.budget:
            raise OutOfTime(done)

    def begin_training(self) -> FitConfig:
        """The config to train with: fewer epochs where features took longer than predicted."""
        config = self.request.config
        self.watch.begin("epochs")
        if self.budget is None or not config.epochs:
            return config
        training, held_out = self.sides
        job = replace(self.job, training=training, held_out=held_out)

        def seconds(epochs: int) -> float:
            parts = jobs.estimates(replace(job, epochs=epochs), self.rates, phases=_AFTER_FEATURES)
            return self.elapsed + add(parts).seconds

        epochs, too_many = config.epochs, config.epochs
        if seconds(epochs) > CAREFUL * self.budget:
            epochs = 1
            while too_many - epochs > 1:
                middle = (epochs + too_many) // 2
                if seconds(middle) > CAREFUL * self.budget:
                    too_many = middle
                else:
                    epochs = middle
        if epochs < config.epochs:
            self.cut_short = True
            self._say(f"the work so far took longer than predicted, {epochs:,} of {config.epochs:,} epochs")
        self.request = replace(self.request, config=replace(config, epochs=epochs))
        return self.request.config

    def stop_training(self, done: int, total: int) -> bool:
        """Asked after each epoch: whether another one would break the budget."""
        each = self.watch.pace("epochs")
        if self.budget is None or each is None or done >= total:
            return False
        closing = add(jobs.estimates(self.job, self.rates, phases=_CLOSING_PHASES)).seconds
        if self.elapsed + (1 + _RESERVE) * (each + closing) <= self.budget:
            return False
        self.cut_short = True
        self._say(f"stopped after {done:,} of {total:,} epochs")
        config = replace(self.request.config, epochs=done)
        self.request = replace(self.request, config=config)  # what is learnt is about these
        return True

    def _say(self, cut: str) -> None:
        """Note what the budget cut; however often it cuts, it says so in one line."""
        if self.notes and self.notes[-1].startswith("budget "):
            self.notes = (*self.notes[:-1], f"{self.notes[-1]}; {cut}")
        else:
            self.notes += (f"budget {human_seconds(self.budget or 0)}: {cut}",)

    def learn(self, seconds: dict[str, float], use: CacheUse) -> None:
        """Remember what the steps took, and how the prediction turned out."""
        outcome = Outcome(seconds, hits=use.hits, misses=use.misses)
        training, held_out = self.sides
        job = replace(
            self.job,
            images=len(self.request.dataset),
            training=training,
            held_out=held_out,
            epochs=self.request.config.epochs or 0,
        )
        seen = observations(job, outcome, self.watch, rates=self.rates)
        # Where less was done than was predicted, how long it took says nothing about the prediction.
        if "total" in seconds and not self.cut_short and not self.watch.resumed:
            seen += self._verdict(seconds["total"])
        RateStore().add(seen)

    def _verdict(self, total: float) -> list[Observation]:
        """Measured against the prediction before its correction, or corrections would correct themselves."""
        return verdict(self.rest.seconds, total - self.spent, spread=unsteady(self.rest).spread)


def foresee(
    request: Request,
    *,
    budget: float | None,
    started: float,
    also: Request | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Foresight:
    """Predict a fit and cut it down to its budget. Costs milliseconds where the network was timed before.

    Args:
        request: what was asked for.
        budget: seconds of the whole command; None for no limit.
        started: when the command began, on ``clock``.
        also: what will be tried after it, which the prediction includes.
        progress: the caller's callback.
        clock: seconds; a test passes its own.

    Raises:
        OptionError: The smallest job does not fit into the budget.
    """
    watch = Watch(progress, clock)
    if budget is not None:
        request = replace(request, dataset=interleaved(request.dataset))
    rates = RateStore().load()
    missing = request.missing()
    left = None if budget is None else budget - (clock() - started)
    timed = time_first(request, rates=rates, missing=missing, left=left, progress=progress, clock=clock)
    probed, probe_seconds = timed.use, timed.seconds
    if timed.seconds:
        rates = RateStore().load()
        missing *= 1 - _PROBE_IMAGES / len(request.dataset)
    job = request.job(missing=missing, rates=rates)
    notes: tuple[str, ...] = ()
    spent = clock() - started
    if budget is not None:
        request, notes = _within(request, budget, missing=missing, rates=rates, spent=spent)
        job = request.job(missing=missing, rates=rates)
    parts = _estimates(job, rates, probed=probe_seconds > 0)
    phases = dict(jobs.phase_seconds(job, rates))
    if also is not None:
        _add_deeper(parts, phases, also, missing=also.missing(), rates=rates, budget=budget, spent=spent)
    rest = add(parts)
    predicted, phases = _corrected(rest, phases, rates=rates, spent=spent)
    phases["features"] = phases.get("features", 0.0) + probe_seconds
    watch.expect(predicted)
    return Foresight(
        request,
        job,
        rates,
        predicted,
        phases,
        rest,
        spent,
        watch,
        budget,
        started,
        notes,
        probed=probed,
        probe_seconds=probe_seconds,
    )


def _add_deeper(
    parts: list[Estimate],
    phases: dict[str, float],
    also: Request,
    *,
    missing: float,
    rates: Rates,
    budget: float | None,
    spent: float,
) -> None:
    """Add the training that will be tried after the one that these are the parts of, where it will be."""
    deeper = also.job(missing=missing, rates=rates)
    more = add(jobs.estimates(deeper, rates, phases=_OF_DEEPER))
    allowed = PATIENCE if budget is None else max(0.0, budget - spent - add(parts).seconds)
    share = min(1.0, allowed / more.seconds) if more.seconds else 0.0
    if budget is None and share < 1.0:
        return  # it will not be tried; a budget would cut it
    parts.append(more.times(share))
    for phase, seconds in jobs.phase_seconds(deeper, rates).items():
        if phase in _OF_DEEPER:
            phases[phase] = phases.get(phase, 0.0) + share * seconds


def _corrected(
    rest: Estimate, phases: dict[str, float], *, rates: Rates, spent: float
) -> tuple[Range, dict[str, float]]:
    """Seconds of the whole command, and by phase of what is to come, as past errors correct them."""
    corrected = jobs.corrected(rest, rates)
    factor = corrected.seconds / rest.seconds if rest.seconds > 0 else 1.0
    return to_range(corrected, spent=spent), {phase: factor * each for phase, each in phases.items()}


def foresee_choosing(
    choice: Estimate,
    requests: Sequence[tuple[Request, Request | None]],
    *,
    budget: float | None,
    spent: float,
) -> tuple[Range, dict[str, float]]:
    """Predict a command that first chooses one of some networks: of the whole, and by phase.

    Which one it will be is not known, so the mean of their fits is taken. The choice leaves the features of
    the chosen one in the cache.

    Args:
        choice: what choosing takes.
        requests: the fits between which it chooses, each with what would be tried after it.
        budget: seconds of the whole command; None for no limit.
        spent: of them, those that are gone.
    """
    rates = RateStore().load()
    share, parts, phases = 1 / len(requests), [choice], {"choice": choice.seconds}
    for request, also in requests:
        job = request.job(missing=0.0, rates=rates)
        own, by_phase = jobs.estimates(job, rates), dict(jobs.phase_seconds(job, rates))
        if also is not None:
            gone = spent + choice.seconds
            _add_deeper(own, by_phase, also, missing=1.0, rates=rates, budget=budget, spent=gone)
        parts += [each.times(share) for each in own]
        for phase, seconds in by_phase.items():
            phases[phase] = phases.get(phase, 0.0) + share * seconds
    rest = add(parts)
    if budget is not None and rest.seconds > CAREFUL * budget - spent:  # then all of it is cut to fit
        kept = max(0.0, CAREFUL * budget - spent) / rest.seconds
        rest, phases = rest.times(kept), {phase: kept * each for phase, each in phases.items()}
    return _corrected(rest, phases, rates=rates, spent=spent)


def _estimates(job: jobs.Job, rates: Rates, *, probed: bool) -> list[Estimate]:
    """All steps; what only a probe has timed is known no better than a probe can know it."""
    features = jobs.estimates(job, rates, phases=_FEATURE_PHASES)
    if probed:
        features = [Estimate(each.seconds, math.hypot(each.spread, _PROBE_SPREAD)) for each in features]
    return features + jobs.estimates(job, rates, phases=_BEYOND_FEATURES)


def _worth_a_probe(job: jobs.Job, rates: Rates, *, left: float | None) -> bool:
    known = rates.known("prefix", job.network) or rates.known("pass", jobs.pass_key(job))
    if known or not job.prefix_macs or job.images < 4 * _PROBE_IMAGES:
        return False
    expected = add(jobs.estimates(job, rates, phases=_FEATURE_PHASES)).seconds
    if left is not None and expected * _PROBE_IMAGES / job.images > _PROBE_SHARE * left:
        return False
    return expected > _PROBE_FROM


@dataclass(frozen=True)
class Timed:
    """What timing the first images took, and put into the cache; nothing where it was not worth it."""

    use: CacheUse = field(default_factory=CacheUse)
    seconds: float = 0.0


def time_first(
    request: Request,
    *,
    rates: Rates,
    missing: float,
    left: float | None,
    progress: Progress | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time some images with a network that was never timed here and will take long; it is remembered.

    Their features go into the cache, so that the pass finds them done.

    Args:
        request: what will be looked at.
        rates: what this machine took before.
        missing: share of the images whose features are not in the cache.
        left: seconds that are left of a budget; None without one.
        progress: the caller's callback.
        clock: seconds; a test passes its own.
    """
    job = request.job(missing=missing, rates=rates)
    if not missing or not _worth_a_probe(job, rates, left=left):
        return Timed()
    few = spread(request.dataset.samples, _PROBE_IMAGES)
    watch = Watch(progress, clock)
    watch.begin("features")
    begun = clock()
    found = extract(
        few,
        request.backbone,
        wanted=request.wanted,
        runtime=request.runtime,
        cache=FeatureCache(cache_folder()),
        progress=watch,
    )
    seconds = clock() - begun
    outcome = Outcome({"features": seconds}, hits=found.use.hits, misses=found.use.misses)
    part = replace(job, images=len(few), missing=float(len(few)))
    RateStore().add(observations(part, outcome, watch, rates=rates))
    return Timed(found.use, round(seconds, 3))


def _within(
    request: Request, budget: float, *, missing: float, rates: Rates, spent: float
) -> tuple[Request, tuple[str, ...]]:
    asked = Settings(
        epochs=request.config.epochs or 0,
        views=len(request.config.views),
        taps=str(request.config.taps or "last"),
        images=len(request.dataset),
    )

    def predict(settings: Settings) -> Range:
        job = request.with_settings(settings).job(missing=missing, rates=rates)
        return jobs.predict(job, rates, spent=spent)

    cut = fit_into(budget, asked, predict=predict, classes=len(request.dataset.classes))
    sentence = cut.sentence(budget)
    if not sentence:
        return request, ()
    return request.with_settings(cut.settings), (sentence,)
