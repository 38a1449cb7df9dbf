"""Measure the values that the lesson quotes until a machine has measured its own.

Each experiment runs as the lesson declares it, in a home of its own, and what it gives is written with the
day and the machine into `src/headstart/lesson/reference.json`. Values are never written there by hand.

    python benchmarks/reference.py                      # all of them, about ten minutes on two cores
    python benchmarks/reference.py taps calibration     # these alone; the others stay as they are
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headstart.files import write_whole
from headstart.lesson import experiments
from headstart.lesson.engine.reference import FILE


def main() -> None:
    """Run what is named, or everything; write the file after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *experiments.registry()], metavar="EXPERIMENT")
    names = parser.parse_args().names or experiments.registry()
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    found = {name: one for name, one in found.items() if name in experiments.registry()}
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADSTART_HOME"] = home
        for name in names:
            result = experiments.run(name)
            found[name] = {
                "date": datetime.now(UTC).date().isoformat(),
                "machine": _in_words(result.machine),
                "images": result.data,
                "values": {key: _rounded(value) for key, value in result.fields.items()},
            }
            print(f"{name}: {result.seconds:.1f} s, {found[name]['values']}", flush=True)
            text = json.dumps(dict(sorted(found.items())), ensure_ascii=False, indent=2)
            write_whole(FILE, text + "\n")


def _in_words(machine: Mapping[str, object]) -> str:
    return f"{machine['cores']} cores, {machine['processor']}, {machine['system']}"


def _rounded(value: object) -> object:
    """Four digits: prose shows three."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
