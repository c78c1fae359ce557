"""Scoring a list of files on a Ray cluster.

Only numbers of shards travel to actors, and counts come back: names, X-rays and rows do not pass through Ray. Where
actors decode for others, what they have decoded goes from one to the other, and not through here. What is done is known
from the parts, not from Ray, so a run that ended in whatever way goes on with the same command.

Nothing but this module, `ray_actors` and `ray_pool` imports Ray. It is asked for actors only: Ray Data takes up to a
twentieth of a second for each block, starts lost actors again without end by default, and can wait for ever where these
have all died.
"""

import io
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cxr_trt.cluster.actors import (
    ActorOptions,
    Place,
    check_room_for_shards,
    chosen,
    decoder_places,
    describe,
    places,
)
from cxr_trt.cluster.bundles import NodeBundle, bundle_key
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.ray_actors import DecodingActor, SentBundle, SentList, ShardActor
from cxr_trt.cluster.ray_pool import Pool, cause_of
from cxr_trt.cluster.scoring import ScoredShard
from cxr_trt.cluster.tasks import Task
from cxr_trt.errors import UsageError
from cxr_trt.spec import Specification
from cxr_trt.storage import Location
from cxr_trt.words import quantity

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
PREFLIGHT_SECONDS = 60.0  # for the nodes to open the engine; those that have no room sooner are not waited for


def score_shards_on_ray(
    address: str,
    bundles: Sequence[NodeBundle],
    files: FileList,
    shards: Sequence[int],
    folder: Location,
    options: ActorOptions,
    tell: Callable[[str], None],
) -> Iterator[ScoredShard]:
    """Score shards on a Ray cluster, in any order.

    Before the first shard, one actor on each node opens an engine: the first of the bundles that can be opened there.
    A shard that costs an actor its life is given to another one; the second time its files are scored one by one, and
    the file that the engine dies of gets an error row. A node that is lost is replaced by those that remain.

    With `options.decoders`, whole shards are decoded by further actors, on CPUs that the engines leave free. A decoded
    shard stays in the object store of the node that made it until it is scored, and a node keeps only so many.

    Args:
        address: of the cluster, as for `ray.init`.
        bundles: the engines in the order of preference; nodes keep them in a cache folder.
        files: the list that the shards belong to, which all nodes can read.
        shards: their numbers.
        folder: where the parts are written, which all nodes can write. Each has the rows of one engine.
        options: what the actors are.
        tell: is told what happens, a sentence each.

    Yields:
        What is known of each shard, after its part was written.

    Raises:
        UsageError: there is no such cluster, or no node that is large enough, also for what is decoded.
        BundleError, BackendError: a node cannot open any of the engines; the sentence names it.
        BackendError, StorageError: nothing could be scored any more; the parts that are written stay.
    """
    with redirect_stdout(_RayMessages()):
        _connect(address)
        try:
            nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
            on_gpu, spec = [bundle.on_gpu for bundle in bundles], bundles[0].spec
            found = places(nodes, options, for_gpus=any(on_gpu), for_cpus=not all(on_gpu))
            engines = chosen(found, options.actors, len(shards))
            said = f"Ray: {quantity(len(nodes), 'node')}; actors: {describe(engines)}"
            decoders: list[Place] = []
            if options.decoders:
                decoders = decoder_places(nodes, engines)[: min(options.decoders, len(shards))]
                stores = {name: resources.get("object_store_memory", 0.0) for name, resources in nodes.items()}
                check_room_for_shards(stores, engines, decoders, _decoded_bytes(files, spec))
                said += f"; decoding: {describe(decoders)}"
            tell(said)
            sent = [SentBundle(one.name, bundle_key(one.files), [ray.put(dict(one.files))]) for one in bundles]
            sent_list = SentList(files.folder, files.sha256)

            def start(place: Place, decodes: bool) -> "tuple[Any, ray.ObjectRef[Any]]":
                node = NodeAffinitySchedulingStrategy(place.node, soft=not decodes) if place.node else "SPREAD"
                resources = {"num_cpus": place.cpus, "num_gpus": place.gpus, "scheduling_strategy": node}
                kind = DecodingActor if decodes else ShardActor
                actor = ray.remote(kind).options(max_restarts=0, **resources).remote()
                workers = options.workers or max(1, int(place.cpus))
                if decodes:
                    return actor, actor.open.remote(sent_list, spec, workers)
                return actor, actor.open.remote(sent, sent_list, folder, workers)

            pool = Pool(start, (Task(shard, files) for shard in shards), tell)
            first = {place.node: number for number, place in reversed(list(enumerate(engines))) if place.node}
            openings = [pool.add(engines[number]) for number in sorted(first.values())]
            _preflight(openings, {one.fingerprint: one.name for one in bundles}, tell)
            for number, place in enumerate(engines):
                if number not in first.values():
                    pool.add(place)
            for place in decoders:
                pool.add_decoder(place)
            yield from pool.shards()
        finally:
            ray.shutdown()


def _decoded_bytes(files: FileList, spec: Specification) -> int:
    """The size of the largest shard after decoding."""
    return files.shards.size(0) * spec.image_size.height * spec.image_size.width


def _preflight(openings: "Sequence[ray.ObjectRef[str]]", names: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Wait until the actors have opened an engine, the first of each node.

    Raises:
        CxrTrtError: of the first node that cannot.
    """
    waiting, opened, end = list(openings), Counter[str](), time.monotonic() + PREFLIGHT_SECONDS
    while waiting and (seconds := end - time.monotonic()) > 0:
        finished, waiting = ray.wait(waiting, num_returns=1, timeout=seconds)
        for opening in finished:
            with suppress(RayError):  # the process died: another is started when the shards are given out
                opened[names[_opened(opening)]] += 1
    if waiting:
        tell(f"{quantity(len(waiting), 'node')} of {len(openings)} have no room yet; the others begin")
    if len(names) > 1:
        tell("engines: " + ", ".join(f"{name} on {quantity(opened[name], 'node')}" for name in names.values()))


def _opened(opening: "ray.ObjectRef[str]") -> str:
    """The fingerprint of the engine that an actor has opened. Raises our own exception, or Ray's if the actor died."""
    try:
        fingerprint: str = ray.get(opening)
    except RayTaskError as error:
        raise cause_of(error) from error
    return fingerprint


def _connect(address: str) -> None:
    """Raise UsageError if no cluster answers, or it does not let us in."""
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one: `ray start --head`"
        ) from error


class _RayMessages(io.TextIOBase):
    """Takes what Ray prints to standard output, which is for data, such as that a process died."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug(text.strip())
        return len(text)
