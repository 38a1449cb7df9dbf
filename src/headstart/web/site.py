"""What every served application has: home folder, secret, accepted hosts, access token."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.errors import LessonError
from headstart.files import home_folder, make, write_new
from headstart.web.addresses import Names, is_loopback, names_for

KEY_FILE = Path("keys/session.key")
KEY_BYTES = 32
TICKET_SECONDS = 60
"""How long a ticket is valid: a browser that is opened with it uses it at once."""


class Tickets:
    """One-time tickets in place of the access token, for addresses that others can read."""

    def __init__(self) -> None:
        self._valid: dict[str, tuple[float, str, Mapping[str, str]]] = {}

    def issue(self, *, browser: str = "", **grants: str) -> str:
        """A new one, which gives these fields of a session, see `Site.grants`.

        Args:
            browser: what its browser has in the cookie `ticket_cookie`; any may use it where that is empty.
            grants: the fields.
        """
        now = time.monotonic()
        for old in [ticket for ticket, kept in self._valid.copy().items() if kept[0] < now]:
            self._valid.pop(old, None)
        ticket = secrets.token_urlsafe(16)
        self._valid[ticket] = now + TICKET_SECONDS, browser and _hash(browser), grants
        return ticket

    def redeem(self, sent: str, *, browser: str = "") -> Mapping[str, str] | None:
        """What one gives that was not used before and is not too old; from now on it was used."""
        until, bound, grants = self._valid.pop(sent, (0.0, "", {}))
        if time.monotonic() > until or (bound and not hmac.compare_digest(bound, _hash(browser))):
            return None
        return grants


def ticket_cookie(ticket: str) -> str:
    """The cookie of the browser for which a ticket was made."""
    return f"headstart_ticket_{_hash(ticket)[:12]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Site:
    """One application, served.

    Attributes:
        home: HEADSTART_HOME.
        secret: signs session cookies.
        learner: whose pages these are on a machine of one's own; None gives every browser a name of its own.
        names: what a Host header may say.
        token: what a browser must bring once, or None where no token is needed.
        tickets: what it may bring instead.
        door: the page on which who has not brought it may ask to be let in, or empty.
        turn: held by whatever needs every core or draws with matplotlib: one at a time.
    """

    home: Path
    secret: bytes = field(repr=False)
    learner: str | None = None
    names: Names = field(default_factory=Names)
    token: str | None = field(default=None, repr=False)
    tickets: Tickets = field(default_factory=Tickets, repr=False)
    door: str = ""
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def grants(self, sent: str, *, browser: str = "") -> Mapping[str, str] | None:
        """Fields of a session that a token or ticket gives besides admission; None for what is neither.

        ``browser`` is its cookie `ticket_cookie`.
        """
        if self.token and hmac.compare_digest(sent.encode(), self.token.encode()):
            return {}
        return self.tickets.redeem(sent, browser=browser)

    def welcomes(self, learner: str, teaches: str) -> bool:
        """Whether a session is admitted for what it is, whatever token this server has."""
        return False

    @property
    def trouble(self) -> str:
        """Why work cannot be queued just now, for every page; empty where it can."""
        return ""


def site_options(host: str, *, token: str | None = None) -> dict[str, Any]:
    """The keywords of a `Site` that listens on ``host``; HEADSTART_HOME is made where it is missing.

    Args:
        host: beyond loopback every browser has a name of its own.
        token: what every browser must bring; a new one unless given. On loopback too: the machine's other
            users can reach it.
    """
    home = make(home_folder())
    return {
        "home": home,
        "secret": load_secret(home),
        "learner": getpass.getuser() if is_loopback(host) else None,
        "names": names_for(host),
        "token": token or secrets.token_urlsafe(16),
    }


def load_secret(home: Path) -> bytes:
    """The key that signs session cookies; made on first use, readable by its owner alone.

    It outlives the server, so that a learner comes back to their own challenge after a crash.
    Raises LessonError for a key file of the wrong size.
    """
    path = home / KEY_FILE
    if not path.exists():
        make(path.parent)
        write_new(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise LessonError(
            f"{path}: expected {KEY_BYTES} bytes, got {len(secret)}; remove it to have one made"
        )
    return secret
