"""Fuzzes the decoding of images: every input becomes a picture or an `ImageError`.

python fuzz/decode.py [SECONDS]
"""

import io

import numpy as np
from PIL import Image
from run import fuzz


def seeds() -> list[bytes]:
    """A small file of each format."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def target(data: bytes) -> None:
    """Decode and render."""
    from headstart.errors import ImageError
    from headstart.images import Preprocess, open_image, render

    preprocess = Preprocess(16, 0.875, "bilinear", "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    try:
        image, _ = open_image(data, shortest_side=16, max_pixels=4_000_000)
    except ImageError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
        return
    if render(image, preprocess).shape != (16, 16, 3):
        raise AssertionError("the wrong shape")


if __name__ == "__main__":
    fuzz(target, seeds(), modules=["headstart.images"])
