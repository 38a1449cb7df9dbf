"""Session cookies, CSRF tokens, access tokens, sizes of forms, and security headers.

A server on loopback is within reach of every page that the learner's browser opens, and of the machine's
other users. Hence: the Host header must name us (DNS rebinding), a browser must have brought the access
token, a form must carry a token bound to the session (CSRF), the session cookie is signed, and the content
policy lets pages load nothing but our files.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from html import escape
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends, HTTPException, Request
from itsdangerous import BadData, URLSafeSerializer
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.errors import HeadstartError
from headstart.web.front import check_host_and_origin, is_cross_site, take_cookie
from headstart.web.site import Site, ticket_cookie

COOKIE_SECONDS = 365 * 24 * 3600
LARGEST_FORM = 65_536
"""Bytes; the lesson's largest form has a few hundred."""

MOST_FILES = 5_000
"""How many files one form may bring; their bytes are limited before they are read."""

MOST_FIELDS = 100
"""Of a form that brings files, besides these."""

KNOWN_COOKIES = 1024
"""So many cookies are read and checked once."""

LONGEST_COOKIE = 4096
"""Letters of ours: browsers keep no longer ones."""

MOST_CLASSES = 8
"""Whose teacher one browser is: the cookie has to hold a proof of each."""

_LONGEST_NUMBER = 18
"""Digits of a form's length."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Session:
    """What the signed cookie says.

    Attributes:
        learner: whose pages these are.
        nonce: binds forms to this browser.
        admitted: proves that the browser has brought the access token of the server that runs now.
        teaches: proves of classes that their teachers' tokens were brought, with blanks between.
    """

    learner: str
    nonce: str
    admitted: str = ""
    teaches: str = ""


def become(request: Request, learner: str) -> None:
    """Makes the browser a learner's from the answer on; forms of before no longer count."""
    known = session_of(request)
    request.scope["headstart_session"] = replace(known, learner=learner, nonce=secrets.token_hex(16))


def become_nobody(request: Request) -> None:
    """Makes the browser a stranger's from the answer on."""
    request.scope["headstart_session"] = Session(f"guest-{secrets.token_hex(8)}", secrets.token_hex(16))


def csrf_token(site: Site, session: Session) -> str:
    """The token that every form of this session carries."""
    return _digest(site, f"csrf/{session.nonce}")


def _digest(site: Site, text: str) -> str:
    """What only who holds the secret can say of a text."""
    return hmac.new(site.secret, text.encode(), hashlib.sha256).hexdigest()


def site_of(request: Request) -> Site:
    """The site that the application serves."""
    site: Site = request.app.state.site
    return site


def session_of(request: Request) -> Session:
    """The session that `SessionMiddleware` has checked."""
    session: Session = request.scope["headstart_session"]
    return session


# FastAPI hands a plain function to a thread, which costs more than this takes.
async def _session(request: Request) -> Session:
    return session_of(request)


SessionOf = Annotated[Session, Depends(_session)]


async def check_csrf(request: Request) -> AsyncIterator[None]:
    """Refuses a form without this session's CSRF token; closes its files afterwards."""
    if request.method in SAFE:
        yield
        return
    wanted = csrf_token(site_of(request), session_of(request))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data" and getattr(request, "_form", None) is None:
        # Read by us and not by `request.form`, which keeps gigabytes before the token can be looked at.
        request._form = await _read_files(request, wanted=wanted)
    async with request.form() as form:
        if not _is_token(form.get("csrf"), wanted=wanted):
            raise _out_of_date()
        yield


def _is_token(sent: Any, *, wanted: str) -> bool:
    return isinstance(sent, str) and hmac.compare_digest(
        sent.encode("utf-8", "surrogatepass"), wanted.encode()
    )


def _out_of_date() -> HTTPException:
    return HTTPException(403, "This page is out of date. Go back, reload it and try again.")


async def _read_files(request: Request, *, wanted: str) -> Any:
    try:
        return await _Files(request, wanted=wanted).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"This form is malformed: {error.message}") from None
    except ValueError:  # of a charset that decodes nothing
        raise HTTPException(400, "This form is malformed: its text cannot be read.") from None


class _Files(MultiPartParser):
    """Parses a multipart form; stops where its first part is not the session's token."""

    def __init__(self, request: Request, *, wanted: str) -> None:
        super().__init__(
            request.headers,
            request.stream(),
            max_files=MOST_FILES,
            max_fields=MOST_FIELDS,
            max_part_size=LARGEST_FORM,
        )
        self._wanted, self._proved = wanted, False

    def on_headers_finished(self) -> None:
        """The name of a part is known."""
        super().on_headers_finished()
        if not self._proved and (self._current_part.file or self._current_part.field_name != "csrf"):
            raise _out_of_date()

    def on_part_end(self) -> None:
        """The content of a part is known."""
        super().on_part_end()
        if not self._proved and not _is_token(self.items[0][1], wanted=self._wanted):
            raise _out_of_date()
        self._proved = True


