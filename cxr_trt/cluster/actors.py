"""What the actors of a cluster are, and where its nodes have room for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import NamedTuple

from cxr_trt.errors import UsageError


@dataclass(frozen=True)
class ActorOptions:
    """What the actors are. None stands for as many as there is room for, and for a node's CPUs divided among its GPUs.

    actors: how many. cpus, gpus: what each of them takes of its node; gpus only for an engine that needs one.
    workers: decoding processes of each.
    """

    actors: int | None
    cpus: float | None
    gpus: float
    workers: int | None


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
    each = options.cpus or float(max(1, cpus // (most or 1)))
    count = int(cpus // each)
    return [Place(name, each, gpus)] * (count if most is None else min(count, most))


def chosen(found: Sequence[Place], options: ActorOptions, shards: int) -> list[Place]:
    """As many places as there will be actors; those that have no room yet wait for a node that comes later."""
    count = min(options.actors or len(found), shards)
    smallest = min(found, key=lambda place: place.cpus)
    return [*found[:count], *[smallest._replace(node=None)] * (count - len(found))]


def describe(chosen_places: Sequence[Place]) -> str:
    """How many actors there are, and what each takes."""
    counts = Counter((place.cpus, place.gpus) for place in chosen_places)
    kinds = (f"{n} with {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "") for (cpus, gpus), n in counts.items())
    return ", ".join(kinds)
