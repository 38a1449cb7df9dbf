"""A clock that tests hold, and a job whose every number is known, for the tests of plans."""

from dataclasses import replace
from typing import Any

from headstart.costs import formulas as jobs


class FakeClock:
    """Seconds that pass only when the test says so, or a fixed step at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def make_job(**changes: Any) -> jobs.Job:
    job = jobs.Job(
        data="photos 73",
        images=1000,
        missing=1000.0,
        training=700,
        held_out=300,
        classes=5,
        views=1,
        network="net",
        prefix_macs=30_000_000,
        tail_macs=0,
        stored_bytes=0,
        dimensions=1280,
        tap_width=0,
        tap_count=17,
        head="ridge",
        choosing_taps=False,
        epochs=0,
        batch_size=32,
        pretrained=True,
        precision="bf16",
    )
    return replace(job, **changes)
