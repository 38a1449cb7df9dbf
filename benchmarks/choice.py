"""What choosing costs and what it gives up: `--backbone auto --freeze auto` against training everything.

For every folder each candidate that is available here is fitted at every depth that is offered (everything
frozen, and the cuts that `headstart plan` lists, down to nothing frozen), and its accuracy on the test images
is noted; then the choice is made with an empty cache. Regret is the best test accuracy of all fits less that
of the chosen one; the cost share is the seconds of choosing (the chosen fit included) over those of all fits.
Test images decide nothing in either.

    python benchmarks/choice.py --data ../shared/data [--work FOLDER] [--images 400] [--candidates A,B]

With --work a stopped benchmark goes on where it was, given the same options again; results are in
FOLDER/choice.jsonl.

The target: at most one point of regret on average, at a tenth of the cost or less. The images of a folder are
limited so that all of it takes about eight minutes on two cores; --images 0 takes all.
"""

import argparse
import os
import shutil
import statistics
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from calibration import make_folders
from ledger import Ledger, workplace

import headstart
from headstart.choice import default_candidates
from headstart.dataset import Dataset, read_dataset
from headstart.plans.budgets import beginning, interleaved

FILE_SIZES = (96, 128)
"""Sizes at which the weights file beside the data is a candidate."""

EPOCHS = 4


def main() -> None:
    """Exhaustive training, then the choice, per folder; then the averages."""
    options = _options()
    torch = find_spec("torch") is not None and find_spec("timm") is not None
    with workplace(options.work) as work:
        os.environ["HEADSTART_HOME"] = str(work / "home")
        os.environ["HEADSTART_CACHE"] = str(work / "exports")
        candidates = options.candidates.split(",") if options.candidates else available(options.data, torch)
        depths = {}
        for candidate in candidates:  # exporting a graph happens once per machine and is nobody's cost here
            name, _, size = candidate.rpartition("@")
            network = headstart.load_backbone(name, size=int(size))
            depths[candidate] = offered(len(network.stages), thawed=torch and not options.no_thawed)
            if torch:
                network.module()  # PyTorch's start is nobody's cost either: both sides run in this process
        results = []
        folders = make_folders(options.data, work)
        total = len(folders) * (1 + sum(map(len, depths.values())))
        ledger = Ledger(work / "choice.jsonl", total=total)
        for folder, path in folders.items():
            dataset = few(read_dataset(path), options.images)
            results.append(compare(folder, dataset, depths, work=work, ledger=ledger))
    regrets, shares = zip(*results, strict=True)
    print(f"mean regret {100 * statistics.mean(regrets):.2f} points, mean cost {statistics.mean(shares):.1%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds flowers/, weights and Tiny ImageNet")
    parser.add_argument("--candidates", help="names with sizes, separated by commas; default: all here")
    parser.add_argument("--images", type=int, default=400, help="of each folder, at most; 0 for all")
    parser.add_argument("--work", type=Path, help="a folder that keeps everything, to go on after a stop")
    parser.add_argument("--no-thawed", action="store_true", help="leave out depths that need PyTorch")
    return parser.parse_args()


def available(data: Path, torch: bool) -> list[str]:
    """What `--backbone auto` would consider, and the weights file beside the data at two sizes."""
    names = [
        f"{each.name}@{each.size or headstart.load_backbone(each.name).preprocess.size}"
        for each in default_candidates()
    ]
    return names + [f"{data / 'mobilenetv2-imagenet.safetensors'}@{size}" for size in FILE_SIZES if torch]


def offered(stages: int, *, thawed: bool) -> list[int]:
    """Everything frozen, all but two stages, half of them, none."""
    return [stages, *((stages - 2, stages // 2, 0) if thawed else ())]


def few(dataset: Dataset, images: int) -> Dataset:
    """At most so many images, every class in proportion; the data's own split is kept."""
    if not images or images >= len(dataset):
        return dataset
    return replace(beginning(interleaved(dataset), images), name=dataset.name)


def compare(
    folder: str, dataset: Dataset, depths: dict[str, list[int]], *, work: Path, ledger: Ledger
) -> tuple[float, float]:
    """Regret (0 to 1) and cost share of one folder."""
    if not (work / f"cache-{folder}-all").exists():
        fresh_cache(work, f"{folder}-all")
    os.environ["HEADSTART_CACHE"] = str(work / f"cache-{folder}-all")
    fits: dict[str, tuple[float, float]] = {}
    for candidate, cuts in depths.items():
        name, _, size = candidate.rpartition("@")
        for freeze in cuts:
            label = f"{Path(name).stem}@{size} depth {freeze}"
            key = f"{folder} {label}"
            if key not in ledger:
                thawed = epochs(freeze < cuts[0])
                found = fit(dataset, work=work, backbone=name, size=int(size), freeze=freeze, **thawed)
                ledger.add(key, found)
            fits[label] = accuracy, seconds = tuple(ledger[key])
            line = f"{folder:8} {label:44} test {accuracy:.1%}  {seconds:7.2f} s"
            print(f"{ledger.position()} {line}", flush=True)
    thawed = any(len(cuts) > 1 for cuts in depths.values())
    if f"{folder} choice" not in ledger:
        fresh_cache(work, f"{folder}-choice")
        options = {"candidates": list(depths), "freeze": "auto" if thawed else "all", **epochs(thawed)}
        ledger.add(f"{folder} choice", fit(dataset, work=work, backbone="auto", **options))
    accuracy, seconds = ledger[f"{folder} choice"]
    best = max(found for found, _ in fits.values())
    share = seconds / sum(spent for _, spent in fits.values())
    print(
        f"{folder:8} chosen: test {accuracy:.1%} in {seconds:.2f} s; best of {len(fits)} {best:.1%}; "
        f"regret {100 * (best - accuracy):+.1f} points at {share:.1%} of the cost\n",
        flush=True,
    )
    return best - accuracy, share


def epochs(thawed: bool) -> dict[str, int]:
    """Thawed stages train equally long on both sides."""
    return {"epochs": EPOCHS} if thawed else {}


def fit(dataset: Dataset, *, work: Path, **options: object) -> tuple[float, float]:
    """Test accuracy (validation's where the folder gives its split without a test) and seconds of one fit."""
    started = time.perf_counter()
    _, run = headstart.fit(dataset, out=work / "runs" / str(time.time_ns()), **options)
    seconds = time.perf_counter() - started
    if options["backbone"] == "auto":
        print("\n".join(f"         {note}" for note in run.notes), flush=True)
        print(f"         seconds by phase: {run.seconds}", flush=True)
    accuracy = run.accuracy["test"] if run.accuracy["test"] is not None else run.accuracy["validation"]
    if accuracy is None:
        raise SystemExit(f"{dataset.name}: no image held out")
    return accuracy, seconds


def fresh_cache(work: Path, name: str) -> None:
    """An empty feature cache, with the graphs that were exported before."""
    cache = work / f"cache-{name}"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    (cache / "graphs").symlink_to(work / "exports" / "graphs")
    os.environ["HEADSTART_CACHE"] = str(cache)


if __name__ == "__main__":
    main()
