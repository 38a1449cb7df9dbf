"""`headstart plan`: what each backbone and depth would cost here, with this data. Nothing is trained."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.building import has_timm
from headstart.backbones.runtimes import Runtime, select
from headstart.costs import CostEstimate, Timings, Workload, parse_budget
from headstart.costs.budgets import CAREFUL, fit_into
from headstart.costs.formulas import (
    COMPILE,
    FORWARD_AND_BACKWARD,
    TORCH_START,
    TRAIN_RATE,
    data_key,
    decode_base,
    frozen_base,
    network_key,
)
from headstart.costs.timings import remember
from headstart.data.dataset import Dataset, read_dataset
from headstart.errors import OptionError
from headstart.features import FeatureSpec, cache_bytes
from headstart.features.coverage import spread
from headstart.features.extraction import BATCH_SIZE
from headstart.files import cache_folder
from headstart.runs import FitConfig, refuse_others
from headstart.runs.callbacks import Clock, Range
from headstart.runs.formatting import human_seconds
from headstart.runs.store import Timing
from headstart.training.backbone_names import BackboneName, load_named, parse_names
from headstart.training.resolving import resolve
from headstart.training.stopwatch import BATCHES, TRAINING_STEPS, time_decoding, time_frozen, time_training

LEAST_ALLOWANCE = 3.0
"""Seconds that a plan may always take."""

ALLOWED_SHARE = 0.05
"""Share of the training it describes that a plan may take, where that is more."""

_SAMPLE = 24
"""Images decoded to time decoding."""

_TIMED_AT_MOST = 1.5
"""How much longer than expected a timing may take and still be begun."""

_DECIDING = ("head", "layers", "views", "epochs", "batch_size", "runtime", "precision", "validation", "test")
"""What of a fit's options decides its seconds, beside backbone and depth."""

_MEGABYTE = 1_000_000
_PROCESS_BYTES = 220 * _MEGABYTE  # an interpreter with NumPy, Pillow and OpenVINO, before any network
_TORCH_BYTES = 330 * _MEGABYTE
_BATCH = 32
_MAPS_PER_STAGE = 6  # maps of its output's size that a stage keeps for the gradient, four bytes a value
_MOST_FEATURES_IN_MEMORY = 1 << 29  # beyond this a head's fit streams them; `headstart.training.fitting`


@dataclass(frozen=True)
class PlanRow:
    """One backbone at one depth: what a fit would cost."""

    backbone: str
    size: int
    depth: int
    stages: int
    seconds: Range
    phases: Mapping[str, float]  # median seconds by phase
    cache_bytes: int
    memory_bytes: int  # about, at its peak
    missing: float  # share of the images that are not in the cache yet
    keep: str  # "cache", or "no room": then a fit stores nothing
    reason: str
    allowed: str  # what the budget allows, empty without a budget
    fits: bool
    basis: str  # "timed now", "remembered" or "estimated"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {name: value for name, value in vars(self).items() if name not in ("seconds", "missing")}
        return found | {
            "depth": "all" if self.depth == self.stages else self.depth,
            "predicted_seconds": self.seconds.to_dict(),
            "phases": {name: round(value, 3) for name, value in self.phases.items()},
            "cached_share": round(1 - self.missing, 3),
        }


@dataclass(frozen=True)
class Plan:
    """The rows, cheapest first, and what planning itself took."""

    data: str
    images: int
    classes: int
    rows: tuple[PlanRow, ...]
    stages: Mapping[str, Mapping[str, float]]  # by backbone timed now: seconds per image of each stage
    notes: tuple[str, ...]
    seconds: float
    budget: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "data": self.data,
            "images": self.images,
            "classes": self.classes,
            "budget": self.budget,
            "rows": [row.to_dict() for row in self.rows],
            "stage_seconds_per_image": {name: dict(found) for name, found in self.stages.items()},
            "notes": list(self.notes),
            "plan_seconds": round(self.seconds, 3),
        }


@dataclass
class _Session:
    """What one call of `plan` shares between its rows."""

    dataset: Dataset
    runtime: Runtime
    asked: FitConfig
    clock: Clock
    begun: float
    timings: Timings
    seen: list[Timing] = field(default_factory=list)
    pixels: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        return self.clock() - self.begun

    def learn(self, *seen: Timing) -> None:
        """From now on, also for the rows still to come."""
        self.seen += seen
        remember(seen)
        self.timings = Timings.load()
        for each in seen:
            if not self.timings.known(each.step, each.key):  # a home that cannot be written
                self.timings = Timings(reversed(self.seen))


@dataclass(frozen=True)
class _Asked:
    """One row to be."""

    candidate: BackboneName
    backbone: Backbone
    config: FitConfig
    job: Workload

    @property
    def label(self) -> str:
        return f"{self.candidate.label} at {self.backbone.preprocess.size} px"

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec.of(self.config)

    @property
    def network(self) -> str:
        return network_key(self.config, self.backbone, self.spec)

    @property
    def epoch(self) -> str:
        return f"{self.network} {self.config.batch_size}"

    @property
    def fine_tuned_macs(self) -> int:
        return sum(stage.multiply_adds for stage in self.backbone.stages[self.config.depth :])


