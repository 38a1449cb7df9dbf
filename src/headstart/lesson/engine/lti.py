"""LTI 1.3: a learning platform such as Moodle opens the lesson for its courses.

The tool's side of 1EdTech's LTI Core 1.3, on PyJWT. Here is who is a platform of ours, which course is which
class, and the keys of both sides; `lti_launches` checks who comes, `lti_services` asks for names and sends
scores. Sources: https://www.imsglobal.org/spec/lti/v1p3/ and /spec/security/v1p0/.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headstart.errors import LessonError, printable
from headstart.files import make, write_new
from headstart.lesson.engine.asking import is_safe
from headstart.lesson.engine.classes import SENT
from headstart.lesson.engine.progress import Json, Progress

ALGORITHM = "RS256"
"""The only one that is taken: what a token's own header asks for decides nothing."""

REFETCH = timedelta(seconds=30)
"""Between two looks at a platform's keys: who sends tokens with made-up keys makes nobody ask more often."""

LONGEST = 255
"""Of the identifiers in the specification."""

LONGEST_SUBJECT = 180
"""Of a user's: it stands in a member's reference, behind the platform's."""


class LaunchRefused(LessonError):
    """A launch that is not let in; ``reason`` is for programs."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


# Platforms ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Platform:
    """A platform, registered by hand: as it has given these values, and got those of `Platform.tool`.

    Attributes:
        id: ours.
        issuer: what it calls itself.
        client: what it calls us.
        deployments: where it has installed us; others are refused.
        login: address of its authorisation endpoint.
        token: address where it gives access tokens.
        keys: address of its public keys.
        tool: our address as its users' browsers know it.
    """

    id: str
    issuer: str
    client: str
    deployments: tuple[str, ...]
    login: str
    token: str
    keys: str
    tool: str

    def at(self, page: str) -> str:
        """The address of a page of ours: login, launch or keys."""
        return f"{self.tool.rstrip('/')}/lti/{page}"

    def reference(self, subject: str) -> str:
        """What stands in a member's reference."""
        return f"{SENT}{self.id}:{subject}"

    def subject(self, reference: str) -> str:
        """The platform's name for a member, of their reference; empty for those of others."""
        start = self.reference("")
        return reference.removeprefix(start) if reference.startswith(start) else ""


@dataclass(frozen=True)
class Link:
    """A course of a platform, and the class that it is here.

    Attributes:
        platform: its id.
        class_id: of our class.
        context: the course, as the platform names it.
        resource: the link in it that was opened last.
        lineitems: address of the course's columns for marks, or empty.
        lineitem: address of our own column, or empty.
        scopes: what we may ask of these.
        memberships: address of the course's members, or empty.
    """

    platform: str
    class_id: str
    context: str
    resource: str = ""
    lineitems: str = ""
    lineitem: str = ""
    scopes: tuple[str, ...] = ()
    memberships: str = ""


_metadata = sa.MetaData()
_platforms = sa.Table(
    "lti_platforms",
    _metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("issuer", sa.String(LONGEST)),
    sa.Column("client", sa.String(LONGEST)),
    sa.Column("facts", Json),
)
_links = sa.Table(
    "lti_links",
    _metadata,
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("platform", sa.String(16)),
    sa.Column("class", sa.String(32)),
    sa.Column("facts", Json),
)


class Platforms:
    """The platforms and courses in a store. Safe to share between threads."""

    def __init__(self, store: Progress) -> None:
        self._store = store

    def add(
        self,
        *,
        issuer: str,
        client: str,
        deployments: tuple[str, ...],
        login: str,
        token: str,
        keys: str,
        tool: str,
    ) -> Platform:
        """Registers a platform, or changes the one of this issuer and client.

        Raises LessonError for an address that is not HTTPS, and for values that are none.
        """
        for name, address in (("login", login), ("token", token), ("keys", keys), ("tool", tool)):
            if not is_safe(address):
                raise LessonError(f"{name} address {address!r}: expected https://…")
        for name, value in (
            ("issuer", issuer),
            ("client", client),
            *(("deployment", one) for one in deployments),
        ):
            if not 0 < len(value) <= LONGEST or not value.isprintable():
                raise LessonError(f"{name} {value!r:.80}: expected 1 to {LONGEST} letters")
        if not deployments:
            raise LessonError("a platform needs one deployment at least")
        there = next((one for one in self.all() if (one.issuer, one.client) == (issuer, client)), None)
        identity = there.id if there else secrets.token_hex(4)
        made = Platform(identity, issuer, client, deployments, login, token, keys, tool.rstrip("/"))

        def write(connection: sa.Connection) -> None:
            connection.execute(_platforms.delete().where(_platforms.c.id == made.id))
            row = {"id": made.id, "issuer": issuer, "client": client, "facts": asdict(made)}
            connection.execute(_platforms.insert().values(**row))

        self._store.write(write)
        return made

    def all(self) -> list[Platform]:
        """Every platform."""
        with self._store.reading() as connection:
            rows = connection.execute(sa.select(_platforms.c.facts).order_by(_platforms.c.id)).scalars()
            return [Platform(**{**facts, "deployments": tuple(facts["deployments"])}) for facts in rows]

    def get(self, identity: str) -> Platform | None:
        """A platform by our id."""
        return next((one for one in self.all() if one.id == identity), None)

    def of_login(self, issuer: str, client: str) -> Platform:
        """The platform that begins a login. Raises LaunchRefused where there is none, or more than one."""
        found = [one for one in self.all() if one.issuer == issuer and client in ("", one.client)]
        if len(found) != 1:
            named = printable(issuer)[:80]
            said = (
                "is registered more than once; it has to name its client"
                if found
                else "is not registered here"
            )
            raise LaunchRefused(f"the platform {named!r} {said}", reason="issuer")
        return found[0]

    def remove(self, identity: str) -> None:
        """Forgets a platform and its courses; their classes stay."""

        def write(connection: sa.Connection) -> None:
            connection.execute(_links.delete().where(_links.c.platform == identity))
            connection.execute(_platforms.delete().where(_platforms.c.id == identity))

        self._store.write(write)

    def link(self, platform: Platform, context: str) -> Link | None:
        """The course of that name, or None."""
        with self._store.reading() as connection:
            query = sa.select(_links.c.facts).where(_links.c.place == _place(platform, context))
            facts = connection.execute(query).scalar()
        return None if facts is None else _link(facts)

    def links(self, class_id: str) -> list[Link]:
        """The courses of a class."""
        with self._store.reading() as connection:
            query = sa.select(_links.c.facts).where(_links.c["class"] == class_id).order_by(_links.c.place)
            return [_link(facts) for facts in connection.execute(query).scalars()]

    def revise(self, platform: Platform, link: Link, change: Callable[[Link], Link]) -> Link:
        """Changes a course as it is in the store by now, and gives it.

        Args:
            platform: of the course.
            link: the course as it was, or is to be where the store has none of this class.
            change: gives it with what is new, and keeps all else.
        """
        place = _place(platform, link.context)

        def write(connection: sa.Connection) -> Link:
            facts = connection.execute(sa.select(_links.c.facts).where(_links.c.place == place)).scalar()
            there = link if facts is None else _link(facts)
            new = change(there if there.class_id == link.class_id else link)
            connection.execute(_links.delete().where(_links.c.place == place))
            row = {"place": place, "platform": platform.id, "class": new.class_id, "facts": asdict(new)}
            connection.execute(_links.insert().values(row))
            return new

        return self._store.write(write)


