"""Runs what was exported, by the program beside it, and compares it with the original."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import errors
from headstart.classifier import Classifier
from headstart.data import images, preprocess
from headstart.data.dataset import FileSource
from headstart.errors import OptionError, ParityError
from headstart.exports.subject import Images
from headstart.heads.tasks import MULTI_LABEL, REGRESSION

PROGRAM = "predict.py"
DECODING = "decoding"
"""The package beside a program that reads images: `headstart.data.images`, under a name of its own."""

_IMAGES = Path(images.__file__).parent
_BELOW_IMAGES = (Path(errors.__file__), Path(preprocess.__file__))
_BEYOND_LITERT = "Select TensorFlow op"  # how LiteRT begins to say that it lacks an operation
_PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Parity:
    """How an export compares with the classifier.

    Attributes:
        images: how many were compared.
        largest_difference: of any probability, from the classifier in float32; of a number, in units of the
            spread of the numbers that it was trained on.
        tolerance: what was allowed; None for int8, which is judged by its accuracy.
        changed: images that are given other labels than the classifier in float32 gives.
        numbers: whether numbers were compared, and not probabilities.
    """

    images: int
    largest_difference: float
    tolerance: float | None
    changed: int
    numbers: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def write_program(folder: Path, *, form: str) -> None:
    """`predict.py`: the shared part and the part that opens this format; `decoding`, which reads images."""
    shared = (_PROGRAMS / "shared.py").read_text(encoding="utf-8")
    opens = (_PROGRAMS / f"{form}.py").read_text(encoding="utf-8")
    function = opens[opens.index("def open_model") :]
    end = 'if __name__ == "__main__":\n    main(open_model)\n'
    beside = "sys.path.insert(0, str(Path(__file__).resolve().parent))\n"
    head, imports, rest = shared.partition("from headstart.")
    program = f"{head}{beside}{_renamed(imports + rest)}\n\n{function}\n\n{end}"
    (folder / PROGRAM).write_text(program, encoding="utf-8")
    package = folder / DECODING
    package.mkdir()
    for file in (*sorted(_IMAGES.glob("*.py")), *_BELOW_IMAGES):
        (package / file.name).write_text(_renamed(file.read_text(encoding="utf-8")), encoding="utf-8")


def _renamed(source: str) -> str:
    """Our own modules under the names that they have beside an export."""
    source = source.replace("headstart.data.images", DECODING)
    return source.replace("headstart.errors", f"{DECODING}.errors").replace(
        "headstart.data.preprocess", f"{DECODING}.preprocess"
    )


def run_program(folder: Path, shown: Images) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """What the exported program itself gives for N images: probabilities [N, C], and what it prints.

    Raises:
        ParityError: it fails.
        OptionError: the format's runtime lacks an operation of this network.
    """
    with tempfile.TemporaryDirectory() as work:
        names = _as_files(shown, Path(work))
        given = Path(work) / "probabilities.npy"
        program = str(folder.resolve() / PROGRAM)
        command = [sys.executable, "-B", program, "-", "--json", "--save", str(given)]
        done = subprocess.run(
            command,
            cwd=work,
            capture_output=True,
            input="\n".join(names),
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "PYTHONUTF8": "1"},
            check=False,
        )
        if done.returncode or not given.exists():
            if _BEYOND_LITERT in done.stderr:
                raise OptionError(
                    "this network needs operations that LiteRT does not have; "
                    "take --to saved_model, onnx or openvino"
                )
            lines = done.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"it ended with {done.returncode}"
            raise ParityError(f"the exported model does not run ({reason[:300]}); please report this")
        found: NDArray[np.float32] = np.load(given)
    said = json.loads(done.stdout)
    if not len(found) == len(said) == len(shown):
        raise ParityError(
            f"the exported program labels {len(found)} of {len(shown)} images; please report this"
        )
    return found, said


def _as_files(shown: Images, work: Path) -> list[str]:
    """A file for each image: its own where it has one, else a copy; pixels where it is none."""
    names = []
    for number, (sample, pixels) in enumerate(zip(shown.samples, shown.pixels, strict=True)):
        source = sample.source
        if isinstance(source, FileSource) and "\n" not in source.path:
            names.append(os.path.abspath(source.path))
            continue
        content = source.read()
        copy = work / (f"{number}.image" if isinstance(content, bytes) else f"{number}.npy")
        if isinstance(content, bytes):
            copy.write_bytes(content)
        else:
            np.save(copy, pixels[None])
        names.append(str(copy))
    return names


def compare(
    found: NDArray[np.float32],
    original: NDArray[np.float32],
    *,
    tolerance: float | None,
    of: Classifier,
    said: Sequence[Mapping[str, Any]] | None = None,
) -> Parity:
    """Compare probabilities [N, C] of an export with the original's, or numbers [N, 1].

    ``said`` are the answers of its program, whose labels count; None for those of the probabilities.
    """
    called = of.called(found) if said is None else np.array([_called(each, of) for each in said])
    return Parity(
        images=len(found),
        largest_difference=float(np.abs(found - original).max() / of.spread),
        tolerance=tolerance,
        changed=int((called != of.called(original)).any(axis=1).sum()),
        numbers=of.task == REGRESSION,
    )


def _called(said: Mapping[str, Any], of: Classifier) -> list[bool]:
    """Which labels an answer of a program calls, as `Classifier.called` has it; none of a number."""
    if of.task == REGRESSION:
        return [False]
    called = said["labels"] if of.task == MULTI_LABEL else [said["label"]]
    return [name in called for name in of.classes]


def refuse_if_different(parity: Parity, *, form: str) -> None:
    """Raise where a float export does not say what the original says.

    Raises:
        ParityError: a probability differs by more than the tolerance, or a label changed.
    """
    if parity.tolerance is None:
        return
    if not parity.largest_difference <= parity.tolerance or parity.changed:
        what = "numbers" if parity.numbers else "probabilities"
        raise ParityError(
            f"the {form} export differs from the classifier: {parity.changed} of {parity.images} labels "
            f"changed, {what} by up to {parity.largest_difference:.3g} (at most {parity.tolerance:g} "
            f"expected); nothing was kept; take another format, and please report this"
        )
