"""What a comparison will take, and what of it a budget leaves."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.comparisons.passes import FEW, MORE, union
from headstart.comparisons.values import Candidate
from headstart.costs import CostEstimate, Timings, Workload
from headstart.costs.budgets import CAREFUL, IMAGES_PER_CLASS
from headstart.costs.formulas import NOTHING, TORCH_START
from headstart.data.dataset import Dataset
from headstart.errors import OptionError
from headstart.heads.threads import cores
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.runs.formatting import human_seconds

Groups = Sequence[Sequence[Candidate]]
"""Candidates that share a pass over the images, in the order of training."""

_AGAIN = 0.2
"""Share of PyTorch's start that every further fine-tuning pays: a network, a first step."""


SLOWER = 1.5
"""What a training takes beside others, over what it takes alone with all cores."""

_RESERVE = 0.15
"""Share by which the first training may take longer than foreseen without breaking the budget."""

MOST_AT_ONCE = 4
"""Trainings beside each other; each has weights, gradients and momentum of its own in memory."""


def turns(candidate: Candidate, *, seeds: int) -> float:
    """What all seeds of a candidate take, in units of one training alone.

    The first runs alone; of fine-tuned stages the others run beside each other, see `comparisons.parallel`.
    """
    if not candidate.random:
        return 1.0
    others = seeds - 1
    at_once = min(others, cores(), MOST_AT_ONCE)
    if not candidate.fine_tuned or at_once < 2:
        return float(seeds)
    whole, rest = divmod(others, at_once)
    return 1 + SLOWER * whole + (SLOWER if rest > 1 else rest)


@dataclass(frozen=True)
class Forecast:
    """What the parts are expected to take.

    Attributes:
        passes: the look at every image that a candidate's group shares.
        trainings: one training and its evaluation, by candidate.
        torch: PyTorch's start, once, where anything is fine-tuned.
    """

    passes: Mapping[Candidate, CostEstimate]
    trainings: Mapping[Candidate, CostEstimate]
    torch: CostEstimate

    def total(self, groups: Groups, *, seeds: int) -> CostEstimate:
        """All passes and trainings of these groups."""
        parts = [self.passes[group[0]] for group in groups]
        chosen = [candidate for group in groups for candidate in group]
        parts += [self.trainings[each].times(turns(each, seeds=seeds)) for each in chosen]
        if any(candidate.fine_tuned for candidate in chosen):
            parts.append(self.torch)
        return sum(parts, NOTHING)


def forecast(
    dataset: Dataset,
    groups: Groups,
    *,
    networks: Mapping[Candidate, Backbone],
    common: FitConfig,
    runtime: Runtime,
    timings: Timings,
) -> Forecast:
    """Predict every pass and training.

    Args:
        dataset: the labelled images.
        groups: what will be trained.
        networks: by the first candidate of each group.
        common: the settings that all candidates share.
        runtime: what executes the networks.
        timings: what this machine took before.
    """
    passes, trainings = {}, {}
    for group in groups:
        network, first = networks[group[0]], group[0]
        config, wanted = first.config(common, seed=0), union(group, views=first.views)
        job = Workload.of(config, dataset, network, runtime=runtime, spec=wanted)
        looking = job.estimate(timings, phases=("features", "check")) + _projections(
            job, group, timings=timings
        )
        for candidate in group:
            passes[candidate] = looking
            own = replace(job, config=candidate.config(common, seed=0), spec=None)
            trainings[candidate] = _training(own, candidate, timings=timings)
    factor, spread = timings.scale("torch", "", spread=0.4)
    return Forecast(passes, trainings, CostEstimate({"train": factor * TORCH_START}, spread))


