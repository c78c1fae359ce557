"""What the actors of a cluster are, and where its nodes have room for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import ceil
from typing import NamedTuple

from cxr_trt.errors import UsageError
from cxr_trt.words import disk_size

MAX_DECODED = 2  # shards of each decoding actor: one in the making, and one that waits for an engine or is being scored
MAX_STORE_SHARE = 0.8  # of an object store: from there on, Ray writes to the disk


@dataclass(frozen=True)
class ActorOptions:
    """What the actors are. None stands for as many as there is room for, and for a node's CPUs divided among its GPUs.

    actors: how many have an engine. cpus, gpus: what each of them takes of its node; gpus only for an engine that needs
    one. workers: decoding processes of each.
    decoders: at most how many further actors decode for them, so that they need not; None for none.
    """

    actors: int | None
    cpus: float | None
    gpus: float
    workers: int | None
    decoders: int | None = None


class Place(NamedTuple):
    """Room for an actor: its node, or None for any that has room some day, and what the actor takes of it."""

    node: str | None
    cpus: float
    gpus: float


def places(
    nodes: Mapping[str, Mapping[str, float]], options: ActorOptions, *, for_gpus: bool, for_cpus: bool
) -> list[Place]:
    """Where actors can be: first one on each node, then the second of each that has room for two, and so on.

    Args:
        nodes: what each node has, by its name: numbers of "CPU" and "GPU".
        options: what the actors are.
        for_gpus: whether there is an engine that needs a GPU; it goes to the nodes that have one.
        for_cpus: whether there is one that needs none; it goes to the other nodes, or to all if no other engine is.

    Raises:
        UsageError: no node is large enough.
    """
    rooms = [
        _room(name, node, options, on_gpu=for_gpus and node.get("GPU", 0.0) >= options.gpus)
        for name, node in nodes.items()
        if node.get("CPU", 0.0) > 0 and (for_cpus or node.get("GPU", 0.0) >= options.gpus)
    ]
    if not rooms:
        raise UsageError(
            f"--ray: no node of the cluster has {'CPUs' if for_cpus else f'{options.gpus:g} GPUs'}; add one"
        )
    rooms.sort(key=lambda room: -room[0].gpus if room else 0.0)
    found = [place for place in chain.from_iterable(zip_longest(*rooms)) if place]
    if not found:
        largest = max(node.get("CPU", 0.0) for node in nodes.values())
        raise UsageError(f"--cpus {options.cpus:g}: the largest node has {largest:g}; take at most so many")
    return found


def _room(name: str, node: Mapping[str, float], options: ActorOptions, *, on_gpu: bool) -> list[Place]:
    """The places of one node."""
    cpus, gpus = node["CPU"], options.gpus if on_gpu else 0.0
    most = int(node["GPU"] // gpus) if on_gpu else None
    whole = 1 if on_gpu and options.decoders else max(1, cpus // (most or 1))
    each = options.cpus or float(whole)
    count = int(cpus // each)
    return [Place(name, each, gpus)] * (count if most is None else min(count, most))


def decoder_places(nodes: Mapping[str, Mapping[str, float]], engines: Sequence[Place]) -> list[Place]:
    """Where actors can be that only decode: on each node, all CPUs that engines leave free. The largest come first.

    Raises:
        UsageError: there is none.
    """
    free = [
        Place(name, node.get("CPU", 0.0) - sum(place.cpus for place in engines if place.node == name), 0.0)
        for name, node in nodes.items()
    ]
    found = sorted((place for place in free if place.cpus >= 1), key=lambda place: -place.cpus)
    if not found:
        raise UsageError("--decoders: the engines take all CPUs of the cluster; limit them by --actors or --cpus")
    return found


def check_room_for_shards(
    stores: Mapping[str, float], engines: Sequence[Place], decoders: Sequence[Place], shard_bytes: int
) -> None:
    """See that no node has to keep more decoded shards than its object store takes, so that none goes to its disk.

    Args:
        stores: bytes of each node's object store.
        engines: where engines are.
        decoders: where there are actors that decode for them.
        shard_bytes: of a decoded shard.

    Raises:
        UsageError: one has too little.
    """
    shards = Counter(place.node for place in engines)
    for place in decoders:
        shards[place.node] += MAX_DECODED
    for node, store in stores.items():
        needed = shards[node] * shard_bytes
        if needed > MAX_STORE_SHARE * store:
            raise UsageError(
                f"--decoders: a decoded shard has {disk_size(shard_bytes)}, of which a node may have to keep "
                f"{shards[node]}, too much for its object store of {disk_size(store)}; list the files again with a "
                f"smaller --shard, or start Ray with --object-store-memory {ceil(needed / MAX_STORE_SHARE)}"
            )


def chosen(found: Sequence[Place], count: int | None, shards: int) -> list[Place]:
    """As many places as there will be actors; those that have no room yet wait for a node that comes later."""
    count = min(count or len(found), shards)
    smallest = min(found, key=lambda place: place.cpus)
    return [*found[:count], *[smallest._replace(node=None)] * (count - len(found))]


def describe(chosen_places: Sequence[Place]) -> str:
    """How many actors there are, and what each takes."""
    counts = Counter((place.cpus, place.gpus) for place in chosen_places)
    kinds = (f"{n} with {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "") for (cpus, gpus), n in counts.items())
    return ", ".join(kinds)
