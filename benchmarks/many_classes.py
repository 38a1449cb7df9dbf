"""Do the layers that the default chooses hold with very many classes?

The default against `last` (the last layer alone) and logistic regression on the same features. Made-up
images of 10 to 2,000 classes (coarse random patterns, enlarged) and, with --data, the 200 classes of Tiny
ImageNet's validation images. Of every class a fifth of the images judges. All three read the features of one
pass; logistic regression (scikit-learn's, standardised features, the layers that the default chose) is left
out where it would take many minutes.

    python benchmarks/many_classes.py [--data ../shared/data] [--classes 10,100,400,1000,2000]

The target: the default is never worse than `last` by more than two standard errors of the paired difference.
"""

import argparse
import io
import os
import resource
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart import heads
from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import CENTRE, parse_views
from headstart.features import Extraction, FeatureCache, FeatureSpec, extract
from headstart.files import cache_folder
from headstart.training.layer_features import choose_layers, layer_widths

Indices = NDArray[np.int64]
Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]

MOST_FOR_REGRESSION = 4e10
"""Images times classes times dimensions up to which logistic regression ends within some minutes."""

STEPS = 20
"""Of its optimiser (L-BFGS), at most."""


def main() -> None:
    """One line for each data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="holds Tiny ImageNet")
    parser.add_argument("--classes", default="10,100,400,1000,2000", help="of the made-up images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ["HEADSTART_CACHE"], os.environ["HEADSTART_HOME"] = f"{work}/cache", f"{work}/home"
        print("| images | classes | train, test | last | default | error | regression | choosing | layers |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
        worse = [
            judge("made up", made_up(int(count), each=max(5, min(20, 8000 // int(count)))))
            for count in options.classes.split(",")
        ]
        if options.data:
            worse += [judge("Tiny ImageNet", tiny(options.data, each=each)) for each in (10, 30)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB; default worse than `last` beyond noise: {sum(worse)} of {len(worse)}")
    if any(worse):
        raise SystemExit(1)


def made_up(classes: int, *, each: int) -> Pictures:
    """Coarse random patterns, each image its class's with noise."""
    random = np.random.default_rng(5)
    pictures = []
    for _ in range(classes):
        pattern = random.integers(0, 255, (4, 4, 3))
        for _ in range(each):
            coarse = (pattern + random.integers(-60, 60, (4, 4, 3))).clip(0, 255).astype(np.uint8)
            pictures.append(np.asarray(Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)))
    return np.stack(pictures), np.repeat(np.arange(classes), each)


def tiny(data: Path, *, each: int) -> Pictures:
    """The first validation images of each of the 200 classes."""
    pictures, labels, seen = [], [], dict[str, int]()
    with zipfile.ZipFile(data / "tiny-imagenet-64.zip") as archive:
        members = sorted(n for n in archive.namelist() if n.startswith("val/") and n.endswith(".webp"))
        names = sorted({member.split("/")[1] for member in members})
        for member in members:
            name = member.split("/")[1]
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= each:
                pictures.append(np.asarray(Image.open(io.BytesIO(archive.read(member))).convert("RGB")))
                labels.append(names.index(name))
    return np.stack(pictures), np.array(labels)


def judge(name: str, pictures: Pictures) -> bool:
    """Print one row; whether the default is worse than the last layer by more than noise."""
    dataset = read_dataset(pictures)
    labels, classes = dataset.labels, len(dataset.classes)
    extraction = features(dataset)
    rank = np.concatenate([np.arange(count) for count in np.bincount(labels)])
    held = rank < (rank.max() + 1) // 5
    test, train = np.flatnonzero(held), np.flatnonzero(~held)
    begun = time.process_time()
    layers, _ = choose_layers(
        extraction, train, labels[train], layers="auto", classes=classes, class_weights=None
    )
    choosing = time.process_time() - begun
    right = [ridge(extraction, labels, train, test, layers=read) for read in (None, layers)]
    difference = right[1].astype(float) - right[0]
    error = float(difference.std() / np.sqrt(len(test)))
    accuracies = " | ".join(f"{100 * each.mean():.1f}" for each in right)
    print(
        f"| {name} | {classes:,} | {len(train):,}, {len(test):,} | {accuracies} | {100 * error:.1f} | "
        f"{logistic(extraction, labels, train, test, layers=layers)} | {choosing:.1f} s | "
        f"{', '.join(layers or ['last'])} |",
        flush=True,
    )
    return bool(difference.mean() < -2 * error)


def features(dataset: Dataset) -> Extraction:
    """Every layer's, of one pass."""
    backbone = load_backbone("builtin")
    spec = FeatureSpec(depth=len(backbone.stages), views=parse_views(1), pooled=True, layers=True)
    cache = FeatureCache(cache_folder())
    return extract(dataset.samples, backbone, spec=spec, runtime=select(), cache=cache)


def ridge(
    extraction: Extraction, labels: Indices, train: Indices, test: Indices, *, layers: tuple[str, ...] | None
) -> NDArray[np.bool_]:
    """Which test images the ridge head on these layers gets right."""
    fitted = heads.fit_ridge(
        (extraction.features(train, layers=layers, view=CENTRE), labels[train]),
        classes=int(labels.max()) + 1,
        block_widths=layer_widths(extraction, layers),
    )
    scores = fitted.head.logits(extraction.features(test, layers=layers, view=CENTRE))
    return np.asarray(scores.argmax(axis=1) == labels[test])


def logistic(
    extraction: Extraction, labels: Indices, train: Indices, test: Indices, *, layers: tuple[str, ...] | None
) -> str:
    """Accuracy of scikit-learn's logistic regression, in per cent; a dash where it would take too long."""
    x = extraction.features(train, layers=layers, view=CENTRE)
    if x.size * (labels.max() + 1) > MOST_FOR_REGRESSION:
        return "-"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged to the last digit
        model.fit(x, labels[train])
    return f"{100 * model.score(extraction.features(test, layers=layers, view=CENTRE), labels[test]):.1f}"


if __name__ == "__main__":
    main()
