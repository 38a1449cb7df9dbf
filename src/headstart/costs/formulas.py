"""What a training will have to do, as steps with formulas for their seconds.

The constants are those of a laptop with two cores. They only have to be right in proportion: what this
machine took before (`headstart.costs.timings`) scales them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headstart.backbones import Backbone
from headstart.costs.timings import Timings
from headstart.data.dataset import Dataset
from headstart.features import FeatureSpec, cache_bytes
from headstart.files import cache_folder
from headstart.heads.ridge import MOST_SCORING
from headstart.heads.threads import EIGEN_OPERATIONS
from headstart.runs import FitConfig
from headstart.runs.callbacks import Range

FROZEN_RATE = {"bf16": 6e10, "f32": 3e10}
"""Multiply-adds a second of a frozen part."""

COMPILE, LOAD = 0.5, 0.12
"""Seconds to make a network ready: to compile it, or to load what was compiled before."""

TRAIN_RATE = 1.2e10
"""Multiply-adds a second of a training loop on small batches."""

FORWARD_AND_BACKWARD = 3
"""A training step costs three forward passes: one forward, one for each of the two gradients."""

DECODE = 0.8e-3
"""Seconds to read, hash and decode one photograph, over all cores."""

RENDER = 0.15e-3
"""Seconds to render one view of it, up to 224 pixels a side; beyond, in proportion to its pixels."""

TORCH_START = 3.2
"""Seconds to import PyTorch and timm, build the network and take a first step."""

LAYER_IMAGES = 320
"""Training images that a choice of layers looks at; it takes eigenvalues of kernels of images x images."""

_RENDERED_SIDE = 224
_CHECKED_AT_ONCE = 32  # images in which a saved model is compared with the one in memory
_STORE_RATE = 3e8  # bytes of activations a second that are written to the cache
_LINEAR_ALGEBRA = 2e10  # floating-point operations a second of matrix products
_PENALTIES = 13
_CANDIDATES_BEYOND_LAYERS = 5  # concatenations that are tried besides the single layers
_UNSEEN = 0.4  # how far a formula may be off for a machine that timed nothing of the kind
_UNSTEADY = 0.1  # the same whole job minutes later: clocks and neighbours that no step can know


@dataclass(frozen=True)
class ImageCounts:
    """How many images a training meets."""

    classes: int
    training: int
    held_out: int
    missing: float  # of which features have to be computed; the others are in the cache

    @property
    def images(self) -> int:
        """All of them."""
        return self.training + self.held_out

    @classmethod
    def of(cls, dataset: Dataset, config: FitConfig, *, missing: float = 1.0) -> "ImageCounts":
        """As expected before any image is read; ``missing`` is a share of them."""
        given = [sample.split for sample in dataset.samples]
        free = sum(split is None for split in given)
        marked = sum(split == "train" for split in given)
        carved = config.validation if marked and "validation" not in given else 0.0
        unassigned = config.validation + config.test
        training = round(marked * (1 - carved) + free * (1 - unassigned))
        return cls(len(dataset.classes), training, len(given) - training, missing * len(given))

    def cut(self, images: int) -> "ImageCounts":
        """So many of them, in proportion."""
        share = images / max(1, self.images)
        training = round(self.training * share)
        return replace(self, training=training, held_out=images - training, missing=self.missing * share)


@dataclass(frozen=True)
class Step:
    """One part of a training: its seconds by the formula, and how far those may be off unseen."""

    phase: str
    name: str
    key: str
    base: float
    spread: float = _UNSEEN


@dataclass(frozen=True)
class CostEstimate:
    """Predicted seconds by phase; the standard deviation of the logarithm of their sum."""

    phases: Mapping[str, float]
    spread: float

    @property
    def seconds(self) -> float:
        """The sum's median."""
        return sum(self.phases.values())

    def times(self, factor: float) -> "CostEstimate":
        """So many of it."""
        return replace(self, phases={name: factor * each for name, each in self.phases.items()})

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        both = self.seconds + other.seconds
        spread = (self.seconds * self.spread + other.seconds * other.spread) / both if both else 0.0
        names = dict.fromkeys((*self.phases, *other.phases))
        found = {name: self.phases.get(name, 0.0) + other.phases.get(name, 0.0) for name in names}
        return CostEstimate(found, spread)

    def range(self, *, spent: float = 0.0) -> Range:
        """Of a job that has taken ``spent`` seconds so far."""
        return Range.around(self.seconds, spread=(self.spread**2 + _UNSTEADY**2) ** 0.5, spent=spent)


NOTHING = CostEstimate({}, 0.0)


