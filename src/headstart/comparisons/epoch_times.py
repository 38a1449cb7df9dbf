"""When each epoch of a training ended."""

from collections.abc import Mapping, Sequence
from typing import Any

History = tuple[Mapping[str, Any], ...]


def timed(history: Sequence[Mapping[str, Any]], ends: Sequence[float], *, begun: float) -> History:
    """The epochs with ``seconds``: from the beginning of the training to the end of each.

    Args:
        history: one entry per epoch.
        ends: when each ended, on the clock of ``begun``.
        begun: when the training began; earlier by what was done for it before.
    """
    return tuple(
        {**entry, "seconds": round(end - begun, 3)} for entry, end in zip(history, ends, strict=True)
    )


def timed_as(history: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]) -> History:
    """The epochs with the ``seconds`` of another training; what that did not come to follows at its pace."""
    known = [float(entry["seconds"]) for entry in alone]
    each = (known[-1] - known[0]) / max(1, len(known) - 1)
    known += [known[-1] + each * more for more in range(1, len(history) - len(known) + 1)]
    return tuple(
        {**entry, "seconds": round(seconds, 3)} for entry, seconds in zip(history, known, strict=False)
    )
