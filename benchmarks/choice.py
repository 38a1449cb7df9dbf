"""What choosing costs and what it gives up: `--backbone auto --freeze auto` against training everything.

For every folder each candidate is fitted at every depth considered, and its accuracy on the test images is
noted; then the choice is made with an empty cache. Regret is the best test accuracy of all fits less that of
the chosen one; the cost share is the seconds of choosing (the chosen fit included) over those of all fits.
Test images decide nothing in either.

    python benchmarks/choice.py --data ../shared/data [--candidates builtin@96,builtin@128] [--no-thawed]

The target: at most one point of regret on average, at a tenth of the cost or less.
"""

import argparse
import os
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from calibration import make_folders

import headstart

SIZES = (96, 128, 160, 192)
EPOCHS = 5


def main() -> None:
    """Exhaustive training, then the choice, per folder; then the averages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds flowers/, weights and Tiny ImageNet")
    parser.add_argument("--candidates", help="names with sizes, separated by commas")
    parser.add_argument("--no-thawed", action="store_true", help="leave out depths that need PyTorch")
    options = parser.parse_args()
    weights = options.data / "mobilenetv2-imagenet.safetensors"
    torch = find_spec("torch") is not None and find_spec("timm") is not None
    names = [f"builtin@{size}" for size in SIZES]
    names += [f"{weights}@{size}" for size in SIZES] if torch else []
    candidates = options.candidates.split(",") if options.candidates else names
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        os.environ["HEADSTART_HOME"] = str(work / "home")
        os.environ["HEADSTART_CACHE"] = str(work / "exports")
        for candidate in candidates:  # exporting a graph happens once per machine and is nobody's cost here
            name, _, size = candidate.rpartition("@")
            headstart.load_backbone(name, size=int(size))
        results = []
        for folder, path in make_folders(options.data, work).items():
            results.append(
                compare(folder, path, candidates, work=work, thawed=torch and not options.no_thawed)
            )
    regrets, shares = zip(*results, strict=True)
    print(f"mean regret {100 * statistics.mean(regrets):.2f} points, mean cost {statistics.mean(shares):.1%}")


def compare(
    folder: str, path: Path, candidates: list[str], *, work: Path, thawed: bool
) -> tuple[float, float]:
    """Regret (0 to 1) and cost share of one folder."""
    fresh_cache(work, f"{folder}-all")
    fits: dict[str, tuple[float, float]] = {}
    for candidate in candidates:
        name, _, size = candidate.rpartition("@")
        stages = len(headstart.load_backbone(name, size=int(size)).stages)
        for freeze in (stages, *((stages - 2, stages // 2, 0) if thawed else ())):
            label = f"{Path(name).stem}@{size} depth {freeze}"
            fits[label] = fit(
                path, work=work, backbone=name, size=int(size), freeze=freeze, **epochs(freeze < stages)
            )
            accuracy, seconds = fits[label]
            print(f"{folder:8} {label:44} test {accuracy:.1%}  {seconds:7.2f} s", flush=True)
    fresh_cache(work, f"{folder}-choice")
    accuracy, seconds = fit(
        path,
        work=work,
        backbone="auto",
        candidates=candidates,
        freeze="auto" if thawed else "all",
        **epochs(thawed),
    )
    best = max(found for found, _ in fits.values())
    share = seconds / sum(spent for _, spent in fits.values())
    print(
        f"{folder:8} chosen: test {accuracy:.1%} in {seconds:.2f} s; best of {len(fits)} {best:.1%}; "
        f"regret {100 * (best - accuracy):+.1f} points at {share:.1%} of the cost\n"
    )
    return best - accuracy, share


def epochs(thawed: bool) -> dict[str, int]:
    """Thawed stages train equally long on both sides."""
    return {"epochs": EPOCHS} if thawed else {}


def fit(path: Path, *, work: Path, **options: object) -> tuple[float, float]:
    """Test accuracy (validation's where the folder gives its split without a test) and seconds of one fit."""
    started = time.perf_counter()
    _, run = headstart.fit(path, out=work / "runs" / str(time.time_ns()), **options)
    accuracy = run.accuracy["test"] if run.accuracy["test"] is not None else run.accuracy["validation"]
    if accuracy is None:
        raise SystemExit(f"{path}: no image held out")
    return accuracy, time.perf_counter() - started


def fresh_cache(work: Path, name: str) -> None:
    """An empty feature cache, with the graphs that were exported before."""
    cache = work / f"cache-{name}"
    cache.mkdir()
    (cache / "graphs").symlink_to(work / "exports" / "graphs")
    os.environ["HEADSTART_CACHE"] = str(cache)


if __name__ == "__main__":
    main()
