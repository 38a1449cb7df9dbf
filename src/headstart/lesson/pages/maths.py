"""Formulas between dollar signs, `$x^2$`, as MathML, which browsers show without a script.

latex2mathml reads them. A pack may come from anyone and that library passes on what it is given, so what it
makes is written anew here: known elements, their text escaped, and attributes that only set type.
"""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Any

from markdown_it.rules_inline import StateInline

# As Pandoc has it, so that prices stay: no blank inside the signs, no digit behind the last.
_FORMULA = re.compile(r"\$(?=\S)(?P<latex>[^$`\n]{1,500}?)(?<=\S)\$(?!\d)")

_ELEMENTS = re.compile(
    "math|mrow|mi|mn|mo|mtext|mspace|msup|msub|msubsup|mfrac|msqrt|mroot|mover|munder|munderover|mtable|mtr|mtd"
    "|mstyle|mpadded|mphantom|menclose"
)
_TYPE = frozenset(("display", "mathvariant", "stretchy", "fence", "linethickness", "displaystyle", "accent"))
_PLAIN = re.compile(r"[\w. -]{1,20}")


def scan(state: StateInline, silent: bool) -> bool:
    """markdown-it's rule for a formula within a line."""
    if not state.src.startswith("$", state.pos):
        return False
    found = _FORMULA.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("formula", "math", 0).content = found["latex"]
    state.pos = found.end()
    return True


def to_mathml(latex: str) -> str:
    """A formula as MathML; as it was written, in code, where it cannot be read or latex2mathml is missing."""
    try:
        from latex2mathml.converter import convert_to_element

        return _written(convert_to_element(latex))
    except Exception:  # whatever a stranger's formula does to the parser, the page is shown
        return f"<code>{escape(latex)}</code>"


def _written(element: Any) -> str:
    tag = element.tag if _ELEMENTS.fullmatch(element.tag) else "mrow"
    kept = {
        name: value for name, value in element.attrib.items() if name in _TYPE and _PLAIN.fullmatch(value)
    }
    attributes = "".join(f' {name}="{value}"' for name, value in kept.items())
    inside = escape(unescape(element.text or "")) + "".join(map(_written, element))
    return f"<{tag}{attributes}>{inside}</{tag}>"
