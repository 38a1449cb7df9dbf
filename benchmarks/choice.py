"""What choosing costs and what it gives up: `--backbone auto --freeze auto` against training everything.

For every folder each candidate that is available here is fitted at every depth that is offered (everything
frozen, and the cuts that `headstart plan` lists, down to nothing frozen) on a part of the images; then the
choice is made for the same part, with an empty cache. All are judged by the other images, which neither side
has seen. Regret is the best accuracy of all fits less that of the chosen one; the cost share is the seconds
of choosing (the chosen fit included) over those of all fits.

The best of many is best by luck too. So regret is given a second time without that luck: the best fit is
picked on every other unseen image and compared with the chosen one on the rest, both ways round.

    python benchmarks/choice.py --data ../shared/data [--work FOLDER] [--images 400] [--candidates A,B]

With --work a stopped benchmark goes on where it was, given the same options again; results are in
FOLDER/choice-unseen.jsonl.

The target: at most one point of regret on average, at a tenth of the cost or less. The images of a folder are
limited so that all of it takes a quarter of an hour on two cores. Tiny ImageNet's are validation images,
since the built-in backbones were trained on the others.
"""

import argparse
import os
import shutil
import statistics
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from calibration import make_folders
from ledger import Ledger, workplace

import headstart
from headstart.costs.budgets import beginning, interleaved
from headstart.data.dataset import Dataset, read_dataset
from headstart.training.backbone_choice import default_candidates

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
            depths[candidate] = offered(len(network.stages), fine_tuned=torch and not options.no_fine_tuned)
            if torch:
                network.module()  # PyTorch's start is nobody's cost either: both sides run in this process
        results = []
        folders = make_folders(options.data, work)
        total = len(folders) * (1 + sum(map(len, depths.values())))
        ledger = Ledger(work / "choice-unseen.jsonl", total=total)
        for folder, path in folders.items():
            dataset, unseen = part(read_dataset(path), options.images)
            print(f"{folder}: {len(dataset)} images to choose and train with, {len(unseen)} to judge by")
            results.append(compare(folder, dataset, unseen, depths, work=work, ledger=ledger))
    regrets, fair, shares = ([100 * each for each in column] for column in zip(*results, strict=True))
    print(
        f"mean regret {statistics.mean(regrets):.2f} points, without luck {statistics.mean(fair):.2f}, "
        f"mean cost {statistics.mean(shares):.1f} %"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds flowers/, weights and Tiny ImageNet")
    parser.add_argument("--candidates", help="names with sizes, separated by commas; default: all here")
    parser.add_argument("--images", type=int, default=400, help="of each folder, at most, and half of it")
    parser.add_argument("--work", type=Path, help="a folder that keeps everything, to go on after a stop")
    parser.add_argument("--no-fine-tuned", action="store_true", help="leave out depths that need PyTorch")
    return parser.parse_args()


def available(data: Path, torch: bool) -> list[str]:
    """What `--backbone auto` would consider, and the weights file beside the data at two sizes."""
    names = [
        f"{each.name}@{each.size or headstart.load_backbone(each.name).preprocess.size}"
        for each in default_candidates()
    ]
    return names + [f"{data / 'mobilenetv2-imagenet.safetensors'}@{size}" for size in FILE_SIZES if torch]


def offered(stages: int, *, fine_tuned: bool) -> list[int]:
    """Everything frozen, all but two stages, half of them, none."""
    return [stages, *((stages - 2, stages // 2, 0) if fine_tuned else ())]


def part(dataset: Dataset, images: int) -> tuple[Dataset, Dataset]:
    """So many images, at most half, every class in proportion; and the others, to judge by."""
    taken = beginning(interleaved(dataset), min(images, len(dataset) // 2)).samples
    known = set(taken)
    others = tuple(each for each in dataset.samples if each not in known)
    return replace(dataset, samples=taken), replace(dataset, samples=others)


def compare(
    folder: str,
    dataset: Dataset,
    unseen: Dataset,
    depths: dict[str, list[int]],
    *,
    work: Path,
    ledger: Ledger,
) -> tuple[float, float, float]:
    """Regret, the same without luck (both 0 to 1), and cost share of one folder."""
    if not (work / f"cache-{folder}-all").exists():
        fresh_cache(work, f"{folder}-all")
    os.environ["HEADSTART_CACHE"] = str(work / f"cache-{folder}-all")
    fits: dict[str, np.ndarray] = {}
    spent = 0.0
    for candidate, cuts in depths.items():
        name, _, size = candidate.rpartition("@")
        for freeze in cuts:
            label = f"{Path(name).stem}@{size} depth {freeze}"
            key = f"{folder} {label}"
            if key not in ledger:
                fine_tuned = epochs(freeze < cuts[0])
                found = fit(
                    dataset, unseen, work=work, backbone=name, size=int(size), freeze=freeze, **fine_tuned
                )
                ledger.add(key, found)
            seconds, right = ledger[key]
            fits[label], spent = np.array(right), spent + seconds
            line = f"{folder:8} {label:44} {fits[label].mean():.1%}  {seconds:7.2f} s"
            print(f"{ledger.position()} {line}", flush=True)
    fine_tuned = any(len(cuts) > 1 for cuts in depths.values())
    if f"{folder} choice" not in ledger:
        fresh_cache(work, f"{folder}-choice")
        options = {
            "candidates": list(depths),
            "freeze": "auto" if fine_tuned else "all",
            **epochs(fine_tuned),
        }
        ledger.add(f"{folder} choice", fit(dataset, unseen, work=work, backbone="auto", **options))
    seconds, right = ledger[f"{folder} choice"]
    chosen = np.array(right)
    best = max(fits.values(), key=np.mean)
    regret, fair, share = float(best.mean() - chosen.mean()), without_luck(fits, chosen), seconds / spent
    print(
        f"{folder:8} chosen: {chosen.mean():.1%} in {seconds:.2f} s; best of {len(fits)} {best.mean():.1%}; "
        f"regret {100 * regret:+.1f} points, without luck {100 * fair:+.1f}, at {share:.1%} of the cost\n",
        flush=True,
    )
    return regret, fair, share


def without_luck(fits: dict[str, np.ndarray], chosen: np.ndarray) -> float:
    """Regret on half of the images, against the fit that is best on the other half; the mean of both ways."""
    regrets = []
    for picking, judging in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        best = max(fits.values(), key=lambda right: right[picking].mean())
        regrets.append(float(best[judging].mean() - chosen[judging].mean()))
    return statistics.mean(regrets)


def epochs(fine_tuned: bool) -> dict[str, int]:
    """Fine-tuned stages train equally long on both sides."""
    return {"epochs": EPOCHS} if fine_tuned else {}


def fit(dataset: Dataset, unseen: Dataset, *, work: Path, **options: object) -> tuple[float, list[int]]:
    """Seconds of one fit, and for each unseen image whether it is right about it, 1 or 0."""
    started = time.perf_counter()
    classifier, run = headstart.fit(dataset, out=work / "runs" / str(time.time_ns()), **options)
    seconds = time.perf_counter() - started
    if options["backbone"] == "auto":
        print("\n".join(f"         {note}" for note in run.notes), flush=True)
        print(f"         seconds by phase: {run.seconds}", flush=True)
    said = [prediction.label for prediction in classifier.predict_each(unseen.samples, top=1)]
    wanted = [unseen.classes[sample.label] for sample in unseen.samples]
    return seconds, [int(label == right) for label, right in zip(said, wanted, strict=True)]


def fresh_cache(work: Path, name: str) -> None:
    """An empty feature cache, with the graphs that were exported before."""
    cache = work / f"cache-{name}"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    (cache / "graphs").symlink_to(work / "exports" / "graphs")
    os.environ["HEADSTART_CACHE"] = str(cache)


if __name__ == "__main__":
    main()
