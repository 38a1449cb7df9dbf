"""The process that decodes for a server: files in, pixels out, over its standard input and output.

It can be ended without the server noticing more than one image that was not decoded, and it ends itself when
an image takes too long, even where the server is gone.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

from headstart.data.images import Preprocess, load_pixels
from headstart.data.images.bounds import MAX_BYTES, Room
from headstart.errors import ImageError

REQUEST = struct.Struct("<IQQd")
"""Bytes of the `Preprocess` as JSON, of the file, pixels that it may have, seconds that it may take."""

ANSWER = struct.Struct("<cQ")
"""A kind and a number: of bytes that follow, or of bytes of memory that are asked for."""

READY, PIXELS, REFUSED, FAILED, ROOM = b"S", b"P", b"R", b"F", b"M"

_BESIDE_BYTES = 2**30
"""For the interpreter and its libraries, beside what decoding may take."""


class _AskedRoom(Room):
    """The server's room: all its processes together hold no more than one process may."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        super().__init__()
        self._requests, self._answers = requests, answers

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Ask, and wait without the clock running; the server takes it back with the answer."""
        if count >= self.small:
            left = _clock(0)
            self._answers.write(ANSWER.pack(ROOM, count))
            self._answers.flush()
            if not self._requests.read(1):
                sys.exit()
            _clock(left)
        yield


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # what a library prints must not come between the answers
        os.dup2(nowhere, stream)
    for number in (signal.SIGINT, signal.SIGTERM):  # the server ends us once it has answered
        signal.signal(number, signal.SIG_IGN)
    _bound_memory()
    room = _AskedRoom(requests, answers)
    answers.write(ANSWER.pack(READY, 0))
    answers.flush()
    while head := requests.read(REQUEST.size):
        text_size, size, most, seconds = REQUEST.unpack(head)
        preprocess = _preprocess(requests.read(text_size))
        data = requests.read(size)
        _clock(seconds)
        kind, body = _answer(data, preprocess, most=most, room=room)
        _clock(0)
        answers.write(ANSWER.pack(kind, len(body)))
        answers.write(body)
        answers.flush()


def _answer(data: bytes, preprocess: Preprocess, *, most: int, room: Room) -> tuple[bytes, bytes]:
    try:
        return PIXELS, load_pixels(data, preprocess, max_pixels=most, room=room).tobytes()
    except ImageError as error:
        return REFUSED, str(error).encode("utf-8", "backslashreplace")
    except MemoryError:
        return REFUSED, b"not enough memory to decode it"
    except Exception as error:
        return FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")


@lru_cache(maxsize=4)
def _preprocess(text: bytes) -> Preprocess:
    return Preprocess.from_dict(json.loads(text))


def _clock(seconds: float) -> float:
    """End this process after so many seconds (0: never); returns those that were left."""
    if not hasattr(signal, "setitimer"):
        return 0.0
    return signal.setitimer(signal.ITIMER_REAL, seconds)[0]


def _bound_memory() -> None:
    """What the counting of bytes should have missed ends in a MemoryError here and not in the system's."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most = MAX_BYTES + _BESIDE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