def _projections(job: Workload, group: Sequence[Candidate], *, timings: Timings) -> CostEstimate:
    """Timing some images from an empty cache, for what the seconds of a pass cannot be read off."""
    few = job.cut("images", min(FEW + MORE, job.counts.images))
    part = replace(few, counts=replace(few.counts, missing=float(few.counts.images)))
    found = NOTHING
    if job.counts.missing < job.counts.images:
        found += part.estimate(timings, phases=("features",))
    if any(not each.pretrained for each in group) and any(each.pretrained for each in group):
        wanted = replace(
            job.spec or union(group, views=group[0].views), depth=0, also=(), pooled=False, layers=False
        )
        found += replace(part, spec=wanted).estimate(timings, phases=("features",))
    return found


def _training(job: Workload, candidate: Candidate, *, timings: Timings) -> CostEstimate:
    """One training and its evaluation; of PyTorch's start a share, as it is paid once."""
    if candidate.images is not None:
        limited = min(job.counts.training, candidate.images * job.counts.classes)
        job = replace(job, counts=replace(job.counts, training=limited))
    found = job.estimate(timings, phases=("train", "evaluate"))
    if not candidate.fine_tuned:
        return found
    factor, _ = timings.scale("torch", "", spread=0.4)
    again = found.phases["train"] - (1 - _AGAIN) * factor * TORCH_START
    return replace(found, phases={**found.phases, "train": again})


def _counted(candidates: int) -> str:
    return (
        "candidate with one seed needs" if candidates == 1 else f"{candidates} candidates with one seed need"
    )


def shrink(
    groups: Groups, forecast: Forecast, *, seeds: int, budget: float | None, spent: float
) -> "Schedule":
    """The comparison that fits: fewer seeds down to one, then without the candidates that cost most.

    Args:
        groups: what was asked for.
        forecast: what it would take.
        seeds: trainings of each candidate that were asked for.
        budget: seconds of the whole command; None leaves nothing out.
        spent: of them, those that are gone.

    Raises:
        OptionError: not even the two fastest candidates fit (or the only one).
    """
    if budget is None:
        return Schedule(groups, seeds, forecast)

    def fits(chosen: Groups, count: int) -> bool:
        return spent + forecast.total(chosen, seeds=count).seconds <= CAREFUL * budget

    kept, count, dropped = [list(group) for group in groups], seeds, []
    while count > 1 and not fits(kept, count):
        count -= 1
    fewest = min(2, sum(map(len, kept)))
    while not fits(kept, count) and sum(map(len, kept)) > fewest:
        dropped.append(_dearest(kept, forecast))
        kept = [[each for each in group if each is not dropped[-1]] for group in kept]
        kept = [group for group in kept if group]
    if not fits(kept, count):
        needed = (spent + forecast.total(kept, seeds=count).seconds) / CAREFUL
        raise OptionError(
            f"budget {human_seconds(budget)}: the fastest {_counted(fewest)} about "
            f"{human_seconds(needed)} here; give it more, or take a smaller --size"
        )
    while count < seeds and fits(kept, count + 1):
        count += 1
    said = [f"{count} of {seeds} seeds"] if count < seeds else []
    said += [f"without {', '.join(each.name for each in dropped)}"] if dropped else []
    return Schedule(kept, count, forecast, tuple(said))


@dataclass(frozen=True)
class Schedule:
    """What will be trained, and in words what was left out."""

    groups: Groups
    seeds: int
    forecast: Forecast
    left_out: tuple[str, ...] = ()

    @property
    def expected(self) -> CostEstimate:
        """What is to come."""
        return self.forecast.total(self.groups, seeds=self.seeds)


def _dearest(groups: Groups, forecast: Forecast) -> Candidate:
    """The candidate without which most seconds are saved: with its pass, where no other needs that."""

    def saved(group: Sequence[Candidate], candidate: Candidate) -> float:
        alone = forecast.passes[group[0]].seconds if len(group) == 1 else 0.0
        return forecast.trainings[candidate].seconds + alone

    return max(((saved(group, each), each) for group in groups for each in group), key=lambda pair: pair[0])[
        1
    ]


class Over(Exception):
    """The budget is spent in the middle of a pass or a training; the comparison catches it."""


