"""A Ray cluster as a place to work: connecting, and tasks that are given out again when lost or late.

Ray only starts tasks and carries their results. One loop of ours serves what goes wrong: a task whose node or
process died is given out again, and so is the last one that everybody waits for, beside itself.
"""

from __future__ import annotations

import logging
import os
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from headstart import __version__
from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.costs import CostEstimate
from headstart.data.dataset import Sample
from headstart.distributed.carrying import Carried, Sent
from headstart.distributed.images import portable
from headstart.distributed.places import Place
from headstart.distributed.seconds import phases_there, seconds_by_nodes
from headstart.errors import HeadstartError, InternalError, MissingExtra, OptionError, reason_of
from headstart.features import Extraction, FeatureCache, FeatureSpec, Progress
from headstart.heads.threads import limit_threads

_T = TypeVar("_T")
_R = TypeVar("_R")

_PATIENCE = 5.0
"""Seconds in which a cluster's address has to answer: Ray itself waits for minutes."""

_MOST_LOSSES = 20
"""Times that one task may be lost with its node or process; then it is what ends them."""

_AHEAD = 2
"""Tasks given out for each core: one runs, one waits, so that none idles while results are taken."""

_LATE = 3.0
"""Times the usual seconds of a task from which it is done once more, where cores idle."""

_LEAST_LATE = 5.0
"""Seconds below which no task is late."""

_LOOK = 0.5
"""Seconds between two looks at what is late, and at how many cores there are."""

_log = logging.getLogger(__name__)


