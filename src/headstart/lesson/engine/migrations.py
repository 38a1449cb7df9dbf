"""The database's schema, version by version.

To change the schema append a function to `MIGRATIONS`; never edit a released one. Each runs inside
the transaction that also raises the version, so a killed migration leaves the old version behind.
"""

from __future__ import annotations

from collections.abc import Callable

from headstart.errors import LessonError, MissingExtra

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql
except ImportError as error:
    raise MissingExtra("keeping progress", extra="learn") from error

Identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def _log_and_badges(connection: sa.Connection) -> None:
    metadata = sa.MetaData()
    sa.Table(
        "log",
        metadata,
        sa.Column("id", Identity, primary_key=True),
        sa.Column("stream", sa.String(200), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("learner", sa.String(64), nullable=False, index=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.String(128)),
        sa.Column("body", Json, nullable=False),
        sa.UniqueConstraint("stream", "sequence", name="one_entry_per_place"),
        sa.UniqueConstraint("stream", "key", name="one_entry_per_key"),
    )
    sa.Table(
        "badge",
        metadata,
        sa.Column("challenge", sa.String(64), primary_key=True),
        sa.Column("learner", sa.String(64), nullable=False, index=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("credential", sa.Text, nullable=False),
    )
    metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_log_and_badges,)


def migrate(connection: sa.Connection) -> int:
    """Brings the schema to the newest version, inside the caller's transaction. Returns that version.

    Raises LessonError where the database was written by a newer Headstart.
    """
    table = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))
    table.create(connection, checkfirst=True)
    version = connection.execute(sa.select(sa.func.max(table.c.version))).scalar() or 0
    if version > len(MIGRATIONS):
        raise LessonError(
            f"the progress database has version {version}, this Headstart knows {len(MIGRATIONS)}: "
            "upgrade Headstart or use another HEADSTART_HOME"
        )
    for step in range(version, len(MIGRATIONS)):
        MIGRATIONS[step](connection)
        connection.execute(table.insert().values(version=step + 1))
    return len(MIGRATIONS)
