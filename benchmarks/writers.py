"""Many processes at once enter runs into one store: is one lost or doubled, and how long does each wait?

    python benchmarks/writers.py [--processes 50] [--runs 20] [--database URL] [--json FILE]

Without ``--database`` the store is SQLite's file in an empty home folder; a server's database should be empty
too. Each process enters its runs one after another. First what the store holds is compared with what was
entered; only then are the times printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headstart.runs import FitConfig, Run, RunStore

WRITER = """
import json, sys, time
from pathlib import Path
from headstart.runs import Run, RunStore
writer, count = sys.argv[1], int(sys.argv[2])
record = json.loads(sys.stdin.read())
times = []
for number in range(count):
    identity = f"{writer}-{number}"
    run = Run.from_dict({**record, "id": identity}, path=Path("/runs") / identity)
    started = time.perf_counter()
    RunStore().add(run)
    times.append(time.perf_counter() - started)
print(json.dumps(times))
"""

RUN = Run(
    id="",
    path=Path("/runs"),
    created="2026-01-01T00:00:00+00:00",
    config=FitConfig(
        backbone="builtin",
        data="photos",
        size=128,
        depth=9,
        stages=9,
        layers=("features",),
        runtime="openvino",
        precision="f32",
    ),
    classes=("a", "b"),
    images={"train": 7, "validation": 2, "test": 1, "skipped": 0},
    accuracy={"validation": 0.5, "test": None},
    macro_f1=0.4,
    evaluation={},
    seconds={"total": 1.5},
    cache={"hits": 0, "misses": 10, "bytes": 100},
)


def main() -> None:
    """Runs, checks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--runs", type=int, default=20, help="of each process")
    parser.add_argument("--database", help="URL of a PostgreSQL database instead of a file")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADSTART_HOME"] = home
        os.environ["HEADSTART_DATABASE"] = options.database or ""
        started = time.perf_counter()
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(number), str(options.runs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(options.processes)
        ]
        for each in writers:
            assert each.stdin is not None
            each.stdin.write(json.dumps(RUN.to_dict(), default=str))
            each.stdin.close()
        told = [each.stdout.read() for each in writers if each.stdout is not None]
        if failed := sum(each.wait() != 0 for each in writers):
            raise SystemExit(f"{failed} of the writers failed")
        times = sorted(seconds for text in told for seconds in json.loads(text))
        seconds = time.perf_counter() - started
        wanted = {
            f"{writer}-{number}" for writer in range(options.processes) for number in range(options.runs)
        }
        held = [each.id for each in RunStore().entries()]
        if sorted(held) != sorted(wanted):
            raise SystemExit(
                f"{len(wanted)} runs were entered, {len(held)} are held, {len(set(held))} differ"
            )
    found = {
        "store": "postgresql" if options.database else "sqlite",
        "processes": options.processes,
        "runs_entered_and_held_once": len(held),
        "seconds": round(seconds, 1),
        "run_ms": {
            f"p{round(100 * share)}": round(1000 * times[min(len(times) - 1, int(share * len(times)))], 1)
            for share in (0.5, 0.95, 1.0)
        },
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
