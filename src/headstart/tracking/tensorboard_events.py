"""TensorBoard: event files in the folder of the run or the comparison, a subfolder for each trial."""

import re
from pathlib import Path
from typing import Any

from headstart.comparisons import Comparison
from headstart.errors import OptionError
from headstart.runs import Run
from headstart.runs.formatting import markdown_table
from headstart.tracking.entries import Entry, of_comparison, of_run

FOLDER = "tensorboard"


class TensorboardTracker:
    """Writes scalars (the scores at step 0, the curves by epoch), parameters as text, and both as hparams."""

    def record(self, thing: Run | Comparison) -> str:
        """Write a run or a comparison; one line that says where to look."""
        if thing.path is None:
            raise OptionError("--track tensorboard: this comparison has no folder to write to")
        folder = thing.path / FOLDER
        try:
            if isinstance(thing, Run):
                _write(of_run(thing), folder)
            else:
                for entry in of_comparison(thing):
                    _write(entry, folder / re.sub(r"[^\w.-]+", "-", entry.name))
        except OSError as error:
            raise OptionError(f"{folder}: {error.strerror}; the event files cannot be written") from error
        return f"tracked in {folder}; tensorboard --logdir {thing.path.parent}"


def _write(entry: Entry, folder: Path) -> None:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    with SummaryWriter(logdir=str(folder)) as writer:
        made: tuple[Any, ...] = hparams(dict(entry.parameters), dict(entry.metrics))
        for summary in made:
            writer.file_writer.add_summary(summary)
        table = markdown_table(["parameter", "value"], entry.parameters.items())
        writer.add_text("parameters", table, 0)
        for name, value in entry.metrics.items():
            writer.add_scalar(name, value, 0)
        for epoch, name, value in entry.curves:
            writer.add_scalar(name, value, epoch)


def open_tracker() -> TensorboardTracker:
    """The tracker; it needs to open nothing before there is something to write."""
    return TensorboardTracker()
