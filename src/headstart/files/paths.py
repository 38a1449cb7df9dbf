"""Where Headstart keeps things: two folders, both movable by an environment variable.

Whoever writes there makes them with `make`, closed to the machine's other users: features and records tell of
private photographs. Asking where they are makes nothing.
"""

import os
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
        return Path(chosen).expanduser().absolute()
    import platformdirs

    path: Path = getattr(platformdirs, default)("headstart", appauthor=False)
    return path


def make(folder: Path) -> Path:
    """Make a folder and its parents for this user alone; one that is there keeps the rights that it has.

    Raises:
        OSError: it cannot be made.
    """
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():  # mkdir(parents=True) gives its mode to the last one only
            each.mkdir(mode=0o700, exist_ok=True)
    return folder
