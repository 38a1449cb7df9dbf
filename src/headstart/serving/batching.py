"""Collects images of many requests into batches: decoded in processes, run in one thread, bounded in number.

Everything that counts is touched by the event loop's thread alone; the others hand their results to it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError
from headstart.serving.decoders import Decoder
from headstart.serving.limits import Limits
from headstart.serving.metrics import Metrics
from headstart.serving.models import LoadedModel

_log = logging.getLogger(__name__)

_LONGEST_RETRY = 60
"""Seconds; what a client is told at most."""

_MEMORY = 0.2
"""Share of the newest batch in the running pace."""

_ON_TIME, _SILENT = 0.5, 0.25
"""Shares of the seconds that an answer may take: what the queue may promise, how long nothing may come."""

_WORKERS = min(8, max(2, os.cpu_count() or 1))
"""Processes that decode, of some 50 MB each."""

_LOOK_SECONDS = 0.2
"""Between looks at whether a decoding that holds up the end is still wanted."""

Result = NDArray[np.float32] | ImageError


class Overloaded(Exception):
    """There is no place in the queue; ``retry_after`` seconds are likely to make one."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is busy; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its images come back one by one, its answer all at once."""

    model: LoadedModel
    results: list[Result | None]
    left: int
    done: asyncio.Future[list[Result]]


@dataclass(slots=True, eq=False)
class _File:
    """An image as it came; decoded by the first thread that is free."""

    job: _Job
    index: int
    data: bytes


@dataclass(slots=True, eq=False)
class _Image:
    job: _Job
    index: int
    pixels: NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class _Worker:
    """A decoding process, and what it is at."""

    decoder: Decoder
    job: _Job | None = None
    starting: bool = True


