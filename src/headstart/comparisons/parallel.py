"""Trainings beside each other: each on its share of the cores, which small networks use better so.

A step of a small trainable part is many short operations. Two cores on each of them wait for one another more
than they gain; two trainings with a core each do not wait. On a busy machine the difference is larger still.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from headstart.comparisons.schedule import MOST_AT_ONCE
from headstart.heads.threads import cores

_Work = TypeVar("_Work")
_Found = TypeVar("_Found")


def at_once(trainings: int) -> int:
    """How many of so many trainings to run at once here; 1 where a graphics card does the work."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(trainings, cores(), MOST_AT_ONCE))


def run(function: Callable[[_Work], _Found], works: Sequence[_Work], *, interrupted: Event) -> list[_Found]:
    """The results of all works, done at once with the cores divided between them.

    Ctrl-C sets ``interrupted``, which the works are expected to look at, and waits for them.
    """
    import torch

    threads = max(1, cores() // len(works))
    with torch.random.fork_rng(devices=[]):  # each work seeds the numbers that all share
        pool = ThreadPoolExecutor(
            len(works), "training", initializer=torch.set_num_threads, initargs=(threads,)
        )
        with pool:
            futures = [pool.submit(function, work) for work in works]
            try:
                return [future.result() for future in futures]
            except BaseException:
                interrupted.set()
                raise
