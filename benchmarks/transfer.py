"""How far every backbone's frozen features carry, and what arithmetic they take.

Each backbone, on each folder, at each input size: the features of every image, a ridge head on those of the
training side, accuracy on the validation side, with the last vector alone and with the layers that
leave-one-out chooses. Beside it, at the smallest size, the same network with random weights: what
pre-training is worth. Arithmetic is counted on the graph, so that a busy machine changes nothing;
`headstart plan` says what it takes in seconds on a machine.

    python benchmarks/transfer.py --data ../shared/data [FOLDER ...] [--backbone weights.safetensors]

writes docs/transfer.md and docs/transfer.svg, of the backbones that are on this machine. From DATA come the
flowers and ten classes of Tiny ImageNet; the digits are scikit-learn's.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.backbones import Backbone, available, load_backbone
from headstart.backbones.runtimes import Runtime, select
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import CENTRE
from headstart.data.splits import assign_splits
from headstart.errors import BackboneError
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.heads import choose_layers, fit_ridge

CONFIDENCE = 1.96  # normal deviate of a 95 % interval
PICTURED = "flowers"
SIZES = (96, 128, 160, 224, 260)
TINY_CLASSES, TINY_TRAINING = 10, 100  # of Tiny ImageNet: its first classes, training images of each


@dataclass(frozen=True)
class Result:
    """One backbone at one size on one folder; accuracies from 0 to 1."""

    folder: str
    backbone: str
    size: int
    bytes: int
    images: int  # validation images: how wide the interval is
    accuracy: float  # last vector alone
    tapped: float  # the layers that leave-one-out chose
    layers: str
    random: float  # the same network, random weights, last vector; NaN where not measured
    work: float  # millions of multiply-adds of one image


def made(data: Path, work: Path) -> list[Path]:
    """The folders to measure on: flowers as they are, digits and ten classes of Tiny ImageNet made."""
    program = Path(__file__).parent.parent / "examples" / "digits.py"
    subprocess.run([sys.executable, program, work / "digits"], check=True)
    with zipfile.ZipFile(data / "tiny-imagenet-64.zip") as archive:
        listed = sorted(archive.namelist())
        classes = sorted({name.split("/")[1] for name in listed if name.startswith("val/")})[:TINY_CLASSES]
        for label in classes:
            train = [name for name in listed if name.startswith(f"train/{label}/")][:TINY_TRAINING]
            for name in (*train, *(name for name in listed if name.startswith(f"val/{label}/"))):
                archive.extract(name, work / "tiny-imagenet")
    return [data / "flowers", work / "digits", work / "tiny-imagenet"]


def weights_bytes(name: str) -> int:
    """Size of the file that holds a backbone's weights."""
    for info in available():
        if info.name == name:
            return info.bytes
    path = Path(name)
    return path.stat().st_size if path.exists() else 0


def split(dataset: Dataset, hashes: tuple[bytes | None, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and the validation side; the folder's own split where it has one."""
    sides = np.array([side or "" for side in assign_splits(dataset, hashes, [])])
    return np.flatnonzero(sides == "train"), np.flatnonzero(sides == "validation")


def accuracies(
    backbone: Backbone, dataset: Dataset, *, runtime: Runtime, layers: bool
) -> tuple[float, float, str, int]:
    """Validation accuracy of the last vector and of the chosen layers, those layers, how many images."""
    spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,), layers=layers)
    with tempfile.TemporaryDirectory() as root:
        cache = FeatureCache(Path(root))
        found = extract(dataset.samples, backbone, spec=spec, runtime=runtime, cache=cache)
        train, validation = split(dataset, found.hashes)
        labels, classes = dataset.labels, len(dataset.classes)

        def score(names: tuple[str, ...] | None) -> float:
            seen = found.features(train, layers=names, view=CENTRE)
            head = fit_ridge((seen, labels[train]), classes=classes).head
            logits = head.logits(found.features(validation, layers=names, view=CENTRE))
            return float((logits.argmax(1) == labels[validation]).mean())

        last = backbone.feature_layers()[-1].name
        if not layers:
            return score(None), math.nan, last, len(validation)
        per_layer = {
            t.name: found.features(train, layers=[t.name], view=CENTRE) for t in backbone.feature_layers()
        }
        chosen = choose_layers(per_layer, labels[train], classes=classes, last=last).layers
        return score(None), score(chosen), " + ".join(chosen), len(validation)


