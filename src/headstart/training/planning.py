"""`headstart plan`: the accuracy to expect of each backbone, and what a fit would cost. Nothing is saved."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from headstart.backbones import Backbone
from headstart.backbones.building import has_timm
from headstart.backbones.runtimes import select
from headstart.costs import Timings, Workload, parse_budget
from headstart.costs.budgets import CAREFUL, fit_into
from headstart.costs.formulas import FORWARD_AND_BACKWARD, TORCH_START, TRAIN_RATE
from headstart.data.dataset import read_dataset
from headstart.distributed import place
from headstart.errors import OptionError
from headstart.features import FeatureSpec, cache_bytes
from headstart.files import cache_folder
from headstart.heads.tasks import only_single_label
from headstart.runs import FitConfig, refuse_others
from headstart.runs.callbacks import Range
from headstart.runs.formatting import human_seconds
from headstart.runs.store import Timing
from headstart.training.backbone_names import default_candidates, load_named, parse_names
from headstart.training.contenders import Contender, why
from headstart.training.expected_accuracy import Expected, recommend
from headstart.training.probes import Probing, TimeIsUp
from headstart.training.published_accuracy import published_accuracy, undominated
from headstart.training.resolving import resolve
from headstart.training.stopwatch import TRAINING_STEPS, time_training

LEAST_ALLOWANCE = 5.0
"""Seconds that a plan may always take."""

ALLOWED_SHARE = 0.05
"""Share of the training it describes that a plan may take, where that is more."""

_TIMED_AT_MOST = 1.5
"""How much longer than expected a look or a timing may take and still be begun."""

_FIRST_LOOK = 3.0
"""How much longer than that the first look of a plan may be expected to take: it is given up in time, and the
features so far are there for the next plan."""

_DECIDING = (
    *("head", "layers", "views", "epochs", "batch_size", "runtime", "precision", "validation", "test"),
    "preprocess",
)
"""What of a fit's options decides its seconds, beside backbone and depth."""

_MEGABYTE = 1_000_000
_PROCESS_BYTES = 220 * _MEGABYTE  # an interpreter with NumPy, Pillow and OpenVINO, before any network
_TORCH_BYTES = 330 * _MEGABYTE
_BATCH = 32
_MAPS_PER_STAGE = 6  # maps of its output's size that a stage keeps for the gradient, four bytes a value
_MOST_FEATURES_IN_MEMORY = 1 << 29  # beyond this a head's fit streams them; `headstart.training.fitting`


@dataclass(frozen=True)
class PlanRow:
    """One backbone at one size and depth: what a fit would give and cost."""

    backbone: str
    size: int
    depth: int
    stages: int
    accuracy: Expected
    seconds: Range
    phases: Mapping[str, float]  # median seconds by phase
    cache_bytes: int
    memory_bytes: int  # about, at its peak
    missing: float  # share of the images that are not in the cache yet
    keep: str  # "cache", or "no room": then a fit stores nothing
    reason: str
    allowed: str  # what the budget allows, empty without a budget
    fits: bool
    basis: str  # of the seconds: "timed now", "remembered" or "estimated"
    front: bool = False  # no other row is quicker and expected to be at least as accurate
    recommended: bool = False

    @property
    def name(self) -> str:
        """As options take it: NAME@SIZE."""
        return f"{self.backbone}@{self.size}"

    @property
    def label(self) -> str:
        """For a sentence."""
        deeper = "" if self.depth == self.stages else f", {self.depth} of {self.stages} stages frozen"
        return f"{self.name}{deeper}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        kept = {name: value for name, value in vars(self).items() if name not in ("seconds", "missing")}
        return kept | {
            "name": self.name,
            "label": self.label,
            "depth": "all" if self.depth == self.stages else self.depth,
            "accuracy": self.accuracy.to_dict(),
            "predicted_seconds": self.seconds.to_dict(),
            "phases": {name: round(value, 3) for name, value in self.phases.items()},
            "cached_share": round(1 - self.missing, 3),
        }


@dataclass(frozen=True)
class Plan:
    """The rows, cheapest first, which one is recommended and why, and what planning itself took."""

    data: str
    images: int
    classes: int
    rows: tuple[PlanRow, ...]
    why: str
    notes: tuple[str, ...]
    seconds: float
    budget: float | None = None
    by_nodes: Mapping[int, float] = field(default_factory=dict)  # seconds of the recommended row

    @property
    def recommended(self) -> PlanRow:
        """The row to train."""
        return next(row for row in self.rows if row.recommended)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "data": self.data,
            "images": self.images,
            "classes": self.classes,
            "budget": self.budget,
            "rows": [row.to_dict() for row in self.rows],
            "recommended": self.recommended.label,
            "why": self.why,
            "notes": list(self.notes),
            "plan_seconds": round(self.seconds, 3),
            **({"seconds_by_nodes": self.by_nodes} if self.by_nodes else {}),
        }


