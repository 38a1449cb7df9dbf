"""Where Headstart keeps things: two folders, both movable by an environment variable.

They are made when they are first asked for, closed to the machine's other users: features and records tell of
private photographs. A folder that is there already keeps the rights that it has.
"""

import os
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """What can be made again: features, exported graphs, compiled models. ``HEADSTART_CACHE`` moves it."""
    return _folder("HEADSTART_CACHE", "user_cache_path")


def home_folder() -> Path:
    """What cannot: the runs store, progress, keys. ``HEADSTART_HOME`` moves it."""
    return _folder("HEADSTART_HOME", "user_data_path")


def _folder(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        path = Path(chosen).expanduser().absolute()
    else:
        import platformdirs

        path = getattr(platformdirs, default)("headstart", appauthor=False)
    with suppress(OSError):  # whoever writes there says what is wrong
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