def estimate(steps: Sequence[Step], timings: Timings, *, phases: Sequence[str] | None = None) -> CostEstimate:
    """The steps' seconds, of all phases or of some; their errors are taken to go the same way."""
    found = NOTHING
    for step in steps:
        if phases is None or step.phase in phases:
            factor, spread = timings.scale(step.name, step.key, spread=step.spread)
            found += CostEstimate({step.phase: factor * step.base}, spread)
    return found


def steps(
    config: FitConfig,
    backbone: Backbone,
    counts: ImageCounts,
    timings: Timings,
    *,
    spec: FeatureSpec | None = None,
) -> tuple[Step, ...]:
    """What a training consists of, in order.

    Args:
        config: settled for this network, data and runtime.
        backbone: the network.
        counts: of the images.
        timings: what was timed before: a pair of images and network that was is one step instead of two.
        spec: the features that the pass computes, where others read the same one too.
    """
    spec = spec or FeatureSpec.of(config)
    return (
        *feature_steps(config, backbone, counts, timings, spec=spec),
        check_step(counts),
        *training_steps(config, backbone, counts, spec=spec),
        *closing_steps(config, backbone, counts, spec=spec),
    )


def network_key(config: FitConfig, backbone: Backbone, spec: FeatureSpec) -> str:
    """Names a network as extraction runs it."""
    outputs = "+".join((*(["pooled"] if spec.pooled else []), *(["layers"] if spec.layers else [])))
    cuts = "+".join(map(str, (spec.depth, *spec.also)))
    run_by = f"{config.runtime} {config.precision}"
    return f"{backbone.weights_hash[:16]} {backbone.preprocess.size} {cuts} {outputs} {run_by}"


def data_key(config: FitConfig, backbone: Backbone) -> str:
    """Names images as they are decoded for a network."""
    return f"{config.data} {backbone.preprocess.resized_side}"


def pass_key(config: FitConfig, backbone: Backbone, spec: FeatureSpec) -> str:
    """Names the pair of images and network that one pass brings together."""
    network, data = network_key(config, backbone, spec), data_key(config, backbone)
    return f"{network} {data} {len(spec.views)}"


def decode_base(backbone: Backbone, *, views: int) -> float:
    """Seconds to read, decode and render one image."""
    return DECODE + RENDER * views * max(1.0, (backbone.preprocess.size / _RENDERED_SIDE) ** 2)


def frozen_base(config: FitConfig, backbone: Backbone, spec: FeatureSpec) -> float:
    """Seconds to run the frozen stages over all views of one image."""
    stages = backbone.stages if spec.pooled else backbone.stages[: spec.depth]
    macs = sum(stage.multiply_adds for stage in stages)
    return len(spec.views) * macs / FROZEN_RATE.get(config.precision, FROZEN_RATE["f32"])


def hit_base(*, views: int) -> float:
    """Seconds to find one image in the cache: read the file, hash it, look it up."""
    return 1.5e-4 + 1e-5 * views


def open_step(network: str, timings: Timings) -> Step:
    """Compiling the network, or loading what was compiled before."""
    seen = any(timings.known("open", f"{network} {kind}") for kind in ("compiled", "loaded"))
    kept = seen and (cache_folder() / "compiled").is_dir()
    kind, base = ("loaded", LOAD) if kept else ("compiled", COMPILE)
    return Step("features", "open", f"{network} {kind}", base)


def feature_steps(
    config: FitConfig, backbone: Backbone, counts: ImageCounts, timings: Timings, *, spec: FeatureSpec
) -> list[Step]:
    """Reading, decoding, the frozen part and the cache, for the images whose features are missing."""
    found = []
    views, missing = len(spec.views), counts.missing
    network, data = network_key(config, backbone, spec), data_key(config, backbone)
    decoding, running = decode_base(backbone, views=views), frozen_base(config, backbone, spec)
    if missing:
        if running:
            found.append(open_step(network, timings))
        pair = pass_key(config, backbone, spec)
        if timings.known("pass", pair):  # decoding and the network share the cores, so that they add up
            found.append(Step("features", "pass", pair, missing * (decoding + running)))
        else:
            found.append(Step("features", "decode", data, missing * decoding))
            found.append(Step("features", "prefix", network, missing * running))
        if spec.depth < len(backbone.stages):
            stored = cache_bytes(backbone, spec=spec, images=1)
            found.append(Step("features", "store", "", missing * stored / _STORE_RATE))
    return [*found, Step("features", "hit", data, 0.01 + hit_base(views=views) * (counts.images - missing))]


def check_step(counts: ImageCounts) -> Step:
    """Drawing the splits and finding what is wrong with the data."""
    return Step("check", "check", "", 0.02 + 4e-5 * counts.images)


