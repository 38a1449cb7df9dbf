"""Extraction over a growing number of images: memory must stay flat.

Each size runs in a process of its own over that many different JPEG files, with every layer, into an empty
cache. What grows by rights is the ledger, a content hash and the facts of each image (a few hundred bytes);
the pixels and features must not. The smallest size only shows how far the buffers fill. The peak of anonymous
memory is read from the kernel while it runs; pages of the cache that the kernel maps are its to drop and do
not count.

    python benchmarks/growing.py [--images 20000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIDE = 64
ALLOWED_BYTES_PER_IMAGE = 2_000


def main() -> None:
    """Write the files once, run each size, print the table, assert flatness."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(extract_one(options.folder, options.one)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder, options.images)
        rows = []
        print(f"{'images':>8} {'seconds':>8} {'images/s':>9} {'peak MB':>8} {'cache MB':>9}")
        for images in (options.images // 16, options.images // 4, options.images):
            command = [sys.executable, __file__, "--one", str(images), "--folder", str(folder)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            seconds, peak, cache = row["seconds"], row["peak"] / 1e6, row["cache"] / 1e6
            print(f"{images:8,} {seconds:8.1f} {images / seconds:9,.0f} {peak:8.0f} {cache:9.0f}", flush=True)
    growth = (rows[-1]["peak"] - rows[1]["peak"]) / (rows[-1]["images"] - rows[1]["images"])
    print(f"memory grows by {growth:,.0f} bytes an image (at most {ALLOWED_BYTES_PER_IMAGE:,} allowed)")
    if growth > ALLOWED_BYTES_PER_IMAGE:
        raise SystemExit("memory is not flat")


def write_images(folder: Path, images: int) -> None:
    """Different small JPEG files in two classes."""
    from PIL import Image

    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir()
    for number in range(images):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE)).save(folder / "ab"[number % 2] / f"{number:07}.jpg", quality=80)


def extract_one(folder: Path, images: int) -> dict[str, float]:
    """Extract so many images in this process; seconds, peak bytes, bytes written."""
    from headstart.backbones import load_backbone
    from headstart.backbones.runtimes import select
    from headstart.data.dataset import read_dataset
    from headstart.data.images import CENTRE
    from headstart.features import FeatureCache, FeatureSpec, extract

    samples = read_dataset(folder).samples[:images]
    backbone = load_backbone("builtin", size=SIDE)
    spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,), layers=True)
    with tempfile.TemporaryDirectory() as root, PeakMemory() as peak:
        started = time.perf_counter()
        found = extract(samples, backbone, spec=spec, runtime=select(), cache=FeatureCache(Path(root)))
        seconds = time.perf_counter() - started
    return {"images": images, "seconds": seconds, "peak": peak.bytes, "cache": found.use.bytes}


class PeakMemory:
    """The largest anonymous memory of this process while the block runs, sampled twenty times a second."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            status = Path("/proc/self/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, 1024 * int(line.split()[1]))

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


if __name__ == "__main__":
    main()
