"""Starts the server of a lesson, on loopback unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Unpack
from urllib.parse import urlsplit

from headstart.errors import HeadstartError, LessonError
from headstart.lesson import experiments
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.classes import Classes
from headstart.lesson.engine.lti import Platforms
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages import joining
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.catalogue import Catalogue
from headstart.lesson.pages.experiments import measure_quick
from headstart.lesson.pages.site import LessonSite
from headstart.web.addresses import names_for
from headstart.web.jobs import Jobs
from headstart.web.server import Where, run
from headstart.web.site import site_options


def prepare(
    pack: str | None, *, host: str, token: str | None = None, door: str = "", also: Sequence[str] = ()
) -> LessonSite:
    """The site of a lesson. Beside one that comes with Headstart the others stand, but not for a class.

    Args:
        pack: a bundled lesson's name, a folder, or None for the default.
        host: where the server listens; beyond loopback every browser is a learner of its own.
        token: what every browser must bring; a new one unless given.
        door: the page on which learners join, where a class is served.
        also: further names of a class's server, such as that of a proxy in front.

    Raises LessonError for an unusable pack or progress database.
    """
    lesson = library.load_pack(pack)
    bundled = library.available()
    beside = bundled if not door and (pack is None or pack in bundled) else []
    options = site_options(host, token=token)
    home, store = options["home"], Progress.open()
    if door:  # platforms send browsers to the name that this server has for them
        hosts = [urlsplit(one.tool).hostname or "" for one in Platforms(store).all()]
        options["names"] = names_for(host, also=[*hosts, *also])
        options["learner"] = None  # also on loopback, as behind a proxy
    return LessonSite(
        **options,
        door=door,
        pack=lesson,
        others=tuple(library.load_pack(name) for name in beside if name != lesson.slug),
        store=store,
        jobs=Jobs(home),
        catalogue=Catalogue(experiments),
    )


def serve(pack: str | None, *, token: str | None = None, **where: Unpack[Where]) -> None:
    """Serves a lesson until Ctrl-C; quick experiments run by themselves.

    Args:
        pack: as in `prepare`.
        token: likewise.
        where: see `Where`.

    Raises OptionError where the port cannot be used.
    """
    site = prepare(pack, host=where["host"], token=token)
    app = create_app(site)
    with suppress(HeadstartError):  # the queue cannot be written: the pages say so
        for each in (site, *site.beside()):
            measure_quick(each)
    run(app, site, title=site.pack.title, **where)


def serve_class(
    name: str | None,
    pack: str | None,
    *,
    also: Sequence[str] = (),
    draw: Callable[[str], None],
    **where: Unpack[Where],
) -> None:
    """Serves the classes of a lesson to other machines until Ctrl-C, and opens one's page for its teacher.

    Args:
        name: of the class; None where there is one alone.
        pack: the lesson's folder, where it is none of ours.
        also: as in `prepare`.
        draw: shows an address as a picture.
        where: see `Where`.

    Raises LessonError where there is no such class, or its lesson is another one.
    """
    with closing(Progress.open()) as store:
        one = Classes(store, b"").named(name)
    lesson = pack or (one.pack if one.pack in library.available() else None)
    if lesson is None:
        raise LessonError(f"class {one.name!r} learns {one.pack!r}; give the lesson's folder with --pack")
    site = prepare(lesson, host=where["host"], door=joining.DOOR, also=also)
    if site.pack.slug != one.pack:
        raise LessonError(f"class {one.name!r} learns {one.pack!r}, and {lesson} is {site.pack.slug!r}")

    def opens() -> str:
        return f"classes/{one.id}?token={site.tickets.issue(teaches=site.classes.proof(one))}"

    def announce(address: str) -> str:
        draw(f"{address}join?code={one.code}")
        return (
            f"{one.name}: learners open  {address}join  and type  {one.code}\n"
            f"the teacher's page, once: {address}{opens()}\n"
            f"from then on that browser is the teacher's; others bring the token that headstart class new "
            f"printed: {address}classes/{one.id}?token=TOKEN  (Ctrl-C stops; nothing is lost)"
        )

    run(create_app(site), site, title=one.name, announce=announce, opens=opens, **where)
