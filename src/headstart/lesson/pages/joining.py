"""Pages on which a learner joins a class, goes on at another device, and leaves.

Nothing else is shown to a browser that is in no class, where classes are served (`site.door`). Codes are
short, so who guesses is slowed down.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from headstart.lesson.engine.classes import Member
from headstart.lesson.engine.rosters import JoinRefused
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import page
from headstart.web.addresses import is_loopback, own_address
from headstart.web.app import leave
from headstart.web.security import SessionOf, become, become_nobody

router = APIRouter()

DOOR = "/join"


async def _door(site: SiteOf) -> LessonSite:
    if not site.door:
        raise HTTPException(404)
    return site


DoorOf = Annotated[LessonSite, Depends(_door)]


def address_of(request: Request) -> str:
    """The address of this server as other machines know it."""
    url = request.url
    host = own_address() if is_loopback(url.hostname or "") else url.hostname
    return f"{url.scheme}://{f'[{host}]' if ':' in str(host) else host}" + (
        f":{url.port}" if url.port else ""
    )


@router.get(DOOR)
async def join_page(request: Request, site: DoorOf, session: SessionOf, code: str = "") -> Response:
    """Where one joins a class; who is in one goes on."""
    if site.standing(session.learner) is not None:
        return RedirectResponse("/me", 303)
    return page(request, "join.html", code=code[:12], name="", told="")


@router.post(DOOR)
def join(
    request: Request, site: DoorOf, code: Annotated[str, Form()] = "", name: Annotated[str, Form()] = ""
) -> Response:
    """Joins the class of a code."""
    _check_pace(request, site)
    one = site.classes.by_code(code)
    if one is None or one.pack != site.pack.slug:
        site.guesses.note(request)
        told = "No class has this code. It has six letters; ask your teacher."
        return page(request, "join.html", code=code[:12], name=name[:80], told=told, status=400)
    try:
        member = site.classes.join(one, name, now=site.clock())
    except JoinRefused as refused:
        told = f"{str(refused)[:1].upper()}{str(refused)[1:]}."
        return page(request, "join.html", code=code[:12], name=name[:80], told=told, status=409)
    return _enter(request, site, member)


@router.post(f"{DOOR}/again")
def go_on(request: Request, site: DoorOf, personal: Annotated[str, Form()] = "") -> Response:
    """Goes on at another device, with a personal code."""
    _check_pace(request, site)
    member = site.classes.by_personal_code(personal, now=site.clock())
    if member is None or site.standing(member.learner) is None:
        site.guesses.note(request)
        told = "Nobody has this personal code. It has eight letters; your teacher can give you a new one."
        return page(request, "join.html", code="", name="", told=told, status=400)
    become(request, member.learner)
    return leave(request, "/")


def _check_pace(request: Request, site: LessonSite) -> None:
    if site.guesses.too_many(request):
        raise HTTPException(429, "Too many wrong codes came from here. Wait a minute and try again.")


def _enter(request: Request, site: LessonSite, member: Member) -> Response:
    become(request, member.learner)
    site.codes.keep(site.classes.give_code(member.learner), name=member.learner)
    return leave(request, "/me")


@router.get("/me")
async def own_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Who one is in which class, and how one goes on at another device."""
    found = site.standing(session.learner)
    if found is None:
        raise HTTPException(404)
    one, member = found
    return page(
        request,
        "me.html",
        one=one,
        member=member,
        code=site.codes.peek(member.learner),
        address=f"{address_of(request)}{DOOR}",
    )


@router.post("/me/code")
async def new_code(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Makes a new personal code; the one before no longer counts."""
    if site.standing(session.learner) is None:
        raise HTTPException(404)
    code = await run_in_threadpool(site.classes.give_code, session.learner)
    site.codes.keep(code, name=session.learner)
    return leave(request, "/me")


@router.post("/me/leave")
async def go_out(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Leaves this browser, so that somebody else can use it; the learner stays in the class."""
    if site.standing(session.learner) is None:
        raise HTTPException(404)
    become_nobody(request)
    return leave(request, DOOR)
