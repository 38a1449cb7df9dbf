"""Where Headstart keeps things: two folders, both movable by an environment variable."""

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
