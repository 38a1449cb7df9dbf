"""Launches of LTI 1.3: the login that a platform begins, the token that ends it, and a link to be placed.

Each claim that decides is checked: https://www.imsglobal.org/spec/security/v1p0/, section 5.1.3, and
https://www.imsglobal.org/spec/lti/v1p3/, section 5.3.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

from headstart.errors import printable
from headstart.lesson.engine.asking import is_safe
from headstart.lesson.engine.lti import (
    ALGORITHM,
    LONGEST,
    LONGEST_SUBJECT,
    LaunchRefused,
    Link,
    Platform,
    PlatformKeys,
    ToolKeys,
)

CORE = "https://purl.imsglobal.org/spec/lti/claim/"
DEEP_LINKING = "https://purl.imsglobal.org/spec/lti-dl/claim/"
SCORES = "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"
NAMES = "https://purl.imsglobal.org/spec/lti-nrps/claim/namesroleservice"
VERSION = "1.3.0"
RESOURCE, DEEP = "LtiResourceLinkRequest", "LtiDeepLinkingRequest"

LEEWAY = timedelta(seconds=60)
"""By which the clocks of platform and server may differ."""

OLDEST = timedelta(hours=1)
"""Of a token, whatever its platform says of when it expires."""

PENDING = timedelta(minutes=10)
"""From the login to the launch, which may ask for a password in between."""

MOST_PENDING = 5_000
_TEACHERS = ("Instructor", "Administrator")
_MEMBERSHIP = "http://purl.imsglobal.org/vocab/lis/v2/membership"


# Logins ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Login:
    """A login that waits for its launch: in the browser that began it, once, for ten minutes."""

    platform: Platform
    state: str
    nonce: str
    browser: str = field(repr=False)
    until: datetime


class Logins:
    """Logins under way, in memory; a launch whose login this server did not begin is refused."""

    def __init__(self) -> None:
        self._pending: dict[str, Login] = {}
        self._turn = threading.Lock()

    def begin(self, platform: Platform, *, now: datetime) -> Login:
        """A new one."""
        state, nonce, browser = (secrets.token_urlsafe(24) for _ in range(3))
        made = Login(platform, state, nonce, browser, now + PENDING)
        with self._turn:
            for state in [state for state, one in self._pending.items() if one.until < now]:
                del self._pending[state]
            while len(self._pending) >= MOST_PENDING:
                del self._pending[next(iter(self._pending))]
            self._pending[made.state] = made
        return made

    def end(self, state: str, browser: str, *, now: datetime) -> Login:
        """The login of that state, which from now on is over.

        Raises LaunchRefused where there is none, it is too old, or another browser began it.
        """
        with self._turn:
            found = self._pending.pop(state, None)
        if found is None or found.until < now:
            raise LaunchRefused(
                "this launch was used already, is too old, or did not begin here; open the link in your "
                "course again",
                reason="state",
            )
        if not hmac.compare_digest(found.browser.encode(), browser.encode()):
            raise LaunchRefused(
                "this browser did not begin the launch, or keeps no cookies of pages inside others; let the "
                "platform open the lesson in a new window",
                reason="browser",
            )
        return found


# Launches -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """What a platform says of who comes, checked.

    Attributes:
        message: RESOURCE or DEEP.
        subject: the platform's name for the user.
        name: the user's, or empty where the platform does not tell.
        teaches: whether the user teaches this course.
        context: the course; the link where the platform names none.
        title: of the course, or empty.
        resource: the link.
        deployment: where the platform has installed us.
        services: the claims about marks and names.
        settings: of deep linking.
    """

    message: str
    subject: str
    name: str
    teaches: bool
    context: str
    title: str
    resource: str
    deployment: str
    services: Mapping[str, Any]
    settings: Mapping[str, Any]

    def updated(self, link: Link) -> Link:
        """A course with what this launch says of its services."""
        marks, names = (_mapping(self.services.get(name)) for name in (SCORES, NAMES))
        scopes = marks.get("scope")
        return replace(
            link,
            resource=self.resource or link.resource,
            lineitems=_address(marks.get("lineitems")) or link.lineitems,
            lineitem=_address(marks.get("lineitem")) or link.lineitem,
            memberships=_address(names.get("context_memberships_url")) or link.memberships,
            scopes=tuple(filter(_text, scopes)) if isinstance(scopes, list) else link.scopes,
        )


def _address(value: object) -> str:
    return value if isinstance(value, str) and is_safe(value) else ""


def check_launch(token: str, *, login: Login, keys: PlatformKeys, now: datetime) -> Launch:
    """What a platform's token says, if all of it is as it must be.

    Args:
        token: the ``id_token`` of the launch.
        login: that it answers.
        keys: of platforms.
        now: the time.

    Raises LaunchRefused with the reason.
    """
    claims = _signed(token, platform=login.platform, keys=keys, now=now)
    _check_security(claims, login=login, now=now)
    return _read(claims, login.platform)


def _signed(token: str, *, platform: Platform, keys: PlatformKeys, now: datetime) -> Mapping[str, Any]:
    """The claims of a token that the platform has signed."""
    import jwt

    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise LaunchRefused("the platform sent no token", reason="token") from None
    if header.get("alg") != ALGORITHM:
        named = printable(str(header.get("alg")))[:20]
        raise LaunchRefused(f"the token is signed with {named!r}; expected {ALGORITHM}", reason="algorithm")
    if not isinstance(header.get("kid"), str):
        raise LaunchRefused("the token does not name its key", reason="key")
    key = keys.find(platform, header["kid"], now=now)
    try:  # audience, issuer and times are checked below, by the server's clock
        claims = json.loads(jwt.api_jws.decode(token, key, algorithms=[ALGORITHM]))
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise LaunchRefused("the token's signature is not the platform's", reason="signature") from None
    return _mapping(claims)


def _check_security(claims: Mapping[str, Any], *, login: Login, now: datetime) -> None:
    """Issuer, audience, times, nonce: https://www.imsglobal.org/spec/security/v1p0/#authentication-response-validation."""
    platform = login.platform
    if claims.get("iss") != platform.issuer:
        raise LaunchRefused("the token is of another issuer", reason="issuer")
    audience = claims.get("aud")
    several = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp")
    if platform.client not in several or (party is not None and party != platform.client):
        raise LaunchRefused("the token is for another tool", reason="audience")
    if len(several) > 1 and party is None:
        raise LaunchRefused("the token is for several tools and does not say which", reason="audience")
    expires, issued = (_number(claims.get(name)) for name in ("exp", "iat"))
    if expires is None or issued is None:
        raise LaunchRefused("the token does not say when it was made and expires", reason="time")
    seconds, slack = now.timestamp(), LEEWAY.total_seconds()
    if expires <= seconds - slack or issued < seconds - OLDEST.total_seconds():
        raise LaunchRefused("the token has expired; open the link in your course again", reason="expired")
    if issued > seconds + slack or expires < issued:
        raise LaunchRefused("the token was made in the future; a clock is wrong", reason="time")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), login.nonce.encode()):
        raise LaunchRefused("the token does not answer this login", reason="nonce")


