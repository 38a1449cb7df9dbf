"""Where tests find axe-core: `HEADSTART_AXE`, else the copy in the package axe-playwright-python."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest


def axe_source() -> str:
    """The text of axe-core's `axe.min.js`; skips the test where there is none."""
    named = os.environ.get("HEADSTART_AXE", "")
    found = find_spec("axe_playwright_python")
    carried = Path(found.origin).with_name("axe.min.js") if found and found.origin else None
    for path in (Path(named) if named else None, carried):
        if path is not None and path.is_file():
            return path.read_text(encoding="utf-8")
    pytest.skip("needs axe-core: pip install axe-playwright-python, or set HEADSTART_AXE to its axe.min.js")
