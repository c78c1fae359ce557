"""The scoring core: from files to rows, in the order of the files, decoding ahead while the engine works.

No global state and nothing written: tables, progress and pictures are made by whoever consumes the results.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import ScoringEngine
from cxr_trt.errors import ImageError
from cxr_trt.images import decode
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.load import read_file
from cxr_trt.preprocess import preprocess
from cxr_trt.score.files import Source
from cxr_trt.score.rows import Row


@dataclass(frozen=True)
class Result:
    """A row and, for a file that could be read, what it was computed from.

    image: uint8 [size, size], as the network saw it. class_maps: float32 [14, h, w] over
    `Specification.class_map_region`, if they were asked for.
    """

    row: Row
    image: npt.NDArray[np.uint8] | None = None
    class_maps: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Decoded:
    """`row` lacks the probabilities; `image` is None if it has an error."""

    row: Row
    image: npt.NDArray[np.uint8] | None


def score(
    engine: ScoringEngine, sources: Iterable[Source], *, class_maps: bool = False, workers: int | None = None
) -> Iterator[Result]:
    """Score files one batch at a time; at most a few batches are in memory, however many files there are.

    Args:
        engine: an open engine; it is called from the consumer's thread.
        sources: files, from `cxr_trt.score.files.find_files`.
        class_maps: whether results carry them.
        workers: decoding threads; by default one for each processor.

    Yields:
        One result for every source, in order. A file that cannot be read gives an error row.
    """
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        decoded = _ahead(pool, lambda source: _decode(source, engine), sources, workers + engine.max_batch)
        try:
            while batch := list(islice(decoded, engine.max_batch)):
                yield from _infer(engine, batch, class_maps)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Source], _Decoded], sources: Iterable[Source], depth: int
) -> Iterator[_Decoded]:
    """Map in order, with at most `depth` files decoded or being decoded ahead of the consumer."""
    remaining = iter(sources)
    pending: deque[Future[_Decoded]] = deque(pool.submit(function, source) for source in islice(remaining, depth))
    while pending:
        result = pending.popleft().result()
        pending.extend(pool.submit(function, source) for source in islice(remaining, 1))
        yield result


def _decode(source: Source, engine: ScoringEngine) -> _Decoded:
    sha256 = None
    try:
        data = read_file(source.path)
        sha256 = hashlib.sha256(data).hexdigest()
        picture = decode(data)
    except (ImageError, MemoryError) as error:
        reason = str(error) if isinstance(error, ImageError) else "the image is too large for this machine's memory"
        return _Decoded(Row(source.name, sha256, None, None, None, None, (), reason, engine.fingerprint), None)
    height, width = picture.pixels.shape
    image = preprocess(picture.pixels, engine.spec.image_size, engine.spec.fit)
    warnings = (*picture.warnings, *picture_doubts(image), *engine.warnings)
    row = Row(source.name, sha256, width, height, picture.format, None, warnings, None, engine.fingerprint)
    return _Decoded(row, image)


def _infer(engine: ScoringEngine, batch: list[_Decoded], class_maps: bool) -> Iterator[Result]:
    images = [item.image for item in batch if item.image is not None]
    outputs = engine.run(np.stack(images), class_maps=class_maps) if images else None
    scored = 0
    for item in batch:
        if item.image is None or outputs is None:
            yield Result(item.row)
            continue
        probabilities = tuple(outputs.probabilities[scored].tolist())
        maps = None if outputs.class_maps is None else outputs.class_maps[scored]
        yield Result(replace(item.row, probabilities=probabilities), item.image, maps)
        scored += 1
