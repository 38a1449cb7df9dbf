"""Where work is done: on this machine, or on the machines of a Ray cluster.

    places      a place to work: this machine, or what `place` connects to
    cluster     Ray: connecting, and tasks that are given out again when they are lost or late
    carrying    values whose files have to travel with them
    images      images that can be sent
    extraction  the pass over all images, shard by shard
    prediction  predictions of any number of images, in one Parquet file

Nothing of Ray is imported before `place` is asked for it.
"""

from headstart.distributed.carrying import Carried
from headstart.distributed.places import HERE, Place, place

__all__ = ["HERE", "Carried", "Place", "place"]
