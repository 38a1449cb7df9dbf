"""What two busy processes cost a fit: seconds beside them over quiet seconds, whole processes.

Starts the busy processes itself (each adds numbers in a loop; as many as there are cores, at least two) and
ends them. Quiet and busy runs alternate, on a warm cache; it first asserts that both give the same accuracy.
Beside two busy processes on two cores half of the time is theirs, so 2 is the least that can be.

    python benchmarks/busy.py [--folder FOLDER] [--rounds 3] [any options of headstart fit]

Without a folder it makes 240 pictures. The target: at most 3 times the quiet time. Where something else runs
on the machine the quiet time is none; the load that it was begun under is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, EACH = 4, 60


def main() -> None:
    """Alternate, then the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="of class folders")
    parser.add_argument("--rounds", type=int, default=3)
    options, of_fit = parser.parse_known_args()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(name, None)  # what a user has
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as work:
        os.environ["HEADSTART_CACHE"], os.environ["HEADSTART_HOME"] = f"{work}/cache", f"{work}/home"
        folder = options.folder or made_up(Path(work) / "pictures")
        fit(folder, of_fit, out=Path(work) / "first")
        quiet, busy = [], []
        for number in range(options.rounds):
            quiet.append(fit(folder, of_fit, out=Path(work) / f"quiet{number}"))
            with busy_processes(max(2, os.cpu_count() or 1)):
                busy.append(fit(folder, of_fit, out=Path(work) / f"busy{number}"))
    accuracies = {accuracy for _, _, accuracy in quiet + busy}
    assert len(accuracies) == 1, accuracies
    whole = [statistics.median(seconds for seconds, _, _ in runs) for runs in (quiet, busy)]
    train = [statistics.median(seconds for _, seconds, _ in runs) for runs in (quiet, busy)]
    print(f"whole: quiet {whole[0]:.2f} s, busy {whole[1]:.2f} s, ratio {whole[1] / whole[0]:.2f}")
    print(f"training: quiet {train[0]:.2f} s, busy {train[1]:.2f} s, ratio {train[1] / train[0]:.2f}")
    if whole[1] > 3 * whole[0]:
        raise SystemExit("more than 3 times")


def made_up(folder: Path) -> Path:
    """Stripes of another width for each class, with noise."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(EACH):
            wave = np.sin(np.arange(160) * (label + 2) / 20 + random.uniform(0, 6))
            picture = 128 + 60 * wave[None, :, None] + random.normal(0, 40, (120, 160, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(
                folder / f"class{label}" / f"{number}.jpg"
            )
    return folder


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many that want a core each."""
    loop = "while True: sum(range(100000))"
    processes = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fit(folder: Path, options: list[str], *, out: Path) -> tuple[float, float, object]:
    """Seconds of the whole process, of its training, and what it says of the images."""
    command = [str(Path(sys.executable).with_name("headstart")), "fit", str(folder), "--out", str(out)]
    begun = time.perf_counter()
    done = subprocess.run([*command, "--json", *options], capture_output=True, text=True, check=True)
    run = json.loads(done.stdout)
    return time.perf_counter() - begun, run["seconds"]["train"], json.dumps(run["accuracy"])


if __name__ == "__main__":
    main()
