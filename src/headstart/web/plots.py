"""Plots as data, and as SVG for pages.

They have no styles of their own, so that they follow the page, light or dark. Series differ by dash and
mark as well as by colour, and every plot comes with its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 52
TICKS = 5
KINDS = 4
"""How many series the stylesheet tells apart; where there are more, dots carry numbers."""

FRONT = "front"
"""A series of this name among dots is drawn as a line through others' dots."""

_TO_THE_LEFT = ' text-anchor="end"'

_WIDE_RANGE = 20
"""Where the largest of some seconds is so many times the smallest, equal distances hide the small ones."""

_INSIDE = f"{LEFT - 10} {TOP - 8} {WIDTH - LEFT - RIGHT + 20} {HEIGHT - TOP - BOTTOM + 16}"
"""What a small plot shows: no axes."""

Point = tuple[str | float, float]
Scale = Callable[[float], float]
"""From a value to its place on an axis."""
Value = str | int | float | None
"""None stands where the thing did not happen, for instance a target that was never reached."""


@dataclass(frozen=True)
class Series:
    """One line, or one group of bars or dots: (x, y) pairs; x is text where it names a thing."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Table:
    """Columns with their unit in the heading, and rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def plot(self, kind: str, title: str, *, x: str, y: str, series: Mapping[str, int]) -> Plot:
        """Columns, by the names of their series, against the first one; see `Plot`."""
        rows: Any = self.rows
        drawn = (
            Series(name, tuple((row[0], row[column]) for row in rows)) for name, column in series.items()
        )
        return Plot(kind, title, x, y, tuple(drawn))


@dataclass(frozen=True)
class Plot:
    """A plot as data.

    Attributes:
        kind: "line", "bars" or "dots"; "text" for lines that were printed, each the x of a point.
        title: what it shows.
        x: the horizontal axis with its unit.
        y: the vertical axis with its unit.
        series: what is drawn.
    """

    kind: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]

    def table(self) -> Table:
        """Every point, for those who read numbers better than lines."""
        rows = [(one.name, x, round(y, 4)) for one in self.series for x, y in one.points]
        return Table(("series", self.x, self.y), tuple(rows))


def draw(plot: Plot, *, small: bool = False, tabled: bool = True) -> Markup:
    """The plot as an SVG element; points that are not finite are left out.

    Args:
        plot: what to draw.
        small: without words, for a list whose entries say what they are.
        tabled: whether its table follows, which its label then says.
    """
    from markupsafe import Markup  # plots are data too where nothing draws them

    if plot.kind == "text":
        lines = "\n".join(escape(str(x)) for one in plot.series for x, _ in one.points)
        focus = "" if small else ' tabindex="0"'
        return Markup(f'<pre class="printed"{focus}>{lines}</pre>')
    series = [(one.name, [p for p in one.points if math.isfinite(p[1])]) for one in plot.series]
    points = [point for _, some in series for point in some]
    if not points:
        return Markup('<p class="unmeasured">There is nothing to draw.</p>')
    named = plot.kind == "bars" or any(isinstance(x, str) for x, _ in points)
    names = list(dict.fromkeys(str(x) for x, _ in points)) if named else []
    low, high, step = _range([y for _, y in points] + ([0.0] if plot.kind == "bars" else []))
    vertical = _linear(low, high, HEIGHT - BOTTOM, TOP)
    parts = [*_horizontal_grid(vertical, low, high, step)]
    if named:
        band = (WIDTH - LEFT - RIGHT) / len(names)
        parts += _names(names, band)
        parts += (
            _bars(series, names, band, vertical)
            if plot.kind == "bars"
            else _marks_on_names(series, names, band, vertical)
        )
    else:
        parts += _on_numbers(plot.kind, series, [float(x) for x, _ in points], vertical)
    if small:
        drawn = "".join(parts)
        return Markup(f'<svg class="small" viewBox="{_INSIDE}" aria-hidden="true">{drawn}</svg>')
    wide = not named and _is_logarithmic(plot.kind, [float(x) for x, _ in points])
    parts += _titles(plot, logarithmic=wide)
    follows = " The numbers are in the table below." if tabled else ""
    label = escape(f"{plot.title}. {plot.y} against {plot.x}.{follows}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return Markup(svg + _legend([name for name, _ in series], numbered=_numbered(plot.kind, series)))


def learning_curve(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, tabled: bool = False
) -> Markup | None:
    """Accuracy in percent after each epoch as SVG, also of a training that runs; None before two epochs.

    Args:
        lines: by their names, (epoch, percent).
        tabled: whether a table follows.
    """
    series = tuple(Series(name, tuple(points)) for name, points in lines.items() if points)
    if max((len(one.points) for one in series), default=0) < 2:
        return None
    return draw(Plot("line", "Learning curve", "epoch", "accuracy, %", series), tabled=tabled)


def _numbered(kind: str, series: Sequence[tuple[str, list[Point]]]) -> bool:
    """Whether there are more series than marks, so that numbers must tell them apart."""
    return kind == "dots" and len(series) > KINDS


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: round(start + (end - start) * (value - low) / span, 1)


def _logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    span = math.log(high / low)
    return lambda value: round(start + (end - start) * math.log(value / low) / span, 1)


def _is_logarithmic(kind: str, xs: Sequence[float]) -> bool:
    """Dots whose places differ by more than an order of magnitude; curves always begin at nought."""
    return kind == "dots" and min(xs) > 0 and max(xs) / min(xs) > _WIDE_RANGE


def _horizontal(kind: str, xs: Sequence[float]) -> tuple[Scale, Sequence[float]]:
    """The horizontal axis and its ticks."""
    if not _is_logarithmic(kind, xs):
        low, high, step = _range(xs, whole=all(x.is_integer() for x in xs))
        return _linear(low, high, LEFT, WIDTH - RIGHT), list(_ticks(low, high, step))
    powers = range(math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs))) + 1)
    round_ones = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    low = max(value for value in round_ones if value <= min(xs))
    high = min(value for value in round_ones if value >= max(xs))
    ticks = [value for value in round_ones if low <= value <= high]
    return _logarithmic(low, high, LEFT, WIDTH - RIGHT), ticks


