"""How many threads a process takes; of linear algebra, as many as its work is worth.

OpenBLAS makes its threads wait for each other in a loop, thousands of times in one eigendecomposition. Where
another process has a core, each wait lasts until the scheduler comes round: beside two busy processes the
eigenvectors of a 600 x 600 matrix took 13.5 s on two threads and 0.8 s on one, and on a quiet machine two
threads gain little before a few thousand rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORTH_THREADS = 2**26
"""Multiply-adds between two waits from which more threads pay: some milliseconds, as long as a scheduler lets
another process run."""

EIGEN_OPERATIONS = 12
"""Of an eigendecomposition of n x n, over n cubed."""

_lock = threading.Lock()
_inside = 0
_most: int | None = None
_before: list[tuple[Any, int]] = []  # libraries, and the threads that each had


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(count: int) -> None:
    """Take at most so many threads from now on, for decoding, networks and linear algebra.

    For a process that shares its machine with others of its kind: each has some of the cores.
    """
    global _most
    if _most != count:
        _most = count
        _set([(library, count) for library in _libraries()])


def thread_limit() -> int | None:
    """What `limit_threads` was told; None where nobody did."""
    return _most


def decoding_threads() -> int:
    """Threads that decode images: two at least, as one of them often waits for a disk."""
    return max(2, _most or os.cpu_count() or 1)


def eigenvectors(matrix: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ascending eigenvalues [N] and eigenvectors [N, N] of a symmetric matrix, float64."""
    with threads_for(EIGEN_OPERATIONS * len(matrix) ** 2):
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


@contextmanager
def threads_for(operations: float) -> Iterator[None]:
    """Run NumPy's linear algebra inside on one thread, or on all where the work is worth them.

    The choice hangs on the work alone, never on the machine's load, so that the same job gives the same
    result. The limit holds for the whole process; it ends when the last of those who asked for it is done.

    Args:
        operations: Multiply-adds between two points at which threads wait for each other: all of a matrix
            product, 12 n^2 in an eigendecomposition of n x n.
    """
    global _inside
    if operations >= WORTH_THREADS:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            _before[:] = [(library, library.get_num_threads()) for library in _libraries()]
            _set([(library, 1) for library, _ in _before])
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set(_before)


def _set(threads: Sequence[tuple[Any, int]]) -> None:
    """Set each library's threads, from whichever Python thread comes first or leaves last.

    threadpoolctl from 3.8 on listens to one Python thread alone until that one is cleared; here `_lock` keeps
    them apart.
    """
    for library, count in threads:
        clear = getattr(library, "clear_controlling_thread", lambda force: None)
        clear(force=True)
        library.set_num_threads(count)
        clear(force=True)


@cache
def _libraries() -> tuple[Any, ...]:
    """What NumPy has loaded for linear algebra; looking for it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return tuple(each for each in ThreadpoolController().lib_controllers if each.user_api == "blas")
