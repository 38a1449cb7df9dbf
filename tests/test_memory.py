"""The bound on memory while a stranger's file is read: it holds, and it goes."""

from __future__ import annotations

import sys
import threading

import pytest

from headstart.memory import bounded_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds of memory are Linux's")


def limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def test_what_takes_more_than_its_share_gets_a_memory_error_and_the_bound_goes() -> None:
    before = limit()
    with pytest.raises(MemoryError), bounded_memory(64 << 20):
        assert limit() != before
        bytearray(1 << 30)
    assert limit() == before
    assert len(bytearray(80 << 20)) == 80 << 20


def test_readings_in_two_threads_leave_no_bound_behind() -> None:
    before, entered = limit(), threading.Event()
    first_may_leave, second_may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with bounded_memory(1 << 30):
            entered.set()
            assert first_may_leave.wait(30)

    def second() -> None:
        with bounded_memory(2 << 30):
            assert second_may_leave.wait(30)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    threads[1].join(0.2)  # were it let in here, it would leave the first one's bound behind
    first_may_leave.set()
    threads[0].join()
    second_may_leave.set()
    threads[1].join()
    assert limit() == before
