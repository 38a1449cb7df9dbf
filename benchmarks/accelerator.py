"""Flowers with CUDA against the processor: a frozen head, fine-tuned stages and a network from scratch.

Nothing here has run yet: CUDA is untested. The script is for the day that a machine with an accelerator is at
hand. Each job runs on both sides in turn, from an empty cache; it prints images a second (every epoch counts
its images), the validation accuracy of both, and stops where they differ by more than chance allows.

    python benchmarks/accelerator.py ../shared/data/flowers

Needs the extra ``torch`` and a PyTorch that sees the accelerator.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

JOBS = {
    "frozen, softmax head": ["--head", "softmax", "--epochs", "30"],
    "last two stages fine-tuned": ["--freeze", "7", "--epochs", "15"],
    "every stage fine-tuned": ["--freeze", "none", "--epochs", "5"],
    "from scratch": ["--scratch", "--epochs", "10"],
}
STANDARD_ERRORS = 3.0
"""Of the difference of two accuracies on the validation images: beyond it the sides do not do the same."""


def main() -> None:
    """One line per job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device here; nothing was measured")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| | CUDA images/s | processor images/s | CUDA accuracy | processor accuracy |")
    print("|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as scratch:
        for name, job in JOBS.items():
            command = [
                "fit",
                str(options.folder),
                "--backbone",
                options.backbone,
                "--size",
                str(options.size),
            ]
            cuda, cpu = (run([*command, *job], Path(scratch), hidden=hidden) for hidden in (False, True))
            compare(name, cuda, cpu)


def compare(name: str, cuda: dict[str, Any], cpu: dict[str, Any]) -> None:
    """Print the line; stop where the sides differ."""
    first, second = cuda["accuracy"]["validation"], cpu["accuracy"]["validation"]
    images = cpu["images"]["validation"]
    error = (2 * max(second * (1 - second), 1 / images) / images) ** 0.5
    if abs(first - second) > STANDARD_ERRORS * error:
        raise SystemExit(
            f"{name}: {first:.3f} with CUDA, {second:.3f} on the processor: not the same training"
        )
    print(f"| {name} | {cuda['rate']:.0f} | {cpu['rate']:.0f} | {first:.1%} | {second:.1%} |", flush=True)


def run(command: list[str], scratch: Path, *, hidden: bool) -> dict[str, Any]:
    """A whole fit as its record says, with ``rate``; ``hidden`` keeps the accelerator from it."""
    shutil.rmtree(scratch / "cache" / "features", ignore_errors=True)
    place = {"HEADSTART_CACHE": str(scratch / "cache"), "HEADSTART_HOME": str(scratch / "home")}
    seen = {"CUDA_VISIBLE_DEVICES": ""} if hidden else {}
    program = str(Path(sys.executable).with_name("headstart"))
    out = scratch / f"run-{time.time_ns()}"
    done = subprocess.run(
        [program, *command, "--out", str(out), "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, **place, **seen},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    epochs = len(found["history"]) or 1
    looks = found["images"]["train"] * epochs + found["images"]["validation"]
    found["rate"] = looks / (found["seconds"]["features"] + found["seconds"]["train"])
    return found


if __name__ == "__main__":
    main()
