"""Scoring shards one after the other, with one engine and one set of decoding processes."""

from collections.abc import Iterator, Sequence
from itertools import islice

from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import write_part
from cxr_trt.images.files import Source
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import Result, score_files
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
