"""Shards on a Ray cluster: actors that keep an engine open, and a driver that gives each of them one shard at a time.

Only numbers of shards travel to the actors, and counts come back: names, X-rays and rows do not pass through Ray. What
is done is known from the parts, not from Ray, so a run that ended in whatever way goes on with the same command.

No other module imports Ray. It is asked for actors only: Ray Data takes up to a twentieth of a second for each block,
starts lost actors again without end by default, and can wait for ever where these have all died.
"""

import io
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cxr_trt.cluster.actors import ActorOptions, Place, chosen, describe, places
from cxr_trt.cluster.bundles import BundleFiles, NodeBundle, bundle_key, open_cached
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.scoring import ScoredFile, ScoredShard, ShardScorer
from cxr_trt.cluster.tasks import Task
from cxr_trt.errors import BackendError, BundleError, CxrTrtError, StorageError, UsageError
from cxr_trt.score.engine import Engine
from cxr_trt.storage import Location
from cxr_trt.words import quantity

logger = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 20  # of all actors together, without anything scored between
WAIT_SECONDS = 30.0
CONNECT_SECONDS = 10.0
PREFLIGHT_SECONDS = 60.0  # for the nodes to open the engine; those that have no room sooner are not waited for


class _SentBundle(NamedTuple):
    """A bundle on its way to actors. files: in a list, so that Ray does not fetch them unless they are asked for."""

    name: str
    key: str
    files: "list[ray.ObjectRef[BundleFiles]]"

    def open(self) -> Engine:
        return open_cached(self.key, self.name, lambda: ray.get(self.files[0]))


class ShardActor:
    """Runs on a node: opens an engine, and scores what it is told."""

    def open(self, bundles: Sequence[_SentBundle], files: Location, sha256: str, folder: Location, workers: int) -> str:
        """Open the list, whose hash is `sha256`, and the first engine that can be opened here.

        Returns:
            The fingerprint of the engine.

        Raises:
            CxrTrtError: one of them is not what it should be; the sentence names the node.
        """
        try:
            engine = _first_that_opens(bundles)
            opened = FileList.open(files)
            if opened.sha256 != sha256:
                raise UsageError(f"{files}: another list is there than on the machine of the command")
            self._scorer = ShardScorer(engine, opened, folder, workers)
        except CxrTrtError as error:
            node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
            raise type(error)(f"on node {node}: {error}") from error
        return engine.fingerprint

    def score(self, shard: int) -> ScoredShard:
        return self._scorer.score(shard)

    def score_file(self, shard: int, number: int) -> ScoredFile:
        return self._scorer.score_file(shard, number)

    def write(self, shard: int, scored: Sequence[ScoredFile]) -> ScoredShard:
        return self._scorer.write(shard, scored)


def _first_that_opens(bundles: Sequence[_SentBundle]) -> Engine:
    """Raises BundleError or BackendError, which says of each why not, if there is none."""
    reasons: list[BundleError | BackendError] = []
    for bundle in bundles:
        try:
            return bundle.open()
        except (BundleError, BackendError) as error:
            reasons.append(error)
    raise type(reasons[0])("; ".join(map(str, reasons)))


@dataclass
class _Actor:
    """handle: Ray's. engine: the fingerprint of the engine that it has opened; empty until then."""

    handle: Any
    place: Place
    engine: str = ""


