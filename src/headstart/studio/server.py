"""Starts the studio's server, on loopback unless told otherwise."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Unpack

from headstart.errors import OptionError, printable
from headstart.studio.app import create_studio
from headstart.studio.datasets import Collections
from headstart.studio.state import Studio
from headstart.web.jobs import Jobs
from headstart.web.server import Where, run
from headstart.web.site import site_options

STOP_SECONDS = 5.0
"""How long the end of the studio waits for the step that a job is at."""


def prepare(root: Path, *, host: str, token: str | None = None) -> Studio:
    """The studio of this machine.

    Args:
        root: what may be chosen lies below it.
        host: where the server listens.
        token: what every browser must bring; a new one unless given.

    Raises:
        OptionError: the root is no folder.
        RunError: the queue cannot be used.
    """
    if not root.is_dir():
        raise OptionError(f"--root {printable(root)}: no such folder")
    options = site_options(host, token=token)
    home = options["home"]
    return Studio(
        **options,
        root=root.resolve(),
        folder=Path.cwd(),
        collections=Collections(home / "studio" / "data"),
        work=Jobs(home),
        looks=Jobs(home, "looks"),
    )


def serve(root: Path, **where: Unpack[Where]) -> None:
    """Serves the studio until Ctrl-C.

    Raises:
        OptionError: the port or the root cannot be used.
    """
    studio = prepare(root, host=where["host"])
    run(
        create_studio(studio),
        studio,
        title=f"the studio over {printable(studio.root)}",
        finish=lambda: wind_down(studio),
        finish_seconds=2 * STOP_SECONDS,
        **where,
    )


def wind_down(studio: Studio) -> None:
    """Stops what runs here at its next sign of progress, so that it can go on; what waits stays on disk."""
    for queue in (studio.work, studio.looks):
        for job in queue.unfinished():
            if job.state == "running" and job.id in studio.live:
                queue.stop(job.id)
        closing = threading.Thread(target=queue.close, daemon=True)
        closing.start()
        closing.join(STOP_SECONDS)  # a step that takes longer is cut off, and shown as interrupted next time
