"""A teacher's page of marks: shown, saved as a file, sent to the platform whose course the class is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import Response

from headstart.errors import LessonError
from headstart.lesson.engine import lti, lti_services, marks
from headstart.lesson.engine.attempts import POINTS
from headstart.lesson.engine.classes import Class
from headstart.lesson.pages.classes import CHALLENGE, ClassOf, states_of
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import page
from headstart.web import downloads

router = APIRouter()

_SAVED = {".csv": downloads.table, ".xlsx": downloads.workbook}


def of_class(site: LessonSite, one: Class) -> list[marks.Mark]:
    """The marks of a class."""
    members = site.classes.members(one.id)
    return marks.of_class(members, states_of(site, one, members), problems=problems_of(site))


def problems_of(site: LessonSite) -> list[str]:
    """The slugs of the challenge's problems."""
    return [problem.slug for problem in site.pack.problems(CHALLENGE)]


@router.get("/classes/{identity}/marks")
def marks_page(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """Everybody's mark, and where they may go."""
    return _shown(request, site, one, told="")


def _shown(request: Request, site: LessonSite, one: Class, *, told: str, status: int = 200) -> Response:
    platforms = lti.Platforms(site.store)
    known = {platform.id: platform for platform in platforms.all()}
    links = [(link, known[link.platform]) for link in platforms.links(one.id) if link.platform in known]
    found = of_class(site, one)
    return page(request, "class_marks.html", status=status, one=one, marks=found, links=links, told=told)


@router.get("/classes/{identity}/marks.{kind}")
def marks_file(site: SiteOf, one: ClassOf, kind: str) -> Response:
    """The marks as a file."""
    ending = f".{kind}"
    if ending not in _SAVED:
        raise HTTPException(404)
    data = marks.as_file(of_class(site, one), ending, problems=problems_of(site))
    return _SAVED[ending](data, f"{one.name}{ending}")


@router.post("/classes/{identity}/marks/send")
def exchange(
    request: Request,
    site: SiteOf,
    one: ClassOf,
    platform: Annotated[str, Form()],
    context: Annotated[str, Form()],
    what: Annotated[str, Form()],
) -> Response:
    """Sends the marks to a course, or fetches its names."""
    platforms = lti.Platforms(site.store)
    known = platforms.get(platform)
    link = platforms.link(known, context) if known else None
    if known is None or link is None or link.class_id != one.id or what not in ("marks", "names"):
        raise HTTPException(404)
    services = lti_services.Services(known, lti.ToolKeys(site.home), now=site.clock())
    try:
        if what == "names":
            came = services.enrol(link, site.classes, one)
            told = f"{came} of the course are in the class now."
        else:
            found = of_class(site, one)
            possible = POINTS * len(problems_of(site))
            made = services.column(link, title=site.pack.title, possible=possible)
            link = platforms.revise(
                known, made, lambda there: replace(there, lineitem=there.lineitem or made.lineitem)
            )
            sent = services.send(link, found)
            told = f"Marks of {sent.marks} learners were sent" + (
                f", {sent.refused} refused: {sent.why}." if sent.refused else "."
            )
    except LessonError as error:
        return _shown(request, site, one, told=f"{str(error)[:1].upper()}{str(error)[1:]}.", status=502)
    return _shown(request, site, one, told=told)