class SessionMiddleware:
    """Middleware: Host, Origin, size, session and access token, in this order; and the response's headers.

    A browser sends the cookies of one host to all of its ports. So each application has a cookie of its own,
    and what admits a browser to one of them says nothing to another.

    Args:
        app: what is guarded.
        site: its names, secret and token.
        name: of the application.
        largest: how many bytes a form sent to a path may have now; so many may several large ones together.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        site: Site,
        name: str,
        largest: Callable[[str], int] = lambda path: LARGEST_FORM,
    ) -> None:
        self.app = app
        self.site = site
        self.largest = largest
        self.cookie = f"headstart_{name}_{_digest(site, 'cookie')[:8]}"
        self.serializer = URLSafeSerializer(site.secret, salt=f"headstart {name} session")
        self.admits = _digest(site, f"{name}/{site.token}") if site.token else ""
        self._arriving = 0
        self._known_session = lru_cache(maxsize=KNOWN_COOKIES)(self._read_session)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        browser = _browser(scope)
        cookie = take_cookie(scope, self.cookie)
        headers = Headers(scope=scope)
        session: Session | None = None
        known: Session | None = None
        refusal = self._refusal(scope, headers)
        if refusal is None:
            known = self._session(cookie)
            session = known or self._new_session()
            if self.site.token:
                session, refusal = self._admission(scope, session, browser=browser)
        scope["headstart_session"] = session

        async def dress(message: Message) -> None:
            if message["type"] == "http.response.start":
                now = scope["headstart_session"]
                self._dress(MutableHeaders(scope=message), scope, None if now == known else now)
            await send(message)

        arriving = 0 if refusal or scope["method"] in SAFE else int(headers["content-length"])
        self._arriving += arriving
        try:
            await (refusal or self.app)(scope, receive, dress)
        finally:
            self._arriving -= arriving

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        found = check_host_and_origin(scope, self.site.names)
        if scope["method"] in SAFE:
            if found is not None and found.status == 403:
                found = None  # reading tells another site's page nothing: the browser keeps it from that page
            return PlainTextResponse(found.text, found.status) if found else _bounced(scope)
        if found is not None:
            return PlainTextResponse(found.text, found.status)
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or len(length) > _LONGEST_NUMBER:
            return PlainTextResponse("The form's length is missing.", 411)
        allowed = self.largest(scope["path"])
        if int(length) > allowed or (int(length) > LARGEST_FORM and int(length) + self._arriving > allowed):
            return PlainTextResponse(f"The form has {length} bytes; {allowed} are allowed here now.", 413)
        return None

    def _session(self, cookie: str) -> Session | None:
        return self._known_session(cookie) if len(cookie) <= LONGEST_COOKIE else None

    def _read_session(self, cookie: str) -> Session | None:
        try:
            return Session(**self.serializer.loads(cookie)) if cookie else None
        except (BadData, TypeError):
            return None

    def _new_session(self) -> Session:
        return Session(self.site.learner or f"guest-{secrets.token_hex(8)}", secrets.token_hex(16))

    def _admission(
        self, scope: Scope, session: Session, *, browser: str
    ) -> tuple[Session | None, Response | None]:
        """The session with its proof of admission, or None; and what to answer instead of the page."""
        if scope["path"].startswith("/static/"):
            return session, None  # whose cookie is not sent
        try:
            known = hmac.compare_digest(session.admitted, self.admits) or self.site.welcomes(
                session.learner, session.teaches
            )
            sent = _sent(scope)
            grants = None if sent is None else self.site.grants(sent, browser=browser)
        except HeadstartError as error:  # the store cannot be read
            return None, PlainTextResponse(f"{error}.", 503)
        if sent is None and known:
            return session, None
        if not known and grants is None:
            return self._asks_to_be_let_in(scope, session)
        rest = urlencode([pair for pair in _query(scope) if pair[0] != "token"])
        target = quote("/" + scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
        if learner := (grants or {}).get("learner"):  # nothing of who was here before counts any longer
            session = Session(learner, secrets.token_hex(16))
        teaches = [*session.teaches.split(), *(grants or {}).get("teaches", "").split()]
        kept = " ".join(dict.fromkeys(teaches[-MOST_CLASSES:]))
        admitted = self.admits if grants == {} else session.admitted  # a teacher is welcome for being one
        return replace(session, admitted=admitted, teaches=kept), RedirectResponse(target, 303)

    def _asks_to_be_let_in(self, scope: Scope, session: Session) -> tuple[Session | None, Response | None]:
        """Who has brought nothing sees the door, where there is one."""
        door, path = self.site.door, scope["path"]
        if door and (path == door or path.startswith(f"{door}/")):
            return session, None
        if door and scope["method"] in SAFE:
            return None, RedirectResponse(door, 303)
        text = "This page needs the access token. Open the address that the terminal printed."
        return None, PlainTextResponse(text, 401)

    def _dress(self, headers: MutableHeaders, scope: Scope, session: Session | None) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)  # a sandboxed page has a stricter policy of its own
        # Pages hold a learner's state, so they are never kept; files may be, but are asked for again.
        static = scope["path"].startswith("/static/")
        headers["cache-control"] = "no-cache" if static else "no-store"
        if session is not None and not static:
            value = self.serializer.dumps(asdict(session))
            headers.append(
                "set-cookie",
                f"{self.cookie}={value}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict",
            )


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"))


def _sent(scope: Scope) -> str | None:
    """The token or ticket in an address."""
    return dict(_query(scope)).get("token") if scope["method"] in SAFE else None


def _browser(scope: Scope) -> str:
    """The cookie that belongs to the ticket in an address."""
    sent = _sent(scope)
    return take_cookie(dict(scope), ticket_cookie(sent)) if sent else ""


def _bounced(scope: Scope) -> Response | None:
    """A page that asks for itself, where another site's link led here: such a request has no cookie."""
    heads = scope["headers"]
    if not is_cross_site(scope) or (b"sec-fetch-mode", b"navigate") not in heads:
        return None
    query = scope["query_string"].decode("latin-1")
    target = quote("/" + scope["path"].lstrip("/")) + (f"?{query}" if query else "")
    return HTMLResponse(f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(target)}">')
