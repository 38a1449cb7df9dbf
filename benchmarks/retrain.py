"""How long does a retraining take once a label was corrected? Against a second fit from the same warm cache.

    python benchmarks/retrain.py FOLDER [--images 1000] [--rounds 7]

First asserts that both give the same scores; then times both in this process, alternating.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

LIMIT = 1.0
"""Seconds: what feels immediate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backbone", default="builtin")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["HEADSTART_CACHE"] = f"{place}/cache"
        os.environ["HEADSTART_HOME"] = f"{place}/home"
        options.folder = options.folder.absolute()
        os.chdir(place)
        print(json.dumps(measure(options), indent=1))


def measure(options: argparse.Namespace) -> dict[str, object]:
    import headstart
    from headstart.curation import corrections_of, retrain
    from headstart.data.dataset import Dataset, read_dataset
    from headstart.runs import read_predictions

    whole = read_dataset(options.folder)
    step = max(1, len(whole) // options.images)
    few = Dataset(whole.name, whole.classes, whole.samples[::step][: options.images])
    _, first = headstart.fit(few, backbone=options.backbone, out="first")
    corrections = corrections_of(first)
    entries = read_predictions(first.path)["images"]
    wrong = [entry for entry in entries if entry["label"] != entry["predicted"]][: options.rounds]
    retrained, fitted, phases = [], [], []
    for entry in wrong:
        corrections.add(entry["path"], entry["predicted"], content=entry["content"], was=entry["label"])
        begun = time.perf_counter()
        _, mine = retrain(first, corrections)
        retrained.append(time.perf_counter() - begun)
        phases.append(dict(mine.seconds))
        corrected = corrections.apply(few)
        begun = time.perf_counter()
        _, theirs = headstart.fit(corrected, backbone=options.backbone)
        fitted.append(time.perf_counter() - begun)
        # Layers may be chosen anew in a fit; where they were not, the two must agree.
        if mine.config.layers == theirs.config.layers:
            assert mine.accuracy == theirs.accuracy, (mine.accuracy, theirs.accuracy)
    median = statistics.median(retrained)
    return {
        "images": len(few),
        "backbone": options.backbone,
        "rounds": len(wrong),
        "first_retraining_seconds": round(retrained[0], 3),
        "retraining_seconds": round(median, 3),
        "slowest_retraining_seconds": round(max(retrained), 3),
        "phases_of_the_last": phases[-1],
        "second_fit_seconds": round(statistics.median(fitted), 3),
        "ratio": round(statistics.median(fitted) / median, 2),
        "under_a_second": max(retrained) < LIMIT,
    }


if __name__ == "__main__":
    main()
