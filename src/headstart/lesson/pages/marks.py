"""A teacher's page of marks: shown, and saved as a file."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from headstart.lesson.engine import marks
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
    return marks.of_class(members, states_of(site, members), problems=problems_of(site))


def problems_of(site: LessonSite) -> list[str]:
    """The slugs of the challenge's problems."""
    return [problem.slug for problem in site.pack.problems(CHALLENGE)]


@router.get("/classes/{identity}/marks")
def marks_page(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """Everybody's mark, and where they may go."""
    return page(request, "class_marks.html", one=one, marks=of_class(site, one))


@router.get("/classes/{identity}/marks.{kind}")
def marks_file(site: SiteOf, one: ClassOf, kind: str) -> Response:
    """The marks as a file."""
    ending = f".{kind}"
    if ending not in _SAVED:
        raise HTTPException(404)
    data = marks.as_file(of_class(site, one), ending, problems=problems_of(site))
    return _SAVED[ending](data, f"{one.name}{ending}")
