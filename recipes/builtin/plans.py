"""The plans: every number that decides what a run trains, as frozen values with the reason beside them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from canvas import Drawing
from losses import LossWeights
from views import MOSAIC, View, ViewConfig, draw_view


@dataclass(frozen=True)
class Phase:
    """A number of images seen at one input size of the student."""

    images: int
    size: int  # pixels


@dataclass(frozen=True)
class Plan:
    """One training."""

    architecture: str = "mobilenetv2_050"  # timm's name of the student
    start: str | None = None  # "teacher" (inherit.py), "pilot", another plan's name, or None: random weights
    inherit_images: int = 1024
    start_architecture: str | None = None  # of the start's weights, where it is narrower than ours
    phases: tuple[Phase, ...] = (Phase(1_000_000, 64),)
    shipped_size: int = 128  # pixels; what the probe uses
    teacher: str = "mobilenetv2_100"
    teacher_weights: str = "mobilenetv2-imagenet.safetensors"  # in DATA
    teacher_size: int = 128  # pixels: it answers far better about enlarged pictures than at 64
    views: int = 4  # how many views of each picture exist; epoch e uses view e modulo this
    first_view: int = 0
    turns: tuple[int, ...] = ()  # instead of epoch by epoch: these views in turn, step by step
    mosaics: tuple[int, ...] = ()  # numbers of the views that are mosaics
    view: ViewConfig = field(default_factory=ViewConfig)
    view_seed: int = 0
    loss: LossWeights = field(default_factory=LossWeights)
    batch: int = 128
    workers: int = 2  # each takes a share of the batch on a core of its own
    learning_rate: float = 2e-3
    warm_up: float = 0.03  # share of all steps
    weight_decay: float = 0.02  # on matrices alone
    clip: float = 5.0  # gradient norm
    average_decay: float = 0.998  # per step: averages over about 500 steps
    bfloat16: bool = False  # autocast: slower here for depthwise networks, faster for dense ones
    seed: int = 0  # of weights and order
    prepare_batches: int = 16  # the adapters' least-squares start sees this many batches
    log_every: int = 50
    log_first: int = 0  # log every one of the first steps
    probe_every: int = 400  # steps

    @property
    def steps(self) -> int:
        """Steps of the whole plan."""
        return sum(p.images for p in self.phases) // self.batch

    def view_number(self, step: int, *, epoch: int) -> int:
        """The view that step `step`, in epoch `epoch`, shows."""
        if self.turns:
            return self.turns[step % len(self.turns)]
        return (self.first_view + epoch) % self.views

    def draw(self, number: int, *, pictures: int) -> View:
        """View `number` of `pictures` pictures."""
        mosaic = number in self.mosaics
        config = MOSAIC if mosaic else self.view
        return draw_view(pictures, number, seed=self.view_seed, config=config, mosaic=mosaic)

    def start_weights(self, data: Path, work: Path) -> Path | None:
        """The file the student starts from, or None for random weights."""
        if self.start in (None, "teacher"):
            return None
        given = data / "pilot/mobilenetv2_050-pilot.safetensors"
        if self.start == "pilot" and given.exists():
            return given
        return work / self.start / "best.safetensors"


def pictures_per_epoch(plan: Plan, pictures: int) -> int:
    """Pictures in an epoch of whole batches."""
    return pictures // plan.batch * plan.batch


@dataclass(frozen=True)
class LongPlan:
    """The long training, of several students at once (accelerated.py)."""

    students: dict[str, Plan]  # by name; architecture, loss, weight decay, clipping and averages are theirs
    teacher: str = "mobilenetv2_100"
    teacher_weights: str = "mobilenetv2-imagenet.safetensors"  # in DATA
    labels: int = 200  # classes of the pictures
    images: int = 2_140_000
    # Until this share of the run: the students' and the teacher's input size, in pixels.
    sizes: tuple[tuple[float, int, int], ...] = ((0.5, 96, 192), (0.87, 128, 192), (1.0, 144, 192))
    drawing: Drawing = field(default_factory=Drawing)
    batch: int = 512
    learning_rate: float = 3e-3
    warm_up: float = 0.02  # share of all steps
    seed: int = 0  # of batches
    begin_images: int = 1024  # on which students inherit and adapters begin
    inherit_size: int = 128  # pixels
    log_every: int = 50
    kept: tuple[float, ...] = (0.6, 0.8)  # weights are written at these shares of the run, and at its end

    @property
    def steps(self) -> int:
        """Steps of the whole plan."""
        return self.images // self.batch

    def sizes_at(self, share: float) -> tuple[int, int]:
        """The students' and the teacher's input size, in pixels, when `share` of the run is over."""
        return next((size, larger) for until, size, larger in self.sizes if share < until or until == 1.0)


_SHORT = Plan(
    start="pilot", phases=(Phase(25_600, 64),), views=1, learning_rate=1e-3, probe_every=200, log_every=20
)

# A round is short enough to end within a sitting, decays its learning rate to the end, and starts from the
# best weights of the round before: every round leaves something that can be shipped.
_ROUND = Plan(
    start="pilot", phases=(Phase(64_000, 64), Phase(19_200, 96)), views=1, learning_rate=3e-3, probe_every=500
)

# From weights that have seen 64 px already, 64 px again unlearns what is shipped (round1, README.md): so the
# input is the shipped one, or near it, from the first step. Two views, each used twice, halve the teacher's
# work.
_DISTILLED = Plan(
    start="pilot",
    phases=(Phase(256_000, 96), Phase(64_000, 128)),
    views=2,
    learning_rate=3e-3,
    probe_every=250,
)

# What the student inherits in closed form is as good on photographs as what _DISTILLED learned in an hour and
# a half, and sharper; half of the steps see mosaics, so that it stays so.
_BUILTIN = Plan(
    start="teacher",
    phases=(Phase(96_000, 96), Phase(64_000, 128)),
    turns=(0, 2),
    mosaics=(2,),
    learning_rate=2e-3,
    probe_every=250,
)

PLANS: dict[str, Plan] = {
    "pilot": Plan(phases=(Phase(700_000, 64), Phase(200_000, 96)), learning_rate=3e-3, warm_up=0.06),
    # what shipped until the long training, which takes architectures, losses and averages from these two
    "builtin": _BUILTIN,
    "builtin-large": replace(_BUILTIN, architecture="mobilenetv2_075"),
    # what shipped before that
    "distilled": _DISTILLED,
    "distilled-large": replace(
        _DISTILLED,
        architecture="mobilenetv2_100",
        start="distilled",
        start_architecture="mobilenetv2_050",
        phases=(Phase(192_000, 96), Phase(32_000, 128)),
    ),
    "round1": _ROUND,
    "round2": replace(_ROUND, start="round1", seed=1),
    # short runs that decided the long ones; their results are in README.md
    "short-base": _SHORT,
    "short-96": replace(_SHORT, phases=(Phase(12_800, 96),)),
    "short-lr3": replace(_SHORT, learning_rate=3e-3),
    "short-nohints": replace(_SHORT, loss=LossWeights(hints=(0.0,) * 5, last_map=0.0)),
    "short-labels": replace(_SHORT, loss=LossWeights(labels=0.3)),
    "short-128": replace(_SHORT, start="distilled", phases=(Phase(25_600, 128),)),
    "short-mosaic": replace(
        _SHORT, start="distilled", phases=(Phase(25_600, 128),), views=3, first_view=2, mosaics=(2,)
    ),
    "short-inherit": replace(
        _SHORT, start="teacher", phases=(Phase(25_600, 128),), turns=(0, 2), mosaics=(2,)
    ),
    "short-teacher64": replace(_SHORT, teacher_size=64),
}

LONG = LongPlan({name: PLANS[name] for name in ("builtin", "builtin-large")})
