"""`headstart plan`: what each backbone and depth would cost here, with this data. Nothing is trained."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.building import has_timm
from headstart.costs import formulas as jobs
from headstart.costs.budgets import parse_budget
from headstart.costs.candidates import Candidate, parse_candidates
from headstart.costs.clock import ending
from headstart.costs.estimates import Estimate, add
from headstart.costs.timings import Observation, Rates, RateStore
from headstart.dataset import Dataset, read_dataset
from headstart.errors import OptionError
from headstart.features import FeatureCache, Wanted, cache_bytes, missing_share
from headstart.features.extraction import BATCH_SIZE
from headstart.features.lookup import spread
from headstart.files import cache_folder
from headstart.runs import FitConfig, refuse_others
from headstart.runtimes import Runtime, select
from headstart.training.planned import Plan, Row, allowance, memory_bytes, room_for, stage_seconds
from headstart.training.stopwatch import (
    BATCHES,
    TRAINING_STEPS,
    PrefixTiming,
    StorageTiming,
    time_decoding,
    time_prefix,
    time_storage,
    time_training,
)

LEAST_ALLOWANCE = 3.0
"""Seconds that a plan may always take."""

ALLOWED_SHARE = 0.05
"""Share of the fit it describes that a plan may take, where that is more. A tenth is aimed at, but the first
estimate of a fit may be twice too long, since training often stops early."""

_SAMPLE = 24
"""Images decoded to time decoding."""

_SMALL_BATCH = 8
_MOST_LOADING = 2.0
"""Seconds: what loading a backbone took beyond this was its export, which happens once per machine."""


_DECIDING = ("head", "taps", "views", "epochs", "batch_size", "runtime", "precision", "validation", "test")
"""What of a fit's options decides its seconds, beside backbone and depth."""


@dataclass
class _Session:
    """What one call of `plan` shares between its rows."""

    dataset: Dataset
    runtime: Runtime
    rates: Rates
    clock: Callable[[], float]
    started: float
    asked: FitConfig
    spent: float  # seconds of the command before the session started
    remembered: Sequence[Observation]
    observations: list[Observation] = field(default_factory=list)
    pixels: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict)
    storage: dict[int, StorageTiming] = field(default_factory=dict)
    prefixes: list[tuple[str, PrefixTiming]] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def taken(self) -> float:
        """Seconds of the whole command so far, its start included: what a plan's allowance is about."""
        return self.spent + self.elapsed

    @property
    def elapsed(self) -> float:
        return self.clock() - self.started

    def learn(self, *seen: Observation) -> None:
        """From now on, also for the rows still to come."""
        self.observations += seen
        self.rates = Rates([*reversed(self.observations), *self.remembered])


