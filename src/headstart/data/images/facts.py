"""What the checks need to know of an image: size, format, mode, and a hash that survives small changes."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

HASH_SIDE = 16
"""Rows and columns of the difference hash: 16 x 16 = 256 bits."""

NO_HASH = bytes(HASH_SIDE * HASH_SIDE // 8)
"""The perceptual hash of a picture with too little in it to recognise (tiny, or nearly flat)."""

SMALLEST_HASHED_SIDE = 32
"""Pixels; below twice the hash's grid the bits describe the enlargement, not the picture."""

FLATTEST_HASHED_RANGE = 16
"""Grey levels between the darkest and the brightest cell of the grid; below, the bits are noise."""

_FACTS = struct.Struct("<IIB32s")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the checks need to know of an image, gathered while it is decoded."""

    width: int  # pixels of the file (not of a reduced decode), after orientation
    height: int
    format: str  # "JPEG", "PNG", …, or "array"
    mode: str  # Pillow's name of the file's pixel mode
    frames: int  # 1, or 2 for two and more: counting them all would walk through the whole file
    perceptual_hash: bytes  # 32 bytes, a difference hash; NO_HASH where there is too little to recognise

    def to_bytes(self) -> bytes:
        """A short binary form, for the feature cache."""
        head = _FACTS.pack(self.width, self.height, self.frames, self.perceptual_hash)
        return head + f"{self.format}\0{self.mode}".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageFacts:
        """The inverse of `to_bytes`; a ValueError or struct.error means damaged data."""
        width, height, frames, digest = _FACTS.unpack_from(data)
        file_format, mode = map(sys.intern, data[_FACTS.size :].decode().split("\0"))
        return cls(width, height, file_format, mode, frames, digest)


def difference_hash(picture: Image.Image, width: int, height: int, *, scale: int = 1) -> bytes:
    """256-bit horizontal difference hash (`imagehash.dhash`) of the whole picture, packed into 32 bytes.

    The picture is shrunk in two steps, which takes less than half the time of `imagehash`'s single step. A
    reduced decode has its last, partly filled column cut off, to hash like the full one (1,000 photographs: 3
    to 4 of 256 bits differ on average, 23 at most).
    """
    if min(width, height) < SMALLEST_HASHED_SIDE:
        return NO_HASH
    box = (0.0, 0.0, width / scale, height / scale)
    grid = picture.convert("L").resize(
        (HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0
    )
    darkest, brightest = grid.getextrema()
    if brightest - darkest < FLATTEST_HASHED_RANGE:  # type: ignore[operator]
        return NO_HASH
    cells = np.asarray(grid)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes()
