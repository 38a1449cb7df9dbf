"""What every page needs, handed to the application once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from headstart.errors import LessonError
from headstart.files import write_new
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.progress import Progress
from headstart.places import make
from headstart.web.addresses import Names
from headstart.web.evidence import Evidence
from headstart.web.jobs import Jobs

KEY_FILE = Path("keys/session.key")
KEY_BYTES = 32


def now() -> datetime:
    """The server's time, the only one that counts."""
    return datetime.now(UTC)


class Tickets:
    """Stand-ins for the access token that admit one browser once: they end up where others can read them."""

    def __init__(self) -> None:
        self._valid: set[str] = set()

    def issue(self) -> str:
        """A new one."""
        ticket = secrets.token_urlsafe(16)
        self._valid.add(ticket)
        return ticket

    def redeem(self, sent: str) -> bool:
        """Whether this is one that was not used before; from now on it was."""
        found = sent in self._valid
        self._valid.discard(sent)
        return found


@dataclass(frozen=True)
class Site:
    """One lesson, served.

    Attributes:
        pack: the lesson.
        store: where the log is kept.
        home: HEADSTART_HOME, for the badge's key.
        secret: signs session cookies.
        jobs: the queue of whatever takes longer than a page.
        evidence: what is known of experiments.
        learner: whose lesson it is on a machine of one's own; None gives every browser a learner of its own.
        names: what a Host header may say.
        token: what a browser must bring once, or None where no token is needed.
        tickets: what it may bring instead.
        clock: the current time, with time zone.
    """

    pack: Pack
    store: Progress
    home: Path
    secret: bytes = field(repr=False)
    jobs: Jobs
    evidence: Evidence = field(default_factory=Evidence)
    learner: str | None = None
    names: Names = field(default_factory=Names)
    token: str | None = field(default=None, repr=False)
    tickets: Tickets = field(default_factory=Tickets, repr=False)
    clock: Callable[[], datetime] = now


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
