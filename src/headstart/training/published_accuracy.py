"""What is published of a backbone, ImageNet accuracy at its own size: the prior of `--backbone auto`.

ImageNet top-1 of timm's weights in percent, from `results/results-imagenet.csv` of the repository
huggingface/pytorch-image-models (commit 0173a139a2c6), which timm publishes online only. One set of weights
per architecture: the ones that the bare name stands for, or else the best that needs no larger images.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from headstart.backbones import Backbone
from headstart.backbones.builtin import BUILTIN, WEIGHTS

POINTS_PER_HALVING = 5.0
"""Accuracy lost when images get half as large; MobileNetV2 on flowers lost 7 points from 224 to 96 px."""

_TOP1: dict[str, tuple[float, int]] = {
    "convnext_atto": (77.008, 288),
    "convnext_femto": (78.716, 288),
    "convnext_nano": (82.862, 288),
    "convnext_pico": (80.414, 288),
    "convnext_tiny": (84.450, 288),
    "convnext_small": (83.700, 288),
    "convnext_base": (84.428, 288),
    "deit_small_patch16_224": (79.844, 224),
    "deit_tiny_patch16_224": (72.172, 224),
    "densenet121": (76.500, 288),
    "efficientnet_b0": (77.694, 224),
    "efficientnet_b1": (78.800, 256),
    "efficientnet_b2": (80.610, 288),
    "efficientnet_b3": (82.242, 320),
    "efficientnet_lite0": (75.480, 224),
    "lcnet_050": (63.120, 224),
    "lcnet_075": (68.782, 224),
    "lcnet_100": (72.096, 224),
    "mobilenetv2_050": (65.950, 224),
    "mobilenetv2_100": (72.976, 224),
    "mobilenetv2_110d": (75.056, 224),
    "mobilenetv2_120d": (77.302, 224),
    "mobilenetv2_140": (76.520, 224),
    "mobilenetv3_large_100": (75.766, 224),
    "mobilenetv3_small_050": (57.910, 224),
    "mobilenetv3_small_075": (65.234, 224),
    "mobilenetv3_small_100": (67.656, 224),
    "regnety_008": (76.302, 224),
    "regnety_016": (77.862, 224),
    "resnet18": (73.158, 288),
    "resnet26": (76.366, 288),
    "resnet34": (77.918, 288),
    "resnet50": (81.214, 288),
    "resnet101": (82.778, 288),
    "resnet152": (83.450, 288),
    "tf_efficientnet_lite0": (74.830, 224),
    "tf_efficientnet_lite1": (76.644, 240),
    "tf_efficientnet_lite2": (77.464, 260),
    "vit_base_patch16_224": (85.096, 224),
    "vit_small_patch16_224": (81.384, 224),
    "vit_tiny_patch16_224": (75.454, 224),
}


def published_accuracy(backbone: Backbone) -> float | None:
    """ImageNet top-1 in percent to expect at the backbone's size; None where nothing is published.

    Of a built-in backbone its own record counts, `transfer` in its file of facts, where it has one: a number
    on the same scale, at its own size.
    """
    if not backbone.pretrained:
        return None
    if backbone.name in BUILTIN:
        known = _measured(WEIGHTS / f"{backbone.name}.json")
    else:
        known = _TOP1.get(backbone.architecture.split(".")[0])
    if known is None:
        return None
    accuracy, size = known
    return accuracy - POINTS_PER_HALVING * max(0.0, math.log2(size / backbone.preprocess.size))


def _measured(path: Path) -> tuple[float, int] | None:
    facts = json.loads(path.read_text(encoding="utf-8"))
    found = facts.get("transfer")
    return (float(found), int(facts["preprocess"]["size"])) if isinstance(found, int | float) else None


def undominated(costs: Sequence[float], accuracies: Sequence[float | None]) -> list[int]:
    """Indices of the Pareto front: no other is at least as good in both and better in one.

    Those of unknown accuracy are never beaten.
    """

    def beats(one: int, other: int) -> bool:
        better, worse = accuracies[one], accuracies[other]
        if better is None or worse is None or better < worse or costs[one] > costs[other]:
            return False
        return better > worse or costs[one] < costs[other]

    every = range(len(costs))
    return [index for index in every if not any(beats(other, index) for other in every)]
