"""Reports: a run or a comparison as one page that explains itself; also as Markdown and JSON.

The facts are plain data (`Report.facts`); the page, the Markdown and the JSON are three renderings of them.
HTML needs the extra ``report`` (matplotlib, Jinja2); the other two need nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.comparisons import Comparison, find_comparison
from headstart.comparisons.storage import COMPARISON_FILE
from headstart.errors import MissingExtra, OptionError, RunError
from headstart.files import write_whole
from headstart.reports.comparison_facts import comparison_facts
from headstart.reports.run_facts import run_facts
from headstart.reports.text import headline, markdown
from headstart.runs import Run, RunStore

__all__ = ["FORMATS", "Report", "find", "report"]

FORMATS = (".html", ".md", ".json")


@dataclass(frozen=True)
class Report:
    """What is to be said about a run or a comparison, ready to be rendered."""

    facts: dict[str, Any]
    folder: Path | None  # where the run or comparison lies

    def __repr__(self) -> str:
        return f"Report({self.facts['id']!r}: {headline(self.facts)})"

    def _repr_html_(self) -> str | None:
        """The head of the page, as a notebook shows it; None where what draws it is not installed."""
        from headstart.reports.page import summary

        try:
            return summary(self.facts)
        except MissingExtra:
            return None

    def html(self, *, explain: bool = False, places: Sequence[tuple[str, str]] = ()) -> str:
        """One self-contained page: no script, no network, light and dark, printable.

        Args:
            explain: with the heat maps of a run's mistakes, for which its classifier is loaded.
            places: links above it, (address, text), where an application shows it.

        Raises:
            MissingExtra: matplotlib or Jinja2 is not installed.
        """
        from headstart.reports.page import page

        return page(self.facts, folder=self.folder if explain else None, places=places)

    def markdown(self) -> str:
        """The same as tables of Markdown."""
        return markdown(self.facts)

    def json(self) -> str:
        """The same as data, in ASCII: the name of a file that is no UTF-8 comes back as it was."""
        return json.dumps(self.facts, indent=1, default=str)

    def write(self, path: str | Path, *, explain: bool = False) -> Path:
        """Write to ``path``; its suffix decides the format; ``explain`` as in `html`.

        Raises:
            OptionError: the suffix is none of `FORMATS`, or the file cannot be written.
            MissingExtra: HTML was asked for and matplotlib or Jinja2 is not installed.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in FORMATS:
            raise OptionError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
        if suffix == ".html":
            text = self.html(explain=explain)
        else:
            text = self.markdown() if suffix == ".md" else self.json()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise OptionError(
                f"{path}: {error.strerror}; name a file that can be written with --out"
            ) from error
        return path


def report(thing: Run | Comparison) -> Report:
    """The report on a run or a comparison."""
    if isinstance(thing, Comparison):
        return Report(comparison_facts(thing), thing.path)
    return Report(run_facts(thing), thing.path)


def find(name: str | Path) -> Run | Comparison:
    """A run or a comparison by its folder or id.

    Raises:
        RunError: there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return find_comparison(folder) if (folder / COMPARISON_FILE).exists() else RunStore().find(folder)
    try:
        return RunStore().find(name)
    except RunError as not_a_run:
        try:
            return find_comparison(name)
        except RunError:
            raise not_a_run from None
