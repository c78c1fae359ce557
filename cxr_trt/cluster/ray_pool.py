"""Gives shards to the actors of a Ray cluster, one at a time, and again where an actor dies of one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, ObjectLostError, RayError, RayTaskError

from cxr_trt.cluster.actors import MAX_DECODED, Place
from cxr_trt.cluster.scoring import ScoredShard
from cxr_trt.cluster.tasks import Task
from cxr_trt.errors import BackendError, CxrTrtError, StorageError

MAX_FAILURES_IN_A_ROW = 20  # of all actors together, without anything done between
WAIT_SECONDS = 30.0


@dataclass
class _Actor:
    """handle: Ray's. engine: the fingerprint of the engine that it has opened; empty until then.

    decodes: whether it has none, but decodes shards for those that have.
    """

    handle: Any
    place: Place
    decodes: bool
    engine: str = ""


class Pool:
    """The actors of a run, and the shards that are not scored yet.

    Shards are decoded and scored by actors with engines or, as soon as there are decoding actors, decoded by these:
    each of them makes a shard only if fewer than MAX_DECODED of its shards are not scored yet.

    Args:
        start: starts an actor, with whether it decodes; returns Ray's handle of it, and the reference of its opening.
        tasks: the shards.
        tell: is told what happens, a sentence each.
    """

    def __init__(
        self,
        start: "Callable[[Place, bool], tuple[Any, ray.ObjectRef[Any]]]",
        tasks: Iterable[Task],
        tell: Callable[[str], None],
    ) -> None:
        self._start, self._tell = start, tell
        self._busy: dict[ray.ObjectRef[Any], tuple[_Actor, Task | None]] = {}  # None: opens list and engine
        self._idle: list[_Actor] = []
        self._resting: list[_Actor] = []  # without a process, until an engine is open
        self._to_decode, self._to_score = deque[Task](), deque(tasks)
        self._unfinished, self._elsewhere = len(self._to_score), False
        self._decoded_by: dict[int, _Actor] = {}  # for the shards that are decoded, or are being decoded
        self._failures_in_a_row = 0

    def add(self, place: Place) -> "ray.ObjectRef[str]":
        """Start an actor with an engine; its fingerprint is what the reference stands for, once it is open."""
        return self._open(_Actor(None, place, decodes=False))

    def add_decoder(self, place: Place) -> None:
        """Start an actor that decodes. From the first one on, no other decodes whole shards."""
        self._decode_elsewhere(True)
        self._open(_Actor(None, place, decodes=True))

    def shards(self) -> Iterator[ScoredShard]:
        """Score all shards; see `cxr_trt.cluster.ray_runner.score_shards_on_ray`."""
        while self._unfinished:
            self._hand_out()
            done = ray.wait(list(self._busy), num_returns=1, timeout=WAIT_SECONDS, fetch_local=False)[0]
            if done:
                yield from self._finished(done[0])
            elif not any(task for _, task in self._busy.values()):
                self._make_do()

    def _open(self, actor: _Actor) -> "ray.ObjectRef[Any]":
        actor.engine = ""
        actor.handle, opening = self._start(actor.place, actor.decodes)
        self._busy[opening] = actor, None
        return opening

    def _hand_out(self) -> None:
        """Give waiting shards to idle actors; those with engines that nothing can come to are not needed any more."""
        idle, self._idle = self._idle, []
        for actor in idle:
            waiting = self._to_decode if actor.decodes else self._to_score
            if waiting and not (actor.decodes and self._unscored(actor) >= MAX_DECODED):
                self._give(actor, waiting.popleft())
            elif actor.decodes or self._to_decode or self._is_decoding():
                self._idle.append(actor)
            else:
                _kill(actor)

    def _make_do(self) -> None:
        """Go on with the actors that are there, where those that are missing find no room."""
        self._tell("waiting for actors: they open the engine, or a node has no room for one yet")
        idle_decoders = [actor for actor in self._idle if actor.decodes]
        if len(idle_decoders) < len(self._idle):  # an engine waits for decoders
            self._decode_elsewhere(False)
        else:  # all engines wait for room, which these have until then
            for actor in idle_decoders:
                _kill(actor)
            self._idle, self._resting = [], [*self._resting, *idle_decoders]

    def _decode_elsewhere(self, elsewhere: bool) -> None:
        """Have shards decoded by actors that only decode, or by the others."""
        if elsewhere != self._elsewhere:
            self._elsewhere, tasks = elsewhere, (*self._to_score, *self._to_decode)
            self._to_decode, self._to_score = deque(), deque()
            for task in tasks:
                self._put_off(task)

    def _put_off(self, task: Task) -> None:
        is_raw = task.decoded is None and task.scored is None
        (self._to_decode if self._elsewhere and is_raw else self._to_score).append(task)

    def _give(self, actor: _Actor, task: Task) -> None:
        if actor.decodes:
            self._decoded_by[task.shard] = actor
            doing = task.decode(actor.handle)
        else:
            doing = task.submit(actor.handle, actor.engine)
        self._busy[doing] = actor, task

    def _unscored(self, actor: _Actor) -> int:
        """How many shards it has decoded that are not scored yet."""
        return sum(maker is actor for maker in self._decoded_by.values())

    def _is_decoding(self) -> bool:
        return any(actor.decodes and task for actor, task in self._busy.values())

    def _finished(self, reference: "ray.ObjectRef[Any]") -> Iterator[ScoredShard]:
        """Take what an actor has done, or failed to do."""
        actor, task = self._busy.pop(reference)
        try:
            answer = ray.get(reference)
        except RayError as error:
            self._failed(actor, task, error)
            return
        self._failures_in_a_row = 0
        if task is None:
            self._opened(actor, answer)
        elif actor.decodes:
            self._to_score.append(task)
        elif shard := task.done(answer):
            self._unfinished -= 1
            self._forget(task)
            yield shard
        else:
            self._give(actor, task)
            return
        self._idle.append(actor)

    def _opened(self, actor: _Actor, engine: str | None) -> None:
        if engine is None:
            self._decode_elsewhere(True)
            return
        actor.engine = engine
        while self._resting:
            self._open(self._resting.pop())

    def _failed(self, actor: _Actor, task: Task | None, error: RayError) -> None:
        """Put off the task, and put another actor in the place of one that died.

        Raises:
            BackendError, StorageError: everything fails.
            CxrTrtError, RayTaskError: what no other try can mend.
        """
        if actor.decodes and isinstance(error, ActorUnschedulableError):
            self._tell("a node that decoded is lost; the others go on")
            others = (*self._idle, *self._resting, *(other for other, _ in self._busy.values()))
            self._decode_elsewhere(any(other.decodes for other in others))
            return
        failure: BackendError | StorageError
        is_alive = is_to_blame = True  # the actor; the task, which may be why it failed
        if not isinstance(error, RayTaskError):
            failure, is_alive = BackendError("its process died, or its node"), False
        elif task and isinstance(error.cause, BackendError | StorageError):
            failure, is_to_blame = error.cause, isinstance(error.cause, BackendError)
        elif task and isinstance(error.cause, ObjectLostError):
            failure, is_to_blame = BackendError("the node that has decoded it is lost"), False
            self._forget(task)
        else:
            raise cause_of(error) from error
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise type(failure)(f"{self._failures_in_a_row} failures in a row, the last one: {failure}")
        if is_alive:
            self._idle.append(actor)
        else:
            _kill(actor)
            self._open(actor)
        if task:
            self._tell(f"shard {task.shard}: {failure}; it is tried again")
            if is_to_blame:
                task.failed(str(failure))
            if actor.decodes or task.scored is not None:
                self._forget(task)
            self._put_off(task)

    def _forget(self, task: Task) -> None:
        """Free what was decoded of a shard."""
        task.decoded = None
        self._decoded_by.pop(task.shard, None)


def _kill(actor: _Actor) -> None:
    """Free what the actor holds, if it is still there."""
    with suppress(RayError):
        ray.kill(actor.handle)


def cause_of(error: RayTaskError) -> Exception:
    """Our own exception with its sentence, or Ray's if it is a bug."""
    return error.cause if isinstance(error.cause, CxrTrtError) else error
