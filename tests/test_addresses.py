"""Where a server listens, under which names it answers, and what its address is."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from headstart.errors import OptionError
from headstart.web.addresses import address_of, is_loopback, listen, names_for, own_address


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_on_loopback_only_the_names_of_loopback_are_ours() -> None:
    names = names_for("localhost")
    assert all(map(names.admit, ("127.0.0.1:8421", "LOCALHOST", "[::1]:80", "[::1]")))
    assert not any(map(names.admit, ("", "evil.example", "192.168.1.5:8421", "desk")))


def test_beyond_loopback_our_own_name_named_ones_and_addresses_are_ours_too() -> None:
    names = names_for("0.0.0.0", also=("Photos.Example",))
    assert all(map(names.admit, ("photos.example", "192.168.1.5:8421", "[fe80::1]:80", "desk:8421")))
    assert not names.admit("evil.example")


def test_the_address_for_people_has_a_name_that_reaches_us_and_the_token() -> None:
    assert address_of("127.0.0.1", 8421) == "http://127.0.0.1:8421/"
    assert address_of("::1", 80) == "http://[::1]:80/"
    shown = address_of("0.0.0.0", 80, token="abc")
    assert shown == f"http://{own_address()}:80/?token=abc"
    assert names_for("0.0.0.0").admit(own_address()) and not is_loopback(own_address())


def test_without_a_network_the_address_has_the_machines_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable, raising=False)
    assert address_of("0.0.0.0", 80) == address_of("::", 80) == "http://Desk:80/"


def test_a_port_that_is_taken_is_refused_with_the_way_out() -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5)):
            pass
        with pytest.raises(OptionError, match=rf"127\.0\.0\.1:{port} .*--port 0"):
            listen("127.0.0.1", port)
