"""What a fit will have to do, as steps with formulas for their seconds.

The constants are those of one small machine, a laptop with two cores. They only have to be right in
proportion: what this machine took before (`headstart.costs.timings`) scales them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headstart.backbones import Backbone
from headstart.costs.estimates import Estimate, Range, add, to_range, unsteady
from headstart.costs.timings import Rates
from headstart.dataset import Dataset
from headstart.features import Wanted, cache_bytes
from headstart.files import cache_folder
from headstart.heads.ridge import MOST_SCORING
from headstart.heads.threads import EIGEN_OPERATIONS
from headstart.runs import FitConfig
from headstart.runtimes import Runtime

PREFIX_RATE = {"bf16": 6e10, "f32": 3e10}
"""Multiply-adds a second of a prefix."""

COMPILE, LOAD = 0.5, 0.12
"""Seconds to make a network ready: to compile it, or to load what was compiled before."""

TRAIN_RATE = 1.2e10
"""Multiply-adds a second of a training loop on small batches."""

FORWARD_AND_BACKWARD = 3
"""A training step costs three forward passes: one forward, one for each of the two gradients."""

DECODE = 1.2e-3
"""Seconds to read, hash and decode one photograph, over all cores."""

RENDER = 0.4e-3
"""Seconds to render one view of it, up to 224 pixels a side; beyond, in proportion to its pixels."""

_RENDERED_SIDE = 224

_CHECKED_AT_ONCE = 32
"""Images of the batch in which a saved model is compared with the one in memory; fewer cost as much."""

_STORE = 3e8
"""Bytes of activations a second that are written to the cache."""

_LINEAR_ALGEBRA = 2e10
"""Floating-point operations a second of matrix products."""

TAP_IMAGES = 320
"""Training images that a choice of taps looks at; it takes the eigenvalues of kernels of images x images."""

TORCH_START = 3.2
"""Seconds to import PyTorch and timm, build the network and take a first step."""

_PENALTIES = 13
_CANDIDATES_BEYOND_TAPS = 5  # concatenations that are tried besides the single taps

UNSEEN_SPREAD = 0.35
"""How far a formula may be off for a machine that has been seen with nothing of the kind: a factor 1.4."""


@dataclass(frozen=True)
class Job:
    """What decides how long the rest of a fit takes, once the images are listed and the network is known."""

    data: str  # what names the images: a decoding speed belongs to it
    images: int
    missing: float  # images of which features have to be computed; the others are in the cache
    training: int  # images
    held_out: int
    classes: int
    views: int
    network: str  # what names the network as it is run: weights, size, depth, taps, runtime, precision
    prefix_macs: int  # multiply-adds per view
    tail_macs: int  # of the thawed stages, per image
    stored_bytes: int  # of the cut's activations per view; 0 where everything is frozen
    dimensions: int
    tap_width: int  # summed over all taps; 0 where only the last vector is read
    tap_count: int
    head: str
    choosing_taps: bool
    epochs: int
    batch_size: int
    pretrained: bool
    precision: str
    variant: str = ""  # what else decides what comes out: seed, rate, weights of classes, shares
    compiled: bool = True  # the runtime has compiled this network on this machine before
    side: int = _RENDERED_SIDE  # pixels of a rendered view

    @property
    def thawed(self) -> bool:
        """Whether stages are trained."""
        return self.tail_macs > 0

    @property
    def rows(self) -> int:
        """Feature vectors that a head is trained on."""
        return self.training * self.views


@dataclass(frozen=True)
class Step:
    """One part of a job: its base seconds by the formula, and how far those may be off unseen."""

    phase: str
    quantity: str
    key: str
    base: float
    spread: float = UNSEEN_SPREAD


def settle(
    config: FitConfig, dataset: Dataset, backbone: Backbone, *, depth: int, runtime: Runtime
) -> FitConfig:
    """The config with what this data, network and runtime decide."""
    return replace(
        config,
        data=dataset.name,
        size=backbone.preprocess.size,
        depth=depth,
        stages=len(backbone.stages),
        runtime=runtime.name,
        precision=runtime.precision,
    ).settled()


def describe(
    dataset: Dataset,
    backbone: Backbone,
    *,
    wanted: Wanted,
    config: FitConfig,
    missing: float = 1.0,
    compiled: bool = True,
) -> Job:
    """The job that a fit with these settings is.

    Args:
        dataset: the labelled images.
        backbone: the network.
        wanted: which features.
        config: the settings of the run.
        missing: share of the images whose features are not in the cache.
        compiled: whether the runtime has compiled the network before.
    """
    depth, stages = wanted.depth, backbone.stages
    training, held_out = split_sizes(dataset, validation=config.validation, test=config.test)
    runs_everything = depth == len(stages) or wanted.pooled
    macs = sum(stage.multiply_adds for stage in (stages if runs_everything else stages[:depth]))
    widths = [tap.width(backbone) for tap in backbone.taps()]
    return Job(
        data=data_key(config.data, backbone),
        images=len(dataset),
        missing=missing * len(dataset),
        training=training,
        held_out=held_out,
        classes=len(dataset.classes),
        views=len(wanted.views),
        network=network_key(backbone, wanted=wanted, runtime=config.runtime, precision=config.precision),
        prefix_macs=macs if depth or wanted.pooled else 0,
        tail_macs=sum(stage.multiply_adds for stage in stages[depth:]),
        stored_bytes=_stored(backbone, wanted),
        dimensions=sum(widths) if config.taps == "all" and wanted.taps else backbone.dimensions,
        tap_width=sum(widths) if wanted.taps else 0,
        tap_count=len(widths),
        head=config.head,
        choosing_taps=wanted.taps and config.taps == "auto",
        epochs=config.epochs or 0,
        batch_size=config.batch_size,
        pretrained=config.pretrained,
        precision=config.precision,
        variant=" ".join(
            str(each)
            for each in (
                config.seed,
                config.learning_rate,
                config.class_weights,
                config.validation,
                config.test,
            )
        ),
        compiled=compiled,
        side=backbone.preprocess.size,
    )


def _stored(backbone: Backbone, wanted: Wanted) -> int:
    if wanted.depth == len(backbone.stages):
        return 0
    return cache_bytes(backbone, wanted=wanted, images=1) // len(wanted.views)


def data_key(data: str, backbone: Backbone) -> str:
    """Names images as they are decoded for a network."""
    return f"{data} {backbone.preprocess.resized_side}"


def network_key(backbone: Backbone, *, wanted: Wanted, runtime: str, precision: str) -> str:
    """Names a network as extraction runs it."""
    outputs = "+".join((*(["pooled"] if wanted.pooled else []), *(["taps"] if wanted.taps else [])))
    size = backbone.preprocess.size
    cuts = "+".join(map(str, (wanted.depth, *wanted.also)))
    return f"{backbone.weights_hash[:16]} {size} {cuts} {outputs} {runtime} {precision}"


def is_compiled(job: Job, rates: Rates) -> bool:
    """Whether the runtime has this network ready from an earlier run."""
    seen = any(rates.known("open", f"{job.network} {kind}") for kind in ("compiled", "loaded"))
    return seen and _keeps_compiled()


def _keeps_compiled() -> bool:
    return (cache_folder() / "compiled").is_dir()


def split_sizes(dataset: Dataset, *, validation: float, test: float) -> tuple[int, int]:
    """Images to train on and images held out, as expected before any is read."""
    given = [sample.split for sample in dataset.samples]
    if not any(given):
        training = round(len(given) * (1 - validation - test))
        return training, len(given) - training
    free = sum(split is None for split in given)
    marked = sum(split == "train" for split in given)
    carved = validation if "validation" not in given else 0.0
    training = round(marked * (1 - carved) + free * (1 - validation - test))
    return training, len(given) - training


def steps(job: Job, rates: Rates) -> tuple[Step, ...]:
    """What the job consists of, in order."""
    return (
        *_feature_steps(job, rates),
        Step("check", "check", "", 0.02 + 4e-5 * job.images),
        *_training_steps(job),
        Step("evaluate", "evaluate", "thawed" if job.thawed else "", _evaluating(job)),
        _save_step(job, rates),
    )


def _save_step(job: Job, rates: Rates) -> Step:
    """Writing the model and checking that it says the same; the runtime knows one that it has seen before."""
    network = (job.prefix_macs + job.tail_macs) / prefix_rate(job.precision)
    checking = _CHECKED_AT_ONCE * (network + RENDER * (job.side / _RENDERED_SIDE) ** 2)
    if rates.known("made", made_key(job)) and _keeps_compiled():
        return Step("save", "save", f"{job.network} again", checking + (1.6 if job.thawed else 0.15))
    return Step("save", "save", job.network, checking + (2.5 if job.thawed else 0.25))


def made_key(job: Job) -> str:
    """Names a job by what comes out of it, as far as that is known before."""
    trained = f"{job.head} {job.dimensions} {job.epochs} {job.batch_size}"
    return f"{job.network} {job.data} {job.images} {job.views} {trained} {job.variant}"


def _feature_steps(job: Job, rates: Rates) -> list[Step]:
    found = []
    if job.missing:
        if job.prefix_macs:
            found.append(open_step(job))
        pair = pass_key(job)
        if rates.known("pass", pair):
            found.append(Step("features", "pass", pair, job.missing * pass_base(job)))
        else:
            found.append(Step("features", "decode", job.data, job.missing * decode_base(job), 0.5))
            found.append(Step("features", "prefix", job.network, job.missing * prefix_base(job), 0.5))
        if job.stored_bytes:
            stored = job.missing * job.views * job.stored_bytes / _STORE
            found.append(Step("features", "store", "", stored, 0.7))
    found.append(Step("features", "hit", job.data, 0.01 + hit_base(job) * (job.images - job.missing)))
    return found


def open_step(job: Job) -> Step:
    """Compiling the network, or loading what was compiled before."""
    kind, base = ("loaded", LOAD) if job.compiled else ("compiled", COMPILE)
    return Step("features", "open", f"{job.network} {kind}", base, 0.5)


def pass_key(job: Job) -> str:
    """Names the pair of images and network that one pass brings together."""
    return f"{job.network} {job.data} {job.views}"


def decode_base(job: Job) -> float:
    """Seconds to read, decode and render one image."""
    return DECODE + RENDER * job.views * max(1.0, (job.side / _RENDERED_SIDE) ** 2)


def prefix_base(job: Job) -> float:
    """Seconds to run the frozen stages over all views of one image."""
    return job.views * job.prefix_macs / prefix_rate(job.precision)


def prefix_rate(precision: str) -> float:
    """Multiply-adds a second of a prefix in this precision."""
    return PREFIX_RATE.get(precision, PREFIX_RATE["f32"])


def pass_base(job: Job) -> float:
    """Seconds for one image: decoding and the network share the cores, so that they add up."""
    return decode_base(job) + prefix_base(job)


def hit_base(job: Job) -> float:
    """Seconds to find one image in the cache: read the file, hash it, look it up."""
    return 1.5e-4 + 1e-5 * job.views


def _training_steps(job: Job) -> list[Step]:
    if job.thawed:
        return [
            Step("train", "torch", "", TORCH_START, 0.4),
            Step("train", "epoch", tail_key(job), job.epochs * epoch_base(job), 0.6),
            *([Step("train", "ridge", "start", _ridge_base(job))] if job.pretrained else []),
        ]
    if job.head == "softmax":
        return [Step("train", "softmax", "", softmax_base(job))]
    return [Step("train", "ridge", ridge_key(job), _ridge_base(job))]


def tail_key(job: Job) -> str:
    """Names the thawed stages as a loop trains them."""
    return f"{job.network} {job.batch_size}"


def epoch_base(job: Job) -> float:
    """Seconds of one epoch over the thawed stages, its validation included."""
    forward = job.tail_macs / TRAIN_RATE
    return job.training * forward * FORWARD_AND_BACKWARD + 0.5 * job.held_out * forward


def softmax_base(job: Job) -> float:
    """Seconds of a dense layer trained with Adam: products, and a fixed cost per step."""
    weights = job.dimensions * job.classes
    steps_per_epoch = -(-job.rows // job.batch_size)
    products = 6 * (job.rows + job.held_out / 6) * weights / _LINEAR_ALGEBRA
    return 0.01 + job.epochs * (products + steps_per_epoch * (1.2e-4 + 8e-9 * weights))


def ridge_key(job: Job) -> str:
    """Names a ridge fit: its form, its width, and whether taps are chosen."""
    form = "primal" if job.rows > job.dimensions else "dual"
    return f"{form} {job.dimensions} {'taps' if job.choosing_taps else ''}"


def _ridge_base(job: Job) -> float:
    rows, width = job.rows, job.dimensions
    scores = 2 * min(rows * min(rows, width) * _PENALTIES * (job.classes + 1), MOST_SCORING)
    if rows > width:
        operations = float(scores + 4 * rows * width**2 + EIGEN_OPERATIONS * width**3)
    else:
        operations = float(scores + EIGEN_OPERATIONS * rows**3 + 4 * rows * rows * width)
    if job.choosing_taps:
        images = min(TAP_IMAGES, job.training)
        tried = job.tap_count + _CANDIDATES_BEYOND_TAPS
        operations += tried * EIGEN_OPERATIONS * images**3 + 2.0 * images * images * job.tap_width
    return 0.02 + operations / _LINEAR_ALGEBRA


def _evaluating(job: Job) -> float:
    forward = job.tail_macs / TRAIN_RATE
    return 0.01 + job.held_out * (2e-5 + forward)


def predict(job: Job, rates: Rates, *, spent: float = 0.0) -> Range:
    """Seconds of the whole command, ``spent`` ones (which are certain) included."""
    return to_range(remaining(job, rates), spent=spent)


def remaining(job: Job, rates: Rates) -> Estimate:
    """Seconds of all steps, corrected by how predictions on this machine have erred."""
    return corrected(add(estimates(job, rates)), rates)


def corrected(rest: Estimate, rates: Rates) -> Estimate:
    """Seconds to come, corrected by how predictions on this machine have erred."""
    known = unsteady(rest)
    correction = rates.correction(known.spread)
    return Estimate(known.seconds * correction.factor, known.spread * correction.widening)


def estimates(job: Job, rates: Rates, *, phases: Sequence[str] | None = None) -> list[Estimate]:
    """The steps' seconds, of all phases or of some."""
    return [
        rates.estimate(step.quantity, step.key, base=step.base, spread=step.spread)
        for step in steps(job, rates)
        if phases is None or step.phase in phases
    ]


def phase_seconds(job: Job, rates: Rates) -> Mapping[str, float]:
    """Median seconds by phase, for people."""
    found: dict[str, float] = {}
    for step in steps(job, rates):
        estimate = rates.estimate(step.quantity, step.key, base=step.base, spread=step.spread)
        found[step.phase] = found.get(step.phase, 0.0) + estimate.seconds
    return found