def training_steps(
    config: FitConfig, backbone: Backbone, counts: ImageCounts, *, spec: FeatureSpec
) -> list[Step]:
    """The head, or the fine-tuned stages with it."""
    if config.fine_tuned:
        key = f"{network_key(config, backbone, spec)} {config.batch_size}"
        start = [Step("train", "ridge", "start", ridge_base(config, backbone, counts))]
        return [
            Step("train", "torch", "", TORCH_START),
            Step("train", "epoch", key, (config.epochs or 0) * epoch_base(config, backbone, counts), 0.6),
            *(start if config.pretrained else []),
        ]
    if config.head == "softmax":
        return [Step("train", "softmax", "", softmax_base(config, backbone, counts))]
    width = _ridge_width(config, backbone)
    form = "primal" if counts.training * len(config.views) > width else "dual"
    key = f"{form} {width} {'layers' if config.layers == 'auto' else ''}"
    return [Step("train", "ridge", key, ridge_base(config, backbone, counts))]


def closing_steps(
    config: FitConfig, backbone: Backbone, counts: ImageCounts, *, spec: FeatureSpec
) -> list[Step]:
    """Cross-validation, evaluating, writing the model, and checking that it says the same."""
    forward = _fine_tuned_macs(config, backbone) / TRAIN_RATE
    evaluating = 0.01 + counts.held_out * (2e-5 + forward)
    macs = sum(stage.multiply_adds for stage in backbone.stages)
    network = macs / FROZEN_RATE.get(config.precision, FROZEN_RATE["f32"])
    rendering = RENDER * (backbone.preprocess.size / _RENDERED_SIDE) ** 2
    saving = _CHECKED_AT_ONCE * (network + rendering) + (2.5 if config.fine_tuned else 0.25)
    return [
        *_fold_steps(config, backbone, counts),
        Step("evaluate", "evaluate", "fine_tuned" if config.fine_tuned else "", evaluating),
        Step("save", "save", network_key(config, backbone, spec), saving),
    ]


def _fold_steps(config: FitConfig, backbone: Backbone, counts: ImageCounts) -> list[Step]:
    """A ridge head for each fold, on all images but its own and on the layers that are chosen by then.

    And one on all images, by which likely label errors are told.
    """
    if not config.folds:
        return []
    others = replace(counts, training=counts.images - counts.images // config.folds)
    read = replace(config, layers="all" if config.layers else None)
    return [Step("folds", "folds", "", (config.folds + 1) * ridge_base(read, backbone, others))]


def _fine_tuned_macs(config: FitConfig, backbone: Backbone) -> int:
    return sum(stage.multiply_adds for stage in backbone.stages[config.depth :])


def epoch_base(config: FitConfig, backbone: Backbone, counts: ImageCounts) -> float:
    """Seconds of one epoch over the fine-tuned stages, its validation included."""
    forward = _fine_tuned_macs(config, backbone) / TRAIN_RATE
    return counts.training * forward * FORWARD_AND_BACKWARD + 0.5 * counts.held_out * forward


def softmax_base(config: FitConfig, backbone: Backbone, counts: ImageCounts) -> float:
    """Seconds of a dense layer trained with Adam: products, and a fixed cost per step."""
    rows = counts.training * len(config.views)
    weights = backbone.dimensions * counts.classes
    products = 6 * (rows + counts.held_out / 6) * weights / _LINEAR_ALGEBRA
    batches = -(-rows // config.batch_size)
    return 0.01 + (config.epochs or 0) * (products + batches * (1.2e-4 + 8e-9 * weights))


def _ridge_width(config: FitConfig, backbone: Backbone) -> int:
    if config.layers != "all":
        return backbone.dimensions
    return sum(layer.width(backbone) for layer in backbone.feature_layers())


def ridge_base(config: FitConfig, backbone: Backbone, counts: ImageCounts) -> float:
    """Seconds of a ridge head in closed form, its penalty and its layers chosen."""
    rows, width = counts.training * len(config.views), _ridge_width(config, backbone)
    scores = 2 * min(rows * min(rows, width) * _PENALTIES * (counts.classes + 1), MOST_SCORING)
    if rows > width:
        operations = float(scores + 4 * rows * width**2 + EIGEN_OPERATIONS * width**3)
    else:
        operations = float(scores + EIGEN_OPERATIONS * rows**3 + 4 * rows * rows * width)
    if config.layers == "auto" and not config.fine_tuned:
        widths = [layer.width(backbone) for layer in backbone.feature_layers()]
        images = min(LAYER_IMAGES, counts.training)
        tried = len(widths) + _CANDIDATES_BEYOND_LAYERS
        operations += tried * EIGEN_OPERATIONS * images**3 + 2.0 * images * images * sum(widths)
    return 0.02 + operations / _LINEAR_ALGEBRA
