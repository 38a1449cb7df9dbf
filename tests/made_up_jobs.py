"""A clock that tests hold, and a job whose every number is known."""

from functools import cache
from typing import Any

from headstart.backbones import Backbone, load_backbone
from headstart.costs import ImageCounts, Workload
from headstart.runs import FitConfig


class FakeClock:
    """Seconds that pass only when the test says so, or a fixed step at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@cache
def network(size: int) -> Backbone:
    return load_backbone("builtin", size=size)


def make_job(
    *, images: int = 1000, missing: float | None = None, size: int = 64, depth: int = 9, **options: Any
) -> Workload:
    """A training of 1,000 images in five classes, none of them cached, with the options of `FitConfig`."""
    known = {"data": "photos", "runtime": "openvino", "precision": "bf16", "layers": "last", "size": size}
    config = FitConfig(depth=depth, stages=9, **(known | options)).settled()
    held_out = 3 * images // 10
    counts = ImageCounts(5, images - held_out, held_out, float(images) if missing is None else missing)
    return Workload(config, network(size), counts)
