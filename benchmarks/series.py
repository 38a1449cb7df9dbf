"""What a random split makes of photographs in series, and what --groups makes of them.

Twenty cameras, each of which films one of two kinds of thing before its own background; the backgrounds tell
cameras apart and say nothing of kinds. Prints what `headstart check` says unasked, and accuracies over five
folds of images and of cameras.

    python benchmarks/series.py [--backbones builtin,efficientnet_lite0] [--size PX]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]

CAMERAS = 20


def write_series(folder: Path, *, cameras: int = CAMERAS, frames: int = 12, side: int = 96) -> Path:
    """Class folders of frames, named after camera and frame; half of the cameras film each kind."""
    random = np.random.default_rng(0)
    for camera in range(cameras):
        kind = ("round", "square")[camera % 2]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tint = random.integers(40, 216, 3)
        weave = random.normal(0, 25, (8, 8, 1)).repeat(side // 8, 0).repeat(side // 8, 1)
        for frame in range(frames):
            picture = _frame(kind, tint + weave, random=random, side=side)
            picture.save(folder / kind / f"cam{camera + 1:02}_{frame + 1:04}.jpg", quality=90)
    return folder


def _frame(kind: str, background: Floats, *, random: np.random.Generator, side: int) -> Image.Image:
    """The thing at a random place, between leaves that the wind has moved since the last frame."""
    pixels = background + random.normal(0, 10, (side, side, 1))
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(10):
        x, y = random.integers(0, side, 2)
        shade = tuple(int(value) for value in np.clip(background.mean((0, 1)) + random.normal(0, 60), 0, 255))
        pen.line((x, y, x + int(random.integers(-40, 40)), y + int(random.integers(-40, 40))), shade, 5)
    extent = side // 5
    x, y = (int(value) for value in random.integers(0, side - extent, 2))
    draw = pen.ellipse if kind == "round" else pen.rectangle
    draw((x, y, x + extent, y + extent), tuple(int(value) for value in random.integers(0, 256, 3)))
    return picture


def main() -> None:
    """Print both scores of each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", default="builtin,efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"HEADSTART_CACHE": str(folder / "cache"), "HEADSTART_HOME": str(folder / "home")}
        from headstart import fit
        from headstart.data.checks import check
        from headstart.runs.formatting import cross_validated

        images = write_series(folder / "cameras")
        print("\n".join(check(images).notes))
        for backbone in asked.backbones.split(","):
            for groups in (None, "{group}_*"):
                out = folder / f"{backbone}{groups}"
                _, run = fit(images, backbone=backbone, size=asked.size, groups=groups, folds=5, out=out)
                print(f"{backbone}, groups {groups}: {cross_validated(run.cross_validation or {})}")


if __name__ == "__main__":
    main()
