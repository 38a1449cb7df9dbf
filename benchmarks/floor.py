"""How near the whole extraction comes to what decoding and the network alone allow.

Three measurements in one run, on the same images and the same cores: decoding and rendering alone, the
network alone on rendered images, and the whole (which also hashes, checks and writes to the cache). Both
halves keep every core busy, so overlapping them cannot beat their sum: the *floor* is that sum, and the
figure of merit is floor / whole.

    python benchmarks/floor.py ../shared/data/flowers --backbone builtin --size 128 --runs 5
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import read_dataset
from headstart.data.images import CENTRE, open_image, render, shortest_side_needed
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.features.extraction import BATCH_SIZE


def main() -> None:
    """Measure in turn, print medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--size", type=int)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    samples = read_dataset(options.folder).samples
    backbone = load_backbone(options.backbone, size=options.size)
    runtime = select()
    side = shortest_side_needed(backbone.preprocess, (CENTRE,))
    prefix = runtime.compile(
        backbone, depth=len(backbone.stages), layers=backbone.feature_layers()[-1:], batch_size=BATCH_SIZE
    )

    def decode() -> np.ndarray:
        def one(sample):
            return render(
                open_image(sample.source.read(), shortest_side=side)[0], backbone.preprocess, CENTRE
            )

        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            return np.stack(list(pool.map(one, samples, chunksize=8)))

    def forward(pixels: np.ndarray) -> np.ndarray:
        batches = ((i, pixels[i : i + BATCH_SIZE]) for i in range(0, len(pixels), BATCH_SIZE))
        return np.concatenate([outputs["features"] for _, outputs in prefix.stream(batches)])

    def whole() -> np.ndarray:
        root = Path(tempfile.mkdtemp())
        spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,))
        found = extract(samples, backbone, spec=spec, runtime=runtime, cache=FeatureCache(root))
        features = found.features(range(len(samples)), view=CENTRE)
        shutil.rmtree(root)
        return features

    pixels = decode()
    np.testing.assert_allclose(whole(), forward(pixels), rtol=0.05, atol=0.05)  # equal results first
    seconds: dict[str, list[float]] = {"decode": [], "forward": [], "whole": []}
    for _ in range(options.runs):
        for name, job in (("decode", decode), ("forward", lambda: forward(pixels)), ("whole", whole)):
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    for name, spent in seconds.items():
        median = statistics.median(spent)
        print(f"{name:8} {median:6.2f} s  {len(samples) / median:8,.0f} images/s")
    ratios = [
        (decoding + network) / everything
        for decoding, network, everything in zip(*seconds.values(), strict=True)
    ]
    print(f"floor / whole: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