@dataclass(frozen=True)
class Alarm(Callback):
    """Asks after every piece of a pass whether that was enough."""

    check: Callable[[str, int, int], bool]

    def on_progress(self, phase: str, done: int, total: int) -> bool:
        """Asks."""
        return self.check(phase, done, total)


@dataclass
class Deadline:
    """Looks again while a comparison runs: what would no longer fit is left out and named.

    A training counts as expensive as the same candidate's last one, or as forecast, scaled by how the
    trainings so far compared with their forecasts.
    """

    schedule: Schedule
    budget: float | None
    started: float
    clock: Callable[[], float] = time.perf_counter
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _took: dict[Candidate, float] = field(default_factory=dict)
    _foreseen: float = 0.0
    _actual: float = 0.0

    def leaves(self, seconds: float = 0.0) -> bool:
        """Whether so much more fits."""
        return self.budget is None or self.clock() - self.started + seconds <= self.budget

    def any_pass(self) -> Callback:
        """Ends a pass with `Over` when the time is up."""

        def check(phase: str, done: int, total: int) -> bool:
            if not self.leaves():
                raise Over
            return False

        return Alarm(check)

    def first_pass(self, group: Sequence[Candidate], *, classes: int) -> Callback:
        """Ends the first pass with the images so far where a training of all would no longer fit."""
        foreseen = self.schedule.forecast
        training = min(foreseen.trainings[each].seconds for each in group)
        fine_tuned = any(each.fine_tuned for each in group)
        starting = foreseen.torch.seconds if fine_tuned else 0.0

        def check(phase: str, done: int, total: int) -> bool:
            if phase != "features" or not IMAGES_PER_CLASS * classes <= done < total:
                return False
            if self.leaves((1 + _RESERVE) * (starting + training * done / total)):
                return False
            self.skip(f"reading took longer than predicted, {done:,} of {total:,} images used")
            return True

        return Alarm(check)

    def allows(
        self,
        group: Sequence[Candidate],
        candidate: Candidate | None = None,
        *,
        seed: int = 0,
        times: float = 1.0,
    ) -> bool:
        """Whether a pass (no candidate), or one more training, fits beside one of each that are to come.

        ``times`` is what the training takes of its usual seconds.
        """
        if self.budget is None:
            return True
        needed = self.schedule.forecast.passes[group[0]].seconds
        if candidate is not None:
            needed = times * self._seconds(candidate)
        return self.leaves(needed + (sum(self._still(group, candidate)) if seed else 0.0))

    def note(self, candidate: Candidate, seconds: float) -> None:
        """A training is done."""
        self._took[candidate] = seconds
        self._actual += seconds
        self._foreseen += self.schedule.forecast.trainings[candidate].seconds

    def skip(self, what: str) -> None:
        """Remember what the budget leaves out."""
        self.skipped.append(what)

    def fail(self, what: str) -> None:
        """Remember what could not be done, which has nothing to do with the time."""
        self.failed.append(what)

    def notes(self) -> tuple[str, ...]:
        """A line for people on what the budget left out, and one on what failed."""
        cut = [*self.schedule.left_out, *self.skipped]
        lines = [f"budget {human_seconds(self.budget or 0)}: {'; '.join(cut)}"] if cut else []
        return (*lines, *([f"left out: {'; '.join(self.failed)}"] if self.failed else []))

    def _seconds(self, candidate: Candidate) -> float:
        if candidate in self._took:
            return self._took[candidate]
        slower = self._actual / self._foreseen if self._foreseen > 0 else 1.0
        return self.schedule.forecast.trainings[candidate].seconds * slower

    def _still(self, group: Sequence[Candidate], candidate: Candidate | None) -> Iterator[float]:
        """One training of each candidate that has not had its turn, and the passes they need."""
        groups = [list(each) for each in self.schedule.groups]
        position = groups.index(list(group))
        after = group[group.index(candidate) + 1 :] if candidate else group
        for each in after:
            yield self._seconds(each)
        for later in groups[position + 1 :]:
            yield self.schedule.forecast.passes[later[0]].seconds
            for each in later:
                yield self._seconds(each)
