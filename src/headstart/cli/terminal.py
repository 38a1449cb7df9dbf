"""What the commands share: results on stdout, progress on stderr, plain text where nobody is watching."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headstart.errors import HeadstartError, MissingExtra, printable
from headstart.runs.callbacks import Callback

if TYPE_CHECKING:
    from headstart.comparisons import Comparison
    from headstart.data.dataset import Dataset
    from headstart.runs import Run
    from headstart.tracking import Tracker

_MOST_NAMED = 20
"""Files that are named one by one."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")


def labelled(
    images: str, options: dict[str, Any], *, for_training: bool = True, task: str | None = None
) -> "str | Dataset":
    """The labelled images as the command's options want them read; as they are given where none does.

    Takes the options of `layout_options` out of ``options``, and looks at ``groups`` and ``task``.
    """
    splits, *columns = (options.pop(name) for name in ("splits", "image_column", "label_column"))
    if splits == "folder" and columns == [None, None]:
        return images
    from headstart.data.dataset import read_dataset

    return read_dataset(
        images,
        split_by_folder=splits == "folder",
        for_training=for_training,
        image_column=columns[0],
        label_column=columns[1],
        groups=options.get("groups"),
        weights_column=options.get("weights_column"),
        task=task or options.get("task"),
    )


@contextmanager
def needing(what: str, *, extra: str) -> Iterator[None]:
    """Imports that an extra brings; without them the user is told to install it."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(what, extra=extra) from error


def to_stderr(text: str) -> None:
    """One line for people, beside the result."""
    click.echo(text, err=True)


def name_left_out(skipped: Iterable[Mapping[str, Any]], *, most: int | None = _MOST_NAMED) -> None:
    """Name on stderr what was left out, a line each, and what nobody misses in one line.

    Args:
        skipped: each as `Skipped.to_dict` says it.
        most: lines; None for all.
    """
    found = list(skipped)
    missed = [item for item in found if not item["litter"]]
    for item in missed[:most]:
        files = f" ({item['files']:,} files)" if item["files"] > 1 else ""
        click.echo(f"headstart: {item['name']}: {item['reason']}{files}; skipped", err=True)
    if most is not None and len(missed) > most:
        click.echo(f"headstart: and {len(missed) - most:,} more skipped; --json lists all", err=True)
    litter = [item for item in found if item["litter"]]
    if litter:
        shown = "; ".join(f"{item['name']}: {item['reason']}" for item in litter[:3])
        more = f" and {len(litter) - 3:,} more" if len(litter) > 3 else ""
        files = sum(item["files"] for item in litter)
        click.echo(
            f"headstart: passed over {files:,} {'file' if files == 1 else 'files'}: {shown}{more}", err=True
        )


def open_tracker(name: str | None, *, register: str | None = None) -> "Tracker | None":
    """What ``--track`` and ``--register`` ask for, before any work; None where neither is given."""
    if name is None and register is None:
        return None
    from headstart.tracking import tracker

    return tracker(name or "mlflow", register=register)


def tracked(keeper: "Tracker | None", thing: "Run | Comparison") -> str | None:
    """Write finished work to the tracker; its line, None without one.

    By now the work is done and saved: a tracker that fails is a warning on stderr, and the result stands.
    """
    if keeper is None:
        return None
    try:
        return keeper.record(thing)
    except HeadstartError as error:
        click.echo(f"headstart: not tracked, saved in {thing.path} all the same: {error}", err=True)
        return None


def left_of(budget: str | None) -> float | None:
    """Seconds that are left of a command's budget, which the start of the process counts to."""
    from headstart.costs import parse_budget

    seconds = parse_budget(budget)
    return None if seconds is None else max(0.01, seconds - process_age())


def process_age() -> float:
    """Seconds since this process was started, the interpreter's start and all imports included.

    Linux says when a process began (in hundredths of a second). Elsewhere the processor time used so far
    stands in for it: starting up is computing, so it comes near and is never too large.
    """
    try:
        return _age_on_linux()
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()


def _age_on_linux() -> float:
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()  # the command's name may contain anything but this
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5): ticks since boot
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    if age < 0:
        raise ValueError(f"a process cannot be {age} s old")
    return age


def from_here(path: Path) -> str:
    """A path as one would type it in the working directory; the whole of one that lies elsewhere."""
    here = Path.cwd()
    return printable(path.relative_to(here) if path.is_relative_to(here) else path)


def print_json(value: Any) -> None:
    """One JSON value on stdout: in UTF-8 whatever the terminal's code page, as RFC 8259 has it.

    Names of files may be no text; their odd bytes become escapes, which are JSON too.
    """
    text = json.dumps(value, default=str, indent=2, ensure_ascii=False)
    click.echo(text.encode(errors="backslashreplace"))


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str], right: Sequence[int] = ()) -> str:
    """Columns of text; those listed in ``right`` are aligned to the right."""
    everything = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in everything) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in everything
    ]
    return "\n".join(line.rstrip() for line in lines)


@dataclass
class ProgressBar(Callback):
    """A bar with rate and time left on stderr; silent where stderr is no terminal that can redraw a line."""

    shown: bool = field(default_factory=lambda: _redraws(os.environ.get("TERM")))
    _phase: str = ""
    _started: float = 0.0
    _drawn: float = 0.0

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Draw at most ten times a second."""
        if not self.shown:
            return
        now = time.perf_counter()
        if phase != self._phase:
            self._phase, self._started = phase, now
        if now - self._drawn < 0.1 and done < total:
            return
        self._drawn = now
        rate = done / (now - self._started) if now - self._started > 0.01 else 0.0
        left = (total - done) / rate if rate else 0.0
        filled = 24 * done // max(total, 1)
        bar = "#" * filled + "." * (24 - filled)
        line = f"{phase:>9} [{bar}] {done:,}/{total:,}  {rate:,.0f}/s  {left:.0f} s left"
        sys.stderr.write("\r" + line[: _columns() - 1].ljust(_columns() - 1))
        sys.stderr.flush()

    def clear(self) -> None:
        """Wipe the line, so that the result stands alone."""
        if self.shown and self._phase:
            sys.stderr.write("\r" + " " * (_columns() - 1) + "\r")
            sys.stderr.flush()


def _redraws(terminal: str | None) -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and terminal != "dumb"


def _columns() -> int:
    """Of the terminal; 80 where it does not know, as serial lines and some editors do not."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """A progress bar that is gone when the work ends, however it ends."""
    bar = ProgressBar()
    try:
        yield bar
    finally:
        bar.clear()
