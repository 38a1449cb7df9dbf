"""The HTTP front of all three servers: bounds in bytes and seconds, whom it answers, how it ends."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("uvicorn", reason="needs headstart[serve] or headstart[web]")
pytest.importorskip("prometheus_client", reason="needs headstart[serve]")

from headstart.serving.app import create_app as create_serving
from headstart.serving.models import Models
from headstart.web import front
from headstart.web.addresses import is_same_origin
from lesson_worlds import lesson_worlds
from listening import Address, listening
from studio_worlds import studio_worlds

TOKEN = "s3cret-token"
PLENTY = 16 * 2**20
"""Bytes: far beyond what the front takes and what the system's own buffers hold."""

HOST = b"host: 127.0.0.1\r\n"
PIECE = b"a" * 65_536


@pytest.fixture(scope="module", params=["serve", "learn", "studio"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Each of the three, with a token."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_HOME", str(folder / "home"))
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        if request.param == "serve":
            models = cast("Models", SimpleNamespace(current=None, trouble=None))
            app = create_serving(models, token=TOKEN, watch_seconds=0)
            with listening(app, lifespan="on") as address:
                yield address
        elif request.param == "learn":
            with lesson_worlds(folder) as make, listening(make(token=TOKEN).browser.app) as address:
                yield address
        else:
            (folder / "root").mkdir()
            with studio_worlds(folder / "root") as make, listening(make(token=TOKEN).browser.app) as address:
                yield address


@pytest.fixture
def echo() -> Iterator[Address]:
    """Answers with the headers that it sees once the body is there, so that what is merged would show."""
    with listening(_echo) as address:
        yield address


async def _echo(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    if scope["path"] != "/early":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    body = PIECE * 400 if scope["path"] == "/large" else repr(scope["headers"]).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


def tell(address: Address, pieces: Iterable[bytes]) -> tuple[int, bytes]:
    """Sends until the other side closes; the bytes that it took and what it answered."""
    taken, answer = 0, b""
    with socket.create_connection(address, timeout=20) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
                taken += len(piece)
            while data := client.recv(65_536):
                answer += data
        except (ConnectionError, BrokenPipeError):
            pass  # closed with bytes unread: the system resets it
    return taken, answer


def endless(*first: bytes, piece: bytes = PIECE) -> Iterator[bytes]:
    """``first``, then more of the same until `PLENTY`."""
    return itertools.chain(first, itertools.repeat(piece, PLENTY // len(piece)))


CHUNKED = b"POST /predict HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda: endless(b"GET /", piece=PIECE), id="line"),
        pytest.param(lambda: endless(b"GET / HTTP/1.1\r\n", piece=b"x: " + PIECE + b"\r\n"), id="headers"),
        pytest.param(lambda: endless(b"GET / HTTP/1.1\r\nx-one: "), id="header"),
        pytest.param(lambda: endless(b'GET / HTTP/1.1\r\ncookie: a="', piece=b"\\1" * 9999), id="cookie"),
        pytest.param(lambda: endless(piece=b"\r\n" * 32_768), id="blank lines"),
    ],
)  # fmt: skip
def test_a_head_without_an_end_ends_the_connection(
    server: Address, pieces: Callable[[], Iterator[bytes]]
) -> None:
    taken, answer = tell(server, pieces())
    assert taken < PLENTY and not answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda: [CHUNKED, b"\r\n0\r\nx: y\r\n\r\n"], id="trailer"),
        pytest.param(
            lambda: [CHUNKED, f"\r\n0\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()], id="token"
        ),
        pytest.param(lambda: endless(CHUNKED, b"\r\n0\r\nx: "), id="endless trailer"),
        pytest.param(lambda: endless(CHUNKED, b"\r\n5;x="), id="endless extension of a chunk"),
    ],
)
def test_what_follows_a_body_or_hides_between_its_pieces_is_refused(
    echo: Address, pieces: Callable[[], Iterable[bytes]]
) -> None:
    taken, answer = tell(echo, pieces())
    assert taken < PLENTY and answer.split()[1:2] in ([], [b"400"])


def test_a_token_in_a_trailer_admits_to_no_server(server: Address) -> None:
    trailer = f"\r\n0\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()
    _, answer = tell(server, [CHUNKED + b"content-type: image/png\r\nconnection: close\r\n" + trailer])
    assert answer.split()[1] in (b"400", b"401", b"411")


