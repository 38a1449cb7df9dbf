"""Runs what was exported, by the program beside it, and compares it with the original."""

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError, ParityError

PROGRAM = "predict.py"
_BEYOND_LITERT = "Select TensorFlow op"  # how LiteRT begins to say that it lacks an operation
_PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Parity:
    """How an export compares with the classifier.

    Attributes:
        images: how many were compared.
        largest_difference: of any probability, from the classifier in float32.
        tolerance: what was allowed; None for int8, which is judged by its accuracy.
        changed: images whose likeliest label differs from the classifier's in float32.
        changed_from_bf16: the same against the classifier as it predicts on the machine that exported, where
            that computes in bf16; None where it does not.
    """

    images: int
    largest_difference: float
    tolerance: float | None
    changed: int
    changed_from_bf16: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def write_program(folder: Path, *, form: str) -> None:
    """`predict.py`: the shared part, and the part that opens this format."""
    shared = (_PROGRAMS / "shared.py").read_text(encoding="utf-8")
    opens = (_PROGRAMS / f"{form}.py").read_text(encoding="utf-8")
    function = opens[opens.index("def open_model") :]
    end = 'if __name__ == "__main__":\n    main(open_model)\n'
    (folder / PROGRAM).write_text(f"{shared}\n\n{function}\n\n{end}", encoding="utf-8")


def run_program(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities [N, C] that the exported program gives for pixels uint8 [N, S, S, 3].

    Raises:
        ParityError: it fails.
        OptionError: the format's runtime lacks an operation of this network.
    """
    with tempfile.TemporaryDirectory() as work:
        taken, given = Path(work) / "pixels.npy", Path(work) / "probabilities.npy"
        np.save(taken, pixels)
        command = [sys.executable, str(folder.resolve() / PROGRAM), str(taken), "--save", str(given)]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
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
    return found


def compare(found: NDArray[np.float32], original: NDArray[np.float32], *, tolerance: float | None) -> Parity:
    """Compare probabilities [N, C] of an export with the original's."""
    return Parity(
        images=len(found),
        largest_difference=float(np.abs(found - original).max()),
        tolerance=tolerance,
        changed=_changed(found, original),
    )


def _changed(found: NDArray[np.float32], original: NDArray[np.float32]) -> int:
    return int((found.argmax(1) != original.argmax(1)).sum())


def changed_labels(found: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """How many images get another likeliest label."""
    return _changed(found, other)


def refuse_if_different(parity: Parity, *, form: str) -> None:
    """Raise where a float export does not say what the original says.

    Raises:
        ParityError: a probability differs by more than the tolerance, or a label changed.
    """
    if parity.tolerance is None:
        return
    if not parity.largest_difference <= parity.tolerance or parity.changed:
        raise ParityError(
            f"the {form} export differs from the classifier: {parity.changed} of {parity.images} labels "
            f"changed, probabilities by up to {parity.largest_difference:.3g} (at most {parity.tolerance:g} "
            f"expected); nothing was kept; take another format, and please report this"
        )
