"""One process against one and two nodes of one core: equal results, scaling, what Ray costs, nodes that die.

    python benchmarks/cluster.py ../shared/data/tiny-imagenet-64.zip

Features of 20,000 images and a ridge head on them: in one process that is held to one core, on a Ray node
that is held to the same core, on two such nodes, and on nodes of which ten are killed at random moments and
replaced. First everything has to be equal, then seconds are compared. Needs two quiet cores.
"""

import argparse
import os
import random
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import CENTRE
from headstart.distributed import HERE, Place, place
from headstart.features import FeatureCache
from headstart.heads.threads import cores, limit_threads
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback
from headstart.training import Prepared, prepare, resolve
from headstart.training.fitting import Trained, train_ridge

SCALING, OVERHEAD, SAME = 0.85, 0.15, 1e-6
"""What is claimed: of ideal on two nodes; of one process on one; of the largest weight."""


@dataclass(frozen=True)
class Measured:
    """A fit's parts, and the seconds of two of its phases."""

    prepared: Prepared
    trained: Trained
    features: float
    head: float

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.features + self.head


def unpacked(archive: Path, folder: Path, *, images: int) -> Path:
    """As many images of each class of the zip's `train/` as make so many together."""
    with zipfile.ZipFile(archive) as source:
        members: dict[str, list[str]] = {}
        for member in sorted(source.namelist()):
            if member.startswith("train/") and not member.endswith("/"):
                members.setdefault(member.split("/")[1], []).append(member)
        for names in members.values():
            for member in names[: max(2, images // len(members))]:
                target = folder / Path(member).relative_to("train")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read(member))
    return folder


@contextmanager
def held_to(core: int) -> Iterator[None]:
    """This process, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measured(dataset: Dataset, config: FitConfig, *, where: Place, **watched: Any) -> Measured:
    """A fit into an empty cache."""
    backbone = load_backbone(config.backbone, size=config.size)
    runtime = select(precision="f32")
    settled = resolve(config, dataset, backbone, runtime=runtime)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        prepared = prepare(
            dataset, backbone, config=settled, runtime=runtime, cache=FeatureCache(Path(folder)),
            place=where, **watched,
        )  # fmt: skip
        features = time.perf_counter() - begun
        begun = time.perf_counter()
        trained = train_ridge(prepared, config=settled)
        head = time.perf_counter() - begun
        rows = prepared.extraction.features(range(0, len(dataset), 97), view=CENTRE)
        assert np.isfinite(rows).all()
    return Measured(prepared, trained, features, head)


def assert_equal(found: Measured, expected: Measured) -> float:
    """The same images, each once, and the same head; the largest difference, of the largest weight."""
    assert found.prepared.extraction.hashes == expected.prepared.extraction.hashes
    assert found.prepared.splits == expected.prepared.splits
    use = found.prepared.extraction.use
    assert use.hits + use.misses == len(expected.prepared.dataset), use
    theirs, ours = expected.trained.head.weight, found.trained.head.weight
    difference = float(np.abs(theirs - ours).max() / np.abs(theirs).max())
    assert difference <= SAME, f"weights differ by {difference:.1e} of the largest"
    return difference


class Killer(Callback):
    """Kills nodes at random moments of a pass and starts others in their place."""

    def __init__(self, cluster: Any, nodes: list[Any], *, kills: int, images: int) -> None:
        self.cluster, self.nodes, self.killed = cluster, nodes, 0
        self._draw = random.Random(0)
        self._moments = sorted(self._draw.randrange(images * 9 // 10) for _ in range(kills))

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Kill what is due."""
        while phase == "features" and self.killed < len(self._moments) and done > self._moments[self.killed]:
            place = self._draw.randrange(len(self.nodes))
            self.cluster.remove_node(self.nodes[place], allow_graceful=False)
            with held_to(place):
                self.nodes[place] = self.cluster.add_node(num_cpus=1)
            self.killed += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    config = FitConfig.from_options(
        backbone=arguments.backbone, size=arguments.size, precision="f32", layers="last"
    ).checked()

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    assert cores() >= 2, "needs two cores"
    with tempfile.TemporaryDirectory() as folder:
        dataset = read_dataset(unpacked(arguments.archive, Path(folder), images=arguments.images))
        print(f"{len(dataset):,} images, {arguments.backbone} at {arguments.size} px")

        with held_to(0):
            limit_threads(1)
            one = measured(dataset, config, where=HERE)
        print(f"one process, one core:  features {one.features:6.1f} s, head {one.head:5.2f} s")

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        nodes = []
        try:
            found: dict[int, Measured] = {}
            for count in (1, 2):
                with held_to(count - 1):
                    nodes.append(cluster.add_node(num_cpus=1))
                with place("ray") as where:
                    found[count] = measured(dataset, config, where=where)
                difference = assert_equal(found[count], one)
                print(
                    f"nodes of one core: {count}    features {found[count].features:6.1f} s, "
                    f"head {found[count].head:5.2f} s; head equal to {difference:.0e}"
                )
            overhead = found[1].seconds / one.seconds - 1
            scaling = one.seconds / (2 * found[2].seconds)
            print(f"overhead of Ray on one node: {overhead:+.1%} (at most {OVERHEAD:.0%})")
            print(f"scaling on two nodes, of one process: {scaling:.2f} of ideal (at least {SCALING})")
            print(
                f"scaling on two nodes, of one node: {found[1].seconds / (2 * found[2].seconds):.2f} of ideal"
            )

            killer = Killer(cluster, nodes, kills=arguments.kills, images=len(dataset))
            with place("ray") as where:
                survived = measured(dataset, config, where=where, watch=killer)
            difference = assert_equal(survived, one)
            print(
                f"nodes killed: {killer.killed}        features {survived.features:6.1f} s; nothing lost or "
                f"doubled, head equal to {difference:.0e}"
            )
        finally:
            ray.shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    main()