def interval(accuracy: float, images: int) -> float:
    """Half the width of the 95 % interval of an accuracy, normal approximation."""
    return CONFIDENCE * math.sqrt(max(accuracy * (1 - accuracy), 1 / images) / images)


def table(results: list[Result]) -> str:
    """One folder's results as Markdown: a row for each backbone, a column for each size."""
    sizes = sorted({r.size for r in results})
    lines = [
        f"| {results[0].folder}, {results[0].images} images | weights | "
        + " | ".join(f"{size} px" for size in sizes)
        + f" | random weights, {sizes[0]} px |",
        "|---|--:|" + "--:|" * (len(sizes) + 1),
    ]
    for name in dict.fromkeys(r.backbone for r in results):
        mine = {r.size: r for r in results if r.backbone == name}
        cells = [
            f"{100 * mine[s].tapped:.1f} % ({100 * mine[s].accuracy:.1f})" if s in mine else "" for s in sizes
        ]
        random = next((r.random for r in mine.values() if not math.isnan(r.random)), math.nan)
        first = next(iter(mine.values()))
        shown = "-" if math.isnan(random) else f"{100 * random:.1f} %"
        lines.append(f"| {name} | {first.bytes / 1e6:.1f} MB | {' | '.join(cells)} | {shown} |")
    widest = max(100 * interval(r.tapped, r.images) for r in results)
    return "\n".join(lines) + f"\n\n95 % intervals: at most ± {widest:.1f} points."


def work_table(results: list[Result]) -> str:
    """Arithmetic of each backbone at each size."""
    sizes = sorted({r.size for r in results})
    lines = ["| millions of multiply-adds | " + " | ".join(f"{size} px" for size in sizes) + " |"]
    lines.append("|---|" + "--:|" * len(sizes))
    for name in dict.fromkeys(r.backbone for r in results):
        mine = {r.size: r.work for r in results if r.backbone == name}
        lines.append(
            f"| {name} | " + " | ".join(f"{mine[s]:,.0f}" if s in mine else "" for s in sizes) + " |"
        )
    return "\n".join(lines)


COLOURS = ("#0b6e99", "#c4570d", "#5a7d2a", "#7d3c98", "#8a6d00", "#555555")
WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 760, 420, 70, 30, 480, 320


