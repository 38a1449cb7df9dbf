"""Resolves what a config leaves open for this data and network: its name, depth, size, epochs, runtime."""

from dataclasses import replace

import numpy as np

from headstart.backbones import Backbone
from headstart.backbones.building import require_timm
from headstart.backbones.registry import is_graph
from headstart.backbones.runtimes import Runtime
from headstart.data.dataset import Dataset
from headstart.data.dataset.decimals import LARGEST
from headstart.errors import OptionError
from headstart.heads.tasks import REGRESSION, SINGLE_LABEL, only_single_label
from headstart.runs import FitConfig
from headstart.runs.config import LAYERS
from headstart.training.decisions import check_decisions

_MOST_OFFSET = 1e4
"""Mean of predicted numbers in standard deviations: single precision then leaves three digits of these."""


def resolve(config: FitConfig, dataset: Dataset, backbone: Backbone, *, runtime: Runtime) -> FitConfig:
    """The config with everything decided: network, depth, size, epochs, runtime, precision.

    Raises:
        OptionError: the network has no such depth or layer, or its stages cannot be fine-tuned.
        MissingExtra: stages are to be fine-tuned, and what trains them is not installed.
    """
    check_decisions(config, dataset.classes)
    _check_numbers(dataset)
    freeze = "all" if config.freeze == "auto" else config.freeze
    depth = backbone.depth(freeze) if config.pretrained else 0
    if config.freeze == "auto" or depth < len(backbone.stages):
        refuse_weights(dataset, f"freeze={config.freeze}")
    if depth < len(backbone.stages):
        if backbone.recipe is None:
            raise OptionError(
                f"freeze={config.freeze}: backbone {backbone.name} is a finished graph, whose stages stay "
                "frozen; take freeze=all, with head ridge or softmax; to fine-tune take a timm name, or "
                "headstart.keras.fit for a Keras model"
            )
        only_single_label(dataset.task, "fine-tuning", instead="take --freeze all, with --head ridge")
        require_timm(f"freeze={config.freeze}: training stages of {backbone.name}")
    layers = [layer.name for layer in backbone.feature_layers()]
    if isinstance(config.layers, tuple) and not (config.layers and set(config.layers) <= set(layers)):
        raise OptionError(
            f"layers={', '.join(config.layers)}: {backbone.name} has {', '.join(layers)}; "
            f"name some of them, or take {', '.join(LAYERS)}"
        )
    return replace(
        config,
        backbone=backbone.name if config.backbone == FitConfig.backbone else config.backbone,
        data=dataset.name,
        task=dataset.task,
        preprocess=config.preprocess if is_graph(config.backbone) else None,
        size=backbone.preprocess.size,
        depth=depth,
        stages=len(backbone.stages),
        runtime=runtime.name,
        precision=runtime.precision,
    ).settled()


def refuse_weights(dataset: Dataset, what: str) -> None:
    """Refuse, with an OptionError, what would leave the weights of images out."""
    if any(sample.weight != 1 for sample in dataset.samples):
        raise OptionError(
            f"{what}: weights of images are for a head alone, on a named network; take freeze=all and name "
            "the backbone, or leave the weights out"
        )


def _check_numbers(dataset: Dataset) -> None:
    """Refuse numbers that differ too little for their size: models compute in single precision."""
    if dataset.task != REGRESSION or not len(dataset.labels):
        return
    mean, scale = float(dataset.labels.mean()), float(dataset.labels.std())
    if 0 < scale < 1 / LARGEST:
        raise OptionError(
            f"{dataset.name}: numbers that differ by {scale:.3g} are too small for a model in single "
            "precision; give them in another unit"
        )
    if abs(mean) > _MOST_OFFSET * scale > 0:
        offset = round(mean, -int(np.floor(np.log10(scale))))
        raise OptionError(
            f"{dataset.name}: numbers around {mean:.7g} that differ by {scale:.3g} cannot be told apart by a "
            f"model in single precision; subtract {offset:.15g} from all of them, and add it to what is "
            "predicted"
        )


def for_task(config: FitConfig, task: str) -> FitConfig:
    """The config for this task: numbers, and labels called from a threshold on, want features in float32.

    Raises:
        OptionError: it asks for what is done for single labels alone.
    """
    for asked, what, instead in (
        (config.head == "softmax", "a softmax head", "take --head ridge"),
        (config.class_weights is not None, "weighing classes", "leave --class-weights out"),
        (not config.pretrained, "training from random weights", "leave --scratch out"),
        (config.freeze == "auto", "--freeze auto", "take --freeze all"),
        (config.folds is not None, "cross-validation", "leave --folds out"),
        (config.costs is not None, "weighing mistakes", "leave --costs out"),
        (config.weights_column is not None, "weighing images", "leave --weights-column out"),
        (config.priors is not None, "adjusting to other shares of the classes", "leave --priors out"),
        (config.chooses, "--backbone auto", "name the backbone"),
    ):
        if asked:
            only_single_label(task, what, instead=instead)
    if task == SINGLE_LABEL:
        return config
    if config.precision == "bf16":
        moved = "number" if task == REGRESSION else "labels that are called"
        raise OptionError(f"{task}: features in bf16 would move the {moved}; take --precision f32")
    return replace(config, precision="f32")
