"""Who may talk to the server, and how a page proves that it is ours.

A server on loopback is within reach of every page that the learner's browser opens. Hence: the Host header
must name us (DNS rebinding), a form must carry a token bound to the session (CSRF), the session cookie is
signed, and the content policy lets pages load nothing but our files. Beyond loopback a browser needs a token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import Depends, HTTPException, Request
from itsdangerous import BadData, URLSafeSerializer
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.hosts import Names
from headstart.web.site import Site

COOKIE_SECONDS = 365 * 24 * 3600
LARGEST_FORM = 65_536
"""Bytes; the lesson's largest form has a few hundred."""

MOST_FILES = 5_000
"""How many files one form may bring; their bytes are limited before they are read."""

KNOWN_COOKIES = 1024
"""So many cookies are read and checked once."""

LONGEST_COOKIES = 4096
"""Letters of cookies that are remembered: whoever sends longer ones must not fill the memory with them."""

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


class Guarded(Protocol):
    """What guarding an application takes; `Site` says what each means."""

    @property
    def secret(self) -> bytes:
        """Signs cookies and forms."""

    @property
    def learner(self) -> str | None:
        """Whose pages these are on a machine of one's own."""

    @property
    def names(self) -> Names:
        """What a Host header may say."""

    @property
    def token(self) -> str | None:
        """What a browser must bring once."""


@dataclass(frozen=True)
class Session:
    """What the signed cookie says.

    Attributes:
        learner: whose pages these are.
        nonce: binds forms to this browser.
        admitted: proves that the browser has brought the access token of the server that runs now.
    """

    learner: str
    nonce: str
    admitted: str = ""


def csrf_token(site: Guarded, session: Session) -> str:
    """The token that every form of this session carries."""
    return _digest(site, f"csrf/{session.nonce}")


def _digest(site: Guarded, text: str) -> str:
    """What only who holds the secret can say of a text."""
    return hmac.new(site.secret, text.encode(), hashlib.sha256).hexdigest()


def site_of(request: Request) -> Site:
    """The site that the application serves."""
    site: Site = request.app.state.site
    return site


def guarded_of(request: Request) -> Guarded:
    """The same, as far as any of our applications has it."""
    site: Guarded = request.app.state.site
    return site


def session_of(request: Request) -> Session:
    """The session that `Doorkeeper` has checked."""
    session: Session = request.scope["headstart_session"]
    return session


# FastAPI hands a plain function to a thread, which costs more than these two take.
async def _site(request: Request) -> Site:
    return site_of(request)


async def _session(request: Request) -> Session:
    return session_of(request)


SiteOf = Annotated[Site, Depends(_site)]
SessionOf = Annotated[Session, Depends(_session)]


async def check_csrf(request: Request) -> AsyncIterator[None]:
    """Refuses a form that does not come from a page of this session; closes its files afterwards."""
    if request.method in SAFE:
        yield
        return
    async with request.form(max_files=MOST_FILES) as form:
        sent = form.get("csrf")
        wanted = csrf_token(guarded_of(request), session_of(request))
        if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), wanted.encode()):
            raise HTTPException(403, "This page is out of date. Go back, reload it and try again.")
        yield


class Doorkeeper:
    """Middleware: Host, Origin, size, session and access token, in this order; and the response's headers.

    A browser sends the cookies of one host to all of its ports. So each application has a cookie of its own,
    and what admits a browser to one of them says nothing to another.

    Args:
        app: what is guarded.
        site: its names, secret and token.
        name: of the application.
        largest: how many bytes a form sent to a path may have.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        site: Guarded,
        name: str,
        largest: Callable[[str], int] = lambda path: LARGEST_FORM,
    ) -> None:
        self.app = app
        self.site = site
        self.largest = largest
        self.cookie = f"headstart_{name}_{_digest(site, 'cookie')[:8]}"
        self.serializer = URLSafeSerializer(site.secret, salt=f"headstart {name} session")
        self.admits = _digest(site, f"{name}/{site.token}") if site.token else ""
        self._known_session = lru_cache(maxsize=KNOWN_COOKIES)(self._read_session)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        known = self._session(headers.get("cookie", ""))
        session = known or self._new_session()
        refusal = self._refusal(scope, headers)
        if refusal is None and not hmac.compare_digest(session.admitted, self.admits):
            session, refusal = self._admission(scope, session)
        scope["headstart_session"] = session

        async def dress(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(MutableHeaders(scope=message), scope, session if session != known else None)
            await send(message)

        await (refusal or self.app)(scope, receive, dress)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if len(headers.getlist("host")) > 1 or not self.site.names.admit(host):
            return PlainTextResponse("This server does not answer to that name.", 421)
        if scope["method"] in SAFE:
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("A form of another site.", 403)
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return PlainTextResponse("The form's length is missing.", 411)
        allowed = self.largest(scope["path"])
        if int(length) > allowed:
            return PlainTextResponse(f"The form has {length} bytes; {allowed} are allowed.", 413)
        return None

    def _session(self, cookies: str) -> Session | None:
        read = self._known_session if len(cookies) <= LONGEST_COOKIES else self._read_session
        return read(cookies)

    def _read_session(self, cookies: str) -> Session | None:
        try:
            cookie = SimpleCookie(cookies).get(self.cookie)
            return Session(**self.serializer.loads(cookie.value)) if cookie else None
        except (BadData, CookieError, TypeError):
            return None

    def _new_session(self) -> Session:
        return Session(self.site.learner or f"guest-{secrets.token_hex(8)}", secrets.token_hex(16))

    def _admission(self, scope: Scope, session: Session) -> tuple[Session, Response | None]:
        if scope["path"].startswith("/static/"):
            return session, None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        sent = dict(query).get("token", "")
        if not hmac.compare_digest(sent.encode(), (self.site.token or "").encode()):
            text = "This page needs the access token. Open the address that the terminal printed."
            return session, PlainTextResponse(text, 401)
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        target = quote("/" + scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
        admitted = Session(session.learner, session.nonce, admitted=self.admits)
        return admitted, RedirectResponse(target, 303)

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
                f"{self.cookie}={value}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax",
            )
