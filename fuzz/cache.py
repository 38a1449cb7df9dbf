"""Damages the feature cache's file: every pass over the images gives the features of the undamaged one.

python fuzz/cache.py [SECONDS]

An input is a list of damages of five bytes each: kind, place (two bytes), length and value.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from run import fuzz

_PAGE, _MOST = 4096, 64
_FOLDER = Path(tempfile.mkdtemp())


def seeds() -> list[bytes]:
    """A flipped byte, a zeroed page, a file cut short, noise, two pages exchanged."""
    return [bytes([kind, place, 0, 1, 90]) for kind in range(5) for place in (0, 60, 130, 255)]


class _World:
    """A few images, the features that one pass found, and the file that it left."""

    def __init__(self) -> None:
        from headstart.backbones import load_backbone
        from headstart.backbones.runtimes import select
        from headstart.data.dataset import read_dataset
        from headstart.features.database import FILE

        random = np.random.default_rng(0)
        for number in range(24):
            folder = _FOLDER / "photos" / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        self.samples = read_dataset(_FOLDER / "photos").samples
        self.backbone, self.runtime = load_backbone("builtin", size=32), select()
        found = self.look()
        self.expected = self.rows(found)
        self.file = found.partition.path / FILE
        found.partition.close()
        self.whole = self.file.read_bytes()

    def look(self) -> Any:
        from headstart.data.images import CENTRE
        from headstart.features import FeatureCache, FeatureSpec, extract

        return extract(
            self.samples,
            self.backbone,
            spec=FeatureSpec(depth=5, views=(CENTRE,), layers=True),
            runtime=self.runtime,
            cache=FeatureCache(_FOLDER / "cache"),
        )

    def rows(self, found: Any) -> list[Any]:
        from headstart.data.images import CENTRE

        names = [layer.name for layer in self.backbone.feature_layers()]
        everything = range(len(self.samples))
        return [
            found.features(everything, layers=names, view=CENTRE),
            found.activations(everything, view=CENTRE),
        ]


_worlds: list[_World] = []


def damaged(data: bytes, whole: bytes) -> bytes:
    """What is left of a file."""
    found = bytearray(whole)
    for start in range(0, min(len(data), 5 * _MOST), 5):
        kind, high, low, length, value = data[start : start + 5].ljust(5, b"\1")
        place = (high * 256 + low) * max(1, len(found)) // 65_536
        page = place // _PAGE * _PAGE
        if kind % 5 == 0:
            for at in range(place, min(len(found), place + length * 997), 997):
                found[at] ^= value or 1
        elif kind % 5 == 1:
            found[page : page + _PAGE] = bytes(len(found[page : page + _PAGE]))
        elif kind % 5 == 2:
            del found[max(place, 1) :]
        elif kind % 5 == 3:
            found[place : place + length] = bytes([value]) * len(found[place : place + length])
        else:
            other = value * (len(found) // _PAGE) // 256 * _PAGE
            one, two = found[page : page + _PAGE], found[other : other + _PAGE]
            if len(one) == len(two):
                found[page : page + _PAGE], found[other : other + _PAGE] = two, one
    return bytes(found)


def target(data: bytes) -> None:
    """Damage the file, and look again."""
    if not _worlds:
        logging.disable(logging.WARNING)
        _worlds.append(_World())
    (world,) = _worlds
    world.file.write_bytes(damaged(data, world.whole))
    world.file.with_name(f"{world.file.name}-journal").unlink(missing_ok=True)
    found = world.look()
    for rows, expected in zip(world.rows(found), world.expected, strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-3)
    found.partition.close()
    del found
    for aside in world.file.parent.parent.glob("*.damaged-*"):
        for file in aside.iterdir():
            file.unlink()
        aside.rmdir()


if __name__ == "__main__":
    fuzz(target, seeds(), modules=["headstart.features.cache", "headstart.features.database"])
