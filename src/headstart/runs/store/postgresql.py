"""The store on a PostgreSQL server: one connection that takes the statements that SQLite's takes.

    with closing(connect("postgresql+psycopg://ada:secret@db.example/class")) as database:
        database.execute("select id from runs where created > ?", ("2026",)).fetchall()

Statements are written for both: ``?`` stands for a value, ``on conflict`` for what is there already, and
types come from `schema.TYPES`. As with SQLite one process writes at a time. Every failure is a `StoreError`
whose message never has the password.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from headstart.errors import printable
from headstart.runs.store.schema import StoreError, migrate

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql+psycopg", "postgresql", "postgres")

_FORM = "postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE"

_LOCK = 0x4865616473746172
"""The advisory lock under which tables are migrated and written: "Headstar" in ASCII."""

_PAUSE = 0.1

_CONNECT_SECONDS = 5
"""How long an address that does not answer is waited for."""

_IDLE_SECONDS = 60
"""After which the server ends a transaction whose process was stopped, as it keeps all others waiting."""

_PASSING = ("starting up", "shutting down", "recovery mode", "too many clients", "remaining connection slots")
"""How a server refuses connections that it takes a moment later; psycopg has no codes for these."""

T = TypeVar("T")

_known: set[str] = set()
"""Addresses that this process has reached, and whose tables are of this version."""


class ConnectionLost(StoreError):
    """The connection broke before anything was committed: the same can be done again."""


def shown(address: str) -> str:
    """An address without its password and options, for a message."""
    scheme, _, rest = address.partition("://")
    account, at, host = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    return printable(f"{scheme}://{user}{':***' if colon else ''}{at}{host.partition('?')[0]}")


def settings(address: str) -> dict[str, str]:
    """What libpq calls the parts of an address; StoreError where it is none."""
    if address.partition("://")[0] not in SCHEMES:
        raise StoreError(f"it is kept in SQLite or PostgreSQL alone; expected a path, or {_FORM}")
    try:
        parts = urlsplit(address)
        found = {
            "host": parts.hostname,
            "port": None if parts.port is None else str(parts.port),
            "user": parts.username and unquote(parts.username),
            "password": parts.password and unquote(parts.password),
            "dbname": unquote(parts.path[1:]),
        }
        found |= dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:  # its text may quote the password
        raise StoreError(f"this is no address of a server; expected {_FORM}") from None
    return {name: value for name, value in found.items() if value}


def open_raw(address: str, *, wait: float, durable: bool = True) -> psycopg.Connection[Any]:
    """A connection of psycopg's that commits each statement; one that the server refuses for now is awaited.

    Raises:
        StoreError: the driver is absent, the address is wrong, or the server does not let us in.
    """
    usual = {"connect_timeout": str(_CONNECT_SECONDS), "application_name": "headstart"}
    options = {**usual, **settings(address), "client_encoding": "utf8"}
    try:
        import psycopg
    except ImportError:
        raise StoreError("PostgreSQL needs an optional part: pip install 'headstart[postgresql]'") from None
    until = time.monotonic() + wait
    while True:
        try:
            return _opened(options, durable=durable)
        except psycopg.Error as error:
            text = str(error)
            passing = any(each in text for each in _PASSING) or (
                address in _known and isinstance(error, psycopg.OperationalError)
            )
            if not passing or time.monotonic() >= until:
                raise StoreError(f"the server cannot be used: {_line(text)}") from None
        time.sleep(_PAUSE)


def _opened(options: Mapping[str, Any], *, durable: bool) -> psycopg.Connection[Any]:
    import psycopg

    # Statements prepared on one connection are unknown behind a pooler such as PgBouncer.
    connection = psycopg.connect(autocommit=True, prepare_threshold=None, **options)
    connection.execute(f"set idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    if not durable:
        connection.execute("set synchronous_commit = off")
    return connection


class Connection:
    """A connection to a server, made anew where it broke between two transactions."""

    def __init__(self, address: str, *, wait: float, durable: bool = True) -> None:
        self._address, self._wait, self._durable = address, wait, durable
        self._inside = False
        self._raw = open_raw(address, wait=wait, durable=durable)

    @property
    def in_transaction(self) -> bool:
        """Whether there is something to roll back."""
        return self._inside

    def begin(self, *, writes: bool, wait: float | None = None) -> None:
        """Begin a transaction; one that writes waits for all others that do."""
        seconds = self._wait if wait is None else wait
        self._run(lambda raw: raw.execute("begin"))
        self._inside = True
        if writes:
            self.execute(f"set local lock_timeout = {max(1, round(1000 * seconds))}")
            self.execute(f"select pg_advisory_xact_lock({_LOCK})")

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Any:
        """Run one statement; the cursor has ``fetchone``, ``fetchall`` and ``rowcount``."""
        ends = query in ("commit", "rollback")
        try:
            return self._run(lambda raw: raw.execute(_marked(query), values), commits=query == "commit")
        finally:
            self._inside = self._inside and not ends

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row."""
        return self._run(lambda raw: raw.cursor().executemany(_marked(query), list(rows)))

    def close(self) -> None:
        """Close the connection; what was not committed is gone."""
        self._raw.close()

    def _run(self, work: Callable[[psycopg.Connection[Any]], T], *, commits: bool = False) -> T:
        import psycopg

        for again in (True, False):
            try:
                return work(self._raw)
            except psycopg.Error as error:
                broken = self._raw.closed
                if broken and not self._inside and again:
                    self._raw = open_raw(self._address, wait=self._wait, durable=self._durable)
                    continue
                raise _translated(error, broken=broken, commits=commits) from None
        raise AssertionError("unreachable")


def connect(address: str, *, wait: float, durable: bool = True) -> Connection:
    """Connect to a server, with the tables of this version; the first process makes them, the others wait."""
    connection = Connection(address, wait=wait, durable=durable)
    try:
        if address not in _known:
            connection.begin(writes=True)
            migrate(connection.execute, dialect="postgresql")
            connection.execute("commit")
            _known.add(address)
    except BaseException:
        with suppress(StoreError):
            connection.close()
        raise
    return connection


def _marked(query: str) -> str:
    return query.replace("%", "%%").replace("?", "%s")


def _translated(error: psycopg.Error, *, broken: bool, commits: bool) -> StoreError:
    if broken and commits:
        return StoreError(
            "the connection to the server broke while it was written; look whether it is there before "
            "doing it again"
        )
    if broken:
        return ConnectionLost("the connection to the server broke, and nothing was written; try again")
    if error.sqlstate == "55P03":
        return StoreError("another process has been writing for long; try again in a while")
    return StoreError(reason(error))


def reason(error: BaseException) -> str:
    """What a driver says, on one line, without the values of a row."""
    code = getattr(error, "sqlstate", None)
    return f"the server refuses: {_line(str(error))}{f' (SQLSTATE {code})' if code else ''}"


def _line(text: str) -> str:
    """The last sentence that libpq tells, which is the reason; what comes before names the place."""
    line = next((each.strip() for each in text.splitlines() if each.strip()), "no reason given")
    return printable(line[:300])
