"""Decoding in processes that can be ended: a hostile image costs one process, and never the server's stop."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

import headstart
from headstart.data.images import Preprocess
from headstart.data.images.bounds import ROOM as THIS_PROCESS
from headstart.errors import ImageError
from headstart.serving.decoding import ANSWER, PIXELS, READY, REFUSED, REQUEST, ROOM

_log = logging.getLogger(__name__)

_START = "import sys; sys.path.append(sys.argv[1]); from headstart.serving.decoding import main; main()"


class Decoder:
    """A process that decodes one image after the other; begun anew where it has ended. For one thread."""

    def __init__(self, seconds: float, *, ended: Callable[[], None]) -> None:
        """Begin it.

        Args:
            seconds: that one image may take.
            ended: is called whenever it had to be begun anew.
        """
        self._seconds = seconds
        self._ended = ended
        self._process = _begin()

    def await_start(self) -> None:
        """Wait until it is ready for the first image; to be called at most once."""
        with suppress(EOFError, OSError):  # `pixels` begins it anew
            self._read(ANSWER.size)

    def pixels(self, data: bytes, preprocess: Preprocess, *, most: int) -> NDArray[np.uint8]:
        """A file's bytes as a network's pixels, uint8 [S, S, 3].

        Args:
            data: an image file.
            preprocess: what the network wants.
            most: pixels that the image may have.

        Raises:
            ImageError: it is no usable image, a larger one, or takes too long.
        """
        text = _spoken(preprocess)
        try:
            self._send(REQUEST.pack(len(text), len(data), most, self._seconds), text, data)
            kind, body = self._receive()
        except (EOFError, OSError, ValueError):  # the last: its streams are closed
            raise self._begun_anew() from None
        if kind == PIXELS:
            return np.frombuffer(body, np.uint8).reshape(preprocess.size, preprocess.size, 3)
        if kind == REFUSED:
            raise ImageError(body.decode())
        raise RuntimeError(f"decoding failed: {body.decode()}")

    def end(self) -> None:
        """End the process where it is; called by another thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process once it has nothing more to do."""
        with suppress(OSError):
            _stream(self._process.stdin).close()
        self._process.wait()
        _stream(self._process.stdout).close()

    def _send(self, *parts: bytes) -> None:
        stream = _stream(self._process.stdin)
        for part in parts:
            stream.write(part)
        stream.flush()

    def _receive(self) -> tuple[bytes, bytes]:
        with ExitStack() as held:
            while True:
                kind, number = ANSWER.unpack(self._read(ANSWER.size))
                if kind == ROOM:
                    held.enter_context(THIS_PROCESS.taken(number))
                    self._send(b"\1")
                elif kind != READY:
                    return kind, self._read(number)

    def _read(self, size: int) -> bytes:
        found = _stream(self._process.stdout).read(size)
        if len(found) < size:
            raise EOFError
        return found

    def _begun_anew(self) -> ImageError:
        """Put another process in the place of one that has ended, and say why it did."""
        self.end()
        self.close()
        code = self._process.returncode
        self._process = _begin()
        self._ended()
        if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:
            return ImageError(f"decoding takes longer than {self._seconds:g} s")
        _log.warning("a decoding process ended with %d; another one took its place", code)
        return ImageError("its decoder ended unexpectedly")


def _begin() -> subprocess.Popen[bytes]:
    # -P: the working folder, which may be anybody's, gives no modules.
    command = [sys.executable, "-P", "-c", _START, str(Path(headstart.__file__).parents[1])]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **threads}
    )


@lru_cache(maxsize=4)
def _spoken(preprocess: Preprocess) -> bytes:
    return json.dumps(preprocess.to_dict()).encode()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the process has no such stream")
    return stream
