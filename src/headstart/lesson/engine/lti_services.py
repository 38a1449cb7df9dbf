"""What the lesson asks of a learning platform: a course's names, and a place for its marks.

1EdTech's Names and Role Provisioning Services 2.0 and Assignment and Grade Services 2.0, with access tokens
that are asked for by a signed one (https://www.imsglobal.org/spec/security/v1p0/, section 4.1).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from headstart.errors import LessonError
from headstart.lesson.engine.asking import Answer, Refused, ask, is_local, is_safe
from headstart.lesson.engine.classes import Class, Classes
from headstart.lesson.engine.lti import LONGEST_SUBJECT, Link, Platform, ToolKeys
from headstart.lesson.engine.lti_launches import role_is_of_a_teacher
from headstart.lesson.engine.marks import Mark

SCORE, LINEITEM = (f"https://purl.imsglobal.org/spec/lti-ags/scope/{name}" for name in ("score", "lineitem"))
MEMBERS = "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly"

_CONTAINER = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"
_ITEM, _SCORE = (f"application/vnd.ims.lis.v{name}+json" for name in ("2.lineitem", "1.score"))

MOST_PAGES = 50
"""Of a course's members."""

_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?')


_NOT_OF_ONE = (401, 403)
"""Refusals that say of us, not of a learner, that we may not."""


@dataclass(frozen=True)
class Sent:
    """How many marks have arrived, how many were refused, and why the first of those was."""

    marks: int
    refused: int
    why: str


@dataclass(frozen=True)
class Person:
    """Somebody in a course, as the platform has them."""

    subject: str
    name: str
    teaches: bool