@dataclass(frozen=True)
class _Wanted:
    """One row to be."""

    contender: Contender
    config: FitConfig
    job: Workload

    @property
    def backbone(self) -> Backbone:
        return self.contender.backbone

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec.of(self.config)

    @property
    def expected(self) -> Expected:
        found = self.contender.expected
        return found.fine_tuned() if self.config.fine_tuned else found

    @property
    def epoch(self) -> str:
        return f"{self.job.network} {self.config.batch_size}"

    @property
    def fine_tuned_macs(self) -> int:
        return sum(stage.multiply_adds for stage in self.backbone.stages[self.config.depth :])


def plan(
    source: Any,
    *,
    backbones: Sequence[str] | None = None,
    depths: Sequence[str] | None = None,
    budget: float | str | None = None,
    on: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Plan:
    """Predict accuracy and costs of fits with these backbones and depths; nothing is trained to the end.

    Args:
        source: labelled images, as for `fit`.
        backbones: names or files, each with ``@SIZE`` for another size than its own; None for those that
            ``backbone="auto"`` would choose from.
        depths: as `fit`'s freeze; None for ``all``, and of the recommended backbone two deeper cuts where
            PyTorch is installed.
        budget: seconds, or "30s", "2m"; the rows then say what it allows.
        on: "ray" says seconds by nodes too, for nodes like those of the cluster.
        clock: seconds; a test passes its own.
        options: as for `fit`: ``head``, ``layers``, ``views``, ``epochs``, ``batch_size``, ``runtime``,
            ``precision``, ``validation`` and ``test``.

    Raises:
        UserError: the input or an option cannot work.
    """
    begun, limit = clock(), parse_budget(budget)
    refuse_others(options, known=_DECIDING)
    asked = FitConfig.from_options(**options).checked()
    dataset, runtime = read_dataset(source), select(asked.runtime, precision=asked.precision)
    only_single_label(dataset.task, "a plan")
    names = parse_names(backbones) if backbones else default_candidates()
    named = dict(load_named(each, preprocess=asked.preprocess) for each in names)
    contenders = [Contender(name, backbone, published_accuracy(backbone)) for name, backbone in named.items()]
    probing = Probing(dataset, asked, runtime, clock=clock)
    notes = _look_at(probing, contenders)
    probing.expect(contenders)
    wanted = [_wanted(probing, each, depth) for each in contenders for depth in depths or ("all",)]
    if not depths:
        best = _recommended([_row(probing, each) for each in wanted], budget=limit)
        wanted += [_wanted(probing, wanted[best].contender, depth) for depth in _deeper(wanted[best])]
    for each in wanted:
        _time_training(probing, each, asked=bool(depths))
    rows = sorted((_row(probing, each, budget=limit) for each in wanted), key=lambda row: row.seconds.median)
    chosen = _recommended(rows, budget=limit)
    accuracies, seconds = [row.accuracy for row in rows], [row.seconds.median for row in rows]
    front = undominated(seconds, [each.accuracy for each in accuracies])
    with place(on) as where:
        by_nodes = where.seconds_by_nodes(rows[chosen].phases, images=len(dataset))
    return Plan(
        data=dataset.name,
        images=len(dataset),
        classes=len(dataset.classes),
        rows=tuple(
            replace(row, front=index in front, recommended=index == chosen) for index, row in enumerate(rows)
        ),
        why=f"{rows[chosen].label}: {why([row.label for row in rows], accuracies, seconds, chosen=chosen)}",
        notes=tuple(dict.fromkeys((*notes, *(note for each in named.values() for note in each.notes)))),
        seconds=clock() - begun,
        budget=limit,
        by_nodes=by_nodes,
    )


def _recommended(rows: Sequence[PlanRow], *, budget: float | None) -> int:
    """Index of the row to take."""
    return recommend(
        [row.accuracy.accuracy for row in rows],
        [row.seconds.median for row in rows],
        limit=None if budget is None else CAREFUL * budget,
    )


def _deeper(row: _Wanted) -> list[int]:
    """Two deeper cuts of a backbone whose stages can be fine-tuned here, the quicker training first."""
    count = len(row.backbone.stages)
    if not has_timm() or row.backbone.recipe is None:
        return []
    return list(dict.fromkeys([max(0, count - 2), count // 2]))


def _wanted(probing: Probing, contender: Contender, depth: str | int) -> _Wanted:
    asked, backbone = probing.config, contender.backbone
    named = replace(asked, backbone=contender.candidate.name)
    settled = resolve(named, probing.dataset, backbone, runtime=probing.runtime)
    config = replace(settled, depth=backbone.depth(depth), layers=named.layers, epochs=named.epochs).settled()
    job = Workload.of(config, probing.dataset, backbone, runtime=probing.runtime)
    return _Wanted(contender, config, job)


# ------------------------------------------------------------------------------------------ measuring


def _affordable(probing: Probing, job: Workload, seconds: float) -> bool:
    """Whether a look or a timing that is for a job stays within what a plan may take, even if it is slow.

    From then on that is its allowance.
    """
    whole = replace(job, counts=replace(job.counts, missing=job.counts.images))
    allowed = max(LEAST_ALLOWANCE, ALLOWED_SHARE * whole.estimate(probing.timings).seconds)
    probing.allowance = allowed
    return probing.leaves(_TIMED_AT_MOST * seconds)


def _look_at(probing: Probing, contenders: Sequence[Contender]) -> tuple[str, ...]:
    """A look by each as far as the allowance goes, the quickest first; who went without."""
    missed = []
    for each in sorted(contenders, key=lambda each: each.multiply_adds):
        seconds = probing.look_cost(each, images=probing.first_images).seconds
        job = _wanted(probing, each, "all").job
        looked = any(other.seconds_per_image for other in contenders)
        with suppress(TimeIsUp):
            if _affordable(probing, job, seconds if looked else seconds / _FIRST_LOOK):
                probing.look(each, images=probing.first_images)
        if each.probe is None:
            missed.append(each.label)
    if not missed:
        return ()
    return (f"not measured, as a plan may take no longer: {', '.join(missed)}",)


def _time_training(probing: Probing, row: _Wanted, *, asked: bool) -> None:
    """A few steps of the fine-tuned stages, where PyTorch is installed and they are not remembered.

    A depth that nobody asked for may make the plan no longer than its head alone would.
    """
    if not row.config.fine_tuned:
        return
    job = _wanted(probing, row.contender, "all").job
    whole = ("prefix", job.network)
    if probing.timings.known(*whole) and not probing.timings.known("prefix", row.job.network):
        factor, _ = probing.timings.scale(*whole, spread=0.0)  # a pass runs all of it at every depth
        probing.learn(Timing("prefix", row.job.network, factor))
    if not has_timm() or probing.timings.known("epoch", row.epoch):
        return
    step = row.fine_tuned_macs / TRAIN_RATE * FORWARD_AND_BACKWARD
    factor, _ = probing.timings.scale("epoch", row.epoch, spread=0.0)
    expected = TORCH_START + factor * step * TRAINING_STEPS * row.config.batch_size
    if not _affordable(probing, row.job if asked else job, expected):
        return
    opened, each = time_training(
        row.backbone,
        depth=row.config.depth,
        classes=row.job.counts.classes,
        batch_size=row.config.batch_size,
        most=_TIMED_AT_MOST * expected,
        clock=probing.clock,
    )
    probing.learn(
        Timing("epoch", row.epoch, each / step),
        Timing("torch", "", max(opened, 0.05) / TORCH_START),
    )


# -------------------------------------------------------------------------------------------- rows


def _row(probing: Probing, row: _Wanted, *, budget: float | None = None) -> PlanRow:
    config, backbone, job = row.config, row.backbone, row.job
    needed = cache_bytes(backbone, spec=row.spec, images=len(probing.dataset))
    keep, reason = _room(needed)
    allowed, fits = allowance(job, probing.timings, budget=budget)
    cost = probing.cost(row.contender, job)
    return PlanRow(
        backbone=row.contender.candidate.label,
        size=row.contender.size,
        depth=config.depth,
        stages=len(backbone.stages),
        accuracy=row.expected,
        seconds=cost.range(),
        phases=cost.phases,
        cache_bytes=needed,
        memory_bytes=memory_bytes(job),
        missing=job.counts.missing / max(1, job.counts.images),
        keep=keep,
        reason=reason,
        allowed=allowed,
        fits=fits,
        basis=_basis(probing, row),
    )


def _basis(probing: Probing, row: _Wanted) -> str:
    """What a row's seconds rest on."""
    needed = [("epoch", row.epoch)] if row.config.fine_tuned else []
    if row.job.counts.missing and row.contender.seconds_per_image is None:
        needed.append(("prefix", row.job.network))
    if not all(probing.timings.known(*each) for each in needed):
        return "estimated"
    now = row.contender.seconds_per_image is not None or any(probing.timed(*each) for each in needed)
    return "timed now" if now else "remembered"


def allowance(job: Workload, timings: Timings, *, budget: float | None) -> tuple[str, bool]:
    """What a budget allows of a job, in words, and whether all of it; a fit would be cut so."""
    if budget is None:
        return "", True

    def seconds(each: Workload) -> float:
        return each.estimate(timings).seconds

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
