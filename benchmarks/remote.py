"""What it costs to extract from S3 instead of a folder, and whether failing requests lose anything.

    python benchmarks/remote.py FOLDER [--images 5000] [--fail 0.02] [--backbone NAME] [--json FILE]

moto's server of S3 runs in a process of its own on loopback, so the seconds are those of requests and not of
a network; it takes processor time that a store elsewhere would not, which is printed. The photographs of
FOLDER are repeated with a few bytes behind their end until there are enough, so that each is another image to
the cache. Folder and bucket take turns, each time with an empty cache; their features have to be equal, image
by image, before anything is printed. The last turn has a share of all requests answered by 503.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import s3fs
from learners import wait_until_up

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import read_dataset
from headstart.data.images import CENTRE
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.runs import FitConfig

SERVER = """
import logging, random, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel("ERROR")
application, dice, share = DomainDispatcherApplication(create_backend_app), random.Random(0), [0.0]
def front(environment, start):
    if environment["PATH_INFO"] == "/fail":
        share[0] = float(environment["QUERY_STRING"])
    elif not share[0] or dice.random() >= share[0]:
        return application(environment, start)
    else:
        start("503 Slow Down", [("Content-Length", "0")])
        return [b""]
    start("200 OK", [("Content-Length", "0")])
    return [b""]
make_server("127.0.0.1", int(sys.argv[1]), front, threaded=True).serve_forever()
"""


def bring(folder: Path, target: Path, *, images: int) -> None:
    """So many different images in class folders, and the same in the bucket `photos`."""
    originals = sorted(each for each in folder.rglob("*.jp*g") if each.is_file())
    store = s3fs.S3FileSystem()
    store.mkdir("photos")
    for number in range(images):
        original = originals[number % len(originals)]
        place = target / original.parent.name / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(original.read_bytes() + number.to_bytes(4, "big"))
        store.pipe(f"photos/all/{place.parent.name}/{place.name}", place.read_bytes())


def once(source: str, *, name: str, cache: Path) -> tuple[dict[str, Any], float, float]:
    """Features by name, seconds by the clock, and of this process's processor."""
    backbone, runtime = load_backbone(name), select("auto")
    began, used = time.perf_counter(), time.process_time()
    dataset = read_dataset(source)
    found = extract(
        dataset.samples,
        backbone,
        spec=FeatureSpec.of(FitConfig(backbone=name)),
        runtime=runtime,
        cache=FeatureCache(cache),
    )
    took = time.perf_counter() - began, time.process_time() - used
    if lost := [each for each in found.skipped if each]:
        raise SystemExit(f"{source}: {len(lost)} images lost, the first: {lost[0]}")
    features = found.features(range(len(dataset)), view=CENTRE)
    return dict(zip((sample.name for sample in dataset.samples), features, strict=True)), *took


def main() -> None:
    """Runs, checks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--fail", type=float, default=0.02)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="the default of fit")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--port", type=int, default=8451)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    address = f"http://127.0.0.1:{options.port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_ENDPOINT_URL": address,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"HEADSTART_CACHE": f"{scratch}/cache", "HEADSTART_HOME": f"{scratch}/home"}
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(options.port)])
        try:
            wait_until_up(f"{address}/fail?0")
            bring(options.folder, Path(scratch) / "photos", images=options.images)
            sources = {"folder": f"{scratch}/photos", "s3": "s3://photos/all"}
            # It compiles the network too.
            expected, *_ = once(sources["folder"], name=options.backbone, cache=Path(scratch) / "first")
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
            for turn in range(options.turns):
                for name, source in sources.items():
                    found, *took = once(source, name=options.backbone, cache=Path(scratch) / f"{name}{turn}")
                    times[name].append((took[0], took[1]))
                    compare(expected, found)
            urllib.request.urlopen(f"{address}/fail?{options.fail}").close()
            found, *failing = once(sources["s3"], name=options.backbone, cache=Path(scratch) / "failing")
            compare(expected, found)
        finally:
            server.terminate()
            server.wait()
    clock, used = ({name: min(each[at] for each in took) for name, took in times.items()} for at in (0, 1))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "images": options.images,
        "backbone": options.backbone,
        "seconds": {name: round(each, 1) for name, each in clock.items()},
        "ratio": round(clock["s3"] / clock["folder"], 2),
        "processor_seconds": {name: round(each, 1) for name, each in used.items()},
        "processor_ratio": round(used["s3"] / used["folder"], 2),
        "server_processor_seconds_in_all": round(ended.ru_utime + ended.ru_stime, 1),
        "failing": {"share": options.fail, "seconds": round(failing[0], 1), "lost": 0},
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Exits where an image is missing, doubled or another one."""
    if expected.keys() != found.keys():
        raise SystemExit(f"{len(expected)} images are in the folder, {len(found)} came from S3")
    for name, features in expected.items():
        if not np.array_equal(features, found[name]):
            raise SystemExit(f"{name}: other features")


if __name__ == "__main__":
    main()
