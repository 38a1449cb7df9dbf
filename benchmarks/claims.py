"""Whether the lesson's claims hold: the share of runs in which the direction of each does.

    python benchmarks/claims.py [--seeds 10] [--size normal] [--busy] [--only NAME …] [--tasks | --no-tasks]
        [--limit SECONDS]

Every experiment runs once for each seed, and every sentence that rests on it is judged by what came; then
every task runs with its own solution. `--busy` does it beside as many endless loops as there are cores, at
least two, which it starts itself and ends. Aim: nine runs of ten each. Results go to a home of their own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from busy import busy_processes

AIM = 0.9
CHANCE = 10.0
"""Percent right by guessing among ten classes."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the lesson, and whether a result supports it.

    Attributes:
        experiment: What it rests on.
        says: The sentence.
        holds: Of a result's fields and its table's rows.
        small: Whether it is claimed at the small size, where a training hardly begins, too.
    """

    experiment: str
    says: str
    holds: Callable[[Any, Any], bool]
    small: bool = True


def _advantage(fields: Any, number: str) -> float:
    return float(fields[f"accuracy_pretrained_{number}"] - fields[f"accuracy_scratch_{number}"])


CLAIMS = (
    Claim(
        "pretrained-vs-scratch",
        "frozen with a new head it is more accurate than trained from scratch, in less time",
        lambda f, _: (
            f["accuracy_frozen"] > f["accuracy_scratch"] and f["seconds_frozen"] < 0.5 * f["seconds_scratch"]
        ),
    ),
    Claim(
        "pretrained-vs-scratch",
        "with every layer free it comes as far as the whole training from scratch in less time",
        lambda f, _: f["ratio"] is not None and f["ratio"] > 1.5,
        small=False,
    ),
    Claim(
        "pretrained-vs-scratch",
        "after equally many steps it is more accurate than from scratch",
        lambda f, rows: f["accuracy_pretrained"] > f["accuracy_scratch"] and rows[1][1] == rows[2][1],
        small=False,
    ),
    Claim(
        "images-needed",
        "few images are enough for the pre-trained one to be ahead of many from scratch",
        lambda f, _: f["accuracy_pretrained_few"] > f["accuracy_scratch_many"],
    ),
    Claim(
        "images-needed",
        "the fewer images, the larger the advantage",
        lambda f, _: _advantage(f, "few") > _advantage(f, "many") > 0,
        small=False,
    ),
    Claim(
        "images-needed",
        "more images help a network from scratch, in equally many steps",
        lambda f, rows: (
            f["accuracy_scratch_many"] > f["accuracy_scratch_few"] and len({row[7] for row in rows}) == 1
        ),
        small=False,
    ),
    Claim(
        "five-images-one-epoch",
        "0.00 is printed most often, and nothing but multiples of a fifth",
        lambda f, _: f["likeliest"] == "0.00" and 2 <= f["distinct"] <= 6,
    ),
    Claim(
        "model-choice",
        "the small pre-trained network beats itself from scratch",
        lambda f, _: f["accuracy_small"] > f["accuracy_scratch"],
    ),
    Claim(
        "model-choice",
        "the small pre-trained network beats a shallower one from scratch",
        lambda f, _: f["accuracy_small"] > f["accuracy_shallow"],
    ),
    Claim(
        "model-choice",
        "the small one needs less of the processor than the large one",
        lambda f, _: f["seconds_small"] < f["seconds_large"],
    ),
    Claim(
        "freeze-depth",
        "the more stages are frozen, the cheaper an epoch, with features kept",
        lambda f, rows: [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True),
    ),
    Claim(
        "freeze-depth",
        "so it is with features computed again, all frozen against none",
        lambda f, _: f["seconds_all_again"] < 0.7 * f["seconds_none"],
    ),
    Claim(
        "freeze-depth",
        "where classes differ in the way something points, freezing everything has a price",
        lambda f, _: f["accuracy_none"] > f["accuracy_all"],
        small=False,
    ),
    Claim(
        "accuracy-against-time",
        "there is a trade: the quickest model is not the most accurate one",
        lambda f, _: f["fast_name"] != f["slow_name"] and f["fast_accuracy"] < f["slow_accuracy"],
    ),
    Claim(
        "accuracy-against-time",
        "time alone buys nothing: a model is beaten on both counts",
        lambda f, _: f["beaten_name"] is not None,
        small=False,
    ),
    Claim("one-pass", "one pass is quicker than one in every epoch", lambda f, _: f["ratio"] > 1.5),
    Claim("one-pass", "both classifiers are the same but for rounding", lambda f, _: f["difference"] < 1e-3),
    Claim(
        "batchnorm",
        "in PyTorch the statistics drift, in Keras trainable=False fixes them",
        lambda f, _: f["drift"] > 0 and f["drift_keras"] in (0, None),
    ),
    Claim(
        "batchnorm",
        "drifting, it is less accurate than with fixed statistics, and than it looks in training",
        lambda f, rows: f["accuracy_drifting"] < f["accuracy_fixed"] and rows[1][2] > rows[1][3],
    ),
    Claim(
        "gradients-way",
        "the backward pass costs more than the forward pass",
        lambda f, _: f["backward_ratio"] > 1,
    ),
    Claim(
        "gradients-way",
        "freezing the first stages saves more than freezing the last",
        lambda f, _: f["first_frozen"] < f["last_frozen"] < 1.05 * f["step"],
    ),
    Claim(
        "wrong-preparation",
        "values that are neither shifted nor scaled cost accuracy",
        lambda f, _: f["accuracy_raw"] < f["accuracy_right"],
    ),
    Claim(
        "wrong-preparation",
        "a quarter of the resolution costs accuracy",
        lambda f, _: f["accuracy_coarse"] < f["accuracy_right"],
    ),
    Claim(
        "taps",
        "an earlier stage serves better than the last",
        lambda f, _: f["best_stage"] != "last" and f["accuracy_best"] > f["accuracy_last"],
    ),
    Claim(
        "taps",
        "from the first stage to the last, positions get fewer and channels more",
        lambda f, rows: rows[0][1] > rows[-1][1] and rows[0][2] < rows[-1][2],
    ),
    Claim(
        "calibration",
        "one temperature brings the confidence closer to the truth",
        lambda f, _: f["error_after"] < f["error_before"] and f["temperature"] > 1,
    ),
    Claim(
        "leaked-mark",
        "a mark of the class in training and test pictures makes the test say more than comes true",
        lambda f, _: f["accuracy_marked"] > f["accuracy_later"],
    ),
    Claim(
        "leaked-mark",
        "trained without the mark it is more accurate on pictures without it",
        lambda f, _: f["accuracy_honest"] > f["accuracy_later"],
    ),
    Claim(
        "copies",
        "split by file the test promises more, against new photographs, than split by photograph",
        lambda f, rows: rows[0][1] - rows[0][2] > rows[1][1] - rows[1][2],
    ),
    Claim(
        "copies",
        "split by file even random labels are found again far more often than by guessing",
        lambda f, _: f["random_by_file"] > 2 * f["chance"] > f["random_by_photograph"],
    ),
    Claim(
        "few-test-images",
        "tests on few images differ more than tests on many, as the root of their number has it",
        lambda f, _: 0.75 < f["ratio"] / (f["many"] / f["few"]) ** 0.5 < 1.33,
    ),
    Claim(
        "few-test-images",
        "the interval of a small test holds the accuracy on all in about 95 of 100 tests",
        lambda f, _: 90 <= f["covered"] <= 99,
    ),
    Claim(
        "few-test-images",
        "the best of several by a few test images is not as good as it claims",
        lambda f, _: f["best_claimed"] > f["best_true"],
    ),
    Claim(
        "imbalance",
        "calling nothing rare has a high accuracy and finds no rare image",
        lambda f, rows: f["accuracy_always"] > 85 and rows[0][2] == 0 and f["mean_recall_always"] == 50,
    ),
    Claim(
        "imbalance",
        "weights find more rare images, for more false alarms",
        lambda f, _: f["recall"] > f["recall_plain"] and f["precision"] < f["precision_plain"],
        small=False,
    ),
    Claim(
        "smallest-example",
        "the smallest program learns, and labels every image",
        lambda f, _: f["predictions"] == f["images"] and f["accuracy"] > 3 * CHANCE,
    ),
)


def main() -> None:
    """Run, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="runs of each")
    parser.add_argument("--size", default="normal")
    parser.add_argument("--busy", action="store_true", help="beside endless loops, one for each core")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="of experiments and tasks")
    parser.add_argument("--tasks", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument(
        "--limit", type=float, help="seconds on the clock that a run may take; as in the lesson"
    )
    options = parser.parse_args()
    beside = busy_processes(max(2, os.cpu_count() or 1)) if options.busy else nullcontext()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.seeds} seeds", flush=True)
    with tempfile.TemporaryDirectory() as home, beside:
        os.environ["HEADSTART_HOME"] = home
        if options.limit:
            from headstart.lesson import experiments

            experiments.BOUND = options.limit
        shares = [] if options.tasks else claims(range(options.seeds), options.size, only=options.only)
        if options.tasks is not False:
            shares += tasks(range(1, options.seeds + 1), only=options.only)
    if missed := [what for what, share in shares if share < AIM]:
        raise SystemExit(f"below {AIM:.0%}: {'; '.join(missed)}")


