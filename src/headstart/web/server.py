"""Runs an application of pages: listens, prints the address, opens the browser."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing

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


def run(
    app: ASGIApp,
    site: Site,
    *,
    host: str,
    port: int,
    browser: bool,
    say: Callable[[str], None],
    finish: Callable[[], None] = lambda: None,
    finish_seconds: float = 0.0,
) -> None:
    """Serves an application of pages until Ctrl-C.

    Args:
        app: the application.
        site: its token, and the tickets of browsers that are opened.
        host: where to listen.
        port: 0 takes any free one.
        browser: whether to open the first page.
        say: told the address once connections are taken.
        finish: called in the end.
        finish_seconds: that it takes at most.

    Raises OptionError where the port cannot be used.
    """
    with closing(listen(host, port, backlog=BACKLOG)) as listener:
        taken = listener.getsockname()[1]
        say(address_of(host, taken, token=site.token))
        if browser:
            # Other users can read a browser's command line, where the address is: it admits once.
            open_browser(address_of(host, taken, token=site.tickets.issue()))
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
