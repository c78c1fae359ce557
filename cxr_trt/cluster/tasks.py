"""A shard on its way through a cluster whose actors may die of it."""

from dataclasses import dataclass, field
from typing import Any

from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.scoring import ScoredFile, ScoredShard
from cxr_trt.tables.rows import Row

MAX_FAILURES = 2  # of a shard before its files are scored alone; of a file alone before it gets an error row


@dataclass
class Task:
    """A shard that is scored as a whole or, after it failed as such, file by file.

    decoded: Ray's reference to what a decoding actor has made of the files, if one did.
    scored: the first files of the shard, all of them with the engine `engine`, if they are scored one by one.
    fatal: the files that an engine died of, by their numbers, and what was said of it.
    """

    shard: int
    files: FileList
    failures: int = 0
    engine: str = ""
    decoded: Any = None
    scored: list[ScoredFile] | None = None
    fatal: dict[int, str] = field(default_factory=dict)

    def decode(self, actor: Any) -> Any:
        """Have an actor (`cxr_trt.cluster.ray_actors.DecodingActor`) decode the shard; returns Ray's reference.

        It stands for nothing, and what was decoded stays where it is.
        """
        done, self.decoded = actor.decode.options(num_returns=2).remote(self.shard)
        return done

    def submit(self, actor: Any, engine: str) -> Any:
        """Give an actor (`cxr_trt.cluster.ray_actors.ShardActor`) the next thing to do; returns Ray's reference.

        An actor with another engine than the one before starts with the first file again: a part has the rows of one.
        """
        if self.scored is None:
            if self.decoded is None:
                return actor.score.remote(self.shard)
            return actor.score_decoded.remote(self.shard, self.decoded)
        if self.engine != engine:
            self.engine, self.scored = engine, []
        while reason := self.fatal.get(len(self.scored)):
            name = self.files.sources(self.shard)[len(self.scored)].name
            self.scored.append(ScoredFile(_error_row(name, reason, engine)))
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
        """Take note that what was to be done last has failed."""
        self.failures += 1
        if self.failures < MAX_FAILURES:
            return
        if self.scored is None:
            self.failures, self.scored = 0, []
        elif len(self.scored) < self.files.shards.size(self.shard):
            self.failures = 0
            self.fatal[len(self.scored)] = reason


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
