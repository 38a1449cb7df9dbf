"""The page: the facts, the plots and the pictures, put into one HTML file."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingExtra
from headstart.reports import text as words
from headstart.reports.albums import Album, HeatAlbum
from headstart.reports.tables import tables
from headstart.runs import formatting
from headstart.runs.scores import FURTHER, in_words, name_in_words, score_of, span_in_words, value_in_words

if TYPE_CHECKING:
    import jinja2

SHOWN = 8
"""Mistakes and rows of a table in a summary."""

MATRIX_CLASSES = 20
"""More classes than this make a confusion matrix that nobody can read; then the pairs are listed alone."""

PAIRS = 24
"""Pairs of mixed-up classes shown with their images."""

SKIPPED = 200
"""Files left out that are listed by name."""


def page(facts: dict[str, Any], *, folder: Path | None = None, places: Sequence[tuple[str, str]] = ()) -> str:
    """The HTML of a report.

    Args:
        facts: what it says.
        folder: where the run lies, for the heat maps of its mistakes; None for none.
        places: links above it, (address, text).

    Raises:
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    extra = _run_parts(facts, folder=folder) if facts["kind"] == "run" else _comparison_parts(facts)
    found = tables(facts)
    if "skipped" in found:
        found["skipped"] = replace(found["skipped"], rows=found["skipped"].rows[:SKIPPED])
    template = _environment().get_template(f"{facts['kind']}.html")
    return template.render(facts=facts, headline=words.headline(facts), tables=found, places=places, **extra)


def summary(facts: dict[str, Any]) -> str:
    """The head of a report for a notebook: scores, the likeliest mistakes with pictures, plots.

    Args:
        facts: what the report says.

    Raises:
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    from headstart.reports import plots

    template = _environment().get_template("summary.html")
    if facts["kind"] == "comparison":
        parts: dict[str, Any] = {"plots": _drawn(pareto=(plots.pareto, facts["rows"])), "mistakes": []}
    else:
        album = Album()
        shown = facts["mistakes"][:SHOWN]
        parts = {
            "plots": _run_plots(facts, ("learning", "residuals", "calibration")),
            "mistakes": [{**image, "picture": album.picture(image)} for image in shown],
        }
    found = {name: replace(each, rows=each.rows[:SHOWN]) for name, each in tables(facts).items()}
    return template.render(facts=facts, headline=words.headline(facts), tables=found, **parts)


def _environment() -> "jinja2.Environment":
    try:
        import jinja2
        import matplotlib  # noqa: F401 (before the pictures are made)
    except ImportError:
        raise MissingExtra("a report as a page", extra="report") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "span": formatting.interval,
        "first_score": score_of,
        "named": name_in_words,
        "written": value_in_words,
        "spanned": span_in_words,
        "further": lambda found: ", ".join(in_words(each, found[each]) for each in FURTHER if each in found),
    }
    return environment


def _run_parts(facts: dict[str, Any], *, folder: Path | None) -> dict[str, Any]:
    album, heat = Album(), HeatAlbum(folder)
    mistakes = [
        {**image, "picture": album.picture(image), "heat": heat.picture(image)} for image in facts["mistakes"]
    ]
    confusions = [
        {**found, "images": [{**image, "picture": album.picture(image)} for image in found["images"]]}
        for found in facts["confusions"][:PAIRS]
    ]
    return {
        "plots": _run_plots(facts),
        "mistakes": mistakes,
        "behind": [{**image, "picture": album.picture(image)} for image in facts["residuals"]],
        "confusions": confusions,
        "matrix": _matrix(facts, linked={found["cell"] for found in confusions}),
        "time": words.time_sentence(facts),
        "recalled": words.precision_recall_sentence(facts) if facts["precision_recall"] else "",
        "calibrated": words.calibration_sentence(facts),
    }


def _run_plots(facts: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Each plot of a run, or those that are named."""
    from headstart.reports import plots

    curve = any("accuracy" in entry for entry in facts["history"])
    recalled = facts["precision_recall"]
    wanted: dict[str, tuple[Callable[[Any], str], Any]] = {
        "phases": (plots.phases, facts["phases"]),
        "residuals": (plots.residuals, facts["residuals"]),
        "learning": (plots.learning_curve, facts["history"] if curve else ()),
        "calibration": (plots.calibration, facts["calibration"]),
        "precision_recall": (plots.precision_recall, recalled["curve"] if recalled else ()),
    }
    return _drawn(**{name: each for name, each in wanted.items() if name in names or not names})


def _matrix(facts: dict[str, Any], *, linked: set[str]) -> list[list[dict[str, Any]]] | None:
    """Cells with their count, their share of the row for shading, and where they lead."""
    counts = facts["confusion"]
    if not counts or len(counts) > MATRIX_CLASSES:
        return None
    return [
        [
            {
                "count": count,
                "shade": round(45 * count / max(sum(row), 1)),
                "right": i == j,
                "link": f"cell-{i}-{j}" if f"cell-{i}-{j}" in linked else None,
            }
            for j, count in enumerate(row)
        ]
        for i, row in enumerate(counts)
    ]


def _comparison_parts(facts: dict[str, Any]) -> dict[str, Any]:
    from headstart.reports import plots

    whole = any(row["images_per_class"] is None for row in facts["rows"])
    named = [found["name"] for found in (*facts["time_to_accuracy"], *facts["by_images"])]
    styles = {name: number for number, name in enumerate(dict.fromkeys(named))}
    return {
        "plots": _drawn(
            pareto=(plots.pareto, facts["rows"] if whole else ()),
            curves=(partial(plots.curves, styles=styles), facts["time_to_accuracy"]),
            by_depth=(plots.by_depth, facts["by_depth"]),
            by_images=(partial(plots.by_images, styles=styles), facts["by_images"]),
            differences=(plots.differences, facts["differences"]),
        ),
        "test": words.test_sentence(facts) if facts["choice"] else None,
        "apart": words.apart_sentence(facts) if facts["choice"] else None,
        "seeds": words.seeds_sentence(facts),
        "cost": words.cost_sentence(facts),
        "no_choice": words.NO_CHOICE,
    }


def _drawn(**wanted: tuple[Callable[[Any], str], Any]) -> dict[str, Any]:
    """Each plot of something; None where there is nothing to plot."""
    from markupsafe import Markup

    # `plots` puts no text of the user's in but as escaped text nodes.
    return {name: Markup(draw(data)) if data else None for name, (draw, data) in wanted.items()}