def _read(claims: Mapping[str, Any], platform: Platform) -> Launch:
    """The claims of LTI itself: https://www.imsglobal.org/spec/lti/v1p3/#required-message-claims."""
    if claims.get(f"{CORE}version") != VERSION:
        raise LaunchRefused(f"the message is not of LTI {VERSION}", reason="version")
    message = claims.get(f"{CORE}message_type")
    if message not in (RESOURCE, DEEP):
        raise LaunchRefused("the message is none that is known here", reason="message")
    deployment = claims.get(f"{CORE}deployment_id")
    if deployment not in platform.deployments:
        raise LaunchRefused(
            "the platform has not installed the lesson here: another deployment", reason="deployment"
        )
    subject, roles = claims.get("sub"), claims.get(f"{CORE}roles")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise LaunchRefused("the message does not say who comes", reason="subject")
    if not isinstance(roles, list):
        raise LaunchRefused("the message does not say in which role", reason="roles")
    resource = _text(_mapping(claims.get(f"{CORE}resource_link")).get("id"))
    target, settings = (
        claims.get(f"{CORE}target_link_uri"),
        _mapping(claims.get(f"{DEEP_LINKING}deep_linking_settings")),
    )
    if message == RESOURCE and not resource:
        raise LaunchRefused("the message does not say which link was opened", reason="resource")
    if message == RESOURCE and not _is_ours(target, platform):
        raise LaunchRefused("the message is for another address", reason="target")
    if message == DEEP and not is_safe(str(settings.get("deep_link_return_url"))):
        raise LaunchRefused("the message does not say where the link shall go", reason="return")
    context = _mapping(claims.get(f"{CORE}context"))
    course = _text(context.get("id"))
    return Launch(
        message,
        subject,
        _name(claims),
        any(map(role_is_of_a_teacher, roles)),
        f"{deployment}/{course}" if course else f"{deployment}//{resource}",
        _text(context.get("title")) or _text(context.get("label")),
        resource,
        deployment,
        {name: claims.get(name) for name in (SCORES, NAMES)},
        settings,
    )


def _is_ours(target: object, platform: Platform) -> bool:
    return isinstance(target, str) and (target == platform.tool or target.startswith(f"{platform.tool}/"))


def role_is_of_a_teacher(role: object) -> bool:
    """Of this course: who teaches elsewhere, or has an office in the institution, is none here."""
    if not isinstance(role, str):
        return False
    place, _, what = role.rpartition("#")
    return (place in ("", _MEMBERSHIP) and what in _TEACHERS) or place == f"{_MEMBERSHIP}/Instructor"


def _name(claims: Mapping[str, Any]) -> str:
    parts = (_text(claims.get("given_name")), _text(claims.get("family_name")))
    return _text(claims.get("name")) or " ".join(part for part in parts if part)


def _number(value: object) -> float | None:
    """Seconds since 1970; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _text(value: object) -> str:
    """A text of the platform's, bounded, on one line; empty for what is none."""
    return printable(" ".join(value.split()))[:LONGEST] if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def deep_link_answer(
    launch: Launch, platform: Platform, keys: ToolKeys, *, title: str, points: int, now: datetime
) -> str:
    """The token that puts a link to the lesson into a course, with a column for its marks."""
    item = {
        "type": "ltiResourceLink",
        "title": title,
        "url": platform.at("launch"),
        "lineItem": {"scoreMaximum": points, "label": title, "resourceId": "challenge"},
    }
    claims = {
        "iss": platform.client,
        "aud": [platform.issuer],
        "iat": int(now.timestamp()),
        "exp": int((now + PENDING).timestamp()),
        "nonce": secrets.token_urlsafe(24),
        f"{CORE}deployment_id": launch.deployment,
        f"{CORE}message_type": "LtiDeepLinkingResponse",
        f"{CORE}version": VERSION,
        f"{DEEP_LINKING}content_items": [item],
    }
    if "data" in launch.settings:
        claims[f"{DEEP_LINKING}data"] = launch.settings["data"]
    return keys.sign(claims)
