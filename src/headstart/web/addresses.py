"""Addresses: where a server listens, and the host names it accepts.

A server on loopback is within reach of every page that the user's browser opens. A page whose name its owner
points at 127.0.0.1 (DNS rebinding) would be of the same origin as we are; so a Host header must name us.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from headstart.errors import OptionError, printable

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?", re.ASCII)
"""A Host header in lower case; nothing else is a name of ours, whoever parses it afterwards."""


@dataclass(frozen=True)
class Names:
    """Accepted values of the Host header.

    Attributes:
        hosts: names without port, in lower case.
        addresses: whether any numeric address is welcome too (a server beyond loopback).
    """

    hosts: frozenset[str] = LOOPBACK_NAMES
    addresses: bool = False

    def admit(self, host: str) -> bool:
        """Whether a Host header, with or without a port, is one of ours."""
        found = _HOST.fullmatch(host.lower())
        if found is None or int((found["port"] or ":0")[1:]) > 65535:
            return False
        # A rebinding attack needs a name that its owner can point at us; a numeric address is no such name.
        return found["name"] in self.hosts or (self.addresses and _is_address(found["name"].strip("[]")))


def names_for(host: str, *, also: Iterable[str] = ()) -> Names:
    """The host names accepted by a server that listens on ``host``.

    Args:
        host: a name or an address.
        also: further names, such as that of a proxy in front.
    """
    more = {name.lower() for name in also}
    if is_loopback(host):
        return Names(LOOPBACK_NAMES | more)
    return Names(LOOPBACK_NAMES | more | {host.lower(), socket.gethostname().lower()}, addresses=True)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the server that a Host header names; both may be anything."""
    scheme, _, place = origin.lower().partition("://")
    return scheme in ("http", "https") and place == host.lower()


def checked_origins(origins: Iterable[str]) -> frozenset[str]:
    """Origins as browsers send them, in lower case.

    Raises:
        OptionError: one is none, such as ``*`` or an address with a path.
    """
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin.lower():
            raise OptionError(
                f"--allow-origin {printable(origin)}: expected an origin, such as https://flowers.example"
            )
    return frozenset(map(str.lower, origins))


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listen(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        OptionError: the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise OptionError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); try --port 0 for any free port"
        ) from None
    listener.listen(backlog)
    return listener


def address_of(host: str, port: int, *, token: str | None = None) -> str:
    """The address to give to people, such as ``http://127.0.0.1:8421/``, with the token if there is one."""
    name = own_address(ipv6=host == "::") if host in ("0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def own_address(*, ipv6: bool = False) -> str:
    """This machine's number in its network, which others can use; its name where it has none.

    A bare host name is known to few networks. Nothing is sent: the system says which way it would take.
    """
    family, there = (socket.AF_INET6, "2001:db8::1") if ipv6 else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))  # an address of documents (RFC 5737, RFC 3849)
            found = str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
    return socket.gethostname() if is_loopback(found) else found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
