"""How good predictions are: whole `headstart fit` processes, the predicted seconds against the actual ones.

Runs of several backbones, depths, heads and folders, in an order that mixes them, with a cache and a home of
their own. What is compared is the range that each run stored before its work began, with its seconds from
then to its end; starting the process is no part of either and is printed beside them. The last part sets
budgets, which do cover the start: overruns are measured from outside.

    python benchmarks/calibration.py --data ../shared/data [--work FOLDER] [--rounds 2] [--no-fine-tuned]

With --work a stopped benchmark goes on where it was, given the same options again; results are in
FOLDER/calibration.jsonl. --cases N runs only the first N of a round (N=2: to see that it works).

The target: a median absolute error of at most 15 %, nine in ten runs inside their range, and no budget
exceeded by more than 10 %. Run it while nothing else runs.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ledger import Ledger, workplace

BUDGETS = (("flowers", 6.0), ("digits", 6.0), ("flowers", 12.0))
"""Folders and seconds."""

TINY_CLASSES = 10


@dataclass(frozen=True)
class Case:
    """One fit to predict."""

    folder: str
    backbone: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What was predicted, what it took, and what the whole process took from outside."""

    case: Case
    low: float
    median: float
    high: float
    total: float
    wall: float

    @property
    def error(self) -> float:
        """Actual over predicted, less one."""
        return self.total / self.median - 1

    @property
    def inside(self) -> bool:
        """Whether the range holds it."""
        return self.low <= self.total <= self.high


def main() -> None:
    """Run the cases, print a line for each, then the figures of merit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds flowers/, weights and Tiny ImageNet")
    parser.add_argument("--rounds", type=int, default=2, help="how often each case runs; the first cold")
    parser.add_argument("--no-fine-tuned", action="store_true", help="leave out depths that need PyTorch")
    parser.add_argument("--work", type=Path, help="a folder that keeps everything, to go on after a stop")
    parser.add_argument("--cases", type=int, help="only so many of each round, and no budgets")
    options = parser.parse_args()
    with workplace(options.work) as work:
        os.environ["HEADSTART_CACHE"], os.environ["HEADSTART_HOME"] = str(work / "cache"), str(work / "home")
        folders = make_folders(options.data, work)
        cases = make_cases(folders, options.data, fine_tuned=not options.no_fine_tuned)
        order: list[Case] = []
        for number in range(options.rounds):
            random.Random(number).shuffle(cases)
            order += cases[: options.cases]
        total = len(order) + (0 if options.cases else len(BUDGETS))
        ledger = Ledger(work / "calibration.jsonl", total=total)
        outcomes = run_all(order, folders, work=work, ledger=ledger)
        report(outcomes, first=len(order) // options.rounds)
        if not options.cases:
            budgets(folders, work=work, ledger=ledger)


def run_all(order: list[Case], folders: dict[str, Path], *, work: Path, ledger: Ledger) -> list[Outcome]:
    """Every case in turn, but those that were run before; after each, how it stands so far."""
    outcomes: list[Outcome] = []
    for number, case in enumerate(order):
        key = f"fit {number} {case.folder} {Path(case.backbone).name} {' '.join(case.options)}"
        if key in ledger:
            outcomes.append(Outcome(case, *ledger[key]))
            continue
        found = run(case, folders, out=fresh(work / "runs" / str(number)))
        ledger.add(key, [found.low, found.median, found.high, found.total, found.wall])
        outcomes.append(found)
        print(f"{ledger.position()} {line(found)}   so far {merit(outcomes)}", flush=True)
    return outcomes


def fresh(folder: Path) -> Path:
    """A place for a run: what a stopped benchmark left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def make_folders(data: Path, work: Path) -> dict[str, Path]:
    """Flowers as they are, digits as files, ten classes of Tiny ImageNet's validation images."""
    made = {"flowers": data / "flowers", "digits": work / "digits", "tiny": work / "tiny-validation"}
    if (work / "validation-folders-made").exists():
        return made
    shutil.rmtree(work / "digits", ignore_errors=True)
    example = Path(__file__).parents[1] / "examples" / "digits.py"
    subprocess.run([sys.executable, str(example), str(work / "digits")], check=True, capture_output=True)
    with zipfile.ZipFile(data / "tiny-imagenet-64.zip") as archive:
        members = sorted(name for name in archive.namelist() if name.startswith("val/"))
        classes = sorted({name.split("/")[1] for name in members if name.endswith(".webp")})[:TINY_CLASSES]
        for label in classes:
            for name in (each for each in members if each.split("/")[1] == label):
                target = work / "tiny-validation" / label / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    (work / "validation-folders-made").touch()
    return made


