"""Fuzzes the HTTP front: whatever bytes come, no server of the three fails, takes 2 s or grows by 256 MB.

python fuzz/front.py [SECONDS]
"""

import asyncio
import os
import resource
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from run import fuzz

_HOST = b"host: 127.0.0.1\r\n"
_TOKEN = "s3cret-token"
_MOST_SECONDS, _MOST_KIB = 2.0, 256 * 1024


def seeds() -> list[bytes]:
    """Requests of every kind that the three servers take, and the attacks that they refuse."""
    known = b"authorization: Bearer " + _TOKEN.encode() + b"\r\n"
    form = b'--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\nx\r\n--b--\r\n'
    image = b"content-type: application/json\r\n"
    return [
        b"GET /?token=" + _TOKEN.encode() + b" HTTP/1.1\r\n" + _HOST + b"\r\n",
        b"HEAD /health HTTP/1.1\r\n" + _HOST + b"\r\nGET /metrics HTTP/1.1\r\n" + _HOST + known + b"\r\n",
        b"POST /predict?top=3 HTTP/1.1\r\n" + _HOST + known + image + b'content-length: 4\r\n\r\n{"a"',
        b"POST /predict HTTP/1.1\r\n" + _HOST + known + image + b"content-length: 8\r\n\r\n[[[[[[[[",
        b"POST /send HTTP/1.1\r\n" + _HOST + b"content-type: multipart/form-data; boundary=b\r\n"
        b"content-length: " + str(len(form)).encode() + b"\r\n\r\n" + form,
        b"POST /predict HTTP/1.1\r\n" + _HOST + b"transfer-encoding: chunked\r\n\r\n"
        b"5;x=y\r\nabcde\r\n0\r\n" + known + b"\r\n",
        b"POST / HTTP/1.1\r\n" + _HOST + b"origin: http://[\r\nreferer: [\r\ncontent-length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: [::1\r\nhost: x\r\ncookie: a=\"\\1\\1; b\r\nupgrade: websocket\r\n"
        b"connection: upgrade\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n\r\n",
    ]  # fmt: skip


def _served() -> list[tuple[str, int]]:
    """The addresses of the three, in threads of this process."""
    import uvicorn

    from headstart.lesson.pages import server as lesson
    from headstart.lesson.pages.app import create_app as create_lesson
    from headstart.serving.app import create_app as create_serving
    from headstart.studio import server as studio
    from headstart.studio.app import create_studio
    from headstart.web import front

    front.HEAD_SECONDS = front.BODY_SECONDS = front.LINGER_SECONDS = 0.02
    folder = Path(tempfile.mkdtemp())
    os.environ["HEADSTART_HOME"], os.environ["HEADSTART_CACHE"] = str(folder / "home"), str(folder / "cache")
    models: Any = SimpleNamespace(current=None, trouble=None)
    apps = [
        create_serving(models, token=_TOKEN, watch_seconds=0),
        create_lesson(lesson.prepare(None, host="127.0.0.1", token=_TOKEN)),
        create_studio(studio.prepare(folder, host="127.0.0.1", token=_TOKEN)),
    ]
    found = []
    for app in apps:
        listener = socket.create_server(("127.0.0.1", 0))
        options: dict[str, Any] = {
            "ws": "none",
            "log_config": None,
            "log_level": "critical",
            "lifespan": "off",
        }
        config = uvicorn.Config(_Watched(app), http=front.BoundedProtocol, timeout_keep_alive=0, **options)
        serve = uvicorn.Server(config).serve(sockets=[listener])
        threading.Thread(target=asyncio.run, args=(serve,), daemon=True).start()
        found.append(listener.getsockname())
    return found


class _Watched:
    """An application whose failures are kept, since uvicorn answers them and goes on."""

    failures: list[Exception] = []  # noqa: RUF012

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on."""
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.failures.append(error)
            raise


_ADDRESSES: list[tuple[str, int]] = []
_BEGUN: list[int] = []


def target(data: bytes) -> None:
    """Send it to each of the three and wait until they close."""
    if not _ADDRESSES:
        _ADDRESSES.extend(_served())
        time.sleep(1)
    for address in _ADDRESSES:
        begun, answer = time.process_time(), b""
        with socket.create_connection(address, timeout=60) as client:
            try:
                client.sendall(data)
                while piece := client.recv(65_536):
                    answer += piece
            except ConnectionError:
                pass
        if time.process_time() - begun > _MOST_SECONDS:
            raise AssertionError("it took too long")
        if b"HTTP/1.1 500" in answer or _Watched.failures:
            raise AssertionError(f"the server failed: {_Watched.failures[:1]}")
    _BEGUN.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if _BEGUN[-1] - _BEGUN[0] > _MOST_KIB:
        raise AssertionError("it grew too much")
    del _BEGUN[1:]


if __name__ == "__main__":
    fuzz(
        target, seeds(), modules=["headstart.web.front", "headstart.web.addresses", "headstart.serving.auth"]
    )
