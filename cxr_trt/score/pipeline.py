"""The scoring core: from files to rows, in the order of the files, decoding ahead while the engine works.

It has no global state and writes nothing: tables, progress and pictures are made by whoever consumes the results.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import Outputs, Pending, ScoringEngine
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.images.decoders import Answer, Decoders, Limits, Request, Spares
from cxr_trt.images.files import Source
from cxr_trt.images.image import Identity
from cxr_trt.nvtx_range import nvtx_range
from cxr_trt.processors import processors
from cxr_trt.tables.rows import Row


@dataclass(frozen=True)
class Result:
    """A row and, for a file that was scored, what it was computed from.

    skipped: the kind of a DICOM object that is no X-ray, such as "structured reports"; the row then says nothing more.
    image: uint8 [height, width], as the network saw it.
    class_maps: float32 [findings, h, w] over `Specification.class_map_region`, if asked for.
    picture: uint8 [H, W], the file's own picture, if asked for.
    is_known: whether the row comes from an earlier run, so that there is nothing else.
    identity: whose X-ray a DICOM file is, if asked for; unchecked.
    """

    row: Row
    skipped: str | None = None
    image: npt.NDArray[np.uint8] | None = None
    class_maps: npt.NDArray[np.float32] | None = None
    picture: npt.NDArray[np.uint8] | None = None
    is_known: bool = False
    identity: Identity | None = field(default=None, repr=False)


def score_files(
    engine: ScoringEngine,
    sources: Iterable[Source],
    *,
    class_maps: bool = False,
    max_picture_side: int = 0,
    identities: bool = False,
    workers: int | None = None,
    limits: Limits | None = None,
    spares: Spares | None = None,
    known: Callable[[str], Row | None] = lambda name: None,
) -> Iterator[Result]:
    """Score files one batch at a time; at most a few batches are in memory, however many files there are.

    Args:
        engine: an open engine; it is called from the consumer's thread, and once more for a batch that fails.
        sources: files, from `cxr_trt.images.files.find_files`.
        class_maps: whether results carry class maps.
        max_picture_side: longest side, in pixels, of the pictures that results carry; they are never enlarged. 0 for no
            pictures.
        identities: whether results say whose X-ray a DICOM file is; no other field of a result does.
        workers: number of decoding processes; by default one per processor, and no more than there are files.
        limits: memory and time for decoding a file.
        spares: decoding processes that were started ahead, for as many workers and the same limits.
        known: returns the row of an earlier run by the name of a source, or None. The row is used again if the file's
            content is the same.

    Yields:
        One result for every source, in order. A file that cannot be read gives an error row; a DICOM object that is no
        X-ray is marked as skipped.

    Raises:
        BackendError: the engine failed twice on the same images, or no decoding process can be started.
        UsageError: the network sees several X-rays at once: see `cxr_trt.score.studies`.
    """
    workers = workers or default_workers(sources)
    spec, limits = engine.spec, limits or Limits()
    with Decoders(workers, spec.image_size, limits, spec.fit, max_picture_side, identities, spares) as decoders:
        yield from score_with(engine, decoders, sources, class_maps=class_maps, known=known)


def score_with(
    engine: ScoringEngine,
    decoders: Decoders,
    sources: Iterable[Source],
    *,
    class_maps: bool = False,
    known: Callable[[str], Row | None] = lambda name: None,
) -> Iterator[Result]:
    """Score files as `score_files` does, with decoding processes that stay for the next files."""
    rows: deque[Row | None] = deque()

    def requests() -> Iterator[Request]:
        for source in sources:
            row = known(source.name)
            rows.append(row)
            yield Request(source, row.sha256 if row else None)

    answers = decoders.map(requests(), decoders.workers + engine.max_batch)
    decoded = ((request.source, answer) for request, answer in answers)
    yield from score_decoded(engine, decoded, class_maps=class_maps, known=lambda _: rows.popleft())


def score_decoded(
    engine: ScoringEngine,
    decoded: Iterable[tuple[Source, Answer]],
    *,
    class_maps: bool = False,
    known: Callable[[str], Row | None] = lambda name: None,
) -> Iterator[Result]:
    """Score files as `score_files` does, from what decoders have answered, wherever these are."""
    if engine.spec.planes > 1:
        raise UsageError(
            f"the engine's network sees {engine.spec.planes} X-rays of a study at once; `cxr-trt score` pairs them"
        )
    items = (_decoded(source, known(source.name), answer, engine) for source, answer in decoded)
    yield from infer(engine, batches(items, engine.max_batch), class_maps)


def default_workers(sources: Iterable[Source]) -> int:
    """One per processor. Few files get fewer, because processors without a process help the others (`Decoders`)."""
    count = processors()
    return max(1, min(count, len(sources))) if isinstance(sources, Sized) else count


def _decoded(source: Source, known: Row | None, answer: Answer, engine: ScoringEngine) -> Result:
    """The result of a file before it is scored."""
    if known and answer.sha256 == known.sha256:
        return Result(known, is_known=True)
    row = Row(
        path=source.name,
        sha256=answer.sha256,
        width=answer.width,
        height=answer.height,
        format=answer.format,
        probabilities=None,
        warnings=(*answer.warnings, *engine.warnings) if answer.image is not None else answer.warnings,
        error=answer.error,
        engine=engine.fingerprint,
    )
    return Result(row, answer.skipped, answer.image, picture=answer.picture, identity=answer.identity)


def batches(items: Iterable[Result], max_batch: int) -> Iterator[list[Result]]:
    """Fill batches with images; results without one come along, up to four times `max_batch` in all."""
    batch: list[Result] = []
    images = 0
    for item in items:
        batch.append(item)
        images += item.image is not None
        if images == max_batch or len(batch) == 4 * max_batch:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def infer(engine: ScoringEngine, filled: Iterable[list[Result]], class_maps: bool) -> Iterator[Result]:
    """Score batches in order, with as many in flight as the engine takes."""
    running: deque[tuple[list[Result], Pending]] = deque()
    try:
        for batch in filled:
            running.append((batch, _submit(engine, [i.image for i in batch if i.image is not None], class_maps)))
            if len(running) == engine.in_flight:
                yield from _scored(*running.popleft())
        while running:
            yield from _scored(*running.popleft())
    finally:
        for _, pending in running:  # the engine may be used again
            with suppress(BackendError):
                pending()


def _scored(batch: list[Result], pending: Pending) -> Iterator[Result]:
    outputs, scored = pending(), 0
    for item in batch:
        if item.image is None:
            yield item
            continue
        with nvtx_range("postprocess"):
            probabilities = tuple(outputs.probabilities[scored].tolist())
            maps = None if outputs.class_maps is None else outputs.class_maps[scored]
            result = replace(item, row=replace(item.row, probabilities=probabilities), class_maps=maps)
        yield result
        scored += 1


def _submit(engine: ScoringEngine, images: list[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
    """Start a batch; if it fails, try once more, as a passing lack of memory must not end a long run."""
    if not images:
        return lambda: Outputs(np.empty((0, len(engine.spec.findings)), np.float32), None)
    try:
        pending = engine.submit(images, class_maps)
    except BackendError:
        return engine.submit(images, class_maps)

    def collected() -> Outputs:
        try:
            return pending()
        except BackendError:
            return engine.submit(images, class_maps)()

    return collected
