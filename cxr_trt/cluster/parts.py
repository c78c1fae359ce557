"""The parts of a table: one per shard of a list, written whole or not at all. Missing parts are what is left to do."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_trt.cluster.listing import FileList
from cxr_trt.errors import UsageError
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.storage import Location, content_of, names_in, writing
from cxr_trt.tables.rows import Row
from cxr_trt.tables.writing import ENGINE_KEY, SPECIFICATION_KEY, write_table

LIST_KEY, SHARD_KEY, SKIPPED_KEY = "cxr_trt.list", "cxr_trt.shard", "cxr_trt.skipped"
FINGERPRINT_KEY = "cxr_trt.fingerprint"  # of the engine
READING_THREADS = 16


def part_path(folder: Location, shard: int) -> Location:
    """The file with the rows of a shard."""
    return folder / f"part-{shard:08}.parquet"


def write_part(
    folder: Location, files: FileList, shard: int, rows: Iterable[Row], skipped: int, engine: Engine
) -> None:
    """Write the rows of a shard in order; `skipped` of its files were no X-rays and have none.

    Raises UsageError or StorageError if it cannot be written.
    """
    facts = {
        LIST_KEY: files.sha256,
        SHARD_KEY: str(shard),
        FINGERPRINT_KEY: engine.fingerprint,
        ENGINE_KEY: engine.manifest.describe_model(),
        SKIPPED_KEY: str(skipped),
    }
    with writing(part_path(folder, shard)) as partial:
        write_table(partial, ".parquet", rows, engine.spec, engine.calibration, root=files.root, facts=facts)


def facts_of_parts(
    folder: Location, files: FileList, shards: Iterable[int], engines: Collection[str] | None = None
) -> dict[int, Mapping[str, str]]:
    """What the parts say of themselves that are there, by shard and in order. The header of each is read once.

    Args:
        folder: where the parts are.
        files: the list that they must be of.
        shards: those to look for.
        engines: the fingerprints of which they must have one; None means any.

    Raises:
        UsageError: a part is of another list or engine, or damaged.
        StorageError: the store does not answer.
    """
    names = names_in(folder)
    here = [shard for shard in shards if part_path(folder, shard).name in names]
    found = {}
    with ThreadPoolExecutor(READING_THREADS) as threads:
        for shard, facts in zip(here, threads.map(part_facts, (part_path(folder, i) for i in here)), strict=True):
            path = part_path(folder, shard)
            if (facts[LIST_KEY], facts[SHARD_KEY]) != (files.sha256, str(shard)):
                raise UsageError(f"{path}: is a part of another list than {files.folder}; choose another -o")
            if engines is not None and facts[FINGERPRINT_KEY] not in engines:
                scored_with, named = facts[FINGERPRINT_KEY], " and ".join(engines)
                raise UsageError(
                    f"{path}: was scored with the engine {scored_with}, but this is {named}; choose another -o"
                )
            found[shard] = facts
    return found


def part_facts(path: Location) -> Mapping[str, str]:
    """What a part says of itself. Raises UsageError if it is none, or damaged."""
    try:
        metadata = pq.read_schema(content_of(path)).metadata or {}
        facts = {key.decode("utf-8"): value.decode("utf-8") for key, value in metadata.items()}
        if {LIST_KEY, SHARD_KEY, FINGERPRINT_KEY, ENGINE_KEY, SKIPPED_KEY, SPECIFICATION_KEY} <= facts.keys():
            return facts
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path}: damaged ({error}); remove it, and score its shard again") from error
    raise UsageError(f"{path}: not a part of a table; remove it, or choose another folder")


def rows_of_part(path: Location, spec: Specification) -> Iterator[Row]:
    """The rows of a part, a few at a time. Raises UsageError if it is damaged."""
    try:
        for batch in pq.ParquetFile(content_of(path)).iter_batches(batch_size=1000):
            for cells in batch.to_pylist():
                yield _row(cells, spec)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UsageError(f"{path}: damaged ({error}); remove it, and score its shard again") from error


def _row(cells: Mapping[str, Any], spec: Specification) -> Row:
    scores = tuple(cells[finding] for finding in spec.findings)
    return Row(
        path=cells["path"],
        sha256=cells["sha256"],
        width=cells["width"],
        height=cells["height"],
        format=cells["format"],
        probabilities=None if scores[0] is None else scores,
        warnings=tuple(filter(None, (cells["warnings"],))),  # joined already, and not divided again
        error=cells["error"],
        engine=cells["engine"],
    )
