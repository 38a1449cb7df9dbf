"""What a backbone wants to see: size, crop and filter (`Preprocess`), and deterministic renderings (`View`).

Only values and geometry live here; `images` decodes and renders, and offers these names too.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

from headstart.errors import OptionError

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's filters, by the names that timm's configurations use."""

CROP_MODES = ("center", "squash")


@dataclass(frozen=True)
class Preprocess:
    """What a backbone wants to see; the fields are those of timm's pre-trained configurations.

    Raises:
        OptionError: A field has a value that no image could be prepared with.
    """

    size: int  # pixels a side of the square that the backbone sees
    crop_fraction: float  # share of the resized image's side that the centre crop keeps (timm: crop_pct)
    interpolation: str  # a key of Pillow's filters: bicubic, bilinear, nearest, lanczos, box, hamming
    crop_mode: str  # "center" keeps the aspect ratio, "squash" does not
    mean: tuple[float, float, float]  # of pixel / 255, per channel
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise OptionError(f"preprocess: size must be 1 to 4096 pixels, got {self.size}")
        if not 0 < self.crop_fraction <= 1:
            raise OptionError(
                f"preprocess: crop_fraction must be above 0, at most 1, got {self.crop_fraction}"
            )
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise OptionError(
                f"preprocess: unknown interpolation {self.interpolation!r}; expected one of {known}"
            )
        if self.crop_mode not in CROP_MODES:
            raise OptionError(f"preprocess: unknown crop_mode {self.crop_mode!r}; expected center or squash")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError("preprocess: mean and std need three numbers each, std above 0")

    @property
    def resized_side(self) -> int:
        """Pixels of the shorter side after the resize and before the crop, as timm rounds it."""
        return math.floor(self.size / self.crop_fraction)

    def crop_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of an image of these pixels that the centre view shows: left, top, right, bottom."""
        across = down = self.crop_fraction * min(width, height)
        if self.crop_mode == "squash":
            across, down = self.crop_fraction * width, self.crop_fraction * height
        left, top = (width - across) / 2, (height - down) / 2
        return round(left), round(top), round(left + across), round(top + down)

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON-ready values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(
            size=int(fields["size"]),
            crop_fraction=float(fields["crop_fraction"]),
            interpolation=str(fields["interpolation"]),
            crop_mode=str(fields["crop_mode"]),
            mean=_three(fields["mean"]),
            std=_three(fields["std"]),
        )

    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any field."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


SMALLEST_CROP_AREA = 0.6
"""The least share of the centre square's area that a crop view keeps: less cuts off what the label names."""

MAX_VIEWS = 64

_VIEW_NAME = re.compile(r"(?:centre|flip|crop([1-9]\d{0,3})(-flip)?)")


@dataclass(frozen=True)
class View:
    """A deterministic rendering of an image: `centre`, `flip`, `crop1`, `crop1-flip`, and so on.

    Raises:
        OptionError: The name is none of these.
    """

    name: str

    def __post_init__(self) -> None:
        if not _VIEW_NAME.fullmatch(self.name):
            raise OptionError(
                f"unknown view {self.name!r}; expected centre, flip, crop1, crop1-flip, crop2, …"
            )

    @cached_property
    def flipped(self) -> bool:
        """Whether the rendering is mirrored left to right."""
        return self.name.endswith("flip")

    @cached_property
    def crop(self) -> int:
        """The crop's number, 0 for the centre."""
        digits = self.name.removesuffix("-flip").removeprefix("crop")
        return int(digits) if digits.isdigit() else 0


CENTRE = View("centre")
FLIP = View("flip")


def parse_views(spec: str | int) -> tuple[View, ...]:
    """The views that an option names.

    A number takes that many from the fixed sequence centre, flip, crop1, crop1-flip, crop2, …; `flip` means
    centre and flip; names may also be listed, with commas.

    Raises:
        OptionError: Not a number from 1 to 64, nor a list of different view names.
    """
    text = str(spec).strip()
    if text == "flip":
        return (CENTRE, FLIP)
    if re.fullmatch(r"\d+", text):
        count = int(text)
        if not 1 <= count <= MAX_VIEWS:
            raise OptionError(f"views: expected 1 to {MAX_VIEWS}, got {text}")
        crops = [f"crop{1 + k // 2}{'-flip' if k % 2 else ''}" for k in range(count - 2)]
        return tuple(View(name) for name in ["centre", "flip", *crops][:count])
    views = tuple(View(name.strip()) for name in text.split(","))
    if len(set(views)) != len(views):
        raise OptionError(f"views: a name comes twice in {text!r}")
    return views


@lru_cache(maxsize=256)
def crop_place(number: int) -> tuple[float, float, float]:
    """Side (share of the centre square's) and position (0 to 1 in x and y) of crop `number`, from 1 on.

    A Halton sequence spreads any number of crops evenly: https://doi.org/10.1007/BF01386213.
    """
    area = SMALLEST_CROP_AREA + (1 - SMALLEST_CROP_AREA) * _halton(number, 2)
    return math.sqrt(area), _halton(number, 3), _halton(number, 5)


def _halton(index: int, base: int) -> float:
    share, result = 1.0, 0.0
    while index:
        share /= base
        index, digit = divmod(index, base)
        result += share * digit
    return result


def shortest_side_needed(preprocess: Preprocess, views: Iterable[View] = (CENTRE,)) -> int:
    """Pixels that an image's shorter side should have so that no rendering has to enlarge it."""
    return max(_side_for(preprocess, view) for view in views)


def _side_for(preprocess: Preprocess, view: View) -> int:
    if view.crop == 0:
        return preprocess.resized_side
    return math.ceil(preprocess.size / crop_place(view.crop)[0])
