"""Plots as SVG: inside their frame, with ticks where something is, and text where lines were printed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("markupsafe", reason="needs headstart[web]")

from headstart.web.plots import BOTTOM, HEIGHT, Plot, Series, draw


def test_bars_stand_above_their_names_and_printed_lines_are_text() -> None:
    alone = tuple(Series(n, ((n, 1.0),)) for n in ("once", "often"))
    svg = draw(Plot("bars", "t", "x", "y", alone))
    bars = [
        float(x) + float(w) / 2
        for x, w in re.findall(r'<rect class="s\d" x="([^"]+)" y="[^"]+" width="([^"]+)"', svg)
    ]
    names = [
        float(x) for x in re.findall(r'<text x="([^"]+)" y="[^"]+" text-anchor="middle">(?:once|often)', svg)
    ]
    assert bars[:2] == pytest.approx(names, abs=4)
    lines = Series("printed", (("0.9", 1.0), ("<b> x", 2.0)))
    text = draw(Plot("text", "t", "", "", (lines,)))
    assert "0.9\n&lt;b&gt; x" in text and "<svg" not in text


@pytest.mark.parametrize("kind", ["line", "bars", "dots"])
def test_a_plot_is_drawn_within_its_frame(kind: str) -> None:
    points = (("a<", 3.0), ("b", float("nan"))) if kind == "bars" else ((1, 3.0), (1000, -4.5))
    svg = draw(Plot(kind, "t", "x<", "y", (Series("s&", points),) * 2))
    numbers = [float(n) for n in re.findall(r' (?:x|y|cx|cy|x1|y1)="([^"]+)"', svg)]
    assert numbers and all(-1 <= number <= 641 for number in numbers)
    assert "nan" not in svg and "x&lt;" in svg and 'role="img"' in svg


@pytest.mark.parametrize(
    ("xs", "ticks"),
    [((1, 2, 3), "1 2 3"), ((0, 12), "0 3 6 9 12"), ((0.5, 2.5), "0.5 1 1.5 2 2.5")],
)
def test_nothing_stands_between_two_epochs(xs: tuple[float, ...], ticks: str) -> None:
    line = Series("s", tuple((x, 50.0 + x) for x in xs))
    svg = draw(Plot("line", "t", "epoch", "y", (line,)))
    shown = re.findall(rf'y="{HEIGHT - BOTTOM + 18}"[^>]*>([^<]+)</text>', svg)
    assert " ".join(shown) == ticks


def test_many_dots_carry_numbers_and_far_ones_a_logarithmic_axis() -> None:
    def series(name: str, *points: tuple[float, float]) -> Series:
        return Series(name, points)

    def numbered(svg: str) -> list[str]:
        return re.findall(r'class="axis"[^>]*>(\d)</text>', svg)

    many = [series(f"model {n}", (0.1 * 3**n, 50.0 + n)) for n in range(6)]
    plot = Plot("dots", "t", "seconds", "y", (*many, series("front", (0.1, 50.0))))
    svg = draw(plot)
    assert "seconds, logarithmic" in svg and numbered(svg) == list("123456")
    assert "6 model 5" in svg and svg.count('class="line front"') == 2, "in the plot and in its legend"
    places = [float(x) for x in re.findall(r'(?:cx|<rect class="s1" x)="([^"]+)"', svg)][:3]
    plot = replace(plot, series=tuple(many[:3]))
    near = draw(plot)
    assert "logarithmic" not in near and numbered(near) == [] and places == sorted(places)
    small = draw(plot, small=True)
    assert 'aria-hidden="true"' in small and "legend" not in small and "seconds" not in small
