"""Labels images with the model in this folder, without Headstart: NumPy, Pillow and the format's runtime.

    python predict.py photo.jpg another.png      one line per image: path, label, probability
    python predict.py pixels.npy                 uint8 [N, S, S, 3], resized and cropped already
    python predict.py photo.jpg --json

`card.json` beside this file has the labels and says how large the picture must be.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent
BATCH = 32
Run = Callable[[Any], Any]  # uint8 [n, S, S, 3] -> float32 [n, C]


def resize_and_crop(image: Image.Image, wanted: dict[str, Any]) -> Any:
    """A picture to uint8 [S, S, 3]: upright, on white, shorter side resized, centre cropped."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, (255, 255, 255))
        image.paste(layer, mask=layer.getchannel("A"))
    image = image.convert("RGB")
    width, height = image.size
    side, size = wanted["resized_side"], wanted["size"]
    if wanted["crop_mode"] == "squash":
        width, height = side, side
    elif width <= height:
        width, height = side, int(side * height / width)
    else:
        width, height = int(side * width / height), side
    image = image.resize((width, height), Image.Resampling[wanted["interpolation"].upper()])
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def read(path: str, wanted: dict[str, Any]) -> Any:
    """Pixels uint8 [n, S, S, 3] of an image file, or of a .npy that holds them already."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    with Image.open(path) as image:
        return resize_and_crop(image, wanted)[None]


def main(open_model: Callable[[Path], Run]) -> None:
    """Read the arguments, run the model, print."""
    parser = argparse.ArgumentParser(description="Label images with the exported classifier.")
    parser.add_argument("paths", nargs="+", metavar="IMAGE", help="image files, or .npy of pixels")
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument("--save", metavar="FILE.npy", help="also write the probabilities, float32 [N, C]")
    arguments = parser.parse_args()
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    run, rows, names = open_model(FOLDER), [], []
    for path in arguments.paths:
        pixels = read(path, card["input"])
        names += [path] if len(pixels) == 1 else [f"{path}[{i}]" for i in range(len(pixels))]
        rows += [run(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
    probabilities = np.concatenate(rows).astype(np.float32)
    if arguments.save:
        np.save(arguments.save, probabilities)
    best = probabilities.argmax(1)
    found = [
        {"path": name, "label": card["classes"][k], "probability": round(float(row[k]), 6)}
        for name, k, row in zip(names, best, probabilities, strict=True)
    ]
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for item in found:
            print(f"{item['path']}\t{item['label']}\t{item['probability']:.1%}")
