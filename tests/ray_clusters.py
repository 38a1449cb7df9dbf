"""A Ray cluster on this machine, of nodes with one core each, and work that goes wrong there."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headstart.data.images import CENTRE
from headstart.errors import DatasetError
from headstart.features import Extraction


@contextmanager
def small_cluster() -> Iterator[Any]:
    """Two nodes of one core; this process is connected to the first."""
    here = os.path.dirname(os.path.abspath(__file__))  # workers import what is below
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))))
        warnings.simplefilter("ignore")  # what Ray says while it starts
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def die_once(item: tuple[str, int]) -> int:
    folder, number = item
    mark = Path(folder) / f"{number}"
    if number % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(item: int) -> None:
    raise DatasetError(f"{item}: no such thing")


def wait_for_company(folder: str, item: int) -> str:
    """The first copy of the last item waits for another one, which comes where it was given out again."""
    if item < 3:
        return "early"
    first, second = Path(folder) / "first", Path(folder) / "second"
    if first.exists():
        second.touch()
        return "second"
    first.touch()
    until = time.monotonic() + 60
    while not second.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(5)
    return "first"


def rows_of(extraction: Extraction) -> Any:
    return extraction.features(range(len(extraction.hashes)), view=CENTRE)
