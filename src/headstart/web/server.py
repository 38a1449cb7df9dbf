"""Runs an application of pages: listens, prints the address, opens the browser."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from typing import TypedDict, Unpack

from starlette.types import ASGIApp

from headstart.web import front
from headstart.web.addresses import address_of, listen
from headstart.web.site import Site

BACKLOG = 1024
"""Connections that wait to be taken: a whole class opens the first page in the same second."""

KEEP_ALIVE_SECONDS = 180
"""Longer than a problem lasts: an answer must not meet a connection that is just being closed."""

STOP_SECONDS = 2.0
"""For pages under way to be answered in the end; streams of news have none."""


class Where(TypedDict):
    """Where an application is served; port 0 takes any free one."""

    host: str
    port: int
    browser: bool
    """Whether to open the first page."""
    say: Callable[[str], None]
    """Told the address once connections are taken."""


def run(
    app: ASGIApp,
    site: Site,
    *,
    title: str,
    note: str = "Ctrl-C stops; nothing is lost",
    announce: Callable[[str], str] | None = None,
    opens: Callable[[], str] | None = None,
    finish: Callable[[], None] = lambda: None,
    finish_seconds: float = 0.0,
    **where: Unpack[Where],
) -> None:
    """Serves an application of pages until Ctrl-C.

    Args:
        app: the application.
        site: its token, and the tickets of browsers that are opened.
        title: stands before the address.
        note: stands after it.
        announce: makes what is said instead, of the address without a token.
        opens: gives the page that the browser opens, as it follows the address.
        finish: called in the end.
        finish_seconds: that it takes at most.
        where: see `Where`.

    Raises OptionError where the port cannot be used.
    """
    host = where["host"]
    with closing(listen(host, where["port"], backlog=BACKLOG)) as listener:
        taken = listener.getsockname()[1]
        address = address_of(host, taken)
        said = f"{title}: {address_of(host, taken, token=site.token)}  ({note})"
        where["say"](announce(address) if announce else said)
        if where["browser"]:
            # Other users can read a browser's command line, where the address is: it admits once.
            open_browser(address + (opens() if opens else f"?token={site.tickets.issue()}"))
        front.run(
            app,
            listener=listener,
            stop_seconds=STOP_SECONDS,
            keep_alive_seconds=KEEP_ALIVE_SECONDS,
            finish=finish,
            finish_seconds=finish_seconds,
        )


def open_browser(address: str) -> None:
    """Opens a page, in a thread: it must not delay the server, and some browsers return when they close."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
