"""Finds images that are black, white, of one colour or blurred, and class names that are nearly the same."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE = 96
"""Pixels that an image is looked at with: finer detail than this hardly reaches a backbone."""

_DARK, _BRIGHT = 32, 223  # of 255
_OUTLIERS = 0.005  # of the pixels, at either end
_EMPTY = 6.0  # standard deviation of the brightness; of 1,000 photographs of flowers the least is 16
_BLURRED = 0.012
"""Sharpness below which an image is blurred: of 1,000 photographs of flowers the least has 0.025; blurred by
a Gaussian of 4 % of the shorter side, nine in ten of them have less than 0.0065."""
_BESIDE_OTHERS = 10.0
"""So many times less sharp than the data set's median it must be too: some data sets are smooth."""

_SPELT = 5
"""Letters from which on two names that differ in one may be the same name."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """What the pixels of an image look like: brightness 0 to 255, and sharpness.

    Sharpness is the variance of the Laplacian over that of the brightness, which contrast does not change
    (after Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000).
    """

    darkest: float
    brightest: float
    spread: float
    sharpness: float


def appearance(picture: Image.Image) -> Appearance:
    """Of a decoded image in any colour mode."""
    grey = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    below = np.cumsum(grey.histogram())
    darkest, brightest = np.searchsorted(below, [_OUTLIERS * below[-1], (1 - _OUTLIERS) * below[-1]])
    g = np.asarray(grey, dtype=np.float32)
    laplacian = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
    variance = float(g.var())
    return Appearance(
        float(darkest), float(brightest), variance**0.5, float(laplacian.var()) / max(variance, 1e-6)
    )


def shows_nothing(seen: Sequence[Appearance | None]) -> list[str | None]:
    """For each image of a data set why it shows next to nothing; None where it shows something."""
    usual = statistics.median([each.sharpness for each in seen if each is not None] or [0.0])
    return [None if each is None else _why(each, usual=usual) for each in seen]


def _why(seen: Appearance, *, usual: float) -> str | None:
    if seen.brightest < _DARK:
        return "black"
    if seen.darkest > _BRIGHT:
        return "white"
    if seen.spread < _EMPTY:
        return "nearly empty, of one colour"
    if seen.sharpness < min(_BLURRED, usual / _BESIDE_OTHERS):
        return "blurred"
    return None


def alike_names(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Names that may be meant as one: they differ in case, spaces and signs, or in one letter."""
    by_form: dict[str, dict[str, None]] = {}
    for name in names:
        plain = "".join(each for each in name.casefold() if each.isalnum()) or name
        by_form.setdefault(plain, {})[name] = None
        if len(plain) < _SPELT or any(each.isdigit() for each in plain):
            continue
        # All but the last letter: type A and type B are two names.
        for place in range(len(plain) - 1):
            by_form.setdefault(f"{plain[:place]}{plain[place + 1 :]}", {})[name] = None
    found = {tuple(sorted(group)) for group in by_form.values() if len(group) > 1}
    return tuple(sorted(each for each in found if not any(set(each) < set(other) for other in found)))
