"""Runs the application: listens, stops gracefully, says where it is."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import closing

from headstart.serving.app import create_app
from headstart.serving.limits import Limits
from headstart.serving.models import Models, Place
from headstart.web.addresses import address_of, checked_origins, is_loopback, listen, names_for
from headstart.web.front import run

KEEP_ALIVE_SECONDS = 30
BACKLOG = 512
"""Connections that the system holds until they are taken."""

STOP_SECONDS = 25.0
"""For requests under way to be answered after SIGTERM; then they are dropped. After 30 s all has ended."""


def serve(
    place: Place,
    *,
    host: str,
    port: int,
    token: str | None,
    also: tuple[str, ...],
    limits: Limits,
    watch_seconds: float,
    origins: tuple[str, ...],
    access_log: bool,
    say: Callable[[str, str, str | None], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are answered first.

    Args:
        place: where the classifier lies.
        host: where to listen.
        port: 0 takes any free one.
        token: what clients must bring; beyond loopback one is made up where this is None.
        also: further names that the Host header may say.
        limits: what is taken on.
        watch_seconds: between looks for a newer classifier; 0 looks only when SIGHUP says so.
        origins: of other sites whose pages may ask.
        access_log: whether a line for each request is written to stderr.
        say: is told address, run and token once connections are taken.

    Raises:
        OptionError: the port cannot be used, or an origin is none.
        RunError: there is no usable classifier.
    """
    for parser in ("PIL", "python_multipart"):  # what is wrong with a request is told to whoever sent it
        logging.getLogger(parser).setLevel(logging.CRITICAL)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    models = Models(place, batch=limits.batch)
    app = create_app(
        models,
        limits=limits,
        names=names_for(host, also=also),
        token=token,
        watch_seconds=watch_seconds,
        origins=checked_origins(origins),
        access_log=access_log,
    )
    with closing(listen(host, port, backlog=BACKLOG)) as listener:
        say(address_of(host, listener.getsockname()[1]), models.current.run, token)
        run(app, listener=listener, stop_seconds=STOP_SECONDS, keep_alive_seconds=KEEP_ALIVE_SECONDS)
