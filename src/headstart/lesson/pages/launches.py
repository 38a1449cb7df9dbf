"""Where a learning platform's launches arrive: before the session, as they come from another site's page.

A launch that holds gives its browser a ticket of one use, and with it the session that the lesson's pages
ask for.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from html import escape
from typing import Any
from unicodedata import normalize
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headstart.errors import HeadstartError, LessonError
from headstart.lesson.engine import lti
from headstart.lesson.engine.asking import ask
from headstart.lesson.engine.attempts import POINTS
from headstart.lesson.engine.classes import Class
from headstart.lesson.engine.lti import LaunchRefused, Link, Platform
from headstart.lesson.engine.lti_launches import (
    DEEP,
    PENDING,
    Launch,
    Login,
    Logins,
    check_launch,
    deep_link_answer,
)
from headstart.lesson.engine.rosters import clean
from headstart.lesson.pages.site import LessonSite
from headstart.web.front import check_host_and_origin, take_cookie
from headstart.web.security import HEADERS, LARGEST_FORM
from headstart.web.site import TICKET_SECONDS, ticket_cookie

PLACE = "/lti/"
_COOKIE = "headstart_lti_"


class Launches:
    """Middleware: takes the requests of platforms, and leaves all others to the application.

    Args:
        app: the lesson's.
        site: what it serves.
    """

    def __init__(self, app: ASGIApp, *, site: LessonSite) -> None:
        self.app, self.site = app, site
        self.platforms = lti.Platforms(site.store)
        self.logins = Logins()
        self.keys = lti.PlatformKeys(lambda address: ask(address).body)
        self.own_keys = lti.ToolKeys(site.home)
        self._turn = threading.Lock()
        self._pages = Starlette(
            routes=[
                Route(f"{PLACE}login", self.login, methods=["GET", "POST"]),
                Route(f"{PLACE}launch", self.launch, methods=["POST"]),
                Route(f"{PLACE}keys", self.public_keys),
            ],
            exception_handlers={HeadstartError: _refuse},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is asked below `PLACE`."""
        if scope["type"] != "http" or not scope["path"].startswith(PLACE):
            await self.app(scope, receive, send)
            return
        foreign = check_host_and_origin(scope, self.site.names)
        refusal = None
        if foreign is not None and foreign.status != 403:  # launches are from another site's page
            refusal = PlainTextResponse(foreign.text, foreign.status)
        elif scope["method"] == "POST" and not _is_short(scope):
            refusal = PlainTextResponse("The form has no length, or too large a one.", 413)
        elif scope["method"] == "POST" and not _is_plain(scope):
            refusal = PlainTextResponse("Expected a form of the type application/x-www-form-urlencoded.", 415)

        async def dress(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                more = {**HEADERS, "cache-control": "no-store"}
                message["headers"] += [
                    (name.encode(), value.encode())
                    for name, value in more.items()
                    if name.encode() not in there
                ]
            await send(message)

        await (refusal or self._pages)(scope, receive, dress)

    async def login(self, request: Request) -> Response:
        """Begins a login: sends the browser to the platform, which knows who its user is."""
        given = request.query_params if request.method == "GET" else await request.form()
        asked = {
            name: str(given.get(name, "")) for name in ("iss", "client_id", "login_hint", "target_link_uri")
        }
        platform = await run_in_threadpool(self.platforms.of_login, asked["iss"], asked["client_id"])
        if not asked["login_hint"]:
            raise LaunchRefused("the platform does not say for whom it asks", reason="hint")
        begun = self.logins.begin(platform, now=self.site.clock())
        query = {
            "scope": "openid",
            "response_type": "id_token",
            "response_mode": "form_post",
            "prompt": "none",
            "client_id": platform.client,
            "redirect_uri": platform.at("launch"),
            "login_hint": asked["login_hint"],
            "state": begun.state,
            "nonce": begun.nonce,
        }
        if (hint := given.get("lti_message_hint")) is not None:
            query["lti_message_hint"] = str(hint)
        joint = "&" if urlsplit(platform.login).query else "?"
        answer = RedirectResponse(f"{platform.login}{joint}{urlencode(query)}", 302)
        seconds = int(PENDING.total_seconds())
        _keep(answer, _cookie(begun.state), begun.browser, seconds=seconds, path=PLACE)
        return answer

    async def launch(self, request: Request) -> Response:
        """Ends a login: lets who comes into the class of their course, or puts a link into it."""
        form = await request.form()
        if error := form.get("error"):
            raise LaunchRefused(f"the platform does not let you in: {str(error)[:100]}", reason="error")
        state, token = str(form.get("state", "")), str(form.get("id_token", ""))
        browser = take_cookie(request.scope, _cookie(state))
        login = self.logins.end(state, browser, now=self.site.clock())
        return await run_in_threadpool(self._let_in, login, token)

    def _let_in(self, login: Login, token: str) -> Response:
        now, platform = self.site.clock(), login.platform
        came = check_launch(token, login=login, keys=self.keys, now=now)
        if came.message == DEEP:
            if not came.teaches:
                raise LaunchRefused("only who teaches the course can put the lesson into it", reason="role")
            return self._deep_link(came, platform)
        with self._turn:  # of two who come first, one makes the class
            link, one = self._course(came, platform)
            self.platforms.revise(platform, link, came.updated)
        classes = self.site.classes
        if came.teaches:
            return self._led_to(f"/classes/{one.id}", teaches=classes.proof(one))
        member = classes.admit(one, reference=platform.reference(came.subject), name=came.name, now=now)
        return self._led_to("/", learner=member.learner)

    def _led_to(self, page: str, **grants: str) -> Response:
        """Leads this browser, and no other that has the address, to a page with what a ticket gives."""
        browser = secrets.token_urlsafe(24)
        ticket = self.site.tickets.issue(browser=browser, **grants)
        answer = RedirectResponse(f"{page}?token={ticket}", 303)
        _keep(answer, ticket_cookie(ticket), browser, seconds=TICKET_SECONDS, path="/")
        return answer

    def _course(self, came: Launch, platform: Platform) -> tuple[Link, Class]:
        """The class of a course; a new one where none is there yet."""
        classes = self.site.classes
        link = self.platforms.link(platform, came.context)
        one = classes.get(link.class_id) if link else None
        if link is None or one is None:
            named = normalize("NFC", " ".join(came.title.split())) or "Course"
            taken = {each.name.casefold() for each in classes.all()}
            names = (named, *(f"{named[:70]} ({number})" for number in range(2, 1000)))
            name = next(each for each in names if clean(each[:80]).casefold() not in taken)[:80]
            one, _ = classes.create(name, pack=self.site.pack.slug, now=self.site.clock())
            return Link(platform.id, one.id, came.context), one
        if one.pack != self.site.pack.slug:
            raise LessonError(f"this course learns {one.pack!r}, and this server has another lesson")
        return link, one

    def _deep_link(self, came: Launch, platform: Platform) -> Response:
        pack = self.site.pack
        points = POINTS * len(pack.problems("challenge"))
        token = deep_link_answer(
            came, platform, self.own_keys, title=pack.title, points=points, now=self.site.clock()
        )
        target = str(came.settings["deep_link_return_url"])
        parts = urlsplit(target)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>Headstart</title><h1>{escape(pack.title)}</h1><p>{escape(pack.summary)}</p>"
            f'<form method="post" action="{escape(target)}">'
            f'<input type="hidden" name="JWT" value="{escape(token)}">'
            "<button>Put this lesson into the course</button></form>"
        )
        policy = (
            HEADERS["content-security-policy"]
            .replace("form-action 'self'", f"form-action {parts.scheme}://{parts.netloc}")
            .replace("frame-ancestors 'none'", f"frame-ancestors {parts.scheme}://{parts.netloc}")
        )
        return HTMLResponse(page, headers={"content-security-policy": policy})

    async def public_keys(self, request: Request) -> Response:
        """Our keys, for platforms."""
        return JSONResponse(await run_in_threadpool(self.own_keys.public))


def _cookie(state: str) -> str:
    return _COOKIE + hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _keep(answer: Response, name: str, value: str, *, seconds: int, path: str) -> None:
    """A cookie that is sent along from the platform's page: not SameSite=Lax or Strict, and so Secure."""
    answer.set_cookie(name, value, max_age=seconds, path=path, secure=True, httponly=True, samesite="none")


def _is_plain(scope: Scope) -> bool:
    """Whether a form is of the type that platforms send: in another one a text may be anything."""
    types = [value.partition(b";")[0] for name, value in scope["headers"] if name == b"content-type"]
    return [each.strip().lower() for each in types] == [b"application/x-www-form-urlencoded"]


def _is_short(scope: Scope) -> bool:
    lengths = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-length"]
    digits = lengths[0] if len(lengths) == 1 else ""
    return digits.isascii() and digits.isdigit() and len(digits) < 9 and int(digits) <= LARGEST_FORM


async def _refuse(request: Request, error: Exception) -> Response:
    said = f"{str(error)[:1].upper()}{str(error)[1:]}."
    return PlainTextResponse(said, 400 if isinstance(error, LaunchRefused) else 503)
