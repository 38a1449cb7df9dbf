"""A web server over a folder, with stretches, lists and whatever failures a test wants."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit


@dataclass
class WebFolder:
    """What is served, and what was asked for."""

    root: Path
    lists: bool = True  # whether folders are listed
    stretches: bool = True  # whether a part of a file can be asked for
    claims: int | None = None  # the size that every file is said to have, in answer to HEAD
    links: tuple[str, ...] = ()  # further ones on every page
    status: int | None = 503  # of what fails; None breaks the connection
    fails: Callable[[str, int], bool] = lambda path, number: False  # by path and number of the request
    asked: list[str] = field(default_factory=list)
    authorised: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """With a slash at its end."""
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def web_folder(root: Path, **options: object) -> Iterator[WebFolder]:
    """Serve a folder on loopback for as long as it lasts."""
    folder = WebFolder(root, **options)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            with folder.lock:
                folder.asked.append(path)
                folder.authorised.append(self.headers.get("Authorization", ""))
                failing = folder.fails(path, len(folder.asked))
            place = root / path.strip("/")
            if failing and folder.status is None:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            if failing:
                return self._answer(folder.status, b"")
            if place.is_dir() and folder.lists:
                names = sorted(each.name + "/" * each.is_dir() for each in place.iterdir())
                links = (*folder.links, *map(quote, names))
                page = "".join(f'<a href="{link}">{link}</a>' for link in links)
                return self._answer(200, page.encode(), kind="text/html")
            if not place.is_file():
                return self._answer(404, b"")
            data = place.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and folder.stretches:
                end = min(int(wanted[2] or len(data)), len(data) - 1)
                extent = f"bytes {wanted[1]}-{end}/{len(data)}"
                return self._answer(206, data[int(wanted[1]) : end + 1], extent=extent)
            return self._answer(200, data)

        def _answer(
            self, status: int, data: bytes, *, kind: str = "application/octet-stream", extent: str = ""
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            claimed = folder.claims if self.command == "HEAD" and folder.claims is not None else len(data)
            self.send_header("Content-Length", str(claimed))
            self.send_header("Accept-Ranges", "bytes")
            if extent:
                self.send_header("Content-Range", extent)
            self.end_headers()
            if self.command == "GET":
                for start in range(0, len(data), 2**16):
                    self.wfile.write(data[start : start + 2**16])
                    with folder.lock:
                        folder.bytes_sent += len(data[start : start + 2**16])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    folder.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