def test_pieces_of_a_body_are_taken_however_small_they_are(echo: Address) -> None:
    _, answer = tell(echo, [CHUNKED, b"connection: close\r\n\r\n", *[b"1\r\na\r\n"] * 20_000, b"0\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("bound", "begun"),
    [
        pytest.param("HEAD_SECONDS", b"", id="silent"),
        pytest.param("HEAD_SECONDS", b"GET / HTTP/1.1\r\nhost: ", id="head"),
        pytest.param("BODY_SECONDS", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\na", id="body"),
        pytest.param("BODY_SECONDS", CHUNKED + b"\r\n0\r\nx: ", id="trailer"),
        pytest.param("LINGER_SECONDS", b"POST /early HTTP/1.1\r\ncontent-length: 9\r\n\r\na", id="answered"),
    ],
)
def test_who_sends_no_more_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, bound: str, begun: bytes
) -> None:
    monkeypatch.setattr(front, bound, 0.05)
    with listening(_echo) as address:
        tell(address, [begun])  # which returns once the other side has closed


def test_a_request_after_another_has_the_same_bounds(echo: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection(echo, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(front, "HEAD_SECONDS", 0.05)
        client.sendall(b"\r\n")  # which begins no request and would stop uvicorn's own clock
        assert client.recv(65_536) == b""


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "WRITE_SECONDS", 0.05)
    lost = threading.Event()

    class Watched(front.BoundedProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    with (
        listening(_echo, protocol=Watched) as address,
        socket.create_connection(address, timeout=20) as client,
    ):
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert lost.wait(20)


@pytest.mark.parametrize("path", [b"/", b"/health", b"/static/style.css", b"/openapi.json"])
def test_cookies_within_the_bound_cost_no_more_than_their_bytes(server: Address, path: bytes) -> None:
    cookie = b'cookie: a="' + b"\\1" * 30_000 + b'"\r\n'
    begun = time.process_time()
    _, answer = tell(
        server, [b"GET " + path + b" HTTP/1.1\r\n" + HOST + cookie + b"connection: close\r\n\r\n"]
    )
    assert answer.startswith(b"HTTP/1.1 ") and not answer.startswith(b"HTTP/1.1 5")
    assert time.process_time() - begun < 2


def test_idle_connections_make_room_for_new_ones() -> None:
    class Few(front.BoundedProtocol):
        _most = 5

    with listening(_echo, protocol=Few) as address:
        silent = [socket.create_connection(address, timeout=20) for _ in range(20)]
        _, answer = tell(address, [b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"])
        assert answer.startswith(b"HTTP/1.1 200")
        for each in silent:
            each.close()


@pytest.mark.parametrize(
    "head",
    [
        b"origin: http://[\r\n",
        b"origin: http://[::1\r\n",
        b"origin: null\r\n",
        b"origin: \xff\r\n",
        b"origin: http://127.0.0.1\r\norigin: http://evil.example\r\n",
        b"origin: http://127.0.0.1@evil.example\r\n",
        b"sec-fetch-site: cross-site\r\n",
    ],
)
def test_a_malformed_origin_is_refused_like_a_foreign_one(server: Address, head: bytes) -> None:
    request = b"POST /predict HTTP/1.1\r\n" + HOST + head + b"content-length: 0\r\nconnection: close\r\n\r\n"
    assert tell(server, [request])[1].startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "host", [b"[", b"http://[", b"[::1", b"127.0.0.1:x", b"127.0.0.1:99999", b"a b", b"\xff"]
)
def test_a_malformed_host_is_not_ours(server: Address, host: bytes) -> None:
    request = b"GET /health HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n"
    assert tell(server, [request])[1].startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("referer", [b"http://[", b"\xff", b"a" * 30_000])
def test_no_referer_is_an_error_of_ours(server: Address, referer: bytes) -> None:
    request = b"GET / HTTP/1.1\r\n" + HOST + b"referer: " + referer + b"\r\nconnection: close\r\n\r\n"
    assert tell(server, [request])[1].split()[1] in (b"401", b"404")


def test_origins_are_compared_whole() -> None:
    assert is_same_origin("http://127.0.0.1:8421", "127.0.0.1:8421")
    assert is_same_origin("https://Photos.Example", "photos.example")
    assert not any(
        is_same_origin(origin, "127.0.0.1:8421")
        for origin in ("null", "", "http://127.0.0.1", "ftp://127.0.0.1:8421", "http://127.0.0.1:8421/")
    )


HANGS = """\
import sys, threading
from headstart.web import front
from headstart.web.addresses import listen

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive(); await send({"type": "lifespan.startup.complete"}); print("up", flush=True)
        await receive(); await send({"type": "lifespan.shutdown.complete"})

front.FORCE_SECONDS = 0.2
hang = sys.argv[1] == "hangs"
finish = threading.Event().wait if hang else lambda: print("finished", flush=True)
front.run(app, listener=listen("127.0.0.1", 0), stop_seconds=1, keep_alive_seconds=1, finish=finish)
"""


@pytest.mark.parametrize(("way", "status", "said"), [("ends", 0, b"finished"), ("hangs", 1, b"")])
def test_sigterm_ends_a_server_even_where_something_hangs(way: str, status: int, said: bytes) -> None:
    command = [sys.executable, "-c", HANGS, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert said in out and (b"hangs" in err) is (way == "hangs")
