"""Scoring studies, for a network that sees a frontal and a lateral X-ray at once.

Pairs come from a table, or from the headers of DICOM files: one frontal and one lateral X-ray with the same
StudyInstanceUID. A study has one row, under the path of its frontal X-ray; no row holds a UID. A file without its
partner has an error row, and never a score.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_trt.engine.backend import ScoringEngine
from cxr_trt.errors import UsageError
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.decoders import Answer, Decoders, Limits, Request
from cxr_trt.images.files import Selection, Source, escaped_name
from cxr_trt.images.image import VIEW_KEYWORD
from cxr_trt.processors import processors
from cxr_trt.score.pipeline import Result, batches, infer
from cxr_trt.tables.rows import Row
from cxr_trt.words import quantity

FRONTAL_VIEWS = ("PA", "AP")
LATERAL_VIEWS = ("LL", "RL", "LATERAL")
"""Values of ViewPosition: defined terms (PS3.3 C.8.1.1), and what MIMIC-CXR has besides."""
PAIR_COLUMNS = ("frontal", "lateral")
HEADER_IMAGE_SIDE = 64  # pixels; where only the header counts
BY_TABLE = "name the pair in a table with --pairs"


@dataclass(frozen=True)
class Study:
    """A frontal X-ray and its lateral one; or a file that is not scored, and why."""

    source: Source
    lateral: Source | None = None
    error: str | None = None


def read_pairs(path: Path) -> list[Study]:
    """Read a CSV with the columns `frontal` and `lateral`: files, relative to the folder of the table.

    Other columns do not matter. A study whose lateral is empty has none.

    Raises:
        UsageError: it cannot be read, or a frontal X-ray is missing or named twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such table of pairs") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a table of pairs ({error}); give a .csv file") from error
    if not rows or (missing := [name for name in PAIR_COLUMNS if name not in rows[0]]):
        lacks = f"column {', '.join(missing)}" if rows else "row"
        raise UsageError(f"{path}: has no {lacks}; a row names a study's {' and '.join(PAIR_COLUMNS)} X-ray")
    counts = Counter(row["frontal"] for row in rows)
    if not all(counts):
        raise UsageError(f"{path}: a row has no frontal X-ray; leave the row out")
    if (most := counts.most_common(1)[0])[1] > 1:
        raise UsageError(f"{path}: {most[0]} is in {most[1]} rows; a frontal X-ray has one lateral")
    return [
        Study(source, _source(path, row["lateral"]))
        if row["lateral"]
        else Study(source, error="its study has no lateral X-ray in the table of pairs")
        for row in rows
        for source in [_source(path, row["frontal"])]
    ]


def selection_of(studies: Sequence[Study], root: str, skipped: Mapping[str, int] | None = None) -> Selection:
    """The files under which studies have their rows.

    Raises:
        UsageError: there are none.
    """
    if not studies:
        raise UsageError(f"{root}: no X-rays; name another folder")
    return Selection(tuple(study.source for study in studies), skipped or {}, root)


def _source(table: Path, name: str) -> Source:
    return Source(table.parent / name, escaped_name(name))


def find_studies(
    sources: Sequence[Source], *, workers: int | None = None, limits: Limits | None = None
) -> tuple[list[Study], dict[str, int]]:
    """Pair DICOM files by their headers. Every file is read once for this, and those of pairs again to be scored.

    Args:
        sources: the files.
        workers: number of decoding processes; by default one per processor.
        limits: memory and time for a file.

    Returns:
        The studies, in the order of their frontal X-rays among the sources, with a study of its own for each file that
        cannot be paired; and the numbers of DICOM objects that are no X-rays, by kind.
    """
    found: dict[str, dict[str, list[Source]]] = {}
    errors: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    workers = workers or processors()
    with Decoders(workers, HEADER_IMAGE_SIDE, limits or Limits(), identities=True) as decoders:
        for request, answer in decoders.map(map(Request, sources), 2 * workers):
            source = request.source
            if answer.skipped:
                skipped[answer.skipped] += 1
            elif error := _why_not_paired(answer):
                errors[source.name] = error
            else:
                study = found.setdefault(_header(answer, "StudyInstanceUID"), {"frontal": [], "lateral": []})
                study["frontal" if _header(answer, VIEW_KEYWORD) in FRONTAL_VIEWS else "lateral"].append(source)
    lateral_of: dict[str, Source] = {}
    partners: set[str] = set()
    for study in found.values():
        frontals, laterals = study.values()
        if len(frontals) == len(laterals) == 1:
            lateral_of[frontals[0].name] = laterals[0]
            partners.add(laterals[0].name)
        else:
            errors |= dict.fromkeys(
                (source.name for source in (*frontals, *laterals)), _why_no_pair(frontals, laterals)
            )
    studies = [
        Study(source, lateral_of.get(source.name), errors.get(source.name))
        for source in sources
        if source.name in lateral_of or source.name in errors
    ]
    return studies, dict(skipped)


