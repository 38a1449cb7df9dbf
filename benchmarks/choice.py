"""How good the table of `headstart plan` and the choice of `--backbone auto` are, against all trainings.

Every draw takes some classes of a folder and some of their images to choose and train with; the others, which
neither side has seen, judge. For each draw:

- every candidate that is available here looks at the first images, and the table's ranges are compared with
  the accuracy of its full fit on the unseen images;
- `--backbone auto` chooses, with an empty cache; regret is the best accuracy of all fits less that of the
  chosen one. The best of many is best by luck too: so the best is also picked on every other unseen image and
  compared on the rest, both ways round. Beside it the regret of going by published accuracy alone, and by
  leave-one-out alone on the images of the first look;
- on the first draw of each folder choosing is timed against the fits of all candidates, each with an empty
  cache, in processor seconds, so that a busy machine matters less.

    python benchmarks/choice.py --data ../shared/data [--work FOLDER] [--candidates A,B] [--draws 3,2,4]

With --work a stopped benchmark goes on where it was, given the same options again; results are in
FOLDER/choice-expected.jsonl. Tiny ImageNet's are validation images, since the built-in backbones were trained
on the others. The constants of `headstart.training.expected_accuracy` were fitted to other draws of the same
folders.

The targets: nine in ten ranges hold; at most one point of regret on average; choosing takes no longer than
the chosen fit.
"""

import argparse
import os
import shutil
import statistics
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from calibration import make_folders
from ledger import Ledger, workplace

import headstart
from headstart.backbones.runtimes import select
from headstart.costs.budgets import beginning, interleaved
from headstart.data.dataset import Dataset, read_dataset
from headstart.runs import FitConfig, read_predictions
from headstart.training.backbone_choice import choose_backbone
from headstart.training.backbone_names import default_candidates, parse_names
from headstart.training.contenders import Contender
from headstart.training.probes import Probing
from headstart.training.published_accuracy import published_accuracy

TINY_CLASSES = 40
IMAGES, MOST_UNSEEN = 400, 600


@dataclass(frozen=True)
class Draw:
    """Images of some classes: those to choose and train with, and those that judge."""

    folder: str
    number: int
    train: Dataset
    unseen: Dataset

    @property
    def name(self) -> str:
        """For the ledger and the printed lines."""
        return f"{self.folder} {self.number}"

    @property
    def together(self) -> Dataset:
        """One data set, in which the unseen ones are for testing."""
        sides = ((self.train, "train"), (self.unseen, "test"))
        samples = tuple(replace(each, split=side) for part, side in sides for each in part.samples)
        return replace(self.train, samples=samples)


def main() -> None:
    """Every draw, then the averages."""
    options = _options()
    with workplace(options.work) as work:
        os.environ["HEADSTART_HOME"] = str(work / "home")
        fresh_cache(work, "exports")
        names = options.candidates.split(",") if options.candidates else []
        candidates = [contender(each) for each in (parse_names(names) if names else default_candidates())]
        draws = list(drawn(options.data, work, [int(each) for each in options.draws.split(",")]))
        ledger = Ledger(work / "choice-expected.jsonl", total=len(draws) * (2 + len(candidates)))
        results = [judge(draw, candidates, work=work, ledger=ledger) for draw in draws]
        summary(results)
        for draw in draws:
            if draw.number == 0:
                cost(draw, candidates, work=work, ledger=ledger)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds flowers/ and Tiny ImageNet")
    parser.add_argument("--candidates", help="names with sizes, separated by commas; default: all here")
    parser.add_argument("--draws", default="3,2,4", help="of flowers, digits and Tiny ImageNet")
    parser.add_argument("--work", type=Path, help="a folder that keeps everything, to go on after a stop")
    return parser.parse_args()


def contender(name: Any) -> Contender:
    """A candidate before any look."""
    backbone = headstart.load_backbone(name.name, size=name.size)
    return Contender(replace(name, size=backbone.preprocess.size), backbone, published_accuracy(backbone))


