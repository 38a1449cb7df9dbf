"""Makes the photographs of the tutorial: python docs/pictures/tutorial.py PHOTOGRAPHS FOLDER.

PHOTOGRAPHS holds one folder per class. Of daisies, roses and tulips ninety become FOLDER/photos, one of
them cut short and one a copy of another; the next thirty become FOLDER/more-photos.
"""

import argparse
import shutil
from pathlib import Path

CLASSES = ("daisy", "roses", "tulips")
FIRST, IMAGES, MORE = 39, 90, 30
"""Of each class: how many are passed over, and how many are taken for each folder."""


def furnish(photographs: Path, folder: Path) -> None:
    """Copies what the tutorial needs, numbered from 001."""
    for name in CLASSES:
        files = sorted((photographs / name).iterdir())[FIRST:]
        for number, file in enumerate(files[: IMAGES + MORE], 1):
            place = folder / ("photos" if number <= IMAGES else "more-photos") / name / f"{number:03}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    photos = folder / "photos"
    shutil.copy(photos / "daisy" / "001.jpg", photos / "daisy" / f"{IMAGES:03}.jpg")
    cut = photos / "roses" / f"{IMAGES:03}.jpg"
    cut.write_bytes(cut.read_bytes()[:5000])


def main() -> None:
    """Makes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    furnish(options.photographs, options.folder)


if __name__ == "__main__":
    main()