def _why_not_paired(answer: Answer) -> str | None:
    if answer.error:
        return answer.error
    if answer.format != "DICOM":
        return f"not a DICOM file, so its study is not known; {BY_TABLE}"
    if not _header(answer, "StudyInstanceUID"):
        return f"its header has no StudyInstanceUID; {BY_TABLE}"
    if _header(answer, VIEW_KEYWORD) not in (*FRONTAL_VIEWS, *LATERAL_VIEWS):
        return f"its ViewPosition is none of {', '.join((*FRONTAL_VIEWS, *LATERAL_VIEWS))}; {BY_TABLE}"
    return None


def _header(answer: Answer, keyword: str) -> str:
    """An unchecked value of a file's header."""
    value: object = (answer.identity or {}).get(keyword)
    return value.strip().upper() if isinstance(value, str) else ""


def _why_no_pair(frontals: Sequence[Source], laterals: Sequence[Source]) -> str:
    if not laterals or not frontals:
        return f"its study has no {'frontal' if laterals else 'lateral'} X-ray among these files"
    counts = f"{quantity(len(frontals), 'frontal X-ray')} and {quantity(len(laterals), 'lateral X-ray')}"
    return f"its study has {counts}; {BY_TABLE}"


def score_studies(
    engine: ScoringEngine,
    studies: Sequence[Study],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    known: Callable[[str], Row | None] = lambda name: None,
) -> Iterator[Result]:
    """Score studies with an engine of a network that sees two X-rays.

    Args:
        engine: an open engine.
        studies: from `read_pairs` or `find_studies`.
        workers: number of decoding processes; by default one per processor.
        limits: memory and time for a file.
        known: returns the row of an earlier run by the name of a frontal X-ray, or None; it is used again if both
            files are the same.

    Yields:
        One result per study, in order; an error row where an X-ray is missing or cannot be read.

    Raises:
        BackendError: see `cxr_trt.score.pipeline.score_files`.
        UsageError: the engine's network does not see two X-rays.
    """
    spec, workers = engine.spec, workers or processors()
    if spec.planes != len(PAIR_COLUMNS):
        raise UsageError("the engine's network sees one X-ray at a time; leave out --pairs and name files or folders")
    requests = (
        Request(source)
        for study in studies
        if study.error is None
        for source in (study.source, study.lateral)
        if source is not None
    )
    with Decoders(workers, spec.plane_size, limits or Limits(), spec.fit) as decoders:
        answers = (answer for _, answer in decoders.map(requests, workers + 2 * engine.max_batch))
        items = (_decoded(study, answers, known(study.source.name), engine) for study in studies)
        yield from infer(engine, batches(items, engine.max_batch), False)


def _decoded(study: Study, answers: Iterator[Answer], known: Row | None, engine: ScoringEngine) -> Result:
    """The result of a study before it is scored; takes its two answers, if it has two files."""
    if study.error is not None:
        return Result(Row(study.source.name, None, None, None, None, None, (), study.error, engine.fingerprint))
    frontal, lateral = next(answers), next(answers)
    sha256 = _combined(frontal, lateral)
    if known and sha256 == known.sha256:
        return Result(known, is_known=True)
    problems = _problems("", frontal), _problems(f"its lateral X-ray {study.lateral and study.lateral.name}: ", lateral)
    warnings = list(frontal.warnings)
    image = None
    if frontal.image is not None and lateral.image is not None:
        doubts = picture_doubts(lateral.image)  # they are about frontal X-rays
        warnings += [f"lateral X-ray: {warning}" for warning in lateral.warnings if warning not in doubts]
        warnings += engine.warnings
        image = np.concatenate([frontal.image, lateral.image])
    row = Row(
        path=study.source.name,
        sha256=sha256,
        width=frontal.width,
        height=frontal.height,
        format=frontal.format,
        probabilities=None,
        warnings=tuple(warnings),
        error="; ".join(filter(None, problems)) or None,
        engine=engine.fingerprint,
    )
    return Result(row, image=image)


def _problems(which: str, answer: Answer) -> str:
    if answer.skipped:
        return f"{which}not an X-ray but one of {answer.skipped}"
    return f"{which}{answer.error}" if answer.error else ""


def _combined(*answers: Answer) -> str | None:
    """A hash of the files' hashes."""
    if any(answer.sha256 is None for answer in answers):
        return None
    return hashlib.sha256("".join(str(answer.sha256) for answer in answers).encode()).hexdigest()