def make_cases(folders: dict[str, Path], data: Path, *, fine_tuned: bool) -> list[Case]:
    """Backbones x heads on every folder; fine-tuned stages where PyTorch is installed."""
    weights = str(data / "mobilenetv2-imagenet.safetensors")
    torch = find_spec("torch") is not None and find_spec("timm") is not None
    cases = []
    for folder in folders:
        for backbone, size in (("builtin", 96), ("builtin", 128), *([(weights, 96)] if torch else [])):
            frozen = ("--size", str(size))
            cases.append(Case(folder, backbone, (*frozen, "--head", "ridge")))
            cases.append(Case(folder, backbone, (*frozen, "--head", "softmax", "--epochs", "10")))
        if fine_tuned and torch:
            cases.append(Case(folder, "builtin", ("--size", "96", "--freeze", "7", "--epochs", "3")))
    cases.append(Case("flowers", "builtin", ("--size", "128", "--views", "4")))
    return cases


def run(case: Case, folders: dict[str, Path], *, out: Path, budget: float | None = None) -> Outcome:
    """One whole process."""
    command = [str(Path(sys.executable).with_name("headstart")), "fit", str(folders[case.folder])]
    command += ["--backbone", case.backbone, *case.options, "--out", str(out), "--json"]
    if budget is not None:
        command += ["--budget", f"{budget}s"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    record = json.loads(done.stdout)
    predicted = record["predicted_seconds"]
    low, median, high = (predicted[name] for name in ("low", "median", "high"))
    return Outcome(case, low, median, high, record["seconds"]["total"], wall)


def line(outcome: Outcome) -> str:
    """One row of the table."""
    case = outcome.case
    what = f"{case.folder:8} {Path(case.backbone).stem[:16]:16} {' '.join(case.options):44}"
    verdict = "" if outcome.inside else "outside"
    expected = f"{outcome.median:6.2f} s ({outcome.low:6.2f} to {outcome.high:6.2f})"
    return f"{what} {expected}  took {outcome.total:6.2f} s  {outcome.error:+5.0%} {verdict}"


def report(outcomes: list[Outcome], *, first: int) -> None:
    """Median absolute error and share inside the range: all runs, first ones, later ones; the start."""
    parts = {"all runs": outcomes, "first of a kind": outcomes[:first], "repeated": outcomes[first:]}
    for name, part in parts.items():
        if part:
            print(f"{name}: {len(part)} runs, {merit(part)}")
    start = statistics.median(each.wall - each.total for each in outcomes)
    print(f"starting and ending the process, which is not predicted: {start:.2f} s (median)")


def merit(outcomes: list[Outcome]) -> str:
    """The two figures that are aimed at."""
    error = statistics.median(abs(each.error) for each in outcomes)
    inside = sum(each.inside for each in outcomes) / len(outcomes)
    return f"median absolute error {error:.1%}, {inside:.0%} inside"


def budgets(folders: dict[str, Path], *, work: Path, ledger: Ledger) -> None:
    """Jobs that would take far longer than their budget, on features that are not cached."""
    worst = 0.0
    for number, (folder, seconds) in enumerate(BUDGETS):
        key = f"budget {number}"
        if key not in ledger:
            case = Case(folder, "builtin", ("--size", "160", "--head", "softmax", "--epochs", "3000"))
            os.environ["HEADSTART_CACHE"] = str(fresh(work / f"cache-{number}"))
            out = fresh(work / "budgets" / str(number))
            ledger.add(key, run(case, folders, out=out, budget=seconds).wall)
        worst = max(worst, ledger[key] / seconds - 1)
        print(f"budget {seconds:.0f} s on {folder}: took {ledger[key]:.2f} s", flush=True)
    print(f"largest overrun of a budget: {worst:+.1%}")


if __name__ == "__main__":
    main()
