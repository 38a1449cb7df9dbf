"""Plots of experiments as SVG, drawn from the stored points.

They have no styles of their own, so that they follow the page, light or dark. Series
differ by dash and mark as well as by colour, and every plot comes with its table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from markupsafe import Markup

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 52
TICKS = 5
KINDS = 4
"""How many series the stylesheet tells apart; a fifth looks like the first."""

Point = tuple[str | float, float]


class Series(Protocol):
    """One line, or one group of bars or dots."""

    @property
    def name(self) -> str:
        """What the legend calls it."""

    @property
    def points(self) -> Sequence[Point]:
        """(x, y); x is text where it names a thing."""


class Plot(Protocol):
    """What an experiment wants drawn: `kind` is "line", "bars" or "dots"."""

    @property
    def kind(self) -> str:
        """How."""

    @property
    def title(self) -> str:
        """What it shows."""

    @property
    def x(self) -> str:
        """The horizontal axis with its unit."""

    @property
    def y(self) -> str:
        """The vertical axis with its unit."""

    @property
    def series(self) -> Sequence[Series]:
        """What is drawn."""


def draw(plot: Plot) -> Markup:
    """The plot as an SVG element; points that are not finite are left out."""
    series = [(one.name, [p for p in one.points if math.isfinite(p[1])]) for one in plot.series]
    points = [point for _, some in series for point in some]
    if not points:
        return Markup('<p class="unmeasured">There is nothing to draw.</p>')
    named = plot.kind == "bars" or any(isinstance(x, str) for x, _ in points)
    names = list(dict.fromkeys(str(x) for x, _ in points)) if named else []
    low, high, step = _range([y for _, y in points] + ([0.0] if plot.kind == "bars" else []))
    vertical = _Scale(low, high, HEIGHT - BOTTOM, TOP)
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
    parts += _titles(plot)
    label = escape(f"{plot.title}. {plot.y} against {plot.x}. The numbers are in the table below.")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return Markup(svg + _legend([name for name, _ in series]))


class _Scale:
    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.span = low, (high - low) or 1.0
        self.start, self.length = start, end - start

    def __call__(self, value: float) -> float:
        return round(self.start + self.length * (value - self.low) / self.span, 1)


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Round limits around the values, and the distance of the ticks."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    rough = span / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _ticks(low: float, high: float, step: float) -> Iterable[float]:
    count = round((high - low) / step)
    return [low + step * place for place in range(count + 1)]


def _horizontal_grid(scale: _Scale, low: float, high: float, step: float) -> Iterable[str]:
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
    series: Sequence[tuple[str, list[Point]]], names: Sequence[str], band: float, scale: _Scale
) -> Iterable[str]:
    width = 0.7 * band / len(series)
    for kind, (_, points) in enumerate(series):
        for x, y in points:
            left = LEFT + band * (names.index(str(x)) + 0.15) + width * kind
            top, foot = sorted((scale(y), scale(0.0)))
            yield (
                f'<rect class="s{kind % KINDS}" x="{left:.1f}" y="{top}" width="{width * 0.94:.1f}" '
                f'height="{max(1.0, foot - top):.1f}"><title>{escape(str(x))}: {y:.4g}</title></rect>'
            )


def _marks_on_names(
    series: Sequence[tuple[str, list[Point]]], names: Sequence[str], band: float, scale: _Scale
) -> Iterable[str]:
    for kind, (_, points) in enumerate(series):
        for x, y in points:
            at = round(LEFT + band * (names.index(str(x)) + 0.5), 1)
            yield _mark(kind, at, scale(y), f"{x}: {y:.4g}")


def _on_numbers(
    kind: str, series: Sequence[tuple[str, list[Point]]], xs: Sequence[float], vertical: _Scale
) -> Iterable[str]:
    low, high, step = _range(xs)
    scale = _Scale(low, high, LEFT, WIDTH - RIGHT)
    for value in _ticks(low, high, step):
        yield f'<text x="{scale(value)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    for number, (name, points) in enumerate(series):
        places = [(scale(float(x)), vertical(y)) for x, y in points]
        if kind == "line":
            path = " ".join(f"{x},{y}" for x, y in places)
            yield f'<polyline class="line s{number % KINDS}" points="{path}"/>'
        for (x, y), (at, value) in zip(places, points, strict=True):
            yield _mark(number, x, y, f"{name}: {at:.4g}, {value:.4g}")


def _mark(number: int, x: float, y: float, label: str) -> str:
    shape = (
        f'<circle class="s{number % KINDS}" cx="{x}" cy="{y}" r="4.5">',
        f'<rect class="s{number % KINDS}" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9">',
        f'<path class="s{number % KINDS}" d="M{x} {y - 6:.1f} l6 11 h-12 z">',
        f'<path class="s{number % KINDS}" d="M{x} {y - 6.5:.1f} l6.5 6.5 l-6.5 6.5 l-6.5 -6.5 z">',
    )[number % KINDS]
    return f"{shape}<title>{escape(label)}</title></{shape[1:].split(' ', 1)[0]}>"


def _titles(plot: Plot) -> Iterable[str]:
    middle = round((LEFT + WIDTH - RIGHT) / 2)
    yield f'<text class="axis" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(plot.x)}</text>'
    centre = round((TOP + HEIGHT - BOTTOM) / 2)
    yield (
        f'<text class="axis" x="14" y="{centre}" text-anchor="middle" '
        f'transform="rotate(-90 14 {centre})">{escape(plot.y)}</text>'
    )


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    rows = (
        f'<li><svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{_mark(n, 7, 7, name)}</svg>'
        f"{escape(name)}</li>"
        for n, name in enumerate(names)
    )
    return f'<ul class="legend" aria-label="Legend">{"".join(rows)}</ul>'
