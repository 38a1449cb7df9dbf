"""Grad-CAM: where more than an average lies between the last map and the head, PyTorch says what counts.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017. The gradient is taken position by position and not averaged over the map first (Draelos and Carin,
"HiResCAM", 2020): so it is the exact share wherever the way to the head is linear, and equals `cam` there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, load_backbone
from headstart.classifier import WEIGHTS_FILE, Classifier
from headstart.errors import OptionError, RunError
from headstart.explanations.activation import class_activation, spread
from headstart.explanations.inside import inner_maps
from headstart.explanations.keeping import kept
from headstart.explanations.readings import Reading


def gradient_activation(
    classifier: Classifier, pixels: NDArray[np.uint8], readings: Sequence[Reading], *, label: int
) -> NDArray[np.float32]:
    """What each pixel's place adds to the label's logit, float32 [S, S]; needs PyTorch.

    Taps are averages, so their shares are known without a gradient; it is taken for the features alone.

    Raises:
        OptionError: the head reads a token that has no place in the image.
        BackboneError: the backbone is no longer to be had.
    """
    side = len(pixels)
    taps = [reading for reading in readings if not reading.is_features]
    features = [reading for reading in readings if reading.is_features]
    names = {str(reading.tensor) for reading in taps}
    if not features:
        return class_activation(inner_maps(classifier, pixels, sorted(names)), taps, label=label, side=side)
    backbone, pool = kept(classifier, "pool", lambda: _pool(classifier))
    last_map = backbone.stages[-1].name
    maps = inner_maps(classifier, pixels, sorted(names | {last_map}))
    gradient = _gradient(pool, maps[last_map], features[0].weight[:, label])
    of_features = spread(maps[last_map], gradient, side=side)
    return of_features + class_activation(maps, taps, label=label, side=side)


def _gradient(pool: Any, found: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logit's gradient at a map, [C, positions]."""
    import torch

    last = torch.tensor(found)[None].requires_grad_(True)
    logit = (pool(last)[0] * torch.tensor(weight)).sum()
    (gradient,) = torch.autograd.grad(logit, last)
    values: NDArray[np.float32] = gradient[0].numpy()
    return values.reshape(len(values), -1) if values.ndim == 3 else values.T


def _pool(classifier: Classifier) -> tuple[Backbone, Any]:
    """The backbone, and what turns its last map into features, with the weights that were trained."""
    import torch
    from safetensors.numpy import load_file

    about = classifier.about
    name = str(about["backbone"])
    timm_name = None if "/" not in name and "." not in name else str(about["architecture"])
    backbone = load_backbone(
        name, size=classifier.preprocess.size, architecture=timm_name, pretrained=about["depth"] > 0
    )
    pool = backbone.module().pool
    try:
        trained = load_file(classifier.model.parent / WEIGHTS_FILE)
    except OSError as error:
        raise RunError(f"{classifier.model.parent / WEIGHTS_FILE} is missing; restore the folder") from error
    start = "tail.pool."
    state = {key.removeprefix(start): value for key, value in trained.items() if key.startswith(start)}
    if state:
        pool.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    if len(backbone.stages) != about["stages"]:
        raise OptionError(f"backbone {name} has other stages than when it was trained; take occlusion")
    return backbone, pool
