"""Damaged files of every format: each one decodes or is refused with a reason, and soon."""

import random
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import CENTRE, Preprocess, open_image, render
from headstart.errors import ImageError
from made_images import encoded

SMALL = Preprocess(32, 0.875, "bilinear", "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MUTANTS_PER_FILE = 120
SECONDS_PER_FILE = 5.0  # loose: only a hang or a walk through a faked size takes so long


def picture(mode="RGB"):
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((64, 48), Image.Resampling.BICUBIC).convert(mode)


def originals():
    exif = Image.Exif()
    exif[274] = 6
    rgb, deep = picture(), Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    film = {"save_all": True, "append_images": [picture("L").convert("RGB")] * 2}
    return {
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg cmyk": encoded(picture("CMYK"), "JPEG"),
        "png": encoded(rgb, "PNG", exif=exif),
        "png palette": encoded(picture("P"), "PNG", transparency=3),
        "png 16 bit": encoded(deep, "PNG"),
        "apng": encoded(rgb, "PNG", **film),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp animated": encoded(rgb, "WEBP", **film),
        "gif": encoded(picture("P"), "GIF"),
        "gif animated": encoded(rgb, "GIF", **film),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(picture("P"), "BMP"),
        "tiff": encoded(rgb, "TIFF", exif=exif),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff pages": encoded(rgb, "TIFF", **film),
        "avif": encoded(rgb, "AVIF", exif=exif),
    }


ORIGINALS = originals()
EXTREMES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(data, rng):
    """One to a few kinds of damage: flipped or extreme bytes (mostly in the head), cuts, splices, repeats."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        at = rng.randrange(max(1, min(len(damaged), 200 if rng.random() < 0.6 else len(damaged))))
        if kind == 0 and damaged:
            damaged[at % len(damaged)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[at : at + 4] = bytes(rng.choice(EXTREMES) for _ in range(4))
        elif kind == 2:
            del damaged[rng.randrange(len(damaged) + 1) :]
        elif kind == 3:
            other = rng.choice(list(ORIGINALS.values()))
            start = rng.randrange(len(other))
            damaged[at:at] = other[start : start + rng.randrange(64)]
        elif kind == 4:
            damaged[at:at] = damaged[at : at + rng.randrange(1, 400)] * rng.randrange(1, 4)
        else:
            damaged[at : at + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(40))
    return bytes(damaged)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_originals_decode(name):
    image, facts = open_image(ORIGINALS[name], shortest_side=16)
    assert sorted((facts.width, facts.height)) == [48, 64]
    assert render(image, SMALL).shape == (32, 32, 3)


@pytest.mark.parametrize("name", ORIGINALS)
def test_damaged_files_decode_or_are_refused_with_a_reason(name, capfd):
    rng = random.Random(name)
    refused = 0
    for number in range(MUTANTS_PER_FILE):
        data = mutated(ORIGINALS[name], rng)
        started = time.process_time()
        try:
            image, facts = open_image(data, shortest_side=rng.choice((None, 16, 40)))
        except ImageError as error:
            refused += 1
            assert 3 < len(str(error)) < 200, f"mutant {number}"
            assert "\n" not in str(error), f"mutant {number}"
        else:
            assert image.mode == "RGB"
            assert min(facts.width, facts.height) >= 1
            assert render(image, SMALL, CENTRE).shape == (32, 32, 3)
        assert time.process_time() - started < SECONDS_PER_FILE, f"mutant {number}"
    assert refused > 0
    written = capfd.readouterr()
    assert written.out == ""
    if "tiff" not in name:  # libtiff prints its own remarks, from C, and offers Python no way to stop it
        assert written.err == ""


def test_damage_is_refused_under_any_warning_filter():
    rng = random.Random(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in ORIGINALS.values():
            for _ in range(10):
                try:
                    open_image(mutated(data, rng))
                except ImageError:
                    continue
    assert caught == []
