"""Pictures as files of any format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Any, file_format: str, **options: Any) -> bytes:
    """A picture, or an array of its pixels, as the bytes of a file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def write_noise(folder: Path, *, side: int, per_class: int = 14) -> Path:
    """Class folders of PNGs of one size, noise around a colour each: no decoder nor resizing changes them."""
    rng = np.random.default_rng(0)
    for label, colour in (("red", (220, 40, 40)), ("green", (40, 200, 40)), ("blue", (40, 40, 220))):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.clip(rng.normal(colour, 40, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder
