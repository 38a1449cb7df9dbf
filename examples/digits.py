"""Write scikit-learn's handwritten digits as a folder of class folders: real images, no download.

    python examples/digits.py demo/digits

They are 1,797 scans of digits from the UCI repository, 8 x 8 pixels each.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 32
"""Pixels a side of the files; the scans have 8, enlarged by repetition so that they can be looked at."""


def write(folder: Path, *, limit: int | None = None) -> int:
    """Write the digits, ``folder/LABEL/NUMBER.png``; how many there are.

    Args:
        folder: made if need be; files that are there already are overwritten.
        limit: only the first so many; None for all 1,797.
    """
    digits = load_digits()
    count = min(limit or len(digits.target), len(digits.target))
    for number in range(count):
        place = folder / str(digits.target[number])
        place.mkdir(parents=True, exist_ok=True)
        grey = np.uint8(255 - 255 * digits.images[number] / 16)
        enlarged = np.kron(grey, np.ones((SIDE // 8, SIDE // 8), np.uint8))
        Image.fromarray(enlarged).save(place / f"{number:04}.png")
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "digits")
    print(f"{write(target)} digits in {target}")
