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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError

from cxr_trt.cluster.actors import ActorOptions, room
from cxr_trt.cluster.bundles import BundleFiles, bundle_key, open_cached
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.scoring import ScoredFile, ScoredShard, ShardScorer
from cxr_trt.errors import BackendError, CxrTrtError, StorageError, UsageError
from cxr_trt.storage import Location
from cxr_trt.tables.rows import Row

logger = logging.getLogger(__name__)

MAX_FAILURES = 2  # of a shard before its files are scored alone; of a file alone before it gets an error row
MAX_FAILURES_IN_A_ROW = 20  # of all actors together, without anything scored between
WAIT_SECONDS = 30.0
CONNECT_SECONDS = 10.0


class ShardActor:
    """Runs on a node: opens the engine, and scores what it is told."""

    def open(
        self,
        key: str,
        bundle: "list[ray.ObjectRef[BundleFiles]]",
        files: Location,
        sha256: str,
        folder: Location,
        workers: int,
    ) -> None:
        """Open the list, whose hash is `sha256`, and the engine, from the cache of the node if it is there.

        Raises:
            CxrTrtError: one of them is not what it should be; the sentence names the node.
        """
        try:
            engine = open_cached(key, lambda: ray.get(bundle[0]))
            opened = FileList.open(files)
            if opened.sha256 != sha256:
                raise UsageError(f"{files}: another list is there than on the machine of the command")
            self._scorer = ShardScorer(engine, opened, folder, workers)
        except CxrTrtError as error:
            raise type(error)(f"on node {socket.gethostname()}: {error}") from error

    def score(self, shard: int) -> ScoredShard:
        return self._scorer.score(shard)

    def score_file(self, shard: int, number: int) -> ScoredFile:
        return self._scorer.score_file(shard, number)

    def write(self, shard: int, scored: Sequence[ScoredFile]) -> ScoredShard:
        return self._scorer.write(shard, scored)


@dataclass
class _Task:
    """A shard on its way: scored as a whole or, after it failed as such, file by file."""

    shard: int
    files: FileList
    engine: str
    failures: int = 0
    scored: list[ScoredFile] | None = None

    def submit(self, actor: Any) -> "ray.ObjectRef[Any]":
        if self.scored is None:
            return actor.score.remote(self.shard)
        if len(self.scored) < self.files.shards.size(self.shard):
            return actor.score_file.remote(self.shard, len(self.scored))
        return actor.write.remote(self.shard, self.scored)

    def done(self, answer: ScoredShard | ScoredFile) -> ScoredShard | None:
        """The counts of the shard if it is finished."""
        self.failures = 0
        if isinstance(answer, ScoredShard):
            return answer
        assert self.scored is not None  # noqa: S101 - for the type checker
        self.scored.append(answer)
        return None

    def failed(self, reason: str) -> None:
        self.failures += 1
        if self.failures < MAX_FAILURES:
            return
        if self.scored is None:
            self.failures, self.scored = 0, []
        elif len(self.scored) < self.files.shards.size(self.shard):
            name = self.files.sources(self.shard)[len(self.scored)].name
            self.failures = 0
            self.scored.append(ScoredFile(_error_row(name, reason, self.engine)))


@dataclass
class _Pool:
    """The actors, by what they are busy with: a task, or None while they open the engine."""

    start: Callable[[], tuple[Any, "ray.ObjectRef[Any]"]]
    busy: "dict[ray.ObjectRef[Any], tuple[Any, _Task | None]]" = field(default_factory=dict)

    def add(self) -> None:
        actor, opening = self.start()
        self.busy[opening] = actor, None

    def give(self, actor: Any, task: _Task) -> None:
        self.busy[task.submit(actor)] = actor, task

    def finished(self) -> "list[ray.ObjectRef[Any]]":
        done: list[ray.ObjectRef[Any]] = ray.wait(list(self.busy), num_returns=1, timeout=WAIT_SECONDS)[0]
        return done


