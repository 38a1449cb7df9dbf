"""Who may ask: the Host header must name us, a page must be ours, beyond loopback a token is needed."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.hosts import Names

OPEN = frozenset({"/health"})
"""Asked by load balancers, which have no token; it tells nothing but that the server is there."""

HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Middleware: Host, origin and token, in this order; and the response's headers."""

    def __init__(self, app: ASGIApp, *, names: Names, token: str | None) -> None:
        self.app = app
        self.names = names
        self.token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dress(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, dress)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.names.admit(host):
            return refusal(421, "this server does not answer to that name; headstart serve --allow-host NAME")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return refusal(403, "a request from another site's page")
        if headers.get("sec-fetch-site") == "cross-site":
            return refusal(403, "a request from another site's page")
        if self.token and scope["path"] not in OPEN and not self._is_known(headers):
            answer = refusal(401, "expected the header Authorization: Bearer TOKEN with this server's token")
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        return None

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            sent.strip().encode("utf-8", "surrogateescape"), self.token or b""
        )


def refusal(status: int, text: str, *, retry_after: int | None = None) -> JSONResponse:
    """The one form that every error has."""
    headers = {"retry-after": str(retry_after)} if retry_after else None
    return JSONResponse({"error": text}, status, headers=headers)
