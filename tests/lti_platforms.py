"""A learning platform that tests run: it signs launches, gives access tokens, tells names and takes marks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CORE = "https://purl.imsglobal.org/spec/lti/claim/"
DEEP = "https://purl.imsglobal.org/spec/lti-dl/claim/"
AGS = "https://purl.imsglobal.org/spec/lti-ags/"
NRPS = "https://purl.imsglobal.org/spec/lti-nrps/"
ROLE = "http://purl.imsglobal.org/vocab/lis/v2/membership#"
TOOL = "https://127.0.0.1:8421"


@dataclass
class TestPlatform:
    """What the platform knows and was sent."""

    __test__ = False

    address: str = ""
    issuer: str = "https://campus.example"
    client: str = "tool-1"
    deployment: str = "7"
    keys: dict[str, Any] = field(default_factory=dict)
    columns: list[dict[str, Any]] = field(default_factory=list)
    scores: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    people: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[Mapping[str, Any]] = field(default_factory=list)
    key_requests: int = 0
    tool_keys: dict[str, Any] = field(default_factory=dict)
    broken: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    more_people: str = ""

    def new_key(self, name: str) -> None:
        """Another key, which signs from now on; those before are gone."""
        self.keys = {name: rsa.generate_private_key(65537, 2048)}

    @property
    def registration(self) -> dict[str, Any]:
        """What the tool is told."""
        return {
            "issuer": self.issuer,
            "client": self.client,
            "deployments": (self.deployment,),
            "login": f"{self.address}/auth?a=b",
            "token": f"{self.address}/token",
            "keys": f"{self.address}/keys",
            "tool": TOOL,
        }

    def claims(self, answers: str, *, now: float, **changes: Any) -> dict[str, Any]:
        """A learner's launch that answers a nonce, but for the changes; None leaves a claim out."""
        column = f"{self.address}/columns/1?type=a"
        found = {
            "iss": self.issuer,
            "aud": self.client,
            "sub": "29",
            "exp": now + 300,
            "iat": now,
            "nonce": answers,
            "name": "Ada Lovelace",
            f"{CORE}version": "1.3.0",
            f"{CORE}message_type": "LtiResourceLinkRequest",
            f"{CORE}deployment_id": self.deployment,
            f"{CORE}target_link_uri": f"{TOOL}/lti/launch",
            f"{CORE}resource_link": {"id": "link-1", "title": "The lesson"},
            f"{CORE}context": {"id": "course-1", "title": "Biology 10b"},
            f"{CORE}roles": [f"{ROLE}Learner"],
            f"{AGS}claim/endpoint": {
                "scope": [f"{AGS}scope/score", f"{AGS}scope/lineitem"],
                "lineitems": f"{self.address}/columns",
                "lineitem": column,
            },
            f"{NRPS}claim/namesroleservice": {
                "context_memberships_url": f"{self.address}/people",
                "service_versions": ["2.0"],
            },
        } | changes
        return {name: value for name, value in found.items() if value is not None}

    def sign(self, claims: Mapping[str, Any], *, algorithm: str = "RS256", **header: Any) -> str:
        """A token of the platform."""
        name, key = next(iter(self.keys.items()))
        heads = {name: value for name, value in ({"kid": name} | header).items() if value is not None}
        return jwt.encode(dict(claims), key, algorithm=algorithm, headers=heads)

    def begin(self, browser: Any, **changes: Any) -> dict[str, str]:
        """The login that a click in the course begins: what the tool asks of the platform."""
        form = {
            "iss": self.issuer,
            "client_id": self.client,
            "login_hint": "29",
            "target_link_uri": f"{TOOL}/lti/launch",
            "lti_message_hint": "m",
        } | changes
        answer = browser.post("/lti/login", data=form, follow_redirects=False)
        assert answer.status_code == 302, answer.text
        place, _, query = answer.headers["location"].partition("?")
        assert place == f"{self.address}/auth"
        return {name: values[0] for name, values in parse_qs(query).items()}

    def launch(self, browser: Any, *, now: float, follow: bool = False, **changes: Any) -> Any:
        """A whole launch, with changed claims."""
        asked = self.begin(browser)
        form = {
            "state": asked["state"],
            "id_token": self.sign(self.claims(asked["nonce"], now=now, **changes)),
        }
        return self.post(browser, form, follow=follow)

    def post(self, browser: Any, form: Mapping[str, str], *, follow: bool = False) -> Any:
        """The launch as the browser sends it from the platform's page."""
        heads = {"origin": self.issuer, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        answer = browser.post("/lti/launch", data=form, headers=heads, follow_redirects=False)
        if not follow or answer.status_code != 303:
            return answer
        target = answer.headers["location"]
        led = browser.get(target, headers=heads, follow_redirects=False)
        assert "http-equiv" in led.text, "from another site's page it asks for itself: no cookie came with it"
        return browser.get(target)

    # What the tool asks

    def answer(self, method: str, target: str, heads: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of an answer."""
        parts = urlsplit(target)
        if self.broken:
            return self.broken, {"location": "https://elsewhere.example/"}, {"error": "broken"}
        if parts.path == "/keys":
            self.key_requests += 1
            jwks = [
                {
                    **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
                    "kid": name,
                    "alg": "RS256",
                }
                for name, key in self.keys.items()
            ]
            return 200, {}, {"keys": jwks}
        if parts.path == "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            kid = jwt.get_unverified_header(form["client_assertion"])["kid"]
            key = next(jwt.PyJWK(one).key for one in self.tool_keys["keys"] if one["kid"] == kid)
            told = jwt.decode(
                form["client_assertion"],
                key,
                ["RS256"],
                audience=f"{self.address}/token",
                options={"verify_exp": False, "verify_iat": False},
            )
            assert told["iss"] == told["sub"] == self.client and form["grant_type"] == "client_credentials"
            assert told["jti"] not in [one["jti"] for one in self.tokens]
            self.tokens.append(told)
            return (
                200,
                {},
                {"access_token": f"may {form['scope']}", "token_type": "Bearer", "expires_in": 3600},
            )
        scope = heads["authorization"].removeprefix("Bearer may ")
        if parts.path == "/people" and scope == f"{NRPS}scope/contextmembership.readonly":
            second = parts.query == "page=2"
            following = self.more_people or f"{self.address}/people?page=2"
            link = {} if second else {"link": f'<{following}>; rel="next"'}
            return 200, link, {"members": self.people[2:] if second else self.people[:2]}
        if parts.path == "/columns" and method == "POST" and scope == f"{AGS}scope/lineitem":
            self.columns.append(json.loads(body))
            return 201, {}, {**self.columns[-1], "id": f"{self.address}/columns/made?x=1"}
        if parts.path.endswith("/scores") and method == "POST" and scope == f"{AGS}scope/score":
            assert heads["content-type"] == "application/vnd.ims.lis.v1.score+json"
            if status := self.refused.get(json.loads(body)["userId"]):
                return status, {}, {"error": "not this one"}
            self.scores.append((target, json.loads(body)))
            return 204, {}, None
        return 404, {}, {"error": target}


@contextmanager
def platforms() -> Iterator[TestPlatform]:
    """A platform that answers on a port of this machine."""
    found = TestPlatform()
    found.new_key("first")

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            heads = {name.lower(): value for name, value in self.headers.items()}
            status, more, said = found.answer(self.command, self.path, heads, body)
            data = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