def score_shards_on_ray(
    address: str,
    bundle: BundleFiles,
    engine: str,
    files: FileList,
    shards: Sequence[int],
    folder: Location,
    options: ActorOptions,
    tell: Callable[[str], None],
    *,
    on_gpu: bool,
) -> Iterator[ScoredShard]:
    """Score shards on a Ray cluster, in any order.

    A shard that costs an actor its life is given to another one; the second time its files are scored one by one, and
    the file that the engine dies of gets an error row. A node that is lost is replaced by those that remain.

    Args:
        address: of the cluster, as for `ray.init`.
        bundle: the engine's files; nodes keep them in a cache folder.
        engine: its fingerprint.
        files: the list that the shards belong to, which all nodes can read.
        shards: their numbers.
        folder: where the parts are written, which all nodes can write.
        options: what the actors are.
        tell: is told what happens, a sentence each.
        on_gpu: whether the engine needs a GPU.

    Yields:
        What is known of each shard, after its part was written.

    Raises:
        UsageError: there is no such cluster, no node that is large enough, or a node cannot open the engine.
        BackendError, StorageError: nothing could be scored any more; the parts that are written stay.
    """
    with redirect_stdout(_RayMessages()):
        _connect(address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            cpus, actors = room(nodes, options, on_gpu=on_gpu)
            count = min(options.actors or actors, len(shards))
            each = f"{cpus:g} CPUs" + f", {options.gpus:g} GPUs" * on_gpu
            tell(f"Ray: {len(nodes)} nodes; actors: {count}, each with {each}")
            kind = ray.remote(ShardActor).options(
                num_cpus=cpus, num_gpus=options.gpus if on_gpu else 0, max_restarts=0, scheduling_strategy="SPREAD"
            )
            place = bundle_key(bundle), [ray.put(dict(bundle))], files.folder, files.sha256, folder
            workers = options.workers or max(1, int(cpus))

            def start() -> tuple[Any, "ray.ObjectRef[Any]"]:
                actor = kind.remote()
                return actor, actor.open.remote(*place, workers)

            pool = _Pool(start)
            for _ in range(count):
                pool.add()
            yield from _drive(pool, deque(_Task(shard, files, engine) for shard in shards), tell)
        finally:
            ray.shutdown()


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


def _drive(pool: _Pool, waiting: "deque[_Task]", tell: Callable[[str], None]) -> Iterator[ScoredShard]:
    failures_in_a_row, failure = 0, CxrTrtError()
    while waiting or any(task for _, task in pool.busy.values()):
        if not (finished := pool.finished()):
            if not any(task for _, task in pool.busy.values()):
                tell("waiting for actors: they open the engine, or a node has no room for one yet")
            continue
        actor, task = pool.busy.pop(finished[0])
        is_to_blame = True  # whether the failure may be the task's
        try:
            answer = ray.get(finished[0])
        except RayTaskError as error:
            if not isinstance(error.cause, BackendError | StorageError) or task is None:
                raise _cause(error) from error
            failure, is_to_blame = error.cause, isinstance(error.cause, BackendError)
        except RayError:
            failure = BackendError("its process died, or its node")
            _kill(actor)
            pool.add()
            actor = None
        else:
            failures_in_a_row = 0
            if task and (shard := task.done(answer)):
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
        if actor is not None:
            _go_on(pool, actor, None, waiting)


def _go_on(pool: _Pool, actor: Any, task: _Task | None, waiting: "deque[_Task]") -> None:
    """Let an actor go on with its task, or start the next one; without any it is not needed any more."""
    if task or waiting:
        pool.give(actor, task or waiting.popleft())
    else:
        _kill(actor)


def _kill(actor: Any) -> None:
    """Free what the actor holds, if it is still there."""
    with suppress(RayError):
        ray.kill(actor)


def _cause(error: RayTaskError) -> Exception:
    """Our own exception with its sentence, or Ray's if it is a bug."""
    return error.cause if isinstance(error.cause, CxrTrtError) else error


def _error_row(name: str, reason: str, engine: str) -> Row:
    return Row(
        path=name,
        sha256=None,
        width=None,
        height=None,
        format=None,
        probabilities=None,
        warnings=(),
        error=f"the engine failed on this file: {reason}; try it on another backend",
        engine=engine,
    )
