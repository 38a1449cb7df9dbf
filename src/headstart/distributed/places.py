"""A place to work: this machine, unless another is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.costs import CostEstimate
from headstart.data.dataset import Sample
from headstart.distributed.carrying import Carried
from headstart.errors import OptionError
from headstart.features import Extraction, FeatureCache, FeatureSpec, Progress, extract

_T = TypeVar("_T")
_R = TypeVar("_R")


class Place:
    """This machine: everything is done in this process, one thing after the other."""

    workers = 1
    """How many things are done at once."""

    said: str | None = None
    """Where that is, for people; None for this machine."""

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
        """Look at every image once; see `headstart.features.extract`."""
        return extract(samples, backbone, spec=spec, runtime=runtime, cache=cache, progress=progress)

    def estimated(self, cost: CostEstimate, *, images: int) -> CostEstimate:
        """What a fit will take, from what it would take on this machine."""
        return cost

    def seconds_by_nodes(self, phases: Mapping[str, float], *, images: int) -> dict[int, float]:
        """Seconds of a fit by number of nodes, of which this machine has none."""
        return {}

    def sent(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Samples as work there can read them."""
        return samples

    def carried(self, value: _T, attribute: str) -> Carried[_T]:
        """A value whose ``attribute`` is the path of a file, as work there finds both."""
        return Carried(value)

    def each(self, work: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[tuple[int, _R]]:
        """The results of independent work, each with its item's position, as they come.

        Elsewhere ``work`` and ``items`` are pickled, and work that is lost is done again.
        """
        return ((position, work(item)) for position, item in enumerate(items))

    def map(self, work: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
        """The results in the order of their items."""
        waiting: dict[int, _R] = {}
        following = 0
        for position, result in self.each(work, items):
            waiting[position] = result
            while following in waiting:
                yield waiting.pop(following)
                following += 1


HERE = Place()


@contextmanager
def place(on: str | None) -> Iterator[Place]:
    """Where to work: None for this machine, "ray" for the cluster at ``RAY_ADDRESS`` or one of its own.

    Raises:
        OptionError: another word, or nobody answers at the address.
        MissingExtra: Ray is not installed.
    """
    if on is None:
        yield HERE
        return
    if on != "ray":
        raise OptionError(f"on {on!r}: expected ray, or nothing for this machine")
    from headstart.distributed.cluster import connected

    with connected() as cluster:
        yield cluster
