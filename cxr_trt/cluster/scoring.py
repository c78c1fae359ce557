"""Scoring shards, each of which becomes a part of the table."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from cxr_trt.closing import Closing
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import write_part
from cxr_trt.images.decoders import READING_THREADS, Answer, Decoders, Limits, Request
from cxr_trt.images.files import Source
from cxr_trt.processors import processors
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import Result, score_decoded, score_files, score_with
from cxr_trt.spec import Specification
from cxr_trt.storage import Location
from cxr_trt.tables.rows import Row


def score_shards(
    engine: Engine, files: FileList, shards: Sequence[int], folder: Location, workers: int | None
) -> Iterator[Result]:
    """Score shards in order, and write the part of each as soon as its last file is scored.

    Decoding and scoring go on from one shard to the next without a pause.

    Args:
        engine: an open engine.
        files: the list that the shards belong to.
        shards: their numbers.
        folder: where the parts are written.
        workers: number of decoding processes; None means one per processor.

    Yields:
        The result of each file. The part is written when the next result is asked for.

    Raises:
        UsageError, StorageError, BackendError: see `write_part` and `cxr_trt.score.pipeline.score_files`.
    """
    results = score_files(engine, _sources(files, shards), workers=workers)
    for shard in shards:
        rows: list[Row] = []
        for result in islice(results, files.shards.size(shard)):
            if not result.skipped:
                rows.append(result.row)
            yield result
        write_part(folder, files, shard, rows, files.shards.size(shard) - len(rows), engine)


def _sources(files: FileList, shards: Sequence[int]) -> Iterator[Source]:
    for shard in shards:
        yield from files.sources(shard)


class ScoredFile(NamedTuple):
    """The row of a file, or None if it is no X-ray."""

    row: Row | None


class ScoredShard(NamedTuple):
    """A shard whose part is written. errors: the paths of files that have none but an error row, and the errors."""

    shard: int
    files: int
    skipped: int
    errors: tuple[tuple[str, str], ...]


class ShardScorer(Closing):
    """Scores single shards and single files, with an engine and decoding processes that stay; a context manager.

    Args:
        engine: an open engine, which the caller closes.
        files: the list.
        folder: where the parts are written.
        workers: number of decoding processes; None means one per processor.
    """

    def __init__(self, engine: Engine, files: FileList, folder: Location, workers: int | None) -> None:
        self._engine, self._files, self._folder = engine, files, folder
        self._decoders = Decoders(workers or processors(), engine.spec.image_size, Limits(), engine.spec.fit)

    def score(self, shard: int) -> ScoredShard:
        """Score a shard, and write its part. Raises as `score_shards` does."""
        return self.write(shard, self._score(self._files.sources(shard)))

    def score_decoded(self, shard: int, answers: Sequence[Answer]) -> ScoredShard:
        """The same with what a `ShardDecoder` has made of the shard, wherever it is."""
        decoded = zip(self._files.sources(shard), answers, strict=True)
        return self.write(shard, _without_images(score_decoded(self._engine, decoded)))

    def score_file(self, shard: int, number: int) -> ScoredFile:
        """Score one file of a shard. Raises as `score_shards` does."""
        (scored,) = self._score([self._files.sources(shard)[number]])
        return scored

    def write(self, shard: int, scored: Sequence[ScoredFile]) -> ScoredShard:
        """Write the part of a shard whose files are scored. Raises as `write_part` does."""
        rows = [one.row for one in scored if one.row]
        skipped = len(scored) - len(rows)
        write_part(self._folder, self._files, shard, rows, skipped, self._engine)
        return ScoredShard(shard, len(scored), skipped, tuple((row.path, row.error) for row in rows if row.error))

    def close(self) -> None:
        self._decoders.close()

    def _score(self, sources: Sequence[Source]) -> list[ScoredFile]:
        return _without_images(score_with(self._engine, self._decoders, sources))


def _without_images(results: Iterable[Result]) -> list[ScoredFile]:
    return [ScoredFile(None if result.skipped else result.row) for result in results]


class ShardDecoder(Closing):
    """Decodes single shards, for engines that are elsewhere; a context manager.

    Args:
        files: the list.
        spec: of the engines.
        workers: number of decoding processes.
    """

    def __init__(self, files: FileList, spec: Specification, workers: int) -> None:
        self._files, self._decoders = files, Decoders(workers, spec.image_size, Limits(), spec.fit)

    def decode(self, shard: int) -> list[Answer]:
        """Everything that a row needs to know of each file, with the images.

        Raises:
            UsageError: the list is damaged.
            StorageError: the store does not answer.
            BackendError: no decoding process can be started.
        """
        requests = map(Request, self._files.sources(shard))
        return [answer for _, answer in self._decoders.map(requests, self._decoders.workers + READING_THREADS)]

    def close(self) -> None:
        self._decoders.close()
