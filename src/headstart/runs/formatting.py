"""How numbers and tables are written for people: per cents, points, seconds, bytes, Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def percent(share: float | None) -> str:
    """0.873 -> 87.3%; a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def interval(limits: Sequence[float]) -> str:
    """(0.85, 0.9) -> 85.0% to 90.0%."""
    return f"{percent(limits[0])} to {percent(limits[1])}"


def points(share: float) -> str:
    """A difference of two shares in percentage points: 0.031 -> +3.1."""
    return f"{100 * share:+.1f}"


def cross_validated(found: Mapping[str, Any]) -> str:
    """What a run's ``cross_validation`` says, in one line."""
    accuracy, limits = percent(found["accuracy"]), interval(found["interval"])
    spread = f"{100 * found['spread']:.1f} points"
    return f"{found['folds']} folds: accuracy {accuracy} ({limits}), standard deviation over folds {spread}"


def human_seconds(seconds: float) -> str:
    """0.42 s, 7.3 s, 95 s, 4.2 min, 1.3 h."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def seconds_range(limits: Sequence[float]) -> str:
    """A range of predicted seconds, no more precise than it is worth: 0.6 to 2.3, 37 to 60, about 5.0."""
    low, high = (f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in limits)
    return f"{low} to {high}" if low != high else f"about {high}"


def human_bytes(count: float) -> str:
    """1,234,567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows below a header, as a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
