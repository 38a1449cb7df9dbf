"""Tiny ImageNet as one memory-mapped array: the archive is decoded once, not once per epoch.

Decoding WebP costs about 0.3 ms a picture on one core, a tenth of a training step; the array of all
100,000 pictures is 1.2 GB and lives in the page cache.
"""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64  # pixels: what Tiny ImageNet's pictures measure
ARCHIVE = "tiny-imagenet-64.zip"


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures and their classes.

    Attributes:
        pixels: uint8 [N, SIDE, SIDE, 3], RGB, possibly memory-mapped.
        labels: int64 [N], an index into the sorted class names.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.labels)


def _members(archive: zipfile.ZipFile, part: str) -> list[str]:
    return sorted(n for n in archive.namelist() if n.startswith(part + "/") and n.endswith(".webp"))


def decode(archive: Path, part: str, *, out: Path) -> None:
    """Decode one part ("train" or "val") of the archive into `out`/PART.npy and PART-labels.npy.

    The arrays appear under their names only when complete, so a stopped run starts over and never reads half.
    """
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as opened:
        names = _members(opened, part)
        classes = sorted({name.split("/")[1] for name in names})
        index = {name: i for i, name in enumerate(classes)}
        unfinished = out / f"{part}.partial.npy"
        pixels = np.lib.format.open_memmap(
            unfinished, mode="w+", dtype=np.uint8, shape=(len(names), SIDE, SIDE, 3)
        )

        def one(i: int) -> None:
            with Image.open(io.BytesIO(opened.read(names[i]))) as image:
                pixels[i] = np.asarray(image.convert("RGB"))

        with ThreadPoolExecutor() as pool:
            list(pool.map(one, range(len(names)), chunksize=1000))
        pixels.flush()
    np.save(out / f"{part}-labels.npy", np.array([index[n.split("/")[1]] for n in names], dtype=np.int64))
    unfinished.rename(out / f"{part}.npy")


def load(data: Path, part: str, *, work: Path) -> Pictures:
    """Tiny ImageNet's `part`, decoding the archive in `data` on the first call.

    Raises:
        FileNotFoundError: the archive is not in `data`; the message says what to put there.
    """
    if not (work / f"{part}.npy").exists():
        archive = data / ARCHIVE
        if not archive.exists():
            raise FileNotFoundError(f"{archive}: not found; DATA must hold {ARCHIVE} (see README.md)")
        decode(archive, part, out=work)
    return Pictures(np.load(work / f"{part}.npy", mmap_mode="r"), np.load(work / f"{part}-labels.npy"))
