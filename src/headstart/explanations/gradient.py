"""Grad-CAM: where more than an average lies between the last map and the head, PyTorch says what counts.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017. The gradient is taken position by position and not averaged over the map first (Draelos and Carin,
"HiResCAM", 2020): so it is the exact share wherever the way to the head is linear, and equals `cam` there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import load_backbone
from headstart.backbones.exported import with_stages
from headstart.classifier import WEIGHTS_FILE, Classifier
from headstart.errors import OptionError, RunError
from headstart.explanations.activation import Activations, class_activation, spread
from headstart.explanations.head_inputs import Reading


def gradient_activation(
    activations: Activations, pool: Any, readings: Sequence[Reading], *, last: str, label: int, side: int
) -> NDArray[np.float32]:
    """What each pixel's place adds to the label's logit, float32 [side, side]; needs PyTorch.

    Layers are averages, so their shares are known without a gradient; it is taken for the features alone.

    Args:
        activations: the maps that the readings name, and the last one.
        pool: turns the last map into features, as trained.
        readings: of the head, the features among them.
        last: name of the last map.
        label: index of a class.
        side: S, pixels a side.

    Raises:
        OptionError: the head reads a token that has no place in the image.
    """
    (features,) = (reading for reading in readings if reading.is_features)
    layers = [reading for reading in readings if not reading.is_features]
    gradient = _gradient(pool, activations[last], features.weight[:, label])
    found = spread(activations[last], gradient, side=side)
    return found + class_activation(activations, layers, label=label, side=side)


def _gradient(pool: Any, found: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit's gradient at a map, [C, positions]."""
    import torch

    last = torch.tensor(found)[None].requires_grad_(True)
    logit = (pool(last)[0] * torch.tensor(weight)).sum()
    (gradient,) = torch.autograd.grad(logit, last)
    values: NDArray[np.float32] = gradient[0].numpy()
    return values.reshape(len(values), -1) if values.ndim == 3 else values.T


def trained_pool(classifier: Classifier) -> tuple[str, Any]:
    """The name of the backbone's last map, and what turns it into features, with trained weights.

    Raises:
        BackboneError: the backbone is no longer to be had.
    """
    import torch
    from safetensors.numpy import load_file

    about = classifier.about
    name = str(about["backbone"])
    timm_name = None if "/" not in name and "." not in name else str(about["architecture"])
    backbone = load_backbone(
        name, size=classifier.preprocess.size, architecture=timm_name, pretrained=about["depth"] > 0
    )
    backbone = with_stages(backbone, about["stages"])
    if len(backbone.stages) != about["stages"]:
        raise OptionError(f"backbone {name} has other stages than when it was trained; take occlusion")
    staged = backbone.module()
    try:
        trained = load_file(classifier.model.parent / WEIGHTS_FILE)
    except OSError as error:
        raise RunError(f"{classifier.model.parent / WEIGHTS_FILE} is missing; restore the folder") from error
    start = "tail.pool."
    state = {key.removeprefix(start): value for key, value in trained.items() if key.startswith(start)}
    if state:
        staged.load_part("pool", {key: torch.tensor(value) for key, value in state.items()})
    return backbone.stages[-1].name, staged.pool