def _place(platform: Platform, context: str) -> str:
    return hashlib.sha256(f"{platform.id}/{context}".encode()).hexdigest()


def _link(facts: Mapping[str, Any]) -> Link:
    return Link(**{**facts, "scopes": tuple(facts["scopes"])})


# Keys -----------------------------------------------------------------------------------------------------


class ToolKeys:
    """Our own keys, PEM files of a home folder; the newest signs, the others stay published.

    Args:
        home: HEADSTART_HOME.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "keys"

    def renew(self, now: datetime) -> None:
        """Makes another key, with which is signed from now on."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        make(self._folder)
        pem = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_new(self._folder / f"lti-{now.astimezone(UTC):%Y%m%dT%H%M%S%f}.pem", pem, mode=0o600)

    def _all(self) -> list[tuple[str, Any]]:
        from cryptography.hazmat.primitives import serialization

        files = sorted(self._folder.glob("lti-*.pem"), reverse=True)
        if not files:
            self.renew(datetime.now(UTC))
            files = sorted(self._folder.glob("lti-*.pem"), reverse=True)
        return [(file.stem, serialization.load_pem_private_key(file.read_bytes(), None)) for file in files]

    def public(self) -> dict[str, Any]:
        """The public keys, as platforms ask for them (RFC 7517)."""
        import jwt

        found = []
        for name, key in self._all():
            public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            found.append({**public, "kid": name, "alg": ALGORITHM, "use": "sig", "key_ops": ["verify"]})
        return {"keys": found}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims."""
        import jwt

        name, key = self._all()[0]
        return jwt.encode(dict(claims), key, algorithm=ALGORITHM, headers={"kid": name})


Ask = Callable[[str], bytes]
"""Gives what is at an address; raises LessonError where nothing comes."""


@dataclass
class _Known:
    """What a platform's address of keys gave last."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    asked: datetime | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


class PlatformKeys:
    """The public keys of platforms, asked for again where one is missing: platforms change theirs."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, _Known] = {}

    def find(self, platform: Platform, name: str, *, now: datetime) -> Any:
        """The key of that name. Raises LaunchRefused where the platform has none."""
        known = self._known.setdefault(platform.keys, _Known())
        with known.turn:  # one platform that is slow keeps nobody else's users waiting
            if name not in known.keys and (known.asked is None or now - known.asked >= REFETCH):
                known.asked = now
                try:
                    known.keys, known.failure = self._fetch(platform), ""
                except LaunchRefused as error:
                    known.failure = str(error)
            if name not in known.keys:
                said = known.failure or "the platform has no key of the name that its token bears"
                raise LaunchRefused(said, reason="key")
            return known.keys[name]

    def _fetch(self, platform: Platform) -> dict[str, Any]:
        import jwt

        try:
            listed = json.loads(self._ask(platform.keys))["keys"]
            found = {}
            for one in listed[:100]:
                if isinstance(one, dict) and one.get("kty") == "RSA" and isinstance(one.get("kid"), str):
                    found[one["kid"]] = jwt.PyJWK(one, algorithm=ALGORITHM).key
        except LessonError as error:
            raise LaunchRefused(f"the platform's keys cannot be had: {error}", reason="key") from None
        except (ValueError, KeyError, TypeError, jwt.PyJWTError):
            raise LaunchRefused("what the platform publishes are no keys", reason="key") from None
        return found
