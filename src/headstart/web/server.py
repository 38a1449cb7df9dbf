"""Starts the server of a lesson, on loopback unless told otherwise."""

from __future__ import annotations

import getpass
import secrets
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from importlib import import_module

import uvicorn
from starlette.types import ASGIApp

from headstart.hosts import address_of, is_loopback, listen, names_for
from headstart.lessons import library
from headstart.lessons.progress import Progress
from headstart.places import home_folder, make
from headstart.web.app import create_app
from headstart.web.evidence import Evidence, Experiments
from headstart.web.jobs import Jobs
from headstart.web.site import Site, load_secret

BACKLOG = 1024
"""Connections that wait to be taken: a whole class opens the first page in the same second."""

KEEP_ALIVE_SECONDS = 180
"""Longer than a problem lasts: an answer must not meet a connection that is just being closed."""


def prepare(pack: str | None, *, host: str, token: str | None = None) -> Site:
    """The site of a lesson.

    Args:
        pack: a bundled lesson's name, a folder, or None for the default.
        host: where the server listens; beyond loopback every browser is a learner of its own.
        token: what such a browser must bring; a new one unless given.

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
        token=None if local else token or secrets.token_urlsafe(16),
    )


def experiments_room() -> Experiments | None:
    """The experiments, or None where they are not installed."""
    try:
        experiments: Experiments = import_module("headstart.lessons.experiments")
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

    def listening(address: str) -> None:
        say(f"{site.pack.title}: {address}  (Ctrl-C stops; nothing is lost)")
        if browser:
            open_browser(address)

    run(create_app(site), host=host, port=port, token=site.token, listening=listening)


def open_browser(address: str) -> None:
    """Opens a page, in a thread: it must not delay the server, and some browsers return when they close."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def run(
    app: ASGIApp, *, host: str, port: int, token: str | None = None, listening: Callable[[str], None]
) -> None:
    """Serves an application until Ctrl-C.

    Args:
        app: the application.
        host: where to listen.
        port: 0 takes any free one.
        token: part of the address, where one is needed.
        listening: told the address once connections are taken.

    Raises OptionError where the port cannot be used.
    """
    with closing(listen(host, port, backlog=BACKLOG)) as listener:
        listening(address_of(host, listener.getsockname()[1], token=token))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])
