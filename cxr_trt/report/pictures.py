"""Pictures and maps of the cases of a report, small enough to be embedded in the page."""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.findings import ranked_findings
from cxr_trt.images.decoders import Answer, Decoders, Limits, Request
from cxr_trt.images.files import Source, find_files
from cxr_trt.report.cases import Case
from cxr_trt.results.raw_maps import RawMaps, read_raw_maps

MAX_PICTURE_SIDE = 384  # pixels
JPEG_QUALITY = 82
MAPS_PER_CASE = 3


@dataclass(frozen=True)
class Picture:
    """What the page adds to a case: the fields, and the reason if something is missing."""

    fields: dict[str, Any]
    reason: str | None = None


def make_pictures(
    findings: tuple[str, ...],
    cases: Sequence[Case],
    images: Sequence[Path],
    heatmaps: Path | None,
    boxed: Mapping[str, Collection[int]],
    workers: int,
    advance: Callable[[], None],
) -> dict[str, Picture]:
    """Decode the files of cases, in separate processes as for scoring, and read their maps from a folder.

    Args:
        findings: the findings of the cases' scores.
        cases: the cases that are to have pictures.
        images: the folders and files that were scored.
        heatmaps: the folder of `cxr-trt score --heatmaps FOLDER --raw-maps`, if there is one.
        boxed: by path, indices of findings whose maps are wanted too, beside those with the highest scores.
        workers: number of decoding processes.
        advance: called after each file.

    Returns:
        An entry per case, by path, with or without a picture.

    Raises:
        UsageError: no case's file is among the images.
    """
    sources = {source.name: source for source in find_files(images).sources}
    wanted = [(case, sources[case.path]) for case in cases if case.path in sources]
    if cases and not wanted:
        raise UsageError(
            f"{images[0]}: has no file of the table (such as {cases[0].path!r}); name the X-rays that were scored"
        )
    pictures = {
        case.path: Picture({}, "no picture (not among the images)") for case in cases if case.path not in sources
    }
    by_name = {source.name: case for case, source in wanted}
    with Decoders(workers, 64, Limits(), picture=MAX_PICTURE_SIDE) as decoders:
        requests = (Request(Source(source.path, source.name)) for _, source in wanted)
        for request, answer in decoders.map(requests, 2 * workers):
            case = by_name[request.source.name]
            pictures[case.path] = _picture(findings, case, answer, heatmaps, boxed.get(case.path, ()))
            advance()
    return pictures


def _picture(
    findings: tuple[str, ...], case: Case, answer: Answer, heatmaps: Path | None, boxed: Collection[int]
) -> Picture:
    if answer.picture is None:
        return Picture({}, "no picture (can no longer be read)")
    if answer.sha256 != case.sha256:
        return Picture({}, "no picture (changed since it was scored)")
    encoded = cv2.imencode(".jpg", answer.picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    fields: dict[str, Any] = {"picture": _text(encoded.tobytes()), "shape": answer.picture.shape, "maps": []}
    if heatmaps is None:
        return Picture(fields)
    try:
        maps = read_raw_maps(heatmaps, case.path)
    except UsageError:
        return Picture(fields, "no heat maps (no maps.npz)")
    if maps.findings != findings:
        return Picture(fields, "no heat maps (maps.npz has other findings)")
    return Picture({**fields, **_maps(case, maps, boxed)})


def _maps(case: Case, maps: RawMaps, boxed: Collection[int]) -> dict[str, Any]:
    """Maps of the most probable findings and of those with boxes, in 256 steps, and the part of the picture, 0 to 1."""
    height, width = maps.size
    y, x, down, across = maps.rectangle
    ranked = ranked_findings(case.scores)
    shown = [finding for place, finding in enumerate(ranked) if place < MAPS_PER_CASE or finding in boxed]
    return {
        "rectangle": (y / height, x / width, down / height, across / width),
        "maps": [_map(maps.class_maps[finding], finding) for finding in shown],
    }


def _map(class_map: "np.ndarray[Any, np.dtype[np.float32]]", finding: int) -> dict[str, Any]:
    low, high = float(class_map.min()), float(class_map.max())
    cells = np.rint((class_map - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    rows, columns = cells.shape
    return {
        "finding": finding,
        "low": low,
        "median": float(np.median(class_map)),
        "high": high,
        "rows": rows,
        "columns": columns,
        "cells": _text(cells.tobytes()),
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