def plan(
    source: Any,
    *,
    backbones: Sequence[str] = ("builtin",),
    depths: Sequence[str] | None = None,
    budget: float | str | None = None,
    spent: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Plan:
    """Predict what fits of these backbones and depths would cost; nothing is trained.

    Args:
        source: labelled images, as for `fit`.
        backbones: names or files, each with ``@SIZE`` for another size than its own.
        depths: as `fit`'s freeze; None for ``all`` and, where PyTorch is installed, two deeper cuts.
        budget: seconds, or "30s", "2m"; the rows then say what it allows.
        spent: seconds that a command of this process needs before it can call: predictions include them.
        clock: seconds; a test passes its own.
        options: as for `fit`: ``head``, ``taps``, ``views``, ``epochs``, ``batch_size``, ``runtime``,
            ``precision``, ``validation`` and ``test``.

    Raises:
        UserError: the input or an option cannot work.
    """
    started = clock()
    limit = parse_budget(budget)
    refuse_others(options, known=_DECIDING)
    asked = FitConfig.from_options(**options).checked()
    dataset = read_dataset(source)
    engine = select(asked.runtime, precision=asked.precision)
    store = RateStore()
    remembered = store.observations()
    session = _Session(dataset, engine, Rates(remembered), clock, started, asked, spent, remembered)
    listed = session.elapsed
    requests: list[list[_Request]] = []
    for candidate in parse_candidates(backbones):
        begun = session.elapsed
        backbone = load_backbone(candidate.name, size=candidate.size)
        before = spent + ending(spent) + min(listed + session.elapsed - begun, _MOST_LOADING)
        cuts = _depths(backbone, depths)
        requests.append([_Request(session, candidate, backbone, depth, before) for depth in cuts])
    for each in requests:
        _time_features(session, each)
    every = [request for each in requests for request in each]
    for request in every:
        _time_training(request)
    rows = [_row(request, budget=limit) for request in every]
    store.add(session.observations)
    return Plan(
        data=dataset.name,
        images=len(dataset),
        classes=len(dataset.classes),
        rows=tuple(sorted(rows, key=lambda row: row.seconds.median)),
        prefixes=tuple(session.prefixes),
        stages=session.stages,
        notes=tuple(dict.fromkeys(session.notes)),
        seconds=session.taken,
        budget=limit,
    )


def _depths(backbone: Backbone, asked: Sequence[str] | None) -> list[int]:
    """The cuts to plan for, the shallowest training first."""
    count = len(backbone.stages)
    if asked:
        return list(dict.fromkeys(backbone.depth(each) for each in asked))
    if not has_timm() or backbone.recipe is None:
        return [count]
    return list(dict.fromkeys([count, max(0, count - 2), count // 2]))


@dataclass
class _Request:
    """One row to be: the fit, as the formulas see it."""

    session: _Session
    candidate: Candidate
    backbone: Backbone
    depth: int
    before: float  # seconds of the command until nothing is left but the work: start-up, listing, loading

    @property
    def label(self) -> str:
        return f"{self.candidate.label} at {self.backbone.preprocess.size} px"

    @cached_property
    def config(self) -> FitConfig:
        session = self.session
        named = replace(session.asked, backbone=self.candidate.name)
        return jobs.settle(named, session.dataset, self.backbone, depth=self.depth, runtime=session.runtime)

    @property
    def wanted(self) -> Wanted:
        return Wanted.of(self.config)

    def job(self, *, missing: float) -> jobs.Job:
        session = self.session
        job = jobs.describe(
            session.dataset,
            self.backbone,
            wanted=self.wanted,
            config=self.config,
            missing=missing,
        )
        return replace(job, compiled=session.rates.known("open", f"{job.network} compiled"))

    def missing(self) -> float:
        return missing_share(
            self.session.dataset.samples,
            self.backbone,
            wanted=self.wanted,
            runtime=self.session.runtime,
            cache=FeatureCache(cache_folder()),
        )


# ------------------------------------------------------------------------------------------ timing


def _time_features(session: _Session, requests: Sequence[_Request]) -> None:
    """Time of one backbone what is not remembered, as far as the allowance goes."""
    job = requests[0].job(missing=1.0)
    if not session.rates.known("decode", job.data):
        _time_decoding(requests[0], job)
    unknown = [each for each in requests if not session.rates.known("prefix", each.job(missing=1.0).network)]
    if unknown and _affordable(unknown[0], _prefix_cost(unknown[0], batch_size=BATCH_SIZE)):
        _time_prefix(unknown)


def _basis(request: _Request) -> str:
    """What a row's seconds rest on."""
    session, job = request.session, request.job(missing=1.0)
    needed = [("prefix", job.network), *([("epoch", jobs.tail_key(job))] if job.thawed else [])]
    if not all(session.rates.known(*each) for each in needed):
        session.notes.append(
            f"{request.label}: partly estimated, because timing it would take longer than a plan may"
        )
        return "estimated"
    now = {(seen.quantity, seen.key) for seen in session.observations}
    return "timed now" if set(needed) & now else "remembered"


def _affordable(request: _Request, cost: Sequence[Estimate]) -> bool:
    """Whether a timing stays within what the plan may take, although it may take longer than expected."""
    at_most = add(cost).seconds * math.exp(add(cost).spread)
    return request.session.taken + at_most < _allowed(request)


def _allowed(request: _Request) -> float:
    """Seconds that the whole plan may take, for what this row describes."""
    fit = add(jobs.estimates(request.job(missing=1.0), request.session.rates)).seconds
    return max(LEAST_ALLOWANCE, ALLOWED_SHARE * fit)


def _prefix_cost(request: _Request, *, batch_size: int) -> list[Estimate]:
    """What it takes to compile a network and run the batches of `time_prefix`."""
    rates, job = request.session.rates, request.job(missing=1.0)
    images = (BATCHES + 1) * batch_size / job.views
    running = rates.estimate("prefix", job.network, base=images * jobs.prefix_base(job), spread=0.5)
    opening = jobs.open_step(replace(job, compiled=False))
    return [running, rates.estimate(opening.quantity, opening.key, base=opening.base, spread=0.5)]


def _training_cost(request: _Request) -> list[Estimate]:
    """What it takes to import PyTorch and run the steps of `time_training`."""
    rates, job = request.session.rates, request.job(missing=1.0)
    images = TRAINING_STEPS * job.batch_size
    forward = job.tail_macs / jobs.TRAIN_RATE
    running = images * forward * jobs.FORWARD_AND_BACKWARD
    return [
        rates.estimate("epoch", jobs.tail_key(job), base=running, spread=0.6),
        rates.estimate("torch", "", base=jobs.TORCH_START, spread=0.4),
    ]


def _pixels(request: _Request) -> NDArray[np.uint8]:
    session, preprocess = request.session, request.backbone.preprocess
    key = (preprocess.size, preprocess.resized_side)
    if key not in session.pixels:
        _time_decoding(request, request.job(missing=1.0))
    return session.pixels[key]


def _time_decoding(request: _Request, job: jobs.Job) -> None:
    session, preprocess = request.session, request.backbone.preprocess
    few = spread(session.dataset.samples, _SAMPLE)
    seconds, pixels = time_decoding(few, preprocess, views=request.wanted.views, clock=session.clock)
    if not len(pixels):
        raise OptionError(
            f"{session.dataset.name}: none of {len(few)} images could be read; headstart check says more"
        )
    session.pixels[preprocess.size, preprocess.resized_side] = pixels
    session.learn(Observation("decode", job.data, seconds / jobs.decode_base(job)))


def _time_prefix(requests: Sequence[_Request]) -> None:
    """The whole network at two batch sizes, then half of it, to see how its time spreads over the stages.

    Rows rest on the whole network in the batches of a pass: extraction runs all of it at every depth, behind
    the cut for the vector that a head starts from. The other timings are for people, as far as time allows.
    """
    request = requests[0]
    session, stages = request.session, len(request.backbone.stages)
    whole = _timing(request, depth=stages, batch_size=BATCH_SIZE)
    for each in requests:
        job = each.job(missing=1.0)
        session.learn(
            Observation("prefix", job.network, whole.seconds_per_image * job.views / jobs.prefix_base(job)),
        )
    job = request.job(missing=1.0)
    session.learn(Observation("open", f"{job.network} compiled", whole.open_seconds / jobs.COMPILE))
    found = [whole]
    for depth, batch_size in ((stages, _SMALL_BATCH), (stages // 2, BATCH_SIZE)):
        if not _affordable(request, _prefix_cost(request, batch_size=batch_size)):
            break
        found.append(_timing(request, depth=depth, batch_size=batch_size))
    session.prefixes += [(request.label, timing) for timing in found]
    session.stages[request.label] = stage_seconds(request.backbone, found)


def _timing(request: _Request, *, depth: int, batch_size: int) -> PrefixTiming:
    return time_prefix(
        request.backbone,
        _pixels(request),
        runtime=request.session.runtime,
        depth=depth,
        taps=request.wanted.taps and depth == len(request.backbone.stages),
        batch_size=batch_size,
        clock=request.session.clock,
    )


def _time_training(request: _Request) -> None:
    """A few steps of the thawed stages, where PyTorch is installed and they are not remembered."""
    session, job = request.session, request.job(missing=1.0)
    if not job.thawed or session.rates.known("epoch", jobs.tail_key(job)):
        return
    if not has_timm() or not _affordable(request, _training_cost(request)):
        return
    opened, each = time_training(
        request.backbone,
        depth=request.depth,
        classes=job.classes,
        batch_size=job.batch_size,
        most=_allowed(request) - session.taken,
        clock=session.clock,
    )
    forward = job.tail_macs / jobs.TRAIN_RATE
    session.learn(
        Observation("epoch", jobs.tail_key(job), each / (forward * jobs.FORWARD_AND_BACKWARD)),
        Observation("torch", "", max(opened, 0.05) / jobs.TORCH_START),
    )


def _row(request: _Request, *, budget: float | None) -> Row:
    session, backbone = request.session, request.backbone
    missing = request.missing()
    job = request.job(missing=missing)
    images = len(session.dataset)
    needed = cache_bytes(backbone, wanted=request.wanted, images=images)
    keep, reason = _keep(request, job, needed=needed)
    allowed, fits = allowance(job, session.rates, budget=budget, spent=request.before)
    return Row(
        backbone=request.candidate.label,
        size=backbone.preprocess.size,
        depth=request.depth,
        stages=len(backbone.stages),
        seconds=jobs.predict(job, session.rates, spent=request.before),
        phases=dict(jobs.phase_seconds(job, session.rates)),
        cache_bytes=needed,
        memory_bytes=memory_bytes(job, backbone, depth=request.depth),
        missing=missing,
        keep=keep,
        reason=reason,
        allowed=allowed,
        fits=fits,
        basis=_basis(request),
    )


def _keep(request: _Request, job: jobs.Job, *, needed: int) -> tuple[str, str]:
    """Cache or no room, with what reading a record and computing it anew take here."""
    session = request.session
    per_image = max(64, needed // max(1, len(session.dataset)))
    magnitude = 1 << (per_image - 1).bit_length()  # one timing for all records of about this size
    if magnitude not in session.storage:
        session.storage[magnitude] = time_storage(magnitude, clock=session.clock)
    computing = add(
        [
            session.rates.estimate("decode", job.data, base=jobs.decode_base(job), spread=0.5),
            session.rates.estimate("prefix", job.network, base=jobs.prefix_base(job), spread=0.5),
        ]
    ).seconds
    return room_for(
        reading=session.storage[magnitude].read, computing=computing, needed=needed, free=_free_bytes()
    )


def _free_bytes() -> int:
    folder = cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
