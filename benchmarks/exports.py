"""Whether every export says what the classifier says: parity, not timing.

A folder of photographs is fitted once; then every format is written and labels every file of the folder by
the program beside it, in a process of its own; eight-bit formats label the held-out ones. A float format that
gives another label than `headstart predict` on more than one photograph ends the script.

    python benchmarks/exports.py ../shared/data/flowers
    python benchmarks/exports.py ../shared/data/flowers --backbone mobilenetv2_100 --size 96

prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import headstart
from headstart.classifier import Classifier
from headstart.data.dataset import list_images
from headstart.errors import MissingExtra, OptionError
from headstart.exports import FORMATS, Export, Parity
from headstart.exports.parity import compare, run_program
from headstart.exports.subject import render

INT8_POINTS = 1.0  # of accuracy that eight bits may cost
BESIDE = ("card.", "predict.", "decoding/")  # what an export holds beside the model


def compared(found: Export, classifier: Classifier, folder: Path) -> Parity:
    """The export's own program on every file of the folder against the classifier."""
    samples = list_images([folder])
    shown = render(classifier, samples, most=len(samples))
    said = run_program(found.path, shown)
    return compare(said, classifier.probabilities(shown.pixels), tolerance=found.parity.tolerance)


def row(found: Export, parity: Parity) -> str:
    """One line of the table."""
    model = sum(size for name, size in found.files.items() if not name.startswith(BESIDE))
    same = f"{parity.images - parity.changed:,} of {parity.images:,}"
    cost = "" if found.int8 is None else f"{-found.int8.points:+.1f} ± {found.int8.standard_error:.1f}"
    allowed = "" if parity.tolerance is None else f"{parity.tolerance:g}"
    name = f"{found.form}, int8" if found.int8 else found.form
    return (
        f"| {name} | {model / 1e6:.2f} MB | {same} | {parity.largest_difference:.1g} | {allowed} | {cost} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder per class, or train/ and val/ with those")
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--architecture", help="of a file of weights that does not say")
    parser.add_argument("--size", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        classifier, run = headstart.fit(
            arguments.folder,
            backbone=arguments.backbone,
            architecture=arguments.architecture,
            size=arguments.size,
            out=Path(work) / "run",
        )
        print(
            f"{arguments.backbone} at {run.config.size} px, head on {len(run.config.layers or ['-'])} layers"
        )
        print("| format | model | same label | largest difference | allowed | int8: points of accuracy |")
        print("|---|--:|--:|--:|--:|--:|")
        for form in FORMATS.values():
            for int8 in (False, True) if form.quantises else (False,):
                try:
                    found = headstart.export(run, to=form.name, int8=int8, int8_cost=INT8_POINTS)
                except (MissingExtra, OptionError) as error:
                    print(f"| {form.name}{', int8' if int8 else ''} | {error} | | | | |")
                    continue
                parity = found.parity if int8 else compared(found, classifier, arguments.folder)
                if not int8 and parity.changed > 1:
                    raise SystemExit(f"{form.name}: {parity}")
                print(row(found, parity), flush=True)


if __name__ == "__main__":
    main()
