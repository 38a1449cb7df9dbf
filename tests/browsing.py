"""For the tests in a real browser: pages that may reach our own servers alone, and what axe-core objects to.

They need Playwright's Python package and Chromium: `HEADSTART_CHROMIUM`, one on the path or Playwright's own.
`make test` installs one where there is none (.ci/chromium).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from axe_core import axe_source
from listening import listening

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
RULES = {
    "light": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}
"""What axe-core looks for. Between light and dark only colours differ, and only these rules look at them."""

LOOKS: tuple[tuple[Literal["light", "dark"], int], ...] = (
    ("light", 1280),
    ("dark", 1280),
    ("light", 360),
    ("dark", 360),
)
"""Colours and widths in which every page is looked at."""

TIMEOUT = 60_000
"""Milliseconds: a training may have to end first, on a machine that does other things too."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    found = os.environ.get("HEADSTART_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    api.expect.set_options(timeout=TIMEOUT)
    with api.sync_playwright() as playwright:
        found = found or playwright.chromium.executable_path
        if not Path(found).is_file():
            pytest.skip("needs Chromium: run make test, or set HEADSTART_CHROMIUM")
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served_by_a_thread(app: Any) -> Iterator[str]:
    """The address at which an ASGI application answers."""
    with listening(app) as (host, port):
        yield f"http://{host}:{port}"


@dataclass
class Visit:
    """One page in a context of its own, which can be cut off from the network.

    ``complaints`` holds script errors, what the content policy forbade and requests that left for elsewhere.
    """

    context: BrowserContext
    page: Page
    online: bool = True
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, browser: Browser, **options: Any) -> Visit:
        """An empty page; the options are those of a browser's context."""
        context = browser.new_context(accept_downloads=True, **options)
        context.set_default_timeout(TIMEOUT)
        made = cls(context, context.new_page())
        context.route(lambda url: not url.startswith(("data:", "blob:")), made._let_pass)
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("console", made._note)
        return made

    def _let_pass(self, route: Route) -> None:
        if not self.online:
            route.abort("internetdisconnected")
        elif route.request.url.startswith("http://127.0.0.1:"):
            route.continue_()
        else:
            self.complaints.append(f"left for {route.request.url}")
            route.abort()

    def _note(self, told: ConsoleMessage) -> None:
        if "Content Security Policy" in told.text:
            self.complaints.append(told.text)


def inspector(page: Page, *, frames: bool = True) -> tuple[list[str], Callable[[str], None]]:
    """What axe-core and the window's width object to, and a function that asks them about the open page.

    It is asked in light and dark, on a desk and a phone; the page is then as it was before.

    Args:
        page: where the pages are opened.
        frames: whether axe-core looks into frames too.
    """
    source, found, before = axe_source(), list[str](), page.viewport_size
    assert before is not None

    def check(name: str) -> None:
        page.evaluate(source)
        for scheme, width in LOOKS:
            page.set_viewport_size({"width": width, "height": before["height"]})
            # Without motion no colour is on its way to another.
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            options = {"runOnly": RULES[scheme], "iframes": frames, "resultTypes": ["violations"]}
            for violation in page.evaluate("options => axe.run(options)", options)["violations"]:
                places = [node["html"] for node in violation["nodes"]]
                found.append(f"{name}, {scheme}, {width} px: {violation['id']}: {places[:2]}")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append(f"{name}, {scheme}, {width} px: wider than the window")
        page.set_viewport_size(before)
        page.emulate_media(color_scheme="light", reduced_motion="no-preference")

    return found, check