def _range(values: Sequence[float], *, whole: bool = False) -> tuple[float, float, float]:
    """Round limits around the values, and the distance of the ticks; of whole things none is between two."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    rough = span / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    if whole and not step.is_integer():
        step = math.ceil(step)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _ticks(low: float, high: float, step: float) -> Iterable[float]:
    count = round((high - low) / step)
    return [low + step * place for place in range(count + 1)]


def _horizontal_grid(scale: Scale, low: float, high: float, step: float) -> Iterable[str]:
    for value in _ticks(low, high, step):
        y = scale(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>'


def _names(names: Sequence[str], band: float) -> Iterable[str]:
    longest = max(4, int(band / 6.6))
    for place, name in enumerate(names):
        shown = name if len(name) <= longest else name[: longest - 1] + "…"
        x = round(LEFT + band * (place + 0.5), 1)
        yield f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(shown)}</text>'


def _bars(
    series: Sequence[tuple[str, list[Point]]], names: Sequence[str], band: float, scale: Scale
) -> Iterable[str]:
    at = {
        name: [n for n, (_, points) in enumerate(series) if name in {str(x) for x, _ in points}]
        for name in names
    }
    most = max(map(len, at.values()))
    width = min(0.7 * band / most, 90)
    for kind, (_, points) in enumerate(series):
        for x, y in points:
            there = at[str(x)]  # bars of one name stand together around its middle
            middle = LEFT + band * (names.index(str(x)) + 0.5)
            left = middle + width * (there.index(kind) - len(there) / 2)
            top, foot = sorted((scale(y), scale(0.0)))
            yield (
                f'<rect class="s{kind % KINDS}" x="{left:.1f}" y="{top}" width="{width * 0.94:.1f}" '
                f'height="{max(1.0, foot - top):.1f}"><title>{escape(str(x))}: {y:.4g}</title></rect>'
            )


def _marks_on_names(
    series: Sequence[tuple[str, list[Point]]], names: Sequence[str], band: float, scale: Scale
) -> Iterable[str]:
    for kind, (_, points) in enumerate(series):
        for x, y in points:
            at = round(LEFT + band * (names.index(str(x)) + 0.5), 1)
            yield _mark(kind, at, scale(y), f"{x}: {y:.4g}")


def _on_numbers(
    kind: str, series: Sequence[tuple[str, list[Point]]], xs: Sequence[float], vertical: Scale
) -> Iterable[str]:
    scale, ticks = _horizontal(kind, xs)
    for value in ticks:
        yield f'<text x="{scale(value)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    for number, (name, points) in enumerate(series):
        places = [(scale(float(x)), vertical(y)) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        if kind == "dots" and name == FRONT:
            yield f'<polyline class="line front" points="{path}"/>'
            continue
        if kind == "line":
            yield f'<polyline class="line s{number % KINDS}" points="{path}"/>'
        for (x, y), (at, value) in zip(places, points, strict=True):
            yield _mark(number, x, y, f"{name}: {at:.4g}, {value:.4g}")
            if _numbered(kind, series):
                left = x > WIDTH - RIGHT - 24
                below = number % 2 and y < HEIGHT - BOTTOM - 20  # so that neighbours' numbers keep apart
                across, down = (x - 11 if left else x + 9), (y + 16 if below else y - 7)
                anchor = _TO_THE_LEFT if left else ""
                yield f'<text class="axis" x="{across:.1f}" y="{down:.1f}"{anchor}>{number + 1}</text>'


def _mark(number: int, x: float, y: float, label: str) -> str:
    shape = (
        f'<circle class="s{number % KINDS}" cx="{x}" cy="{y}" r="4.5">',
        f'<rect class="s{number % KINDS}" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9">',
        f'<path class="s{number % KINDS}" d="M{x} {y - 6:.1f} l6 11 h-12 z">',
        f'<path class="s{number % KINDS}" d="M{x} {y - 6.5:.1f} l6.5 6.5 l-6.5 6.5 l-6.5 -6.5 z">',
    )[number % KINDS]
    return f"{shape}<title>{escape(label)}</title></{shape[1:].split(' ', 1)[0]}>"


def _titles(plot: Plot, *, logarithmic: bool) -> Iterable[str]:
    middle = round((LEFT + WIDTH - RIGHT) / 2)
    title = escape(plot.x) + (", logarithmic" if logarithmic else "")
    yield f'<text class="axis" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{title}</text>'
    centre = round((TOP + HEIGHT - BOTTOM) / 2)
    yield (
        f'<text class="axis" x="14" y="{centre}" text-anchor="middle" '
        f'transform="rotate(-90 14 {centre})">{escape(plot.y)}</text>'
    )


def _legend(names: Sequence[str], *, numbered: bool) -> str:
    if len(names) < 2:
        return ""
    rows = []
    for n, name in enumerate(names):
        line = name == FRONT
        mark = '<path class="line front" d="M0 7 H14"/>' if line else _mark(n, 7, 7, name)
        said = f"{n + 1} {name}" if numbered and not line else name
        rows.append(
            f'<li><svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{mark}</svg>'
            f"{escape(said)}</li>"
        )
    return f'<ul class="legend" aria-label="Legend">{"".join(rows)}</ul>'
