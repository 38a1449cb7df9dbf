"""`headstart.db`, the one database of a home folder: runs, timings, jobs, the lesson's log and its results.

Its tables are runs, timings, jobs, the lesson's log, badges and classes, and results of experiments; each is
read and written by the package that knows what is in it. ``HEADSTART_DATABASE`` names another file, or a
PostgreSQL server, ``postgresql+psycopg://…``, that a class or a team shares.

    opening     the file: SQLite's locks, journal and damage
    postgresql  the server: psycopg's connections and errors
    schema      the tables, with the types of both
    timings     one of the tables
"""

from headstart.runs.store.opening import (
    Address,
    address,
    alone,
    connect,
    identity,
    is_server,
    is_there,
    mend,
    name_of,
    path_of,
    reason,
    store_file,
    transaction,
    use,
)
from headstart.runs.store.schema import Database, StoreError, is_damage, places_in
from headstart.runs.store.timings import Timing, add_timings, read_timings

__all__ = [
    "Address",
    "Database",
    "StoreError",
    "Timing",
    "add_timings",
    "address",
    "alone",
    "connect",
    "identity",
    "is_damage",
    "is_server",
    "is_there",
    "mend",
    "name_of",
    "path_of",
    "places_in",
    "read_timings",
    "reason",
    "store_file",
    "transaction",
    "use",
]
