"""How long a fit takes on so many nodes, from what it takes here."""

from collections.abc import Mapping, Sequence

from headstart.features.shards import MANY_IMAGES
from headstart.heads.threads import cores

START = 5.0
"""Seconds: connecting, and the first task of each worker, which imports and compiles."""

SHARD = 0.06
"""Seconds of a core for each shard beside its images: a temporary database, publishing it, the task."""

DRIVER_SHARD = 0.004
"""Seconds of the command's machine for each shard: giving it out, and taking what was found out."""


def seconds_by_nodes(
    phases: Mapping[str, float], *, images: int, cores_of_node: int, nodes: Sequence[int]
) -> dict[int, float]:
    """Seconds of a fit by number of nodes.

    Nodes' cores are taken to be as fast as these, and reading and decoding to be as parallel as cores are.
    Only features are distributed in this estimate: heads take a few seconds anywhere.

    Args:
        phases: median seconds on this machine by phase.
        images: how many.
        cores_of_node: of each.
        nodes: the numbers.
    """
    return {
        count: sum(phases_there(phases, images=images, workers=count * cores_of_node).values())
        for count in nodes
    }


def phases_there(phases: Mapping[str, float], *, images: int, workers: int) -> dict[str, float]:
    """Seconds by phase with so many cores of a cluster, from those on this machine; see above."""
    features, shards = phases.get("features", 0.0) * cores(), images / MANY_IMAGES
    there = max(DRIVER_SHARD * shards, (features + SHARD * shards) / workers)
    return {**phases, "features": START + there}
