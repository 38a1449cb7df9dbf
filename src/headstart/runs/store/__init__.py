"""`headstart.db`, the one database of a home folder: runs, timings, jobs, the lesson's log and its results.

Its tables are runs, timings, jobs, the lesson's log and badges, and results of experiments; each is read and
written by the package that knows what is in it. ``HEADSTART_DATABASE`` names another file, or the SQLAlchemy
URL of a server: that holds what a class shares, the log and the badges, while what names this machine's
folders stays in the file.
"""

from headstart.runs.store.opening import (
    address,
    alone,
    connect,
    is_server,
    is_there,
    mend,
    path_of,
    reason,
    store_file,
    transaction,
    use,
)
from headstart.runs.store.schema import StoreError, is_damage, migrate, places_in
from headstart.runs.store.timings import Timing, add_timings, read_timings

__all__ = [
    "StoreError",
    "Timing",
    "add_timings",
    "address",
    "alone",
    "connect",
    "is_damage",
    "is_server",
    "is_there",
    "mend",
    "migrate",
    "path_of",
    "places_in",
    "read_timings",
    "reason",
    "store_file",
    "transaction",
    "use",
]