@dataclass
class _Pool:
    """The actors, by what they are busy with: a task, or None while they open the engine."""

    start: "Callable[[Place], tuple[Any, ray.ObjectRef[str]]]"
    busy: "dict[ray.ObjectRef[Any], tuple[_Actor, Task | None]]" = field(default_factory=dict)

    def add(self, place: Place) -> None:
        handle, opening = self.start(place)
        self.busy[opening] = _Actor(handle, place), None

    def give(self, actor: _Actor, task: Task) -> None:
        self.busy[task.submit(actor.handle, actor.engine)] = actor, task

    def finished(self) -> "list[ray.ObjectRef[Any]]":
        done: list[ray.ObjectRef[Any]] = ray.wait(list(self.busy), num_returns=1, timeout=WAIT_SECONDS)[0]
        return done


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
        UsageError: there is no such cluster, or no node that is large enough.
        BundleError, BackendError: a node cannot open any of the engines; the sentence names it.
        BackendError, StorageError: nothing could be scored any more; the parts that are written stay.
    """
    with redirect_stdout(_RayMessages()):
        _connect(address)
        try:
            nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
            on_gpu = [bundle.on_gpu for bundle in bundles]
            found = places(nodes, options, for_gpus=any(on_gpu), for_cpus=not all(on_gpu))
            wanted = chosen(found, options, len(shards))
            tell(f"Ray: {quantity(len(nodes), 'node')}; actors: {describe(wanted)}")
            sent = [_SentBundle(one.name, bundle_key(one.files), [ray.put(dict(one.files))]) for one in bundles]

            def start(place: Place) -> "tuple[Any, ray.ObjectRef[str]]":
                node = NodeAffinitySchedulingStrategy(place.node, soft=True) if place.node else "SPREAD"
                resources = {"num_cpus": place.cpus, "num_gpus": place.gpus, "scheduling_strategy": node}
                actor = ray.remote(ShardActor).options(max_restarts=0, **resources).remote()
                workers = options.workers or max(1, int(place.cpus))
                return actor, actor.open.remote(sent, files.folder, files.sha256, folder, workers)

            pool = _Pool(start)
            first = {place.node: number for number, place in reversed(list(enumerate(wanted))) if place.node}
            for number in sorted(first.values()):
                pool.add(wanted[number])
            _preflight(pool, {one.fingerprint: one.name for one in bundles}, tell)
            for number, place in enumerate(wanted):
                if number not in first.values():
                    pool.add(place)
            yield from _drive(pool, deque(Task(shard, files) for shard in shards), tell)
        finally:
            ray.shutdown()


def _preflight(pool: _Pool, names: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Wait until the actors have opened an engine, the first of each node.

    Raises:
        CxrTrtError: of the first node that cannot.
    """
    waiting, opened, end = list(pool.busy), Counter[str](), time.monotonic() + PREFLIGHT_SECONDS
    while waiting and (seconds := end - time.monotonic()) > 0:
        finished, waiting = ray.wait(waiting, num_returns=1, timeout=seconds)
        for opening in finished:
            with suppress(RayError):  # the process died: another is started when the shards are given out
                opened[names[_opened(opening)]] += 1
    if waiting:
        tell(f"{quantity(len(waiting), 'node')} of {len(pool.busy)} have no room yet; the others begin")
    if len(names) > 1:
        tell("engines: " + ", ".join(f"{name} on {quantity(opened[name], 'node')}" for name in names.values()))


def _opened(opening: "ray.ObjectRef[str]") -> str:
    """The fingerprint of the engine that an actor has opened. Raises our own exception, or Ray's if the actor died."""
    try:
        fingerprint: str = ray.get(opening)
    except RayTaskError as error:
        raise _cause(error) from error
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


def _drive(pool: _Pool, waiting: "deque[Task]", tell: Callable[[str], None]) -> Iterator[ScoredShard]:
    failures_in_a_row, failure = 0, CxrTrtError()
    while waiting or any(task for _, task in pool.busy.values()):
        if not (finished := pool.finished()):
            if not any(task for _, task in pool.busy.values()):
                tell("waiting for actors: they open the engine, or a node has no room for one yet")
            continue
        actor, task = pool.busy.pop(finished[0])
        is_alive = is_to_blame = True  # the actor; the task, which may be why it failed
        try:
            answer = ray.get(finished[0])
        except RayTaskError as error:
            if not isinstance(error.cause, BackendError | StorageError) or task is None:
                raise _cause(error) from error
            failure, is_to_blame = error.cause, isinstance(error.cause, BackendError)
        except RayError:
            failure = BackendError("its process died, or its node")
            _kill(actor)
            pool.add(actor.place)
            is_alive = False
        else:
            failures_in_a_row = 0
            if task is None:
                actor.engine = answer
            elif shard := task.done(answer):
                yield shard
                task = None
            _go_on(pool, actor, task, waiting)
            continue
        failures_in_a_row += 1
        if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise type(failure)(f"{failures_in_a_row} failures in a row, the last one: {failure}")
        if task:
            tell(f"shard {task.shard}: {failure}; it is tried again")
            if is_to_blame:
                task.failed(str(failure))
            waiting.append(task)
        if is_alive:
            _go_on(pool, actor, None, waiting)


def _go_on(pool: _Pool, actor: _Actor, task: Task | None, waiting: "deque[Task]") -> None:
    """Let an actor go on with its task, or start the next one; without any it is not needed any more."""
    if task or waiting:
        pool.give(actor, task or waiting.popleft())
    else:
        _kill(actor)


def _kill(actor: _Actor) -> None:
    """Free what the actor holds, if it is still there."""
    with suppress(RayError):
        ray.kill(actor.handle)


def _cause(error: RayTaskError) -> Exception:
    """Our own exception with its sentence, or Ray's if it is a bug."""
    return error.cause if isinstance(error.cause, CxrTrtError) else error
