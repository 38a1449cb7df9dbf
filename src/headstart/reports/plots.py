"""Plots as SVG that take their colours from the page, so that they work in light, in dark and on paper.

matplotlib draws with placeholder colours; each is then replaced by a CSS variable of the page. Text stays
text. Series differ in marker and line as well as in colour.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#0a0001": "var(--series-1)",
    "#0a0002": "var(--series-2)",
    "#0a0003": "var(--series-3)",
    "#0a0004": "var(--series-4)",
    "#0a0005": "var(--series-5)",
    "#0a0006": "var(--series-6)",
}
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_SERIES = tuple(colour for colour in _COLOURS if colour.startswith("#0a"))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)))
"""Six colours, seven markers and five dashes: numbers without a common factor make 210 looks."""

_WIDTH, _HEIGHT = 5.4, 3.3
"""Inches at 72 points: as wide as a phone's screen, so that text is not shrunk there."""

_LEAST_RANGE = 0.1
"""Of accuracy on an axis."""

_SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class _Canvas:
    """A figure with one pair of axes, and the SVG it becomes."""

    def __init__(self, name: str, *, height: float) -> None:
        from matplotlib.figure import Figure

        self.name = name
        self.figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        self.axes: Any = self.figure.subplots()
        self.svg = ""

    def render(self) -> None:
        """Fill ``svg``: placeholders become the page's variables, ids become the plot's own."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
        for placeholder, variable in _COLOURS.items():
            text = text.replace(placeholder, variable)
        text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'href="#', f'href="#{self.name}-', text)
        text = re.sub(r"url\(#", f"url(#{self.name}-", text)
        # The figure around it names it; the size is the page's business.
        self.svg = re.sub(
            r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg \1aria-hidden="true"', text, count=1
        )


@contextmanager
def _canvas(name: str, *, height: float = _HEIGHT) -> Iterator[_Canvas]:
    """A canvas in the page's style; its ``svg`` is there when the block is left."""
    try:
        import matplotlib
    except ImportError:
        from headstart.errors import MissingExtra

        raise MissingExtra("a report with plots", extra="report") from None
    settings: Any = {**_SETTINGS, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        canvas = _Canvas(name, height=height)
        yield canvas
        canvas.render()


def _shares(axes: Any, across: str, up: str) -> None:
    """Both axes from 0 to 100 %."""
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    _percent_axis(axes.xaxis)
    _percent_axis(axes.yaxis)


def _percent_axis(axis: Any) -> None:
    """Whole per cents, and ticks on whole per cents alone: 42.5 % must not be called 43 %."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="%"))


def _accuracy_axis(axes: Any, *, label: str = "validation accuracy") -> None:
    """Shows ten points at least, so that noise does not fill the plot."""
    low, high = axes.get_ylim()
    missing = max(0.0, _LEAST_RANGE - (high - low)) / 2
    top = min(high + missing, 1.02)
    axes.set_ylim(min(low - missing, top - _LEAST_RANGE), top)
    axes.set_ylabel(label)
    _percent_axis(axes.yaxis)


def _seconds_axis(axes: Any, values: Sequence[float]) -> None:
    """Logarithmic where the fastest and the slowest are far apart; plain numbers either way."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) > 0 and max(values) > 8 * min(values):
        axes.set_xscale("log")
        # With few decades, powers of ten alone would leave an axis with one number on it.
        steps = (1.0, 2.0, 5.0) if max(values) < 300 * min(values) else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("seconds from images to evaluation")


def _line(axes: Any, x: Sequence[float], y: Sequence[float], *, number: int, label: str) -> None:
    axes.plot(
        x,
        y,
        color=_SERIES[number % len(_SERIES)],
        marker=_MARKERS[number % len(_MARKERS)],
        linestyle=_DASHES[number % len(_DASHES)],
        label=label,
    )


def _legend(axes: Any, *, names: int) -> None:
    """Below the plot, so that it hides nothing."""
    if names > 1:
        axes.figure.legend(loc="outside lower center", ncols=1 if names > 3 else min(names, 2))


# ------------------------------------------------------------------------------------------------- runs


def phases(rows: Sequence[dict[str, Any]]) -> str:
    """Seconds of each phase, as bars, and a diamond for what was predicted of it."""
    expected = [(place, row["predicted"]) for place, row in enumerate(rows) if row["predicted"] is not None]
    with _canvas("phases", height=0.6 + 0.36 * len(rows) + (0.3 if expected else 0)) as canvas:
        axes = canvas.axes
        names, seconds = [row["phase"] for row in rows], [row["seconds"] for row in rows]
        bars = axes.barh(names, seconds, color=_SERIES[0], height=0.62, label="took")
        longest = max(*seconds, *(value for _, value in expected), 1e-3)
        for bar, value in zip(bars, seconds, strict=True):
            place = bar.get_y() + bar.get_height() / 2
            axes.text(1.2 * longest, place, f"{value:.2f}", ha="right", va="center", fontsize=10)
        if expected:
            places, values = zip(*expected, strict=True)
            axes.plot(
                values,
                places,
                linestyle="none",
                marker="D",
                markerfacecolor=_SERIES[1],
                markeredgecolor=_SERIES[1],
                markersize=6,
                label="predicted",
            )
            _legend(axes, names=2)
        axes.set_xlim(0, 1.22 * longest)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.set_xlabel("seconds")
    return canvas.svg


def learning_curve(history: Sequence[dict[str, Any]]) -> str:
    """Accuracy by epoch, in training and on the validation images."""
    with _canvas("learning") as canvas:
        axes = canvas.axes
        epochs = [entry["epoch"] for entry in history]
        series = [("accuracy", "training"), ("validation_accuracy", "validation")]
        known = [(key, label) for key, label in series if all(key in entry for entry in history)]
        for number, (key, label) in enumerate(known):
            _line(axes, epochs, [entry[key] for entry in history], number=number, label=label)
        axes.set_xlabel("epoch")
        _accuracy_axis(axes, label="accuracy")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes, names=len(known))
    return canvas.svg


