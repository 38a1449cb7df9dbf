"""Fuzzes the decoding of images: all become a picture or an `ImageError`, and a small one costs little.

python fuzz/decode.py [SECONDS]
"""

import io
import time
from contextlib import suppress

import numpy as np
from PIL import Image
from run import fuzz

SECONDS, SECONDS_A_MEGABYTE = 2.0, 20.0
"""Of the process's own time that an input may take."""

MEGABYTES, MEGABYTES_A_BYTE = 400, 256e-6
"""That the process may grow by in one decoding: what `images.bounds` allows, and room for the allocator."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX")
FORMATS += ("SGI", "QOI", "DDS", "HEIF")


def seeds() -> list[bytes]:
    """Small files of each format, and of the modes and layouts that differ inside."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    deep = Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)
    film = {"save_all": True, "append_images": [image.rotate(90)] * 3}
    kinds = [(name, image, {}) for name in FORMATS]
    kinds += [("JPEG", image, {"progressive": True}), ("JPEG", image.convert("CMYK"), {})]
    kinds += [(name, image, film) for name in ("GIF", "PNG", "WEBP", "TIFF")]
    kinds += [(name, deep, {}) for name in ("PNG", "TIFF", "JPEG2000", "PPM")]
    kinds += [("TIFF", image, {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate")]
    kinds += [("TIFF", image.convert(mode), {}) for mode in ("1", "P", "F", "CMYK")]
    kinds += [("PNG", image.convert(mode), {}) for mode in ("1", "P", "LA", "RGBA")]
    kinds += [("JPEG2000", image, {"no_jp2": True}), ("TGA", image, {"compression": "tga_rle"})]
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    found = [
        b"P2 3 2 15 1 2 3 4 5 6 ",
        b"P1\n3 2\n010101",
        b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 9\nENDHDR\nabc",
    ]
    for kind, picture, options in kinds:
        buffer = io.BytesIO()
        with suppress(KeyError):  # HEIF, where its extra is missing
            picture.save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def target(data: bytes) -> None:
    """Decode and render; look at what it cost."""
    from headstart.data.images import Preprocess, open_image, render
    from headstart.errors import ImageError

    preprocess = Preprocess(16, 0.875, "bilinear", "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    _forget_the_most()
    started, before = time.process_time(), _memory("VmRSS")
    try:
        image, _ = open_image(data, shortest_side=16)
        if render(image, preprocess).shape != (16, 16, 3):
            raise AssertionError("the wrong shape")
    except ImageError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
    seconds, grown = time.process_time() - started, _memory("VmHWM") - before
    if seconds > SECONDS + SECONDS_A_MEGABYTE * len(data) / 1e6:
        raise AssertionError(f"{len(data)} bytes took {seconds:.1f} s: {data[:64]!r}")
    if grown > MEGABYTES + MEGABYTES_A_BYTE * len(data):
        raise AssertionError(f"{len(data)} bytes took {grown:.0f} MB: {data[:64]!r}")


def _memory(field: str) -> float:
    """Megabytes that the process holds, or has held at most since it was last forgotten; 0 beside Linux."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
    return 0.0


def _forget_the_most() -> None:
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


if __name__ == "__main__":
    fuzz(target, seeds(), modules=["headstart.data.images"])