def drawn(data: Path, work: Path, counts: list[int]) -> Iterator[Draw]:
    """So many draws of flowers, digits and ten classes of Tiny ImageNet."""
    folders = make_folders(data, work)
    folders["tiny"] = tiny(data, work)
    for (folder, path), count in zip(folders.items(), counts, strict=True):
        dataset = read_dataset(path)
        for number in range(count):
            random = np.random.default_rng([11, number])
            kept = random.permutation(len(dataset.classes))[: 10 if folder == "tiny" else None]
            mixed = [dataset.samples[index] for index in random.permutation(len(dataset))]
            place = {int(label): index for index, label in enumerate(sorted(kept))}
            samples = tuple(
                replace(each, label=place[each.label], split=None) for each in mixed if each.label in place
            )
            classes = tuple(dataset.classes[label] for label in sorted(kept))
            ordered = interleaved(replace(dataset, classes=classes, samples=samples))
            images = min(IMAGES, len(ordered) // 2)
            unseen = ordered.samples[images : images + MOST_UNSEEN]
            yield Draw(folder, number, beginning(ordered, images), replace(ordered, samples=unseen))


def tiny(data: Path, work: Path) -> Path:
    """Validation images of some classes of Tiny ImageNet, as folders."""
    folder = work / f"tiny-{TINY_CLASSES}"
    if not folder.exists():
        draft = work / "tiny-draft"
        shutil.rmtree(draft, ignore_errors=True)
        with zipfile.ZipFile(data / "tiny-imagenet-64.zip") as archive:
            members = [each for each in archive.namelist() if each.startswith("val/") and each[-1] != "/"]
            classes = set(sorted({each.split("/")[1] for each in members})[-TINY_CLASSES:])
            archive.extractall(draft, [each for each in members if each.split("/")[1] in classes])
        (draft / "val").rename(folder)
    return folder


def fresh_cache(work: Path, name: str, *, empty: bool = False) -> None:
    """The feature cache of that name, with the graphs that were exported before."""
    cache = work / f"cache-{name}"
    if empty:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(exist_ok=True)
    graphs = work / "graphs"
    graphs.mkdir(exist_ok=True)
    if not (cache / "graphs").exists():
        (cache / "graphs").symlink_to(graphs)
    os.environ["HEADSTART_CACHE"] = str(cache)


def judge(draw: Draw, candidates: list[Contender], *, work: Path, ledger: Ledger) -> dict[str, Any]:
    """What the table and the choice say of one draw, and what full fits are worth."""
    fresh_cache(work, draw.folder)
    dataset, fits = draw.together, {}
    for each in candidates:
        key = f"{draw.name} {each.label}"
        if key not in ledger:
            _, run = headstart.fit(
                dataset,
                backbone=each.candidate.name,
                size=each.size,
                out=work / "runs" / str(time.time_ns()),
            )
            said = [one for one in read_predictions(run.path)["images"] if one["split"] == "test"]
            ledger.add(key, [int(one["predicted"] == one["label"]) for one in said])
        fits[each.label] = np.array(ledger[key])
    if f"{draw.name} table" not in ledger:
        ledger.add(f"{draw.name} table", table(dataset, candidates))
    if f"{draw.name} choice" not in ledger:
        chosen = choose_backbone(dataset, FitConfig(backbone="auto"), runtime=select())
        ledger.add(f"{draw.name} choice", f"{chosen.candidate.label} at {chosen.backbone.preprocess.size} px")
    found = {"draw": draw, "fits": fits, "table": ledger[f"{draw.name} table"]}
    found["chosen"] = ledger[f"{draw.name} choice"]
    for label, row in found["table"].items():
        accuracy = fits[label].mean()
        mark = "" if row["low"] <= accuracy <= row["high"] else "  OUTSIDE"
        print(f"{draw.name:10} {label:32} {row['text']:16} {accuracy:.1%}{mark}", flush=True)
    regret = max(fits.values(), key=np.mean).mean() - fits[found["chosen"]].mean()
    print(f"{draw.name:10} chosen: {found['chosen']}, regret {100 * regret:.1f}\n")
    return found


def table(dataset: Dataset, candidates: list[Contender]) -> dict[str, Any]:
    """Rows by label: what is expected after the first look, and what the look itself said."""
    probing = Probing(dataset, FitConfig(), select())
    looked = [replace(each, looks=[]) for each in candidates]
    for each in looked:
        probing.look(each, images=probing.first_images)
    probing.expect(looked)
    return {
        each.label: {
            **each.expected.to_dict(),
            "loo": each.looks[-1].loo_accuracy,
            "published": each.published,
        }
        for each in looked
    }


def summary(results: list[dict[str, Any]]) -> None:
    """The figures of merit, of each folder and in all."""
    for folder in (*dict.fromkeys(each["draw"].folder for each in results), "all"):
        chosen = [each for each in results if folder in (each["draw"].folder, "all")]
        rows = [
            (row, float(each["fits"][label].mean()))
            for each in chosen
            for label, row in each["table"].items()
        ]
        held = statistics.mean(float(row["low"] <= accuracy <= row["high"]) for row, accuracy in rows)
        error = statistics.mean(abs(row["accuracy"] - accuracy) for row, accuracy in rows)
        width = statistics.mean(row["high"] - row["low"] for row, _ in rows)
        print(
            f"{folder}: {len(rows)} ranges, {held:.0%} held, mean width {100 * width:.1f} points, "
            f"mean error {100 * error:.1f} points; regret {regrets(chosen)}"
        )


def regrets(results: list[dict[str, Any]]) -> str:
    """Mean regret of the choice, with luck and without; and of other ways to choose."""
    ways: dict[str, list[float]] = {}
    for each in results:
        fits, rows = each["fits"], each["table"]
        picked = {
            "auto": each["chosen"],
            "first look": max(rows, key=lambda label: rows[label]["accuracy"]),
            "published alone": max(rows, key=lambda label: rows[label]["published"] or 0.0),
            "leave-one-out alone": max(rows, key=lambda label: rows[label]["loo"]),
        }
        best = max(fits.values(), key=np.mean).mean()
        for way, label in picked.items():
            ways.setdefault(way, []).append(float(best - fits[label].mean()))
        ways.setdefault("auto without luck", []).append(without_luck(fits, fits[each["chosen"]]))
    return ", ".join(f"{way} {100 * statistics.mean(found):.2f}" for way, found in ways.items())


def without_luck(fits: dict[str, np.ndarray], chosen: np.ndarray) -> float:
    """Regret on half of the images, against the fit that is best on the other half; the mean of both ways."""
    found = []
    for picking, judging in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        best = max(fits.values(), key=lambda right: right[picking].mean())
        found.append(float(best[judging].mean() - chosen[judging].mean()))
    return statistics.mean(found)


def cost(draw: Draw, candidates: list[Contender], *, work: Path, ledger: Ledger) -> None:
    """Processor seconds of choosing, of the chosen fit, and of the fits of all, each from an empty cache."""
    key = f"{draw.name} cost"
    if key not in ledger:
        fresh_cache(work, "cost", empty=True)
        started = time.process_time()
        chosen = choose_backbone(draw.train, FitConfig(backbone="auto"), runtime=select())
        choosing, fits = time.process_time() - started, {}
        for each in candidates:
            fresh_cache(work, "cost", empty=True)
            started = time.process_time()
            headstart.fit(
                draw.train,
                backbone=each.candidate.name,
                size=each.size,
                out=work / "runs" / str(time.time_ns()),
            )
            fits[each.label] = time.process_time() - started
        label = f"{chosen.candidate.label} at {chosen.backbone.preprocess.size} px"
        ledger.add(key, [label, choosing, fits[label], sum(fits.values())])
    label, choosing, one, everything = ledger[key]
    print(
        f"{draw.name}: choosing {label} took {choosing:.1f} processor seconds, its fit alone {one:.1f}, "
        f"the fits of all {everything:.1f}"
    )


if __name__ == "__main__":
    main()