class Services:
    """One platform's services.

    Args:
        platform: which.
        keys: our own.
        now: the time.
    """

    def __init__(self, platform: Platform, keys: ToolKeys, *, now: datetime) -> None:
        self.platform, self._keys, self._now = platform, keys, now
        self._tokens: dict[str, str] = {}

    def _token(self, scope: str) -> str:
        """An access token for a scope."""
        if scope not in self._tokens:
            platform = self.platform
            claims = {
                "iss": platform.client,
                "sub": platform.client,
                "aud": platform.token,
                "iat": int(self._now.timestamp()),
                "exp": int((self._now + timedelta(minutes=5)).timestamp()),
                "jti": secrets.token_urlsafe(24),
            }
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": self._keys.sign(claims),
                "scope": scope,
            }
            found = _read(ask(platform.token, method="POST", body=urlencode(form).encode(), headers=_form()))
            token = found.get("access_token") if isinstance(found, dict) else None
            if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                raise LessonError("the platform gave no access token")
            self._tokens[scope] = token
        return self._tokens[scope]

    def _may_ask(self, address: str) -> bool:
        """Whether an address in a message is safe; of this machine only where the platform is here too."""
        return is_safe(address) and (is_local(self.platform.token) or not is_local(address))

    def _ask(self, address: str, scope: str, *, kind: str, send: Mapping[str, Any] | None = None) -> Answer:
        if not self._may_ask(address):
            raise LessonError("the platform named an address that is not HTTPS")
        head = {"authorization": f"Bearer {self._token(scope)}", "accept": kind}
        if send is None:
            return ask(address, headers=head)
        body = json.dumps(send).encode()
        return ask(address, method="POST", body=body, headers=head | {"content-type": kind})

    def people(self, link: Link) -> Iterator[Person]:
        """The active members of a course.

        Raises LessonError where the platform does not tell.
        """
        if not link.memberships:
            raise LessonError("the platform does not tell the names of this course")
        address = link.memberships
        for _ in range(MOST_PAGES):
            answer = self._ask(address, MEMBERS, kind=_CONTAINER)
            found = _read(answer)
            members = found.get("members") if isinstance(found, dict) else None
            yield from _people(members if isinstance(members, list) else [])
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                return
            try:
                address = urljoin(address, following[1])
            except ValueError:
                raise LessonError("the platform named a next page that is no address") from None

    def enrol(self, link: Link, classes: Classes, one: Class) -> int:
        """Takes the learners of a course into its class, those who have not come yet too; gives how many."""
        came = 0
        for person in self.people(link):
            if not person.teaches:
                reference = self.platform.reference(person.subject)
                classes.admit(one, reference=reference, name=person.name, now=None)
                came += 1
        return came

    def column(self, link: Link, *, title: str, possible: int) -> Link:
        """The course with a column for our marks: its own, else one that is made.

        Raises LessonError where the platform takes no marks.
        """
        if link.lineitem:
            return link
        if not link.lineitems or LINEITEM not in link.scopes:
            raise LessonError("the platform takes no marks from this link; let it offer grades to the tool")
        wanted = {"scoreMaximum": possible, "label": title, "resourceId": "challenge"}
        if link.resource:
            wanted["resourceLinkId"] = link.resource
        found = _read(self._ask(link.lineitems, LINEITEM, kind=_ITEM, send=wanted))
        identity = found.get("id") if isinstance(found, dict) else None
        if not isinstance(identity, str) or not self._may_ask(identity):
            raise LessonError("the platform made no column for the marks")
        return replace(link, lineitem=identity)

    def send(self, link: Link, marks: Iterable[Mark]) -> Sent:
        """Sends the marks of those who came from the platform, and have begun.

        Whose challenges were all reset has no mark any more, and the platform is told so. A mark that is
        refused keeps no other one back.

        Raises LessonError where the platform takes none, or takes no more: those before have arrived.
        """
        if SCORE not in link.scopes:
            raise LessonError("the platform takes no marks from this link; let it offer grades to the tool")
        parts = urlsplit(link.lineitem)
        address = urlunsplit(parts._replace(path=f"{parts.path}/scores"))
        sent, refused = 0, list[str]()
        for mark in marks:
            subject = self.platform.subject(mark.member.reference)
            if not subject or (mark.best is None and not mark.reset):
                continue
            self._token(SCORE)  # whoever gives us none refuses us, not this learner
            try:
                self._ask(address, SCORE, kind=_SCORE, send=_score(mark, subject, now=self._now))
                sent += 1
            except Refused as error:
                if error.status in _NOT_OF_ONE or error.status >= 500:
                    raise
                refused.append(str(error))
        return Sent(sent, len(refused), refused[0] if refused else "")


def _form() -> dict[str, str]:
    return {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}


def _read(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        raise LessonError("the platform's answer is no JSON") from None


def _people(members: Iterable[Any]) -> Iterator[Person]:
    for one in members:
        subject = one.get("user_id") if isinstance(one, dict) else None
        if (
            not isinstance(subject, str)
            or not 0 < len(subject) <= LONGEST_SUBJECT
            or not subject.isprintable()
        ):
            continue
        if one.get("status", "Active") != "Active":
            continue
        roles = one.get("roles")
        whole, *parts = (one.get(key) for key in ("name", "given_name", "family_name"))
        told = [whole] if whole else parts
        name = " ".join(part for part in told if isinstance(part, str) and part)
        teaches = isinstance(roles, list) and any(map(role_is_of_a_teacher, roles))
        yield Person(subject, name, teaches)


def _score(mark: Mark, subject: str, *, now: datetime) -> dict[str, Any]:
    """https://www.imsglobal.org/spec/lti-ags/v2p0/#score-publish-service."""
    best, told = mark.best, now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if best is None:
        nothing = {"activityProgress": "Initialized", "gradingProgress": "NotReady"}
        return {"userId": subject, "timestamp": told, **nothing}
    done = best.finished_at is not None
    return {
        "userId": subject,
        "scoreGiven": best.points,
        "scoreMaximum": mark.possible,
        "comment": f"{best.correct} of {len(best.items)} problems right"[:500],
        "timestamp": told,
        "activityProgress": "Completed" if done else "InProgress",
        "gradingProgress": "FullyGraded" if done else "Pending",
    }