def calibration(bins: Sequence[dict[str, float]]) -> str:
    """Share right against mean probability; dots grow with the number of images."""
    with _canvas("calibration") as canvas:
        axes = canvas.axes
        most = max(found["images"] for found in bins)
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(
            [found["confidence"] for found in bins],
            [found["accuracy"] for found in bins],
            s=[20 + 130 * found["images"] / most for found in bins],
            color=_SERIES[0],
            zorder=3,
        )
        _shares(axes, "probability that was given", "share that was right")
    return canvas.svg


def residuals(rows: Sequence[dict[str, Any]]) -> str:
    """Predicted against true numbers; each dot leads to its photograph."""
    with _canvas("residuals") as canvas:
        axes = canvas.axes
        true, found = [row["number"] for row in rows], [row["value"] for row in rows]
        ends = [min(true + found), max(true + found)]
        axes.plot(ends, ends, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        dots = axes.scatter(true, found, s=28, color=_SERIES[0], zorder=3)
        dots.set_urls([f"#photograph-{number}" for number in range(len(rows))])
        axes.set_xlabel("number")
        axes.set_ylabel("predicted")
    return canvas.svg


def precision_recall(curve: Sequence[Sequence[float]]) -> str:
    """Precision against recall, as steps; each point has its threshold first."""
    with _canvas("precision-recall") as canvas:
        axes = canvas.axes
        recall, precision = [0.0, *(each[2] for each in curve)], [curve[0][1], *(each[1] for each in curve)]
        axes.step(recall, precision, color=_SERIES[0], where="pre")
        _shares(axes, "recall: share of them that is found", "precision: share of those called")
    return canvas.svg


# ------------------------------------------------------------------------------------------ comparisons


def pareto(rows: Sequence[dict[str, Any]]) -> str:
    """Accuracy against seconds, numbered as in the table, with the front drawn through."""
    whole = [(number, row) for number, row in enumerate(rows, 1) if row["images_per_class"] is None]
    with _canvas("pareto", height=3.6) as canvas:
        axes = canvas.axes
        front = sorted((row["seconds"], row["accuracy"]) for _, row in whole if row["on_front"])
        axes.plot(*zip(*front, strict=True), color=_SERIES[0], linewidth=1.4, zorder=2)
        for number, row in whole:
            low, high = row["interval"]
            place = (row["seconds"], row["accuracy"])
            axes.plot([place[0]] * 2, [low, high], color=_LINE, linewidth=3, zorder=1, solid_capstyle="round")
            colour = _SERIES[1] if row["chosen"] else _SERIES[0] if row["on_front"] else _MUTED
            marker = "D" if row["chosen"] else "o"
            axes.plot(*place, marker=marker, color=colour, markersize=8 if row["chosen"] else 6, zorder=3)
            axes.annotate(
                str(number),
                place,
                xytext=(7, 5),
                textcoords="offset points",
                fontsize=10,
                color=_INK,
                zorder=4,
            )
        _seconds_axis(axes, [row["seconds"] for _, row in whole])
        axes.margins(x=0.12)
        _accuracy_axis(axes)
    return canvas.svg


def curves(series: Sequence[dict[str, Any]], *, styles: Mapping[str, int]) -> str:
    """Validation accuracy as the seconds go by; ``styles`` keeps a candidate's look from plot to plot."""
    with _canvas("curves", height=3.1 + 0.2 * len(series)) as canvas:
        axes = canvas.axes
        for found in series:
            x, y = zip(*found["points"], strict=True)
            _line(axes, x, y, number=styles[found["name"]], label=found["name"])
        _seconds_axis(axes, [point[0] for found in series for point in found["points"]])
        _accuracy_axis(axes)
        _legend(axes, names=max(2, len(series)))
    return canvas.svg


def by_depth(series: Sequence[dict[str, Any]]) -> str:
    """Accuracy against the number of frozen stages, with what the seeds vary."""
    with _canvas("depth", height=3.0 + 0.2 * len(series)) as canvas:
        axes = canvas.axes
        for number, found in enumerate(series):
            _with_spread(axes, found, x=[row["depth"] for row in found["points"]], number=number)
        axes.set_xlabel("frozen stages, counted from the input")
        _accuracy_axis(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes, names=len(series))
    return canvas.svg


def by_images(series: Sequence[dict[str, Any]], *, styles: Mapping[str, int]) -> str:
    """Accuracy against the number of training images, with what the seeds vary; see `curves`."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with _canvas("images", height=3.1 + 0.2 * len(series)) as canvas:
        axes = canvas.axes
        for found in series:
            images = [row["images"] for row in found["points"]]
            _with_spread(axes, found, x=images, number=styles[found["name"]])
        axes.set_xscale("log")
        ticks = sorted({row["images"] for found in series for row in found["points"]})
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("training images")
        _accuracy_axis(axes)
        _legend(axes, names=max(2, len(series)))
    return canvas.svg


def _with_spread(axes: Any, found: dict[str, Any], *, x: Sequence[float], number: int) -> None:
    for place, row in zip(x, found["points"], strict=True):
        if row["trials"] > 1:
            axes.plot(
                [place] * 2, row["spread"], color=_SERIES[number % len(_SERIES)], linewidth=4, alpha=0.35
            )
    _line(axes, x, [row["accuracy"] for row in found["points"]], number=number, label=found["name"])


def differences(rows: Sequence[dict[str, Any]]) -> str:
    """Each candidate's difference from the choice with its interval, its name above it."""
    with _canvas("differences", height=0.9 + 0.48 * len(rows)) as canvas:
        axes = canvas.axes
        axes.axvline(0, color=_MUTED, linewidth=1)
        for position, row in enumerate(rows):
            colour = _SERIES[0] if row["significant"] else _MUTED
            low, high = (100 * value for value in row["interval"])
            axes.plot([low, high], [position] * 2, color=colour, linewidth=2, solid_capstyle="round")
            marker = "o" if row["significant"] else "s"
            axes.plot(100 * row["difference"], position, marker=marker, color=colour, markersize=6.5)
            place = axes.get_yaxis_transform()
            axes.text(0.0, position - 0.28, row["name"], transform=place, fontsize=9.5, va="bottom")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(rows) - 0.5, -0.85)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("points of accuracy above (right) or below (left) the choice")
    return canvas.svg
