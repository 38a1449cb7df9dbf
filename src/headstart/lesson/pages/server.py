"""Starts the server of a lesson, on loopback unless told otherwise."""

from __future__ import annotations

from contextlib import suppress
from typing import Unpack

from headstart.errors import HeadstartError
from headstart.lesson import experiments
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.catalogue import Catalogue
from headstart.lesson.pages.experiments import measure_quick
from headstart.lesson.pages.site import LessonSite
from headstart.web.jobs import Jobs
from headstart.web.server import Where, run
from headstart.web.site import site_options


def prepare(pack: str | None, *, host: str, token: str | None = None) -> LessonSite:
    """The site of a lesson.

    Args:
        pack: a bundled lesson's name, a folder, or None for the default.
        host: where the server listens; beyond loopback every browser is a learner of its own.
        token: what every browser must bring; a new one unless given.

    Raises LessonError for an unusable pack or progress database.
    """
    lesson = library.load_pack(pack) if pack else library.load_pack()
    options = site_options(host, token=token)
    home = options["home"]
    return LessonSite(
        **options,
        pack=lesson,
        store=Progress.open(),
        jobs=Jobs(home),
        catalogue=Catalogue(experiments),
    )


def serve(pack: str | None, **where: Unpack[Where]) -> None:
    """Serves a lesson until Ctrl-C; ``pack`` as in `prepare`. Quick experiments run by themselves.

    Raises OptionError where the port cannot be used.
    """
    site = prepare(pack, host=where["host"])
    app = create_app(site)
    with suppress(HeadstartError):  # the queue cannot be written: the pages say so
        measure_quick(site)
    run(app, site, title=site.pack.title, **where)