def picture(results: list[Result]) -> str:
    """Accuracy of one folder against arithmetic (logarithmic), SVG: a line per backbone, a point per size."""
    logs = [math.log10(r.work) for r in results]
    values = [100 * r.tapped for r in results]
    low, high = math.floor(min(values) / 5) * 5, math.ceil(max(values) / 5) * 5
    first, last = min(logs) - 0.1, max(logs) + 0.1

    def x(work: float) -> float:
        return LEFT + PLOT_WIDTH * (math.log10(work) - first) / (last - first)

    def y(accuracy: float) -> float:
        return TOP + PLOT_HEIGHT * (1 - (100 * accuracy - low) / max(1, high - low))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Accuracy of frozen features against arithmetic</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for percent in range(low, high + 1, 5):
        at = y(percent / 100)
        parts.append(f'<path d="M{LEFT} {at:.1f}h{PLOT_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{percent} %</text>')
    for work in (s * 10**e for e in range(6) for s in (1, 2, 5)):
        if first <= math.log10(work) <= last:
            parts.append(f'<path d="M{x(work):.1f} {TOP}v{PLOT_HEIGHT}" stroke="#eee"/>')
            bottom = TOP + PLOT_HEIGHT + 18
            parts.append(f'<text x="{x(work):.1f}" y="{bottom}" text-anchor="middle">{work:,}</text>')
    middle = LEFT + PLOT_WIDTH / 2
    said = "millions of multiply-adds an image"
    parts.append(f'<text x="{middle}" y="{HEIGHT - 25}" text-anchor="middle">{said}</text>')
    lines = sorted({(r.folder, r.backbone) for r in results})
    for i, (folder, name) in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        mine = [r for r in results if (r.folder, r.backbone) == (folder, name)]
        points = " ".join(f"{x(r.work):.1f},{y(r.tapped):.1f}" for r in mine)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for r in mine:
            cx, cy = x(r.work), y(r.tapped)
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{cx + 7:.1f}" y="{cy - 7:.1f}" fill="{colour}">{r.size}</text>')
        key = TOP + 20 * i
        parts.append(
            f'<text x="{LEFT + PLOT_WIDTH + 15}" y="{key + 10}" fill="{colour}">{name} ({folder})</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def measure(folders: list[Path], names: list[str], sizes: list[int]) -> list[Result]:
    """Every backbone at every size on every folder."""
    runtime = select()
    loaded = []
    for name, size in ((name, size) for name in names for size in sizes):
        try:
            loaded.append((name, load_backbone(name, size=size)))
        except BackboneError as error:
            print(f"left out: {error}")
    results = []
    for name, backbone in loaded:
        size, work = backbone.preprocess.size, sum(stage.multiply_adds for stage in backbone.stages) / 1e6
        weights = weights_bytes(name)
        for folder in folders:
            dataset = read_dataset(folder)
            plain, tapped, layers, images = accuracies(backbone, dataset, runtime=runtime, layers=True)
            random = math.nan
            if size == min(sizes):
                blank = load_backbone(name, size=size, pretrained=False)
                random = accuracies(blank, dataset, runtime=runtime, layers=False)[0]
            shown = Path(name).stem
            results.append(
                Result(folder.name, shown, size, weights, images, plain, tapped, layers, random, work)
            )
            print(results[-1], flush=True)
    return sorted(results, key=lambda r: (r.folder, r.backbone, r.size))


def page(results: list[Result], *, note: str) -> str:
    """docs/transfer.md."""
    folders = dict.fromkeys(r.folder for r in results)
    tables = "\n\n".join(table([r for r in results if r.folder == folder]) for folder in folders)
    return f"""# transfer

How far frozen features carry: a ridge head on the features of the training side, accuracy on the validation
side. It reads the layers that leave-one-out chose on the training side, as `headstart fit` does; in brackets
the last layer alone. *Random weights*: the same network, untrained, its last layer.

{tables}

Arithmetic of one image, which the seconds of a first fit roughly follow; `headstart plan` says those of a
machine:

{work_table([r for r in results if r.folder == results[0].folder])}

![Accuracy on {PICTURED} against arithmetic](transfer.svg)

{note}

Made by `benchmarks/transfer.py --data ../shared/data`.
"""


def main() -> None:
    """Measure, print, write page and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, help="what has flowers and tiny-imagenet-64.zip")
    parser.add_argument("--backbone", action="append", help="name or file, beside those on this machine")
    parser.add_argument("--size", type=int, action="append", help=f"pixels; default {SIZES}")
    parser.add_argument("--note", default="", help="a paragraph for the page")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs")
    options = parser.parse_args()
    names = list(dict.fromkeys([*(info.name for info in available()), *(options.backbone or [])]))
    with tempfile.TemporaryDirectory() as work:
        folders = [*(made(options.data, Path(work)) if options.data else []), *options.folders]
        results = measure(folders, names, options.size or list(SIZES))
    (options.out / "transfer.md").write_text(page(results, note=options.note))
    pictured = [r for r in results if r.folder == PICTURED] or results
    (options.out / "transfer.svg").write_text(picture(pictured))


if __name__ == "__main__":
    main()
