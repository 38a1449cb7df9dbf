"""Classes: who learns together, by which name, and what their teacher has decided.

What a learner did is in the log, under an identity that tells nothing. Names are here, in one table, so that
they can be erased and stand nowhere else. Tokens and personal codes are kept as hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from headstart.errors import LessonError
from headstart.lesson.engine.attempts import LONGEST_TIMER
from headstart.lesson.engine.progress import Json, Progress, Utc
from headstart.lesson.engine.rosters import (
    LONGEST_NAME,
    LONGEST_REFERENCE,
    MOST_MEMBERS,
    JoinRefused,
    Row,
    clean,
)

LETTERS = "BCDFGHJKMNPQRSTVWXYZ"
"""Of codes: no vowels, which would make words, and no L, which looks like 1."""

JOIN_LETTERS, PERSONAL_LETTERS = 6, 8
"""6 letters are 64 million codes, 8 are 26 thousand million; who guesses is slowed down by the pages."""

FRESH_SECONDS = 1.0
"""How long a member is taken from memory before the store is asked again: other processes write there too."""

SENT = "lti:"
"""How the references begin of those whom a learning platform sends."""

Result = TypeVar("Result")

_metadata = sa.MetaData()
_classes = sa.Table(
    "classes",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(LONGEST_NAME)),
    sa.Column("pack", sa.String(100)),
    sa.Column("code", sa.String(JOIN_LETTERS)),
    sa.Column("token", sa.String(64)),
    sa.Column("created", Utc),
    sa.Column("rules", Json),
)
_members = sa.Table(
    "members",
    _metadata,
    sa.Column("learner", sa.String(64), primary_key=True),
    sa.Column("class", sa.String(32)),
    sa.Column("number", sa.Integer),
    sa.Column("name", sa.String(LONGEST_NAME)),
    sa.Column("reference", sa.String(LONGEST_REFERENCE)),
    sa.Column("code", sa.String(64)),
    sa.Column("factor", sa.Float),
    sa.Column("joined", Utc),
)


@dataclass(frozen=True)
class Rules:
    """What a teacher has decided.

    Attributes:
        timer: factor on every problem's time; None: no clock. Counts where `timer_is_fixed`.
        timer_is_fixed: whether learners have no choice of the clock.
        deadline: when challenges end.
        reviews_from: from when on what is right and why is shown.
        listed_only: whether only those may join whom the teacher has named.
        experiments_by_teacher: whether the teacher alone runs the lesson's experiments, once for all.
        together: whether the teacher starts and ends the challenge for all.
        started, ended: when that was.
    """

    timer: float | None = 1.0
    timer_is_fixed: bool = False
    deadline: datetime | None = None
    reviews_from: datetime | None = None
    listed_only: bool = False
    experiments_by_teacher: bool = False
    together: bool = False
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def until(self) -> datetime | None:
        """When challenges end: at the deadline, or when the teacher ended them for all."""
        ends = [each for each in (self.deadline, self.ended if self.together else None) if each is not None]
        return min(ends, default=None)

    def gate(self, now: datetime) -> str:
        """Whether a challenge can begin: empty, or `waiting` for the teacher, or `over`."""
        if self.until is not None and now >= self.until:
            return "over"
        return "waiting" if self.together and self.started is None else ""

    def timer_for(self, chosen: float | None, factor: float | None) -> float | None:
        """The factor on every problem's time, of what a learner chose and what the teacher gave them."""
        timer = self.timer if self.timer_is_fixed else chosen
        return None if timer is None or factor is None else min(LONGEST_TIMER, timer * factor)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = asdict(self)
        return {name: one.isoformat() if isinstance(one, datetime) else one for name, one in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Rules:
        """What `to_dict` gave; names of later versions are left out."""
        times = ("deadline", "reviews_from", "started", "ended")
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        return cls(**known | {name: datetime.fromisoformat(known[name]) for name in times if known.get(name)})


@dataclass(frozen=True)
class Class:
    """A class.

    Attributes:
        id: opaque, for addresses.
        name: as the teacher calls it.
        pack: the lesson's slug.
        code: with which learners join, six letters.
        token: hash of the teacher's token.
        created: when.
        rules: what the teacher has decided.
    """

    id: str
    name: str
    pack: str
    code: str
    token: str = field(repr=False)
    created: datetime
    rules: Rules = Rules()


@dataclass(frozen=True)
class Member:
    """Somebody in a class.

    Attributes:
        learner: under which name the log knows them; tells nothing.
        class_id: of their class.
        number: in it, from 1.
        name: as they are called; empty once it was erased.
        reference: what another system calls them, of a roster.
        factor: on the time of every problem; None: no clock.
        joined: when they came; None where a roster names them and they have not.
    """

    learner: str
    class_id: str
    number: int
    name: str = field(repr=False)
    reference: str = field(default="", repr=False)
    factor: float | None = 1.0
    joined: datetime | None = None

    @property
    def shown(self) -> str:
        """What stands for them on the teacher's pages."""
        return self.name or f"Learner {self.number}"


class Classes:
    """The classes in a store. Safe to share between threads.

    Args:
        store: where the log is too.
        secret: without it, hashes of personal codes tell nothing.
    """

    def __init__(self, store: Progress, secret: bytes) -> None:
        self._store, self._secret = store, secret
        self._kept: dict[str, tuple[float, tuple[Class, Member] | None]] = {}
        self._turn = threading.Lock()

    # Classes

    def create(self, name: str, *, pack: str, now: datetime, token: str | None = None) -> tuple[Class, str]:
        """A new class and its teacher's token, which is told this once.

        Args:
            name: as the teacher calls it.
            pack: the lesson's slug.
            now: the time.
            token: the teacher's, of their own choice.

        Raises LessonError for a name that is none, or that another class of this store has.
        """
        called, token = clean(name), token or secrets.token_urlsafe(16)

        def write(connection: sa.Connection) -> Class:
            if any(each.name.casefold() == called.casefold() for each in _all(connection)):
                raise LessonError(f"there is a class {called!r} already; choose another name")
            made = Class(secrets.token_hex(8), called, pack, _code(JOIN_LETTERS), _hash(token), now)
            row = {name: getattr(made, name) for name in ("id", "name", "pack", "code", "token", "created")}
            connection.execute(_classes.insert().values(**row, rules=made.rules.to_dict()))
            return made

        return self._store.write(write), token

    def all(self, *, pack: str | None = None) -> list[Class]:
        """Every class, the oldest first, of one lesson or all."""
        with self._store.reading() as connection:
            return [each for each in _all(connection) if pack in (None, each.pack)]

    def get(self, identity: str) -> Class | None:
        """A class by its id."""
        return next((each for each in self.all() if each.id == identity), None)

    def named(self, name: str | None) -> Class:
        """A class by its name; the only one where none is given. Raises LessonError where there is none."""
        found = self.all()
        fitting = [each for each in found if name is None or each.name.casefold() == name.strip().casefold()]
        if len(fitting) != 1:
            known = ", ".join(each.name for each in found) or "none; headstart class new NAME makes one"
            raise LessonError(f"{'which class' if name is None else f'no class {name!r}'}: there is {known}")
        return fitting[0]

    def by_code(self, code: str) -> Class | None:
        """The class with a join code, compared in constant time."""
        sent = _letters(code)
        found = [each for each in self.all() if hmac.compare_digest(each.code, sent)]
        return found[0] if found else None

    def by_token(self, token: str) -> Class | None:
        """The class of a teacher's token, compared in constant time."""
        sent = _hash(token)
        found = [each for each in self.all() if hmac.compare_digest(each.token, sent)]
        return found[0] if found else None

    def proof(self, one: Class) -> str:
        """What a cookie holds once the teacher's token was brought; another token makes it void."""
        text = f"teaches/{one.id}/{one.token}".encode()
        return f"{one.id}.{hmac.new(self._secret, text, hashlib.sha256).hexdigest()}"

    def change_rules(self, identity: str, **changes: Any) -> Class:
        """Decides something anew. Raises LessonError for what cannot be."""
        timer = changes.get("timer", 1.0)
        if timer is not None and not 1.0 <= timer <= LONGEST_TIMER:
            raise LessonError(f"time {timer:g}: expected a factor from 1 to {LONGEST_TIMER:g}, or no clock")

        def write(connection: sa.Connection) -> Class:
            _hold(connection, identity)
            found = _one(connection, identity)
            rules = replace(found.rules, **changes)
            connection.execute(_where_class(found.id).values(rules=rules.to_dict()))
            return replace(found, rules=rules)

        return self._changed(self._store.write(write))

    def new_code(self, identity: str) -> Class:
        """Another join code; who has joined stays."""

        def write(connection: sa.Connection) -> Class:
            found = replace(_one(connection, identity), code=_code(JOIN_LETTERS))
            connection.execute(_where_class(found.id).values(code=found.code))
            return found

        return self._changed(self._store.write(write))

    def new_token(self, identity: str, token: str | None = None) -> str:
        """Another teacher's token, told this once; the one before, and who came with it, is out."""
        made = token or secrets.token_urlsafe(16)

        def write(connection: sa.Connection) -> None:
            connection.execute(_where_class(_one(connection, identity).id).values(token=_hash(made)))

        self._changed(self._store.write(write))
        return made

    def remove(self, identity: str) -> None:
        """Removes a class with its members' names, references and codes; the log stays, of nobody by name."""

        def write(connection: sa.Connection) -> None:
            _overwrite_what_goes(connection)
            connection.execute(sa.text("delete from lti_links where class = :id"), {"id": identity})
            for table, column in ((_members, _members.c["class"]), (_classes, _classes.c.id)):
                connection.execute(table.delete().where(column == identity))

        self._changed(self._store.write(write))
        self._store.forget_what_was_overwritten()

    # Members

    def members(self, identity: str) -> list[Member]:
        """Of one class, by their numbers."""
        with self._store.reading() as connection:
            return _of_class(connection, identity)

    def standing(self, learner: str) -> tuple[Class, Member] | None:
        """A learner's class and membership; None where they are in none. Remembered for `FRESH_SECONDS`."""
        with self._turn:
            at, kept = self._kept.get(learner, (float("-inf"), None))
            if time.monotonic() - at <= FRESH_SECONDS:
                return kept
        with self._store.reading() as connection:
            row = connection.execute(_BY_LEARNER, {"of": learner}).first()
            found = None if row is None else (_class(row), _member(row))
        with self._turn:
            if len(self._kept) > 2 * MOST_MEMBERS:
                self._kept.clear()
            self._kept[learner] = time.monotonic(), found
        return found

    def join(self, one: Class, name: str, *, now: datetime) -> Member:
        """Lets somebody into a class: under a name of the roster that nobody has taken, else under a new one.

        Raises JoinRefused where the name is taken, where a roster lacks it, where it is of somebody whom a
        learning platform sends, and where the class is full.
        """
        called = clean(name)

        def write(connection: sa.Connection) -> Member:
            _hold(connection, one.id)
            there = connection.execute(_NAMES_OF_CLASS, {"of": one.id}).all()
            same = next((each for each in there if _same(each.name, called)), None)
            if same is not None:
                if same.joined is None and same.reference.startswith(SENT):  # else both were one learner
                    raise JoinRefused("open the lesson from your course")
                waits = _where_member(same.learner).where(_members.c.joined.is_(None))
                if connection.execute(waits.values(joined=now)).rowcount == 0:
                    raise JoinRefused(
                        "somebody of that name has joined already; on another device go on with the personal "
                        "code, or choose another name"
                    )
                row = connection.execute(sa.select(_members).where(_members.c.learner == same.learner)).one()
                return _member(row)
            if _one(connection, one.id).rules.listed_only:
                raise JoinRefused("that name is not on the class's list; write it as your teacher has it")
            return _enter(connection, one, there, Row(called), joined=now)

        return self._changed(self._store.write(write))

    def enrol(self, one: Class, rows: Iterable[Row], *, only: bool | None = None) -> list[Member]:
        """Adds a roster's lines; names that are there stay as they are. Gives the new ones.

        Args:
            one: the class.
            rows: of the roster.
            only: whether nobody else may join from now on; None leaves that as it is.
        """
        wanted = list(rows)

        def write(connection: sa.Connection) -> list[Member]:
            _hold(connection, one.id)
            there, new = _of_class(connection, one.id), []
            for row in wanted:
                if not any(_same(each.name, row.name) for each in there):
                    new.append(_enter(connection, one, there, row, joined=None))
                    there.append(new[-1])
            if only is not None:
                rules = replace(_one(connection, one.id).rules, listed_only=only)
                connection.execute(_where_class(one.id).values(rules=rules.to_dict()))
            return new

        return self._changed(self._store.write(write))

    def admit(self, one: Class, *, reference: str, name: str, now: datetime | None) -> Member:
        """Whom another system calls so: who has come with it before, else who is on the list, else a new one.

        Args:
            one: the class.
            reference: what the other system calls them.
            name: theirs, or empty; one that somebody else bears gets a number behind it.
            now: when they come; None where they are listed and have not.

        Raises JoinRefused where the class is full.
        """

        def write(connection: sa.Connection) -> Member:
            _hold(connection, one.id)
            there = _of_class(connection, one.id)
            known = next((each for each in there if each.reference == reference), None)
            called = _free(name, there, known=known)
            if known is None:
                listed = next((each for each in there if _waits(each, name)), None)
                if listed is None:
                    return _enter(connection, one, there, Row(called, reference), joined=now)
                known, called = listed, listed.name
            joined = known.joined or now
            now_is = replace(known, reference=reference, name=called, joined=joined)
            values = {"reference": reference, "name": called, "joined": joined}
            connection.execute(_where_member(known.learner).values(**values))
            return now_is

        return self._changed(self._store.write(write))

    def give_code(self, learner: str) -> str:
        """A new personal code, told this once; the one before no longer counts."""

        def write(connection: sa.Connection) -> str:
            code = _code(PERSONAL_LETTERS)
            connection.execute(_where_member(learner).values(code=self._hash_code(code)))
            return code

        code = self._store.write(write)
        return f"{code[:4]}-{code[4:]}"

    def by_personal_code(self, code: str, *, now: datetime) -> Member | None:
        """Who has a personal code; it takes who uses it into the class, where a roster named them."""
        hashed = self._hash_code(_letters(code))

        def write(connection: sa.Connection) -> Member | None:
            row = connection.execute(sa.select(_members).where(_members.c.code == hashed)).first()
            if row is None or not hmac.compare_digest(row.code, hashed):
                return None
            found = _member(row)
            if found.joined is None:
                connection.execute(_where_member(found.learner).values(joined=now))
            return replace(found, joined=found.joined or now)

        return self._changed(self._store.write(write))

    def give_time(self, learner: str, factor: float | None) -> None:
        """Stretches the time of a member's problems from now on; None: no clock."""
        if factor is not None and not 1.0 <= factor <= LONGEST_TIMER:
            raise LessonError(f"time {factor:g}: expected a factor from 1 to {LONGEST_TIMER:g}, or none")
        self._changed(self._store.write(lambda connection: _set(connection, learner, {"factor": factor})))

    def erase_name(self, learner: str) -> None:
        """Erases a name: overwrites it, the reference, the personal code, and the badges that bear a name."""

        def write(connection: sa.Connection) -> None:
            _overwrite_what_goes(connection)
            _set(connection, learner, {"name": "", "reference": "", "code": None})
            connection.execute(sa.text("delete from badge where learner = :learner"), {"learner": learner})

        self._changed(self._store.write(write))
        self._store.forget_what_was_overwritten()

    def dismiss(self, learner: str) -> None:
        """Takes somebody out of their class; their cookie admits no more."""

        def write(connection: sa.Connection) -> None:
            _overwrite_what_goes(connection)
            connection.execute(_members.delete().where(_members.c.learner == learner))

        self._changed(self._store.write(write))
        self._store.forget_what_was_overwritten()

    def _changed(self, result: Result) -> Result:
        with self._turn:
            self._kept.clear()
        return result

    def _hash_code(self, code: str) -> str:
        return hmac.new(self._secret, f"personal code/{code}".encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return bool(one) and one.casefold() == other.casefold()


def _waits(member: Member, name: str) -> bool:
    """Whether a roster's member without a reference has that name, and has not come."""
    return member.joined is None and not member.reference and bool(name) and _same(member.name, name)


def _free(name: str, there: Sequence[Member], *, known: Member | None) -> str:
    """A name that nobody else in the class bears; empty for none that can be used."""
    try:
        called = clean(name)
    except LessonError:
        return known.name if known is not None else ""
    others = [each.name for each in there if each is not known]
    numbered = (f"{called[: LONGEST_NAME - 6]} ({number})" for number in range(2, MOST_MEMBERS + 2))
    return next(each for each in (called, *numbered) if not any(_same(each, other) for other in others))


def _letters(code: str) -> str:
    """A code as it is kept, of what somebody typed; of anything else, what is nobody's code."""
    kept = "".join(code.upper().split()).replace("-", "")
    return kept if kept.isascii() and len(kept) <= PERSONAL_LETTERS else ""


def _code(letters: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(letters))


def _hash(token: str) -> str:
    """A token has 128 bits, so its plain hash can be neither undone nor guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


# Statements -----------------------------------------------------------------------------------------------

_BY_LEARNER = (
    sa.select(
        _members,
        *(
            column.label(f"class_{column.name}")
            for column in _classes.c
            if column.name in ("id", "name", "pack", "code", "token", "created", "rules")
        ),
    )
    .join(_classes, _classes.c.id == _members.c["class"])
    .where(_members.c.learner == sa.bindparam("of"))
)

_NAMES_OF_CLASS = sa.select(
    *(_members.c[name] for name in ("learner", "number", "name", "reference", "joined"))
).where(_members.c["class"] == sa.bindparam("of"))
"""Looked through by everybody who joins."""


def _all(connection: sa.Connection) -> list[Class]:
    rows = connection.execute(sa.select(_classes).order_by(_classes.c.created, _classes.c.name))
    return [
        Class(row.id, row.name, row.pack, row.code, row.token, row.created, Rules.from_dict(row.rules))
        for row in rows
    ]


def _class(row: Any) -> Class:
    return Class(
        row.class_id,
        row.class_name,
        row.class_pack,
        row.class_code,
        row.class_token,
        row.class_created,
        Rules.from_dict(row.class_rules),
    )


def _hold(connection: sa.Connection, identity: str) -> None:
    """Lets no other transaction write this class until ours ends; SQLite has one writer at a time anyway."""
    connection.execute(sa.select(_classes.c.id).where(_classes.c.id == identity).with_for_update())


def _one(connection: sa.Connection, identity: str) -> Class:
    found = next((each for each in _all(connection) if each.id == identity), None)
    if found is None:
        raise LessonError("there is no such class any more")
    return found


def _of_class(connection: sa.Connection, identity: str) -> list[Member]:
    query = sa.select(_members).where(_members.c["class"] == identity).order_by(_members.c.number)
    return [_member(row) for row in connection.execute(query)]


def _member(row: Any) -> Member:
    values = row._mapping
    return Member(row.learner, values["class"], row.number, row.name, row.reference, row.factor, row.joined)


def _where_class(identity: str) -> sa.Update:
    return _classes.update().where(_classes.c.id == identity)


def _where_member(learner: str) -> sa.Update:
    return _members.update().where(_members.c.learner == learner)


def _set(connection: sa.Connection, learner: str, values: dict[str, Any]) -> None:
    if connection.execute(_where_member(learner).values(**values)).rowcount == 0:
        raise LessonError("they are no longer in the class")


def _enter(
    connection: sa.Connection, one: Class, there: Sequence[Any], row: Row, *, joined: datetime | None
) -> Member:
    """A new member behind those that are there. Two who take one number at once: the database refuses one."""
    if len(there) >= MOST_MEMBERS:
        raise JoinRefused(f"the class is full: it has {MOST_MEMBERS} members")
    number = max((each.number for each in there), default=0) + 1
    made = Member(f"m-{secrets.token_hex(8)}", one.id, number, row.name, row.reference, row.factor, joined)
    values = asdict(made)
    connection.execute(_members.insert().values(values | {"class": values.pop("class_id"), "code": None}))
    return made


def _overwrite_what_goes(connection: sa.Connection) -> None:
    """SQLite leaves deleted bytes in its file unless told to overwrite them."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("pragma secure_delete = on")
