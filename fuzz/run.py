"""Runs a function on mutated inputs until the time is over, or something breaks that should not.

With atheris (coverage-guided, Linux) where it is installed; else with mutations that nothing guides.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LONGEST = 65_536
"""Bytes of one input."""


def fuzz(target: Callable[[bytes], object], seeds: Sequence[bytes], *, modules: Sequence[str]) -> None:
    """Call ``target`` for as many seconds as the command line says; whatever it raises is a finding.

    Args:
        target: takes one input, and swallows the errors that it is meant to raise.
        seeds: inputs to begin with.
        modules: what atheris is to watch; imported here, so not before.
    """
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        _unguided(target, seeds, seconds=seconds)
        return
    with atheris.instrument_imports(include=list(modules)):
        for module in modules:
            __import__(module)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / f"{number:03}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds:.0f}",
            f"-max_len={LONGEST}",
            "-timeout=20",
            "-rss_limit_mb=4096",
        ]
        os.makedirs("fuzz/found", exist_ok=True)
        atheris.Setup(
            [
                sys.argv[0],
                *options,
                "-artifact_prefix=fuzz/found/",
                "-verbosity=0",
                "-print_final_stats=1",
                folder,
            ],
            target,
        )
        atheris.Fuzz()


def _unguided(target: Callable[[bytes], object], seeds: Sequence[bytes], *, seconds: float) -> None:
    rng, end, count = random.Random(0), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                data[at : at + rng.randrange(8)] = rng.randbytes(rng.randrange(8))
            elif kind == 1:
                del data[at : at + rng.randrange(64)]
            elif kind == 2:
                data[at:at] = data[at : at + rng.randrange(64)]
            else:
                other = rng.choice(seeds)
                start = rng.randrange(len(other) + 1)
                data[at:at] = other[start : start + rng.randrange(256)]
        target(bytes(data[:LONGEST]))
        count += 1
    print(f"{Path(sys.argv[0]).stem}: {count:,} inputs in {seconds:.0f} s, nothing found")
