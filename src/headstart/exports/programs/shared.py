"""Labels images with the model in this folder, without Headstart: NumPy, Pillow and the format's runtime.

    python predict.py photo.jpg another.png      one line per image: path, label, probability
    python predict.py pixels.npy                 uint8 [N, S, S, 3], resized and cropped already
    python predict.py photos/ --csv labels.csv   every image below a folder; a table for spreadsheets
    python predict.py photo.jpg --json
    find photos -name '*.jpg' | python predict.py -

A file that is missing or cannot be read is named on stderr and in the table, and costs nothing else; the exit
code is 2 where none can be read. `card.json` beside this file has the labels and says how a picture is
prepared; `decoding` does it, with the very code that read the images of the training.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.images import IMAGE_SUFFIXES, Preprocess, load_pixels
from headstart.errors import ImageError

FOLDER = Path(__file__).resolve().parent
BATCH = 32
Run = Callable[[Any], Any]  # uint8 [n, S, S, 3] -> float32 [n, C]


def read(path: str, preprocess: Preprocess) -> Any:
    """Pixels uint8 [n, S, S, 3] of an image file, or of a .npy that holds them already."""
    if not path.endswith(".npy"):
        return load_pixels(Path(path).read_bytes(), preprocess)[None]
    pixels, wanted = np.load(path, allow_pickle=False), (preprocess.size, preprocess.size, 3)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
        raise ValueError(
            f"{pixels.dtype} {list(pixels.shape)}: expected uint8 [n, {wanted[0]}, {wanted[0]}, 3]"
        )
    return pixels


def files_of(paths: list[str]) -> Iterator[str]:
    """The files that are given, and the images below the folders that are, in their order."""
    for path in sys.stdin.read().splitlines() if paths == ["-"] else paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    yield os.path.join(folder, name)


def main(open_model: Callable[[Path], Run]) -> None:
    """Read the arguments, run the model, print."""
    parser = argparse.ArgumentParser(description="Label images with the exported classifier.")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="IMAGE|FOLDER",
        help="files, folders, .npy of pixels, or -: names on standard input",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument("--csv", metavar="FILE", help="write a table, a row for each image, broken ones too")
    parser.add_argument("--save", metavar="FILE.npy", help="also write the probabilities, float32 [N, C]")
    arguments = parser.parse_args()
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    preprocess = Preprocess.from_dict(card["input"])
    run, rows, found = open_model(FOLDER), [], []
    for path in files_of(arguments.paths):
        try:
            pixels = read(path, preprocess)
        except (OSError, ValueError, EOFError, ImageError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            print(f"{path}: {reason}; skipped", file=sys.stderr)
            found.append({"path": path, "note": reason})
            continue
        for start in range(0, len(pixels), BATCH):
            rows.append(run(pixels[start : start + BATCH]))
            for number, row in enumerate(rows[-1].tolist(), start):
                name = path if len(pixels) == 1 else f"{path}[{number}]"
                found.append({"path": name, **answer(row, card)})
    if arguments.csv:
        write_csv(arguments.csv, found)
    if not rows:
        if not found:
            print("no image in what was given", file=sys.stderr)
        sys.exit(2)
    if arguments.save:
        np.save(arguments.save, np.concatenate(rows).astype(np.float32))
    said = [item for item in found if "note" not in item]
    if arguments.json:
        print(json.dumps(said, indent=1, ensure_ascii=False))
    elif arguments.csv:
        print(f"{len(found)} images, {len(found) - len(said)} of them unreadable; saved in {arguments.csv}")
    else:
        for item in said:
            print(in_words(item))


def in_words(item: dict[str, Any]) -> str:
    """The line of an image."""
    several = ", ".join(item["labels"]) or "none" if "labels" in item else item.get("label")
    share = f"\t{item['probability']:.1%}" if "probability" in item else ""
    return f"{item['path']}\t{item.get('value', several)}{share}"


def write_csv(file: str, found: list[dict[str, Any]]) -> None:
    """A table in UTF-8 with its mark; a text that a spreadsheet would compute has an apostrophe in front."""

    def cell(value: Any) -> Any:
        text = "|".join(value) if isinstance(value, list) else value
        return (
            f"'{text}"
            if isinstance(text, str) and text.startswith(("=", "+", "-", "@", "\t", "\r"))
            else text
        )

    names = [
        name for name in ("path", "label", "probability", "labels", "value") if any(name in e for e in found)
    ]
    with open(file, "w", encoding="utf-8-sig", errors="backslashreplace", newline="") as opened:
        table = csv.writer(opened)
        table.writerow([*names, "note"])
        table.writerows([cell(item.get(name)) for name in (*names, "note")] for item in found)


def answer(row: list[float], card: Any) -> dict[str, Any]:
    """What the model says of one image: its likeliest label, or several, or a number."""
    task, classes = card.get("task"), card["classes"]
    if task == "regression":
        return {"value": float(f"{row[0]:.7g}")}
    best = int(np.argmax(row))
    if costs := card.get("costs"):  # what costs least on average is called, of equals the likelier
        expected = np.array(row) @ np.array(costs, float)
        best = int(np.where(expected <= expected.min() + 1e-12 * np.max(costs), row, -1).argmax())
    said: dict[str, Any] = {"label": classes[best], "probability": round(row[best], 6)}
    if task == "multi-label":
        limits = card["thresholds"] or [0.5] * len(classes)
        said["labels"] = [name for name, p, limit in zip(classes, row, limits, strict=True) if p >= limit]
    return said
