"""How near the whole extraction comes to what decoding and the network alone allow.

The yardstick is a plain script of the best parts that are known, not our own: JPEGs decoded by simplejpeg at
a reduced scale (libjpeg-turbo, no Pillow), cropped and resized by cykooz-resizer (fast_image_resize), while
OpenVINO runs the same network, on batches of 64 unless told otherwise; nothing is hashed, checked or stored.
Its pixels have to be ours within the tolerance of the parity tests, and its features ours, before anything is
timed. Both sides take turns. Seconds of the processor are printed beside those of the clock: they say more on
a busy machine.

    python benchmarks/floor.py ../shared/data/flowers --size 96 128 224
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.runtimes import Runtime, select
from headstart.data.dataset import Sample, read_dataset
from headstart.data.images import CENTRE, Preprocess, load_pixels
from headstart.features import FeatureCache, FeatureSpec, extract

MEAN_DIFFERENCE = 2.0  # levels of 255, as tests/test_images.py allows a reduced decode
_FILTERS = {"bicubic": FilterType.catmull_rom, "bilinear": FilterType.bilinear}


def plain_pixels(data: bytes, preprocess: Preprocess, resizer: Resizer) -> np.ndarray:
    """A JPEG's centre crop, uint8 [S, S, 3], in the fewest steps that are known."""
    size, shorter = preprocess.size, preprocess.resized_side
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    scale = next(each for each in (8, 4, 2, 1) if each == 1 or min(height, width) >= each * shorter)
    picture = simplejpeg.decode_jpeg(
        data, min_height=-(-height // scale), min_width=-(-width // scale), min_factor=scale
    )
    corners, edges = [], []
    for full, decoded in ((width, picture.shape[1]), (height, picture.shape[0])):
        resized = shorter * full // min(height, width)
        corners.append(round((resized - size) / 2) * full / resized / scale)
        edges.append(min(size * full / resized / scale, decoded - corners[-1]))
    height, width, _ = picture.shape
    source = ImageData(width, height, PixelType.U8x3, picture.tobytes())
    square = ImageData(size, size, PixelType.U8x3)
    algorithm = ResizeAlg.convolution(_FILTERS[preprocess.interpolation])
    box = CropBox(*corners, *edges)
    resizer.resize(source, square, ResizeOptions(resize_alg=algorithm, crop_box=box))
    return np.frombuffer(square.get_buffer(), np.uint8).reshape(size, size, 3)


def plain_pass(
    samples: Sequence[Sample], backbone: Backbone, runtime: Runtime, *, batch: int
) -> Callable[[], np.ndarray]:
    """Decoding in threads while the network runs on so many at once, and nothing else; float32 [N, D]."""
    network = runtime.compile(
        backbone, depth=len(backbone.stages), layers=backbone.feature_layers()[-1:], batch_size=batch
    )
    threads = max(2, os.cpu_count() or 1)

    def decode(part: Sequence[Sample]) -> list[np.ndarray]:
        resizer = Resizer()
        return [plain_pixels(sample.source.read(), backbone.preprocess, resizer) for sample in part]

    def batches(pool: ThreadPoolExecutor) -> Iterator[tuple[int, np.ndarray]]:
        parts = [samples[start : start + 8] for start in range(0, len(samples), 8)]
        waiting = deque(pool.submit(decode, part) for part in parts)
        ready: list[np.ndarray] = []
        while waiting:
            ready += waiting.popleft().result()
            if len(ready) >= batch or not waiting:
                yield 0, np.stack(ready[:batch])
                ready = ready[batch:]
        if ready:
            yield 0, np.stack(ready)

    def whole() -> np.ndarray:
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate([found["features"] for _, found in network.stream(batches(pool))])

    return whole


def our_pass(samples: Sequence[Sample], backbone: Backbone, runtime: Runtime) -> Callable[[], np.ndarray]:
    """All of ours, into an empty cache."""

    def whole() -> np.ndarray:
        root = Path(tempfile.mkdtemp())
        spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,))
        found = extract(samples, backbone, spec=spec, runtime=runtime, cache=FeatureCache(root))
        features = found.features(range(len(samples)), view=CENTRE)
        shutil.rmtree(root)
        return features

    return whole


def measure(samples: Sequence[Sample], backbone: Backbone, *, runs: int, batch: int) -> None:
    """Assert equal results, take turns, print medians and the ratio."""
    runtime = select()
    some = samples[:: max(1, len(samples) // 50)]
    resizer = Resizer()
    differences = []
    for sample in some:
        data = sample.source.read()
        ours = load_pixels(data, backbone.preprocess).astype(int)
        differences.append(np.abs(plain_pixels(data, backbone.preprocess, resizer) - ours).mean())
    assert max(differences) < MEAN_DIFFERENCE, f"other pixels: {max(differences):.1f} levels off"
    passes = {
        "plain script": plain_pass(samples, backbone, runtime, batch=batch),
        "extraction": our_pass(samples, backbone, runtime),
    }
    plain, whole = (job() for job in passes.values())
    same = (plain * whole).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(whole, axis=1)
    assert np.median(same) > 0.999, f"other features: cosine {np.median(same):.4f}"
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    for _ in range(runs):
        for name, job in passes.items():
            clock, processor = time.perf_counter(), time.process_time()
            job()
            spent[name].append((time.perf_counter() - clock, time.process_time() - processor))
    print(f"\n{backbone.name}, {backbone.preprocess.size} px, pixels {np.mean(differences):.2f} levels apart")
    for name, seconds in spent.items():
        clock, processor = (statistics.median(each) for each in zip(*seconds, strict=True))
        print(
            f"  {name:13} {len(samples) / clock:7,.0f} images/s  "
            f"{processor / len(samples) * 1e3:6.2f} ms of the processor an image"
        )
    for place, kind in enumerate(("clock", "processor")):
        ratios = [one[place] / other[place] for one, other in zip(*spent.values(), strict=True)]
        print(
            f"  plain / extraction, {kind}: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    """All backbones at all sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", nargs="+", default=["builtin", "efficientnet_lite0"])
    parser.add_argument("--size", type=int, nargs="+", default=[96, 128, 224])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="images that the plain script runs at once")
    options = parser.parse_args()
    samples = read_dataset(options.folder).samples
    for name in options.backbone:
        for size in options.size:
            measure(samples, load_backbone(name, size=size), runs=options.runs, batch=options.batch)


if __name__ == "__main__":
    main()
