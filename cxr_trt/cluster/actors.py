"""What the actors of a cluster are, and how many of them its nodes have room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr_trt.errors import UsageError


@dataclass(frozen=True)
class ActorOptions:
    """What the actors are. None stands for as many as there is room for, and for a node's CPUs divided among its GPUs.

    actors: how many. cpus, gpus: what each of them takes of its node. workers: decoding processes of each.
    """

    actors: int | None
    cpus: float | None
    gpus: float
    workers: int | None


def room(nodes: Sequence[Mapping[str, float]], options: ActorOptions, *, on_gpu: bool) -> tuple[float, int]:
    """The CPUs of an actor, and how many actors the nodes have room for.

    Raises UsageError if no node is large enough.
    """
    gpus = options.gpus if on_gpu else 0.0
    able = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    able = [(cpu, gpu) for cpu, gpu in able if cpu > 0 and gpu >= gpus]
    if not able:
        raise UsageError(f"--ray: no node of the cluster has {f'{gpus:g} GPUs' if gpus else 'CPUs'}; add one")
    cpus = options.cpus or float(max(1, min(cpu // (gpu // gpus) if gpus else cpu for cpu, gpu in able)))
    places = sum(int(min(cpu // cpus, gpu // gpus if gpus else cpu)) for cpu, gpu in able)
    if not places:
        largest = max(cpu for cpu, _ in able)
        raise UsageError(f"--cpus {cpus:g}: the largest node has {largest:g}; take at most so many")
    return cpus, places
