"""Draws `once.svg`, the README's picture: where the seconds of one training go, to scale.

    python docs/pictures/once.py

The seconds are those of "The main job against Keras" in docs/benchmarks.md; tests compare the two.
"""

from pathlib import Path

EPOCHS = 10
KERAS, FIRST, AGAIN = 39.07, 2.50, 0.95
"""Seconds from start to printed accuracy: Keras, and the same job here without and with cached features."""

WIDTH, LEFT, SCALE = 760, 24, 712 / KERAS
STYLE = """
text{font:15px system-ui,sans-serif;fill:#1f2328}
.small{font-size:13px;fill:#59636e}
.frozen{fill:#2f6fb3}.head{fill:#d98324}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#9198a1}.frozen{fill:#5b9bd8}.head{fill:#e8a04f}}
"""


def bar(left: float, top: int, width: float, kind: str) -> str:
    """One block of time."""
    return f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{max(width, 1.5):.1f}" height="26" rx="2"/>'


def text(left: float, top: int, words: str, kind: str = "title") -> str:
    """One line of words."""
    return f'<text class="{kind}" x="{left:.1f}" y="{top}">{words}</text>'


def row(top: int, title: str, seconds: float, *, passes: int) -> list[str]:
    """A title, and below it the passes of the frozen layers, the head's training after each."""
    step = seconds * SCALE / max(passes, 1)
    blocks = [text(LEFT, top, f"{title}: {seconds:.2f} s")]
    if not passes:
        return [*blocks, bar(LEFT, top + 10, step, "head")]
    for number in range(passes):
        left = LEFT + number * step
        blocks += [
            bar(left, top + 10, 0.9 * step, "frozen"),
            bar(left + 0.9 * step, top + 10, 0.08 * step, "head"),
        ]
    return blocks


def drawing() -> str:
    """The whole picture as SVG."""
    caption = "MobileNetV2, 1,000 photographs, ten epochs of the last layer, two cores, 77.5 % on both sides"
    parts = [
        *row(28, "Keras runs the frozen layers in every epoch", KERAS, passes=EPOCHS),
        *row(98, "Headstart runs them once per image", FIRST, passes=1),
        *row(168, "The next training finds their results in the cache", AGAIN, passes=0),
        bar(LEFT, 222, 26, "frozen"),
        text(LEFT + 34, 240, "frozen layers", "small"),
        bar(LEFT + 140, 222, 26, "head"),
        text(LEFT + 174, 240, "what is trained", "small"),
        text(LEFT, 272, caption, "small"),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 288" role="img">'
    title = "<title>Seconds of one training in Keras, in Headstart, and in Headstart again, to scale</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawing(), encoding="utf-8")
