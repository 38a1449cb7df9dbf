"""Starts the server of a lesson, on loopback unless told otherwise."""

from __future__ import annotations

import getpass
import secrets
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from importlib import import_module

from starlette.types import ASGIApp

from headstart.lesson.engine import library
from headstart.lesson.engine.progress import Progress
from headstart.places import home_folder, make
from headstart.web import front
from headstart.web.addresses import address_of, is_loopback, listen, names_for
from headstart.web.app import create_app
from headstart.web.evidence import Evidence, Experiments
from headstart.web.jobs import Jobs
from headstart.web.security import Guarded
from headstart.web.site import Site, load_secret

BACKLOG = 1024
"""Connections that wait to be taken: a whole class opens the first page in the same second."""

KEEP_ALIVE_SECONDS = 180
"""Longer than a problem lasts: an answer must not meet a connection that is just being closed."""

STOP_SECONDS = 2.0
"""For pages under way to be answered in the end; streams of news have none."""


def prepare(pack: str | None, *, host: str, token: str | None = None) -> Site:
    """The site of a lesson.

    Args:
        pack: a bundled lesson's name, a folder, or None for the default.
        host: where the server listens; beyond loopback every browser is a learner of its own.
        token: what every browser must bring; a new one unless given. On loopback too: the machine's other
            users can reach it.

    Raises LessonError for an unusable pack or progress database.
    """
    lesson = library.load_pack(pack) if pack else library.load_pack()
    home = home_folder()
    make(home)
    local = is_loopback(host)
    return Site(
        pack=lesson,
        store=Progress.open(home / "progress.db"),
        home=home,
        secret=load_secret(home),
        jobs=Jobs(home / "jobs.db"),
        evidence=Evidence(experiments_room()),
        learner=getpass.getuser() if local else None,
        names=names_for(host),
        token=token or secrets.token_urlsafe(16),
    )


def experiments_room() -> Experiments | None:
    """The experiments, or None where they are not installed."""
    try:
        experiments: Experiments = import_module("headstart.lesson.experiments")
        experiments.registry()
    except (ImportError, AttributeError):
        return None
    return experiments


def serve(pack: str | None, *, host: str, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serves a lesson until Ctrl-C.

    Args:
        pack: see `prepare`.
        host: where to listen.
        port: 0 takes any free one.
        browser: whether to open the first page.
        say: tells the learner the address.

    Raises OptionError where the port cannot be used.
    """
    site = prepare(pack, host=host)
    run(
        create_app(site),
        site,
        host=host,
        port=port,
        browser=browser,
        say=lambda address: say(f"{site.pack.title}: {address}  (Ctrl-C stops; nothing is lost)"),
    )


def run(
    app: ASGIApp,
    site: Guarded,
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
