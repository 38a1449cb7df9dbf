"""Decoding in processes: the same pixels as here, and whatever happens to one of them costs one image."""

import asyncio
import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import Preprocess, open_image, render, shortest_side_needed
from headstart.errors import ImageError
from headstart.serving.batching import Batcher
from headstart.serving.decoders import Decoder
from headstart.serving.limits import Limits
from headstart.serving.metrics import Metrics

PLAIN = Preprocess(32, 0.875, "bilinear", "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MOST = 50_000_000

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of POSIX")


def encoded(width: int, height: int, file_format: str = "JPEG") -> bytes:
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height)).save(buffer, file_format)
    return buffer.getvalue()


def here(data: bytes) -> np.ndarray:
    return render(open_image(data, shortest_side=shortest_side_needed(PLAIN))[0], PLAIN)


class Counted:
    def __init__(self) -> None:
        self.ended = 0

    def __call__(self) -> None:
        self.ended += 1


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def decoder(counted: Counted) -> Iterator[Decoder]:
    made = Decoder(600, ended=counted)
    yield made
    made.close()


def test_pixels_are_those_of_this_process(decoder: Decoder) -> None:
    large = encoded(2700, 2600, "BMP")  # takes more than may be taken without asking
    for data in (encoded(400, 300), encoded(77, 300, "PNG"), large):
        assert np.array_equal(decoder.pixels(data, PLAIN, most=MOST), here(data))


def test_what_is_no_image_is_refused_with_the_reason_and_the_process_goes_on(
    decoder: Decoder, counted: Counted
) -> None:
    for data, reason in ((b"text", "not an image"), (b"", "empty"), (encoded(90, 90)[:300], "truncated")):
        with pytest.raises(ImageError, match=reason):
            decoder.pixels(data, PLAIN, most=MOST)
    with pytest.raises(ImageError, match=r"limit is 0\.001 megapixels"):
        decoder.pixels(encoded(90, 90), PLAIN, most=1000)
    assert decoder.pixels(encoded(90, 90), PLAIN, most=MOST).shape == (32, 32, 3)
    assert counted.ended == 0


def test_an_image_that_takes_too_long_is_given_up_and_the_next_one_is_answered(counted: Counted) -> None:
    rows = np.full((1_900_000, 4), 0xFE, dtype=np.uint8)
    rows[:, 1:] = np.random.default_rng(0).integers(0, 256, (len(rows), 3))
    slow = b"qoif" + struct.pack(">IIBB", 1900, 1000, 3, 0) + rows.tobytes() + bytes(7) + b"\1"
    decoder = Decoder(0.3, ended=counted)
    try:
        with pytest.raises(ImageError, match=r"longer than 0\.3 s"):
            decoder.pixels(slow, PLAIN, most=MOST)
        assert counted.ended == 1
        assert _sooner_or_later(decoder, encoded(90, 90)).shape == (32, 32, 3)
    finally:
        decoder.close()


def _sooner_or_later(decoder: Decoder, data: bytes) -> np.ndarray:
    """Its pixels; on a busy machine even a small image may take too long at first."""
    for _ in range(50):
        try:
            return decoder.pixels(data, PLAIN, most=MOST)
        except ImageError:
            continue
    raise AssertionError("never answered")


def test_a_process_that_ends_costs_one_image(decoder: Decoder, counted: Counted, caplog: Any) -> None:
    data = encoded(90, 90)
    decoder.pixels(data, PLAIN, most=MOST)
    decoder.end()
    with pytest.raises(ImageError, match="ended unexpectedly"):
        decoder.pixels(data, PLAIN, most=MOST)
    assert "another one took its place" in caplog.text
    assert np.array_equal(decoder.pixels(data, PLAIN, most=MOST), here(data))
    assert counted.ended == 1


def test_the_process_outlives_the_signals_that_stop_the_server_and_ends_with_it(decoder: Decoder) -> None:
    data = encoded(90, 90)
    decoder.pixels(data, PLAIN, most=MOST)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(decoder._process.pid, number)
    assert decoder.pixels(data, PLAIN, most=MOST).shape == (32, 32, 3)
    decoder.close()
    assert decoder._process.returncode == 0


def test_the_working_folder_gives_the_process_no_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    for name in ("json", "numpy", "headstart"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.chdir(tmp_path)
    decoder = Decoder(600, ended=counted)
    try:
        assert decoder.pixels(encoded(90, 90), PLAIN, most=MOST).shape == (32, 32, 3)
    finally:
        decoder.close()


def test_a_decoding_that_never_ends_does_not_hold_up_the_stop() -> None:
    async def stop_while_decoding() -> None:
        metrics = Metrics()
        batcher = Batcher(Limits(decode_seconds=600), metrics)
        batcher.start()
        while any(worker.starting for worker in batcher._workers):
            await asyncio.sleep(0.01)
        for worker in batcher._workers:
            os.kill(worker.decoder._process.pid, signal.SIGSTOP)
        served: Any = SimpleNamespace(classifier=SimpleNamespace(preprocess=PLAIN))
        asked = asyncio.create_task(batcher.predict(served, [encoded(90, 90)] * 5))
        while not any(worker.job for worker in batcher._workers):
            await asyncio.sleep(0.01)
        asked.cancel()
        started = time.perf_counter()
        await asyncio.to_thread(batcher.close)
        assert time.perf_counter() - started < 60
        assert b"headstart_decoders_ended_total 0.0" not in metrics.text()

    asyncio.run(stop_while_decoding())


def test_a_decoding_process_that_never_starts_does_not_hold_up_the_stop() -> None:
    async def stop_at_once() -> None:
        batcher = Batcher(Limits(), Metrics())
        batcher.start()
        for worker in batcher._workers:
            os.kill(worker.decoder._process.pid, signal.SIGSTOP)
        closing = threading.Thread(target=batcher.close, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()

    asyncio.run(stop_at_once())
