"""How many of the labels that are said to be likely wrong are so: photographs with labels spoilt on purpose.

Ridge heads on features computed once; labels of a share of the images are made wrong, each by chance or into
the next class; five folds. Of the first N suspects: the share that is wrong, and what was expected. Beside
them the share among the most confident mistakes of the same folds, and by training loss.
Wrong labels that the folder had before count as right, so all shares are a little too low.

    python benchmarks/label_errors.py [--data ../shared/data/flowers] [--size 96] [--images 1000]
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import backbone_of
from headstart.backbones.runtimes import select
from headstart.data.dataset import read_dataset
from headstart.data.images import CENTRE
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.files import cache_folder
from headstart.heads import find_label_errors, fit_ridge
from headstart.runs import FitConfig
from headstart.training import resolve

FIRST = (10, 20, 50)
DRAWS = 5


def features(folder: Path, *, size: int, images: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of a random part of a folder, with labels."""
    dataset = read_dataset(folder)
    asked = FitConfig.from_options(size=size)
    backbone, runtime = backbone_of(asked), select("auto")
    config = resolve(asked, dataset, backbone, runtime=runtime)
    picked = np.random.default_rng(0).permutation(len(dataset))[:images]
    cache = FeatureCache(cache_folder())
    found = extract(
        [dataset.samples[i] for i in picked],
        backbone,
        spec=FeatureSpec.of(config),
        runtime=runtime,
        cache=cache,
    )
    return found.features(np.arange(len(picked)), view=CENTRE), dataset.labels[picked]


def rankings(
    x: NDArray[np.float32], given: NDArray[np.int64], *, classes: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.int64]]]:
    """Probabilities of the suspects, and the images in the order of each way to look for wrong labels."""
    fold, rows = random.permutation(len(given)) % 5, np.arange(len(given))
    p = np.zeros((len(given), classes), np.float32)
    for each in range(5):
        head = fit_ridge((x[fold != each], given[fold != each]), classes=classes).head
        p[fold == each] = head.probabilities(x[fold == each])
    trained = fit_ridge((x, given), classes=classes).head.probabilities(x)
    found = find_label_errors(p, given, trained=trained)
    mistakes = np.where(p.argmax(axis=1) != given, p.max(axis=1), 0)
    return found.wrong, {
        "suspects": found.images,
        "mistakes": np.argsort(-mistakes, kind="stable"),
        "training loss": np.argsort(trained[rows, given], kind="stable"),
    }


def main() -> None:
    """Print a row for each share of wrong labels."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/flowers"))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HEADSTART_CACHE": f"{folder}/cache", "HEADSTART_HOME": f"{folder}/home"}
        x, y = features(asked.data, size=asked.size, images=asked.images)
    classes, random = int(y.max()) + 1, np.random.default_rng(1)
    for share in (0.02, 0.05, 0.1, 0.2):
        for pairs in (False, True):
            rows: dict[str, list[list[float]]] = {}
            for _ in range(DRAWS):
                wrong = random.random(len(y)) < share
                steps = 1 if pairs else random.integers(1, classes, len(y))
                given = np.where(wrong, (y + steps) % classes, y)
                expected, orders = rankings(x, given, classes=classes, random=random)
                rows.setdefault("expected", []).append([float(expected[:n].mean()) for n in FIRST])
                for name, order in orders.items():
                    rows.setdefault(name, []).append([float(wrong[order[:n]].mean()) for n in FIRST])
            shown = ", ".join(
                f"{name} {' '.join(f'{value:.0%}' for value in np.mean(each, axis=0))}"
                for name, each in rows.items()
            )
            print(f"{share:.0%} wrong, {'next class' if pairs else 'by chance'}: {shown}", flush=True)


if __name__ == "__main__":
    main()