class Batcher:
    """Runs images through the classifier, many at a time."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._waiting = 0
        self._pace, self._settled = 0.0, 0.0
        self._files: SimpleQueue[_File | None] = SimpleQueue()
        self._decoded: SimpleQueue[_Image | None] = SimpleQueue()
        # Not an executor: its futures and locks cost as much as a tenth of what a request costs otherwise.
        self._workers: list[_Worker] = []
        self._ready = Event()
        self._decoders: list[Thread] = []
        self._runner = Thread(target=self._run, name="headstart-forward", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to run; called by the event loop that will call `predict`."""
        self._loop = asyncio.get_running_loop()
        for _ in range(_WORKERS):
            decoder = Decoder(self._limits.decode_seconds, ended=self._metrics.decoders.inc)
            self._workers.append(_Worker(decoder))
            self._decoders.append(Thread(target=self._decode_all, args=(self._workers[-1],), daemon=True))
        for thread in (*self._decoders, self._runner):
            thread.start()

    def await_start(self) -> None:
        """Wait until the first image would be decoded at once."""
        self._ready.wait()

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        for _ in self._decoders:
            self._files.put(None)
        for thread, worker in zip(self._decoders, self._workers, strict=True):
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
                if worker.starting or (
                    worker.job is not None and worker.job.done.done()
                ):  # nobody waits for it
                    worker.decoder.end()
        self._decoded.put(None)
        self._runner.join()

    @property
    def is_whole(self) -> bool:
        """Whether every thread that answers is there."""
        return all(thread.is_alive() for thread in (*self._decoders, self._runner))

    @property
    def waiting(self) -> int:
        """Images accepted and not yet answered."""
        return self._waiting

    def retry_after(self) -> int:
        """Seconds after which there should be room again, from how fast images were answered lately."""
        return min(_LONGEST_RETRY, max(1, math.ceil(self._waiting * self._pace)))

    def check_room(self, images: int = 1) -> None:
        """Refuse what has no place in the queue, or would hardly be answered in time.

        Raises:
            Overloaded: so many images do not fit in now.
        """
        if self._waiting + images > self._limits.queue or self._is_late():
            raise Overloaded(self.retry_after())

    def _is_late(self) -> bool:
        """Whether what waits will take too long at the pace so far, or nothing was answered for too long.

        A machine that other programs keep busy fills the queue with more than it can answer in time.
        """
        if not self._waiting:
            return False
        silent = time.perf_counter() - self._settled
        allowed = self._limits.answer_seconds
        return self._waiting * self._pace > _ON_TIME * allowed or silent > _SILENT * allowed

    async def predict(self, model: LoadedModel, images: Sequence[bytes]) -> list[Result]:
        """Probabilities, float32 [C], of each image file, or why there are none.

        Raises:
            Overloaded: there is no room for so many.
            TimeoutError: it took longer than a request may; whatever was not begun is dropped.
        """
        self.check_room(len(images))
        done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        job = _Job(model, [None] * len(images), len(images), done)
        if not self._waiting:
            self._settled = time.perf_counter()
        self._count(len(images))
        for index, data in enumerate(images):
            self._files.put(_File(job, index, data))
        async with asyncio.timeout(self._limits.answer_seconds):
            return await done

    def _count(self, images: int) -> None:
        self._waiting += images
        self._metrics.waiting.set(self._waiting)

    def _decode_all(self, worker: _Worker) -> None:
        worker.decoder.await_start()
        worker.starting = False
        self._ready.set()
        while (file := self._files.get()) is not None:
            worker.job = file.job
            self._decode(worker.decoder, file.job, file.index, file.data)
            worker.job = None
        worker.decoder.close()

    def _decode(self, decoder: Decoder, job: _Job, index: int, data: bytes) -> None:
        if job.done.done():  # nobody waits for it any more
            self._hand_over([(job, index, ImageError("the request is over"))])
            return
        try:
            preprocess = job.model.classifier.preprocess
            self._decoded.put(_Image(job, index, decoder.pixels(data, preprocess, most=self._limits.pixels)))
        except ImageError as error:
            self._hand_over([(job, index, error)])
        except Exception as error:
            _log.exception("decoding failed")
            self._hand_over([(job, index, error)])

    def _run(self) -> None:
        held: _Image | None = None
        while (first := held or self._decoded.get()) is not None:
            batch, held = self._collect(first)
            try:
                rows = first.job.model.answers([image.pixels for image in batch])
                self._metrics.batches.observe(len(batch))
                self._metrics.images.inc(len(batch))
                self._hand_over(
                    [(image.job, image.index, row) for image, row in zip(batch, rows, strict=True)]
                )
            except Exception as error:  # the thread must outlive it: requests to come depend on it
                _log.exception("the network failed")
                self._hand_over([(image.job, image.index, error) for image in batch])

    def _collect(self, first: _Image) -> tuple[list[_Image], _Image | None]:
        """A batch that begins with ``first``, and an image for the next one where the classifier changes."""
        batch = [first]
        deadline = time.perf_counter() + self._limits.wait_seconds
        while len(batch) < self._limits.batch and self._waiting > len(batch):
            try:
                image = self._decoded.get(timeout=max(0.0, deadline - time.perf_counter()))
            except Empty:
                break
            if image is None:
                self._decoded.put(None)  # for `_run`, which ends after this batch
                break
            if image.job.model is not first.job.model:
                return batch, image
            batch.append(image)
        return batch, None

    def _hand_over(self, results: Sequence[tuple[_Job, int, Result | Exception]]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._settle, results)

    def _settle(self, results: Sequence[tuple[_Job, int, Result | Exception]]) -> None:
        now = time.perf_counter()
        self._pace += _MEMORY * ((now - self._settled) / len(results) - self._pace)
        self._settled = now
        self._count(-len(results))
        for job, index, result in results:
            job.left -= 1
            if job.done.done():
                continue
            if isinstance(result, Exception) and not isinstance(result, ImageError):
                job.done.set_exception(result)
                continue
            job.results[index] = result
            if job.left == 0:
                job.done.set_result([found for found in job.results if found is not None])
