"""Labels images with the model in this folder, without Headstart: NumPy, Pillow and the format's runtime.

    python predict.py photo.jpg another.png      one line per image: path, label, probability
    python predict.py pixels.npy                 uint8 [N, S, S, 3], resized and cropped already
    python predict.py photo.jpg --json
    find photos -name '*.jpg' | python predict.py -

`card.json` beside this file has the labels and says how a picture is prepared; `decoding` does it, with the
very code that read the images of the training.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.images import Preprocess, load_pixels
from headstart.errors import ImageError

FOLDER = Path(__file__).resolve().parent
BATCH = 32
Run = Callable[[Any], Any]  # uint8 [n, S, S, 3] -> float32 [n, C]


def read(path: str, preprocess: Preprocess) -> Any:
    """Pixels uint8 [n, S, S, 3] of an image file, or of a .npy that holds them already."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    return load_pixels(Path(path).read_bytes(), preprocess)[None]


def main(open_model: Callable[[Path], Run]) -> None:
    """Read the arguments, run the model, print."""
    parser = argparse.ArgumentParser(description="Label images with the exported classifier.")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="IMAGE",
        help="files, .npy of pixels, or -: names on standard input",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument("--save", metavar="FILE.npy", help="also write the probabilities, float32 [N, C]")
    arguments = parser.parse_args()
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    preprocess = Preprocess.from_dict(card["input"])
    run, rows = open_model(FOLDER), []
    names: list[str] = []
    for path in sys.stdin.read().splitlines() if arguments.paths == ["-"] else arguments.paths:
        try:
            pixels = read(path, preprocess)
        except (OSError, ValueError, ImageError) as error:
            print(f"{path}: {error}; skipped", file=sys.stderr)
            continue
        names += [path] if len(pixels) == 1 else [f"{path}[{i}]" for i in range(len(pixels))]
        rows += [run(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
    if not rows:
        sys.exit(2)
    probabilities = np.concatenate(rows).astype(np.float32)
    if arguments.save:
        np.save(arguments.save, probabilities)
    found = [
        {"path": name, **answer(row.tolist(), card)} for name, row in zip(names, probabilities, strict=True)
    ]
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for item in found:
        several = ", ".join(item["labels"]) or "none" if "labels" in item else item.get("label")
        said = item.get("value", several)
        share = f"\t{item['probability']:.1%}" if "probability" in item else ""
        print(f"{item['path']}\t{said}{share}")


def answer(row: list[float], card: Any) -> dict[str, Any]:
    """What the model says of one image: its likeliest label, or several, or a number."""
    task, classes = card.get("task"), card["classes"]
    if task == "regression":
        return {"value": float(f"{row[0]:.7g}")}
    costs = card.get("costs")  # of mistakes: called is the class of the least expected cost
    best = int((np.array(row, np.float32) @ np.array(costs)).argmin() if costs else np.argmax(row))
    said: dict[str, Any] = {"label": classes[best], "probability": round(row[best], 6)}
    if task == "multi-label":
        limits = card["thresholds"] or [0.5] * len(classes)
        said["labels"] = [name for name, p, limit in zip(classes, row, limits, strict=True) if p >= limit]
    return said