def claims(seeds: Sequence[int], size: str, *, only: Sequence[str] | None) -> list[tuple[str, float]]:
    """Each claim with the share of seeds in which it held."""
    shares = []
    for name in dict.fromkeys(claim.experiment for claim in CLAIMS):
        if only and name not in only:
            continue
        mine = [claim for claim in CLAIMS if claim.experiment == name and (claim.small or size == "normal")]
        held: dict[str, list[int]] = {claim.says: [] for claim in mine}
        for seed in seeds:
            result = _run(name, seed, size=size)
            for claim in mine:
                if result is not None and claim.holds(result.fields, result.table.rows):
                    held[claim.says].append(seed)
        shares += [_said(f"{name}: {says}", held[says], seeds) for says in held]
    return shares


def tasks(seeds: Sequence[int], *, only: Sequence[str] | None) -> list[tuple[str, float]]:
    """Each task with the share of seeds in which its own solution reached it."""
    from headstart.lesson.engine.pack_loading import available, load_pack

    packs, shares = [load_pack(name) for name in available()], []
    for task in (task for pack in packs for task in (*pack.tasks, *([pack.project] if pack.project else []))):
        if only and task.slug not in only:
            continue
        reached = []
        for seed in seeds:
            result = _run(task.experiment, seed, parameters=task.solved_with)
            if result is not None and task.reached({k: v for k, v in result.fields.items() if v is not None}):
                reached.append(seed)
        shares.append(_said(f"task {task.slug}: reached with its own solution", reached, seeds))
    return shares


def _run(name: str, seed: int, *, size: str = "normal", parameters: Any = None) -> Any:
    """A result, or None where the experiment ended without one, which is said."""
    from headstart.errors import UserError
    from headstart.lesson import experiments

    begun = time.perf_counter()
    try:
        return experiments.run(name, seed=seed, size=size, parameters=parameters)
    except UserError as error:
        print(f"  {name}, seed {seed}, after {time.perf_counter() - begun:.0f} s: {error}", flush=True)
        return None


def _said(what: str, held: Sequence[int], seeds: Sequence[int]) -> tuple[str, float]:
    missed = [seed for seed in seeds if seed not in held]
    note = f" (not with seed {', '.join(map(str, missed))})" if missed else ""
    print(f"{len(held)} of {len(seeds)}  {what}{note}", flush=True)
    return what, len(held) / len(seeds)


if __name__ == "__main__":
    main()