def plan(
    source: Any,
    *,
    backbones: Sequence[str] = (FitConfig.backbone,),
    depths: Sequence[str] | None = None,
    budget: float | str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Plan:
    """Predict what fits of these backbones and depths would cost; nothing is trained.

    Args:
        source: labelled images, as for `fit`.
        backbones: names or files, each with ``@SIZE`` for another size than its own.
        depths: as `fit`'s freeze; None for ``all`` and, where PyTorch is installed, two deeper cuts.
        budget: seconds, or "30s", "2m"; the rows then say what it allows.
        clock: seconds; a test passes its own.
        options: as for `fit`: ``head``, ``layers``, ``views``, ``epochs``, ``batch_size``, ``runtime``,
            ``precision``, ``validation`` and ``test``.

    Raises:
        UserError: the input or an option cannot work.
    """
    begun, limit = clock(), parse_budget(budget)
    refuse_others(options, known=_DECIDING)
    asked = FitConfig.from_options(**options).checked()
    dataset = read_dataset(source)
    engine = select(asked.runtime, precision=asked.precision)
    session = _Session(dataset, engine, asked, clock, begun, Timings.load())
    networks = dict(load_named(each) for each in parse_names(backbones))
    every = []
    for candidate, backbone in networks.items():
        session.notes += backbone.notes
        rows = [_asked(session, candidate, backbone, depth) for depth in _depths(backbone, depths)]
        _time_features(session, rows)
        every += rows
    for each in every:
        _time_training(session, each)
    found = [_row(session, each, budget=limit) for each in every]
    return Plan(
        data=dataset.name,
        images=len(dataset),
        classes=len(dataset.classes),
        rows=tuple(sorted(found, key=lambda row: row.seconds.median)),
        stages=session.stages,
        notes=tuple(dict.fromkeys(session.notes)),
        seconds=session.elapsed,
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


def _asked(session: _Session, candidate: BackboneName, backbone: Backbone, depth: int) -> _Asked:
    named = replace(session.asked, backbone=candidate.name)
    settled = resolve(named, session.dataset, backbone, runtime=session.runtime)
    config = replace(settled, depth=depth, layers=named.layers, epochs=named.epochs).settled()
    job = Workload.of(config, session.dataset, backbone, runtime=session.runtime)
    return _Asked(candidate, backbone, config, job)


# ------------------------------------------------------------------------------------------ timing


def _affordable(session: _Session, row: _Asked, seconds: float) -> bool:
    """Whether a timing stays within what the plan may take, although it may take longer than expected."""
    whole = replace(row.job, counts=replace(row.job.counts, missing=row.job.counts.images))
    allowed = max(LEAST_ALLOWANCE, ALLOWED_SHARE * whole.estimate(session.timings).seconds)
    return session.elapsed + _TIMED_AT_MOST * seconds < allowed


def _time_features(session: _Session, rows: Sequence[_Asked]) -> None:
    """Time of one backbone what is not remembered, as far as the allowance goes.

    Rows rest on the whole network in the batches of a pass: extraction runs all of it at every depth, behind
    the cut for the vector that a head starts from.
    """
    first = rows[0]
    backbone, views = first.backbone, len(first.spec.views)
    if not session.timings.known("decode", data_key(first.config, backbone)):
        _time_decoding(session, first)
    unknown = [row for row in rows if not session.timings.known("prefix", row.network)]
    if not unknown:
        return
    base = frozen_base(first.config, backbone, first.spec)
    factor, _ = session.timings.scale("prefix", first.network, spread=0.0)
    if not _affordable(session, first, COMPILE + factor * base * (BATCHES + 1) * BATCH_SIZE / views):
        return
    opened, each = time_frozen(
        backbone,
        _pixels(session, first),
        runtime=session.runtime,
        layers=first.spec.layers,
        batch_size=BATCH_SIZE,
        clock=session.clock,
    )
    session.learn(
        Timing("open", f"{first.network} compiled", opened / COMPILE),
        *(Timing("prefix", row.network, each * views / base) for row in unknown),
    )
    work = max(1, sum(stage.multiply_adds for stage in backbone.stages))
    session.stages[first.label] = {stage.name: each * stage.multiply_adds / work for stage in backbone.stages}


def _pixels(session: _Session, row: _Asked) -> NDArray[np.uint8]:
    preprocess = row.backbone.preprocess
    key = (preprocess.size, preprocess.resized_side)
    if key not in session.pixels:
        _time_decoding(session, row)
    return session.pixels[key]


def _time_decoding(session: _Session, row: _Asked) -> None:
    preprocess, views = row.backbone.preprocess, row.spec.views
    few = spread(session.dataset.samples, _SAMPLE)
    seconds, pixels = time_decoding(few, preprocess, views=views, clock=session.clock)
    if not len(pixels):
        raise OptionError(
            f"{session.dataset.name}: none of {len(few)} images could be read; headstart check says more"
        )
    session.pixels[preprocess.size, preprocess.resized_side] = pixels
    base = decode_base(row.backbone, views=len(views))
    session.learn(Timing("decode", data_key(row.config, row.backbone), seconds / base))


def _time_training(session: _Session, row: _Asked) -> None:
    """A few steps of the fine-tuned stages, where PyTorch is installed and they are not remembered."""
    if not row.config.fine_tuned or not has_timm() or session.timings.known("epoch", row.epoch):
        return
    step = row.fine_tuned_macs / TRAIN_RATE * FORWARD_AND_BACKWARD
    factor, _ = session.timings.scale("epoch", row.epoch, spread=0.0)
    expected = TORCH_START + factor * step * TRAINING_STEPS * row.config.batch_size
    if not _affordable(session, row, expected):
        return
    opened, each = time_training(
        row.backbone,
        depth=row.config.depth,
        classes=row.job.counts.classes,
        batch_size=row.config.batch_size,
        most=_TIMED_AT_MOST * expected,
        clock=session.clock,
    )
    session.learn(
        Timing("epoch", row.epoch, each / step),
        Timing("torch", "", max(opened, 0.05) / TORCH_START),
    )


# -------------------------------------------------------------------------------------------- rows


def _row(session: _Session, row: _Asked, *, budget: float | None) -> PlanRow:
    config, backbone, job = row.config, row.backbone, row.job
    needed = cache_bytes(backbone, spec=row.spec, images=len(session.dataset))
    keep, reason = _room(needed)
    allowed, fits = allowance(job, session.timings, budget=budget)
    cost = job.estimate(session.timings)
    return PlanRow(
        backbone=row.candidate.label,
        size=backbone.preprocess.size,
        depth=config.depth,
        stages=len(backbone.stages),
        seconds=cost.range(),
        phases=cost.phases,
        cache_bytes=needed,
        memory_bytes=memory_bytes(job),
        missing=job.counts.missing / max(1, job.counts.images),
        keep=keep,
        reason=reason,
        allowed=allowed,
        fits=fits,
        basis=_basis(session, row),
    )


def _basis(session: _Session, row: _Asked) -> str:
    """What a row's seconds rest on."""
    needed = [("prefix", row.network), *([("epoch", row.epoch)] if row.config.fine_tuned else [])]
    if not all(session.timings.known(*each) for each in needed):
        session.notes.append(
            f"{row.label}: partly estimated, because timing it would take longer than a plan may"
        )
        return "estimated"
    now = {(each.step, each.key) for each in session.seen}
    return "timed now" if set(needed) & now else "remembered"


def allowance(job: Workload, timings: Timings, *, budget: float | None) -> tuple[str, bool]:
    """What a budget allows of a job, in words, and whether all of it; a fit would be cut so."""
    if budget is None:
        return "", True

    def seconds(each: Workload) -> float:
        cost: CostEstimate = each.estimate(timings)
        return cost.seconds

    try:
        _, cuts = fit_into(job, seconds=seconds, limit=CAREFUL * budget)
    except OptionError:
        return f"nothing within {human_seconds(budget)}", False
    return "; ".join(cuts) or "all of it", not cuts


def _room(needed: int) -> tuple[str, str]:
    """Whether a fit will cache, or store nothing for want of room."""
    folder = cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return room_for(needed=needed, free=shutil.disk_usage(folder).free)


def room_for(*, needed: int, free: int) -> tuple[str, str]:
    """The same of so many bytes that the features take and the cache's disk has free."""
    if needed <= free:
        return "cache", ""
    return "no room", (
        f"the features need up to {needed / 1e9:.1f} GB, the cache's disk has {free / 1e9:.1f} GB free, so "
        "a fit stores nothing, and the next one computes all of it again; freeze more stages, take a smaller "
        "--size, or set HEADSTART_CACHE to a folder on a larger disk"
    )


def memory_bytes(job: Workload) -> int:
    """About how much the fit needs at its peak: the process, the network, and what is held of the data."""
    config, backbone = job.config, job.backbone
    parameters = sum(stage.parameters for stage in backbone.stages)
    largest = max(stage.bytes_per_image for stage in backbone.stages)
    running = _PROCESS_BYTES + 4 * parameters + 3 * _BATCH * 2 * largest
    if not config.fine_tuned:
        rows, width = job.counts.training * len(config.views), backbone.dimensions
        held = 4 * rows * width
        if config.head == "ridge":  # which streams what is more
            held = min(held, _MOST_FEATURES_IN_MEMORY)
        matrix = 3 * 8 * min(rows, width) ** 2 if config.head == "ridge" else 12 * width * job.counts.classes
        return int(running + 2 * held + matrix)
    fine_tuned = backbone.stages[config.depth :]
    kept = 2 * _MAPS_PER_STAGE * sum(stage.bytes_per_image for stage in fine_tuned)
    # A weight, its gradient, its momentum and the best epoch's copy, four bytes each.
    trained = 4 * 4 * sum(stage.parameters for stage in fine_tuned)
    return int(running + _TORCH_BYTES + trained + config.batch_size * kept)
