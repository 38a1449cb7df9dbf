"""Applications behind a real socket, with the front that all our servers have."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Address = tuple[str, int]


@contextmanager
def listening(app: Any, *, protocol: Any = None, lifespan: Literal["on", "off"] = "off") -> Iterator[Address]:
    """Where an ASGI application answers, in a thread.

    Args:
        app: the application.
        protocol: instead of the front's.
        lifespan: whether it is told of its start and end.
    """
    import uvicorn

    from headstart.web.front import BoundedProtocol

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol or BoundedProtocol,
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan=lifespan,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield listener.getsockname()
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
