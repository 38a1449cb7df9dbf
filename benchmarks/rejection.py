"""How well images of no known class are told apart, and whether as many known ones pass as was promised.

Near: classes of the same folder that were left out of training. Far: images of the other folders. Scores: the
distance that `headstart predict --reject` goes by, and beside it the largest probability and the energy of
the default ridge head, and the distance to the nearest training image (cosine). For each the area under the
ROC curve, and the share of unknown images that pass at the threshold that lets 95 % of known ones through.
The share let through is that of known images that neither training nor threshold has seen, measured against
held-out images and against training images in folds. Beside them the distance with other constants, and the
processor seconds that learning it takes.

    python benchmarks/rejection.py [--data ../shared/data] [--backbone efficientnet_lite0] [--size 128]

The target: the share let through is within two points of 95 % on average.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from calibration import make_folders
from numpy.typing import NDArray

from headstart import heads
from headstart.backbones import backbone_of
from headstart.backbones.runtimes import select
from headstart.data.dataset import read_dataset
from headstart.data.images import CENTRE
from headstart.heads.familiarity import normalised
from headstart.runs import FitConfig
from headstart.training import prepare, resolve

Floats = NDArray[np.float32]
LEFT_OUT = {"flowers": 1, "digits": 3, "tiny": 5}
"""Classes of each folder that training does not see."""
DRAWS, KEPT, FAR, COVERAGE = 5, 0.95, 600, 0.9
VARIANTS = (
    ("penalty 0.5", {"_PENALTY": 0.5}),
    ("penalty 8", {"_PENALTY": 8.0}),
    ("residual 0.03", {"_RESIDUAL": 0.03}),
    ("residual 0.15", {"_RESIDUAL": 0.15}),
)
"""Of the distance: constants of `headstart.heads.familiarity`."""


@dataclass(frozen=True)
class Folder:
    """Features [N, D] of a folder's images, and their labels [N]."""

    features: Floats
    labels: NDArray[np.int64]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folders = {
            name: look(path, backbone=options.backbone, size=options.size)
            for name, path in make_folders(options.data, Path(work)).items()
        }
    for name, known in folders.items():
        print(f"{name}: {LEFT_OUT[name]} of {known.labels.max() + 1} classes left out, {DRAWS} draws")
        table: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for each in range(DRAWS):
            rng = np.random.default_rng(each)
            found = draw(known, {k: v for k, v in folders.items() if k != name}, out=LEFT_OUT[name], rng=rng)
            table = {key: [*table.get(key, []), *found[key]] for key in found}
        others = ("largest probability", "energy", "nearest image")
        for score in ("familiarity", *others, *(name for name, _ in VARIANTS)):
            cells = "  ".join(
                f"{where} {100 * np.mean([a for a, _ in table[score, where]]):5.1f} "
                f"/ {100 * np.mean([p for _, p in table[score, where]]):4.1f}"
                for kind, where in table
                if kind == score
            )
            print(f"  {score:20} {cells}")
        for how in ("held out", "in folds"):
            shares = [100 * share for share, _ in table["let through", how]]
            print(f"  let through, {how}: {np.mean(shares):.1f} % ({min(shares):.1f} to {max(shares):.1f})")
        print(f"  learned in {np.mean([s for s, _ in table['learning', 'seconds']]):.3f} s of the processor")
        coverage, labels = np.mean(table["sets", "coverage"], axis=0)
        print(
            f"  sets at {COVERAGE:.0%}: {100 * coverage:.1f} % hold the right label, {labels:.2f} labels each"
        )


def look(path: Path, *, backbone: str, size: int) -> Folder:
    """Features of every image of a folder."""
    dataset = read_dataset(path)
    asked = FitConfig.from_options(backbone=backbone, size=size, layers="last").checked()
    network, runtime = backbone_of(asked, seed=0), select("auto")
    config = resolve(replace(asked, backbone=backbone), dataset, network, runtime=runtime)
    prepared = prepare(dataset, network, config=config, runtime=runtime)
    images = np.concatenate([prepared.images(split) for split in ("train", "validation", "test")])
    return Folder(prepared.extraction.features(images, view=CENTRE), prepared.labels(images))


def draw(
    known: Folder, others: dict[str, Folder], *, out: int, rng: np.random.Generator
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """By score and kind of unknown image, the area and the share that passes; and what is let through."""
    order = rng.permutation(known.labels.max() + 1)
    inside = np.isin(known.labels, order[out:])
    labels = np.unique(known.labels[inside], return_inverse=True)[1]
    rows = rng.permutation(len(labels))
    train, held_out, new = np.split(rows, [int(0.6 * len(rows)), int(0.8 * len(rows))])
    x = known.features[inside]
    ridge = heads.fit_ridge((x[train], labels[train]), classes=len(order) - out).head
    told = [
        heads.fit_familiarity(x[train], labels[train], widths=[x.shape[1]], held_out=held)
        for held in (x[held_out], None)
    ]
    begun = time.process_time()
    heads.fit_familiarity(x[train], labels[train], widths=[x.shape[1]], held_out=x[held_out])
    spent = time.process_time() - begun
    variants = {}
    for name, constants in VARIANTS:
        with patch.multiple("headstart.heads.familiarity", **constants):
            variants[name] = heads.fit_familiarity(
                x[train], labels[train], widths=[x.shape[1]], held_out=x[held_out]
            ).strangeness
    near = normalised(x[train], [x.shape[1]])

    scores = {
        "familiarity": lambda f: told[0].strangeness(f),
        "largest probability": lambda f: -ridge.probabilities(f).max(axis=1),
        "energy": lambda f: -np.log(np.exp(ridge.logits(f) / ridge.temperature).sum(axis=1)),
        "nearest image": lambda f: 1 - (normalised(f, [f.shape[1]]) @ near.T).max(axis=1),
        **variants,
    }
    unknown = {"near": known.features[~inside]} | {name: each.features[:FAR] for name, each in others.items()}
    found = {
        (score, where): [judged(told_by(x[new]), told_by(images))]
        for score, told_by in scores.items()
        for where, images in unknown.items()
    }
    least = heads.least_probability(
        heads.right_probabilities(ridge.probabilities(x[held_out]), labels[held_out]), coverage=COVERAGE
    )
    sets = ridge.probabilities(x[new]) >= (least or 0)
    right = sets[np.arange(len(new)), labels[new]]
    found["learning", "seconds"] = [(spent, 0.0)]
    found["sets", "coverage"] = [(float(right.mean()), float(sets.sum(axis=1).mean()))]
    for how, each in zip(("held out", "in folds"), told, strict=True):
        found["let through", how] = [(float(np.mean(each.of(x[new]) >= 1 - KEPT)), 0.0)]
    return found


def judged(known: Floats, unknown: Floats) -> tuple[float, float]:
    """Area under the ROC curve, and the share of unknown images that pass where 95 % of known ones do."""
    ascending = np.sort(known)
    below = (np.searchsorted(ascending, unknown, "left") + np.searchsorted(ascending, unknown, "right")) / 2
    return float(np.mean(below) / len(known)), float(np.mean(unknown <= np.quantile(known, KEPT)))


if __name__ == "__main__":
    main()
