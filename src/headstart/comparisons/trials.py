"""Trains the candidates of one pass with every seed; seeds beside each other where that is faster."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from headstart.backbones import Backbone, backbone_of
from headstart.comparisons import epoch_times, parallel
from headstart.comparisons.initial_weights import Starts, start_torch
from headstart.comparisons.passes import Pass
from headstart.comparisons.schedule import SLOWER, Deadline, Forecast, Over, Schedule
from headstart.comparisons.subsets import limit_images
from headstart.comparisons.values import Candidate, Trial
from headstart.costs.formulas import NOTHING
from headstart.costs.timings import remember
from headstart.distributed import HERE, Carried
from headstart.errors import DatasetError, OptionError
from headstart.features.shards import ShardedExtraction
from headstart.heads import metrics
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Callbacks, PhaseTimer
from headstart.runs.store import Timing
from headstart.training import Prepared, predict_images, train
from headstart.training.fitting import Start
from headstart.training.recorder import seen_at_the_end, seen_in_training

_AHEAD = 1.3
"""Epochs to look ahead: the next one, and what part of one the evaluation takes that follows."""


@dataclass(frozen=True)
class TrialResult:
    """A trial, what it says of the test images, what its seconds teach.

    Of the test images only the first seed of the choice will show anything, so no other seed looks at them.
    ``uses_rng`` says whether its epochs drew random numbers of PyTorch's, as dropout does; ``whole`` whether
    the time was enough for all of them.
    """

    trial: Trial
    test: metrics.Evaluation | None
    seen: tuple[Timing, ...] = ()
    uses_rng: bool = True
    whole: bool = True


@dataclass(frozen=True)
class _Work:
    """One training with everything it needs made; ``start_seconds`` is what its start would take alone.

    ``interrupted`` is set when somebody wants all trainings to end.
    """

    candidate: Candidate
    seed: int
    config: FitConfig
    prepared: Prepared
    network: Backbone
    start: Start | None
    start_seconds: float
    interrupted: Event | None


class Trainer:
    """Trains the candidates that share a pass."""

    def __init__(
        self, group: Sequence[Candidate], shared: Pass, *, common: FitConfig, deadline: Deadline
    ) -> None:
        self._group, self._shared = group, shared
        self._common, self._deadline = common, deadline
        self._starts = Starts(shared)

    def train(self, *, first: bool, count: Callable[[int], None]) -> list[TrialResult]:
        """Every candidate with every seed; what fails or the time does not allow is left out and named.

        Args:
            first: nothing has been trained yet, so that the first training begins whatever it takes.
            count: called with the number of trainings that are done.
        """
        if sends_well(self._shared):
            return self._train_there(first=first, count=count)
        if any(candidate.fine_tuned for candidate in self._group):
            start_torch(f"training stages of {self._shared.network.name}")
        results: list[TrialResult] = []
        try:
            for candidate in self._different():
                seed = 0
                try:
                    for found in self._seeds(candidate, needed=first and not results):
                        results.append(found)
                        seed += 1
                        count(len(results))
                except (DatasetError, OptionError) as error:
                    if first and not results:
                        raise
                    self._deadline.fail(f"{_without(candidate, seed)}: {error}")
        finally:
            remember(each for result in results for each in result.seen)
        return results

    def _different(self) -> Iterator[Candidate]:
        """Without those whose limited number of images is all of them: the same training twice."""
        for candidate in self._group:
            if not (candidate.whole in self._group and _is_all(self._shared.prepared, candidate)):
                yield candidate

    def _train_there(self, *, first: bool, count: Callable[[int], None]) -> list[TrialResult]:
        """Every training as a task of its own, where the features were computed."""
        place, seeds = self._shared.prepared.place, range(self._deadline.schedule.seeds)
        items = [(each, seed) for each in self._different() for seed in (seeds if each.random else [0])]
        work = partial(
            _train_here, place.carried(self._shared.network, "graph"), _sent(self._shared), self._common
        )
        found: dict[int, TrialResult] = {}
        failed: dict[Candidate, tuple[int, str]] = {}
        for position, result in place.each(work, items):
            candidate, seed = items[position]
            if isinstance(result, str):
                failed[candidate] = min((seed, result), failed.get(candidate, (seed, result)))
            elif result is not None:
                found[position] = result
            count(len(found))
        if first and failed and not found:
            raise OptionError(next(iter(failed.values()))[1])
        for candidate, (seed, reason) in failed.items():
            self._deadline.fail(f"{_without(candidate, seed)}: {reason}")
        return [found[position] for position in sorted(found)]

    def one(self, candidate: Candidate, *, seed: int) -> TrialResult | None:
        """One training, whatever it takes."""
        if candidate.fine_tuned:
            start_torch(f"training stages of {self._shared.network.name}")
        return self._ended(self._work(candidate, seed=seed))

    def _seeds(self, candidate: Candidate, *, needed: bool) -> Iterator[TrialResult]:
        """The first seed alone, with all cores, so that its seconds mean something; then the others."""
        first = self._alone(candidate, seed=0, needed=needed)
        if first is None:
            return
        yield first
        if not first.whole:
            return  # other seeds would be trained longer, or not at all
        seeds = range(1, self._deadline.schedule.seeds if candidate.random else 1)
        # Asking how many goes to PyTorch, whose start takes seconds and which heads alone do without.
        at_once = parallel.at_once(len(seeds)) if candidate.fine_tuned and not first.uses_rng else 1
        for wave in (seeds[start : start + at_once] for start in range(0, len(seeds), at_once)):
            found = self._wave(candidate, wave, first=first)
            yield from found
            if len(found) < len(wave):
                return

    def _wave(self, candidate: Candidate, seeds: range, *, first: TrialResult) -> list[TrialResult]:
        """Some seeds at once, as far as the time goes."""
        if len(seeds) == 1:
            found = self._alone(candidate, seed=seeds[0], needed=False)
            return [] if found is None else [found]
        if not self._deadline.allows(self._group, candidate, seed=seeds[0], times=SLOWER):
            self._deadline.skip(_without(candidate, seeds[0]))
            return []
        interrupted = Event()
        works = [self._work(candidate, seed=seed, interrupted=interrupted) for seed in seeds]
        ended = parallel.run(self._ended, works, interrupted=interrupted)
        results = []
        for seed, found in zip(seeds, ended, strict=True):
            if found is None:
                self._deadline.skip(_without(candidate, seed))
                break
            results.append(_timed_as(first, found))
        return results

    def _alone(self, candidate: Candidate, *, seed: int, needed: bool) -> TrialResult | None:
        """One training with all cores, or None where the time does not allow it."""
        begun = time.perf_counter()
        found = None
        if needed or self._deadline.allows(self._group, candidate, seed=seed):
            found = self._ended(self._work(candidate, seed=seed))
        if found is None:
            self._deadline.skip(_without(candidate, seed))
            return None
        if found.whole:
            self._deadline.note(candidate, time.perf_counter() - begun)
        return found

    def _work(self, candidate: Candidate, *, seed: int, interrupted: Event | None = None) -> _Work:
        config = candidate.config(self._common, seed=seed)
        prepared = limit_images(self._shared.at(candidate), per_class=candidate.images, seed=seed)
        network = _network(candidate, self._shared, seed=seed)
        start, start_seconds = None, 0.0
        if candidate.fine_tuned:
            start, start_seconds = self._starts.of(candidate, prepared, network=network, config=config)
        return _Work(candidate, seed, config, prepared, network, start, start_seconds, interrupted)

    def _ended(self, work: _Work) -> TrialResult | None:
        """One training, or None where the time was up before its last epoch and it is not kept."""
        try:
            return self._train(work)
        except Over:
            return None

    def _train(self, work: _Work) -> TrialResult:
        candidate, prepared = work.candidate, work.prepared
        timer = PhaseTimer()
        stop = _Stop(self._deadline, timer, keep=work.seed == 0, interrupted=work.interrupted)
        trained = train(
            prepared,
            config=work.config,
            watch=Callbacks([timer, stop]),
            start=work.start,
            resumable=False,  # or its seconds would be those of the rest
        )
        train_seconds = work.start_seconds + timer.seconds["train"]
        splits = ("validation", "test") if work.seed == 0 else ("validation",)
        evaluations = dict(_evaluations(prepared, trained, splits=splits))
        found, predicted, evaluate_seconds = evaluations["validation"]
        trial = Trial(
            candidate=self._labelled(candidate, stop),
            seed=work.seed,
            images=len(prepared.images("train")),
            predicted=predicted,
            accuracy=found.accuracy,
            macro_f1=found.macro_f1,
            log_loss=found.log_loss,
            calibration_error=found.calibration_error,
            seconds={
                "features": self._shared.cold_seconds(candidate),
                "train": round(train_seconds, 3),
                "evaluate": round(evaluate_seconds, 3),
            },
            history=epoch_times.timed(
                trained.history, timer.epochs, begun=timer.phases["train"].begun - work.start_seconds
            ),
        )
        seen = [each for each in seen_in_training(timer, prepared, trained) if each.step != "torch"]
        if work.seed == 0:  # the only one that all held-out images are asked of
            timer.seconds["evaluate"] = sum(each[2] for each in evaluations.values())
            seen += seen_at_the_end(timer, prepared, trained)
        test = evaluations["test"][0] if "test" in evaluations else None
        return TrialResult(trial, test, tuple(seen), trained.uses_rng, whole=not stop.said)

    def _labelled(self, candidate: Candidate, stop: "_Stop") -> Candidate:
        """The candidate; one that was stopped says so wherever its name stands."""
        if not stop.said:
            return candidate
        self._deadline.skip(f"{candidate.name}: stopped after {stop.said}")
        return replace(candidate, label=f"{candidate.whole.name}, {stop.said}")


def sends_well(shared: Pass) -> bool:
    """Whether trainings can be done where the pass was, by those who see its features."""
    extraction = shared.prepared.extraction
    return isinstance(extraction, ShardedExtraction) and extraction.seen_by_all


def _sent(shared: Pass) -> Pass:
    """The pass for another process; its network travels beside it."""
    prepared = shared.prepared
    samples = tuple(prepared.place.sent(prepared.dataset.samples))
    return replace(
        shared,
        prepared=replace(
            prepared,
            dataset=replace(prepared.dataset, samples=samples),
            extraction=replace(prepared.extraction, again=None),
            place=HERE,
        ),
    )


def _train_here(
    network: Carried[Backbone], shared: Pass, common: FitConfig, item: tuple[Candidate, int]
) -> TrialResult | str | None:
    """One training in a task, or why it cannot be."""
    candidate, seed = item
    extraction = replace(shared.prepared.extraction, backbone=network.here)
    shared = replace(shared, network=network.here, prepared=replace(shared.prepared, extraction=extraction))
    unlimited = Deadline(Schedule([[candidate]], 1, Forecast({}, {}, NOTHING)), None, 0.0)
    try:
        return Trainer([candidate], shared, common=common, deadline=unlimited).one(candidate, seed=seed)
    except (DatasetError, OptionError) as error:
        return str(error)


def _without(candidate: Candidate, seed: int) -> str:
    return f"without {candidate.name}" + (f" from seed {seed} on" if seed else "")


def _timed_as(first: TrialResult, found: TrialResult) -> TrialResult:
    """A training that ran beside others: its seconds are those of the one that ran alone, epoch by epoch.

    What it took beside others says nothing of what it takes alone, so it teaches nothing either.
    """
    epochs = len(found.trial.history) / max(1, len(first.trial.history))
    alone = first.trial.seconds
    seconds = {**alone, "train": round(alone["train"] * epochs, 3)}
    history = epoch_times.timed_as(found.trial.history, first.trial.history)
    return replace(found, trial=replace(found.trial, seconds=seconds, history=history), seen=())


def _is_all(prepared: Prepared, candidate: Candidate) -> bool:
    """Whether a limited number of images turns out to be all of them."""
    if candidate.images is None:
        return False
    limited = limit_images(prepared, per_class=candidate.images, seed=0)
    return len(limited.images("train")) == len(prepared.images("train"))


@dataclass
class _Stop(Callback):
    """Ends a training after an epoch when the time is up.

    A first seed is kept with the epochs that it has and labelled so. Another one is given up, by raising
    `Over`: an average over seeds that were trained for different times would mean nothing.
    """

    deadline: Deadline
    timer: PhaseTimer
    keep: bool
    interrupted: Event | None
    said: str = ""  # after how many epochs it stopped; empty where it did not
    done: tuple[int, int] = (0, 0)

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Keeps how far the epochs have come."""
        if phase == "epochs":
            self.done = done, total

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> bool:
        """Whether to stop with what there is; looks one epoch ahead."""
        done, total = self.done
        if self.interrupted is not None and self.interrupted.is_set():
            raise Over
        each = self.timer.phases["epochs"].pace() or 0.0
        if done >= total or self.deadline.leaves(_AHEAD * each):
            return False
        if not self.keep:
            raise Over
        self.said = f"{done} of {total} epochs"
        return True


def _evaluations(
    prepared: Prepared, trained: Any, *, splits: Sequence[str]
) -> Iterator[tuple[str, tuple[metrics.Evaluation, tuple[int, ...], float]]]:
    for split in splits:
        images = prepared.images(split)
        if len(images):
            begun = time.perf_counter()
            probabilities = predict_images(prepared, trained, images=images)
            found = metrics.evaluate(probabilities, prepared.labels(images), classes=prepared.dataset.classes)
            predicted = tuple(int(label) for label in probabilities.argmax(axis=1))
            yield split, (found, predicted, time.perf_counter() - begun)


def _network(candidate: Candidate, shared: Pass, *, seed: int) -> Backbone:
    """The network to fine-tune: from scratch each seed has its own weights; the pixels are shared."""
    if candidate.pretrained or (seed == 0 and not shared.network.pretrained):
        return shared.network
    return backbone_of(candidate, seed=seed)