@contextmanager
def connected() -> Iterator[Cluster]:
    """The cluster that this process is connected to, the one at ``RAY_ADDRESS``, or a new one of its own.

    Raises:
        MissingExtra: Ray is not installed.
        OptionError: nobody answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # hide no GPU from tasks
    running = sys.modules.get("ray")
    if running is not None and running.is_initialized():
        yield Cluster()
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _check_answers(address)
        _send_token()
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--on ray", extra="ray") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"RAY_ADDRESS={address}: {reason_of(error)}; if the cluster wants a token, it has to be in "
            "~/.ray/auth_token or RAY_AUTH_TOKEN here too"
        ) from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of lost nodes; stdout is for results
            yield Cluster()
    finally:
        ray.shutdown()


def _send_token() -> None:
    """Have Ray send the token for clusters that is there, which it does only when told so at its import."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if "ray" not in sys.modules and (named or Path("~/.ray/auth_token").expanduser().exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _check_answers(address: str) -> None:
    """Whether anybody listens; of addresses with a port, which is what `ray start --head` prints."""
    if "://" in address:
        raise OptionError(
            f"RAY_ADDRESS={address}: expected HOST:PORT of a cluster that this machine belongs to, such as "
            "10.0.0.1:6379; to send a command from outside, take ray job submit"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        if address != "auto":
            raise OptionError(f"RAY_ADDRESS={address}: expected HOST:PORT, such as 10.0.0.1:6379, or auto")
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise OptionError(
            f"RAY_ADDRESS={address}: no cluster answers there ({reason_of(error)}); start one with ray start "
            "--head --port=6379, or unset RAY_ADDRESS to use the cores of this machine"
        ) from error


@dataclass(frozen=True)
class _Done:
    """What a task gave: a result or an error of ours, and the seconds that it took."""

    result: Any
    seconds: float
    error: tuple[type[HeadstartError], str] | None = None


def _task(version: str, work: Callable[[Any], Any], item: Any) -> _Done:
    """Runs in a worker. Errors of ours come back as values: not each of them can be pickled."""
    limit_threads(max(1, int(os.environ.get("OMP_NUM_THREADS") or 1)))
    begun = time.perf_counter()
    try:
        if version != __version__:
            raise OptionError(
                f"{socket.gethostname()} has headstart {__version__}, the command {version}; install one"
            )
        return _Done(work(item), time.perf_counter() - begun)
    except HeadstartError as error:
        return _Done(None, time.perf_counter() - begun, (type(error), str(error)))


def _raise(kind: type[HeadstartError], text: str) -> None:
    error = kind.__new__(kind, text)  # without its own parameters, which made the text
    error.args = (text,)
    raise error


@dataclass
class _Given:
    """A task that was given out."""

    position: int
    since: float  # when it can have begun at the latest


class Cluster(Place):
    """The machines of a Ray cluster, one core for each task."""

    def __init__(self) -> None:
        import ray

        self._ray: Any = ray
        self._run = ray.remote(num_cpus=1, max_retries=0)(_task)
        self.nodes = max(1, sum(node["Alive"] for node in self._ray.nodes()))
        self.workers = max(1, self._cores())
        machines = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        cores = "1 core" if self.workers == 1 else f"{self.workers} cores"
        self.said = f"ray: {machines}, {cores}"

    def _cores(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def extract(
        self,
        samples: Sequence[Sample],
        backbone: Backbone,
        *,
        spec: FeatureSpec,
        runtime: Runtime,
        cache: FeatureCache,
        progress: Progress | None = None,
    ) -> Extraction:
        """Look at every image once, shard by shard."""
        from headstart.distributed.extraction import extract_shards

        return extract_shards(
            self, samples, backbone, spec=spec, runtime=runtime, cache=cache, progress=progress
        )

    def estimated(self, cost: CostEstimate, *, images: int) -> CostEstimate:
        """With features on all cores, after a start that this machine does not have."""
        return replace(cost, phases=phases_there(cost.phases, images=images, workers=self.workers))

    def seconds_by_nodes(self, phases: Mapping[str, float], *, images: int) -> dict[int, float]:
        """Seconds of a fit on 1, 2, 4 and more nodes like these, up to four times as many."""
        counts = sorted({2**power for power in range(self.nodes.bit_length() + 2)} | {self.nodes})
        each = max(1, self.workers // self.nodes)
        return seconds_by_nodes(phases, images=images, cores_of_node=each, nodes=counts)

    def sent(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Samples that can be pickled and found."""
        return tuple(map(portable, samples))

    def carried(self, value: _T, attribute: str) -> Carried[_T]:
        """With the file's content."""
        return Sent.of(value, attribute)

    def each(self, work: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[tuple[int, _R]]:
        """The results as they come, each once, whatever is lost and done again meanwhile.

        Raises:
            HeadstartError: what the work raised.
            InternalError: the work ends every process that does it.
        """
        ray = self._ray
        shared = ray.put(work)
        waiting = deque(range(len(items)))
        given: dict[Any, _Given] = {}
        done: set[int] = set()
        losses: dict[int, int] = {}
        took: list[float] = []
        cores, looked = self.workers, time.monotonic()

        def give(position: int) -> None:
            given[self._run.remote(__version__, shared, items[position])] = _Given(position, time.monotonic())

        try:
            while len(done) < len(items):
                while waiting and len(given) < _AHEAD * cores:
                    if (position := waiting.popleft()) not in done:
                        give(position)
                ended, _ = ray.wait(list(given), num_returns=1, timeout=_LOOK)
                for reference in ended:
                    position = given.pop(reference).position
                    found = self._result(reference, position, losses)
                    if position in done:
                        continue  # its other copy was faster
                    if found is None:
                        waiting.appendleft(position)
                        continue
                    done.add(position)
                    took.append(found.seconds)
                    if len(given) >= cores:  # whoever waited has a core from now on
                        for each in given.values():
                            each.since = time.monotonic()
                    self._withdraw(given, position)
                    yield position, found.result
                if time.monotonic() - looked > _LOOK:
                    looked, cores = time.monotonic(), max(1, self._cores())
                    if not waiting and len(given) < cores and took:
                        self._give_late_ones_again(given, took, give)
        finally:
            for reference in given:
                with suppress(Exception):
                    ray.cancel(reference, force=True)

    def _result(self, reference: Any, position: int, losses: dict[int, int]) -> _Done | None:
        """What a task gave; None where it was lost and has to be done again."""
        errors = self._ray.exceptions
        try:
            found: _Done = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except errors.RayError as error:
            losses[position] = losses.get(position, 0) + 1
            _log.info("task %d was lost (%s) and is given out again", position, type(error).__name__)
            if losses[position] >= _MOST_LOSSES:
                raise InternalError(
                    f"a task was lost {_MOST_LOSSES} times with the process that did it "
                    f"({reason_of(error)}); give its nodes more memory"
                ) from error
            return None
        if found.error is not None:
            _raise(*found.error)
        return found

    def _withdraw(self, given: dict[Any, _Given], position: int) -> None:
        """Ends the copies of a task that is done."""
        for reference in [each for each, task in given.items() if task.position == position]:
            del given[reference]
            with suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _give_late_ones_again(
        self, given: dict[Any, _Given], took: Sequence[float], give: Callable[[int], None]
    ) -> None:
        """One more copy of each task that takes far longer than the others did."""
        late = max(_LEAST_LATE, _LATE * statistics.median(took))
        positions = [task.position for task in given.values()]
        for task in list(given.values()):
            if time.monotonic() - task.since > late and positions.count(task.position) == 1:
                _log.info("task %d is late and is given out once more", task.position)
                give(task.position)
