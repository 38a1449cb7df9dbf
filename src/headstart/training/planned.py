"""What a plan says: its rows, and the judgements in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.backbones import Backbone
from headstart.costs import formulas as jobs
from headstart.costs.budgets import Settings, fit_into
from headstart.costs.estimates import Range
from headstart.costs.timings import Rates
from headstart.errors import OptionError
from headstart.formatting import human_seconds
from headstart.training.stopwatch import PrefixTiming

_MEGABYTE = 1_000_000
_PROCESS_BYTES = 220 * _MEGABYTE
"""An interpreter with NumPy, Pillow and OpenVINO, before any network."""

_TORCH_BYTES = 330 * _MEGABYTE
_BATCH = 32
_MAPS_PER_STAGE = 6
"""Maps of the size of its output that a stage keeps for the gradient, about; four bytes a value."""

_MOST_FEATURES_IN_MEMORY = 1 << 29
"""Beyond this the head's fit streams features from the cache; `headstart.training.trained`."""


@dataclass(frozen=True)
class Row:
    """One backbone at one depth: what a fit would cost."""

    backbone: str
    size: int
    depth: int
    stages: int
    seconds: Range
    phases: dict[str, float]  # median seconds by phase
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
        depth = "all" if self.depth == self.stages else self.depth
        return {
            "backbone": self.backbone,
            "size": self.size,
            "depth": depth,
            "stages": self.stages,
            "predicted_seconds": self.seconds.to_dict(),
            "phases": {name: round(value, 3) for name, value in self.phases.items()},
            "cache_bytes": self.cache_bytes,
            "memory_bytes": self.memory_bytes,
            "cached_share": round(1 - self.missing, 3),
            "keep": self.keep,
            "reason": self.reason,
            "allowed": self.allowed,
            "fits": self.fits,
            "basis": self.basis,
        }


@dataclass(frozen=True)
class Plan:
    """The rows, cheapest first, and what planning itself took."""

    data: str
    images: int
    classes: int
    rows: tuple[Row, ...]
    prefixes: tuple[tuple[str, PrefixTiming], ...]  # (backbone and size, what was timed)
    stages: Mapping[str, Mapping[str, float]]  # by backbone: seconds per image of each stage
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
            "timed": [
                {
                    "backbone": name,
                    "depth": timing.depth,
                    "batch_size": timing.batch_size,
                    "seconds_per_image": timing.seconds_per_image,
                    "open_seconds": round(timing.open_seconds, 3),
                }
                for name, timing in self.prefixes
            ],
            "stage_seconds_per_image": {name: dict(found) for name, found in self.stages.items()},
            "notes": list(self.notes),
            "plan_seconds": round(self.seconds, 3),
        }


def nested(timings: Sequence[PrefixTiming]) -> list[PrefixTiming]:
    """The whole network and the parts of it that can be believed, the shallowest first.

    Those are in batches of the same size, and took less than what contains them: of a part that took longer
    the time is another program's.

    Args:
        timings: the whole network first.
    """
    kept = [timings[0]]
    for each in sorted(timings[1:], key=lambda timing: -timing.depth):
        comparable = each.batch_size == kept[0].batch_size
        if comparable and each.seconds_per_image < kept[-1].seconds_per_image:
            kept.append(each)
    return kept[::-1]


def stage_seconds(backbone: Backbone, timings: Sequence[PrefixTiming]) -> dict[str, float]:
    """Seconds per image of each stage: those up to each cut that was timed, spread by multiply-adds between.

    Args:
        backbone: the network.
        timings: the whole network first.
    """
    found: dict[str, float] = {}
    begun, before = 0, 0.0
    for timing in nested(timings):
        part = backbone.stages[begun : timing.depth]
        work = max(1, sum(stage.multiply_adds for stage in part))
        seconds = timing.seconds_per_image - before
        found |= {stage.name: seconds * stage.multiply_adds / work for stage in part}
        begun, before = timing.depth, timing.seconds_per_image
    return found


def room_for(*, reading: float, computing: float, needed: int, free: int) -> tuple[str, str]:
    """Whether a fit will cache, or refuse for want of room; with what reading and computing take here.

    A fit never computes an image's features twice: reading them took a hundredth of that or less, at every
    depth of every network that was timed (`docs/plans.md`).

    Args:
        reading: seconds an image, from the cache.
        computing: seconds an image, anew.
        needed: bytes the features take.
        free: bytes the cache's disk has.
    """
    measured = f"reading takes {1e3 * reading:.2g} ms an image, computing {1e3 * computing:.2g} ms"
    if needed <= free:
        return "cache", measured
    return "no room", (
        f"the features need up to {needed / 1e9:.1f} GB, the cache's disk has {free / 1e9:.1f} GB free, so "
        "a fit stores nothing, and the next one computes all of it again; freeze more stages, take a smaller "
        "--size, or set HEADSTART_CACHE to a folder on a larger disk"
    )


def memory_bytes(job: jobs.Job, backbone: Backbone, *, depth: int) -> int:
    """About how much the fit needs at its peak: the process, the network, and what is held of the data."""
    parameters = sum(stage.parameters for stage in backbone.stages)
    largest = max(stage.bytes_per_image for stage in backbone.stages)
    running = _PROCESS_BYTES + 4 * parameters + 3 * _BATCH * 2 * largest
    if not job.thawed:
        width = max(job.dimensions, 1)
        held = 4 * job.rows * width
        if job.head == "ridge":  # which streams what is more
            held = min(held, _MOST_FEATURES_IN_MEMORY)
        matrix = 3 * 8 * min(job.rows, width) ** 2 if job.head == "ridge" else 12 * width * job.classes
        return int(running + 2 * held + matrix)
    thawed = backbone.stages[depth:]
    kept = 2 * _MAPS_PER_STAGE * sum(stage.bytes_per_image for stage in thawed)
    # A weight, its gradient, its momentum and the best epoch's copy, four bytes each.
    trained = 4 * 4 * sum(stage.parameters for stage in thawed)
    return int(running + _TORCH_BYTES + trained + job.batch_size * kept)


def allowance(job: jobs.Job, rates: Rates, *, budget: float | None, spent: float) -> tuple[str, bool]:
    """What a budget allows of a job, in words, and whether all of it; a fit would be cut so."""
    if budget is None:
        return "", True

    asked = Settings(job.epochs, job.views, "auto" if job.choosing_taps else "last", job.images)

    def predict(settings: Settings) -> Range:
        share = settings.images / job.images
        shrunk = replace(
            job,
            epochs=settings.epochs,
            views=settings.views,
            choosing_taps=settings.taps != "last",
            images=settings.images,
            missing=job.missing * share,
            training=round(job.training * share),
            held_out=round(job.held_out * share),
        )
        return jobs.predict(shrunk, rates, spent=spent)

    try:
        cut = fit_into(budget, asked, predict=predict, classes=job.classes)
    except OptionError:
        return f"nothing within {human_seconds(budget)}", False
    return "; ".join(cut.cuts) or "all of it", not cut.cuts
