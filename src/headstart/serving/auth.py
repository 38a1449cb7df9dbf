"""Who may ask: the Host header must name us, a page must be ours, beyond loopback a token is needed."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.web.addresses import Names
from headstart.web.front import check_host_and_origin, take_cookie

OPEN = frozenset({"/health"})
"""Asked by load balancers, which have no token; it tells nothing but that the server is there."""

HEADERS: Mapping[bytes, bytes] = {
    b"cache-control": b"no-store",
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
}


_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-max-age": "600",
}


class AuthMiddleware:
    """Middleware: Host, origin and token, in this order; and the response's headers.

    Pages of ``origins`` may ask and read the answer, by the browsers' protocol of CORS.
    """

    def __init__(
        self, app: ASGIApp, *, names: Names, token: str | None, origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.names, self.origins = names, frozenset(origins)
        self.token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dress(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = {**HEADERS, **allowed, **dict(message.get("headers", ()))}
                message["headers"] = list(more.items())
            await send(message)

        take_cookie(scope, "")  # none is ours
        allowed = self._allowed(headers_of(scope).get(b"origin", b""))
        await (self._refusal(scope) or self.app)(scope, receive, dress)

    def _allowed(self, origin: bytes) -> dict[bytes, bytes]:
        """What tells a browser that a page of another site may read the answer."""
        if not self.origins:
            return {}
        told = {b"vary": b"origin"}
        if origin.decode("latin-1").lower() in self.origins:
            told[b"access-control-allow-origin"] = origin
            told[b"cross-origin-resource-policy"] = b"cross-origin"
            told[b"access-control-expose-headers"] = b"retry-after"
        return told

    def _refusal(self, scope: Scope) -> Response | None:
        found = check_host_and_origin(scope, self.names, origins=self.origins)
        if found is not None:
            way_out = "; headstart serve --allow-host NAME" if found.status == 421 else ""
            return refusal(found.status, f"{found.text}{way_out}")
        heads = headers_of(scope)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in heads and self.origins:
            return Response(status_code=204, headers=_PREFLIGHT)
        if self.token and scope["path"] not in OPEN and not self._is_known(heads):
            answer = refusal(401, "expected the header Authorization: Bearer TOKEN with this server's token")
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        return None

    def _is_known(self, heads: Mapping[bytes, bytes]) -> bool:
        scheme, _, sent = heads.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), self.token or b"")


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """A request's headers by name, in lower case; of several with one name the first."""
    return dict(reversed(scope["headers"]))


def refusal(status: int, text: str, *, retry_after: int | None = None) -> JSONResponse:
    """The one form that every error has."""
    headers = {"retry-after": str(retry_after)} if retry_after else None
    return JSONResponse({"error": text}, status, headers=headers)
