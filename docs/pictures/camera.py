"""What the scripts beside this one share: a server in a thread, Chromium, and pictures in few colours."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from starlette.types import ASGIApp

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
TIMEOUT = 120_000
COLOURS = 256
"""A picture in so many colours takes a third of the bytes and looks the same at this size."""

SETTLE = 400
"""Milliseconds in which what moves on a page comes to rest."""


def serve(application: ASGIApp) -> str:
    """Serves an application in a thread; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser: the one that HEADSTART_CHROMIUM names, or the system's."""
    with sync_playwright() as playwright:
        place = os.environ.get("HEADSTART_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
    """A page of a visitor of its own."""
    viewport = {"width": width, "height": height}
    page = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light").new_page()
    page.set_default_timeout(TIMEOUT)
    return page


def keep(page: Page, name: str, *, height: int = 900, only: Locator | None = None) -> None:
    """Keeps a picture of the top of a page, or of one element, as `NAME.png` beside this file."""
    page.wait_for_load_state("networkidle")
    width = page.viewport_size["width"] if page.viewport_size else 1280
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(SETTLE)
    target = Path(__file__).with_name(f"{name}.png")
    (only or page).screenshot(path=target)
    few = Image.open(target).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS)
    few.save(target, optimize=True)
