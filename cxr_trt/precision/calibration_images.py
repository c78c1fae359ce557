"""The images for calibration: a seeded random choice from folders, without the patients of the evaluation."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.decoders import Answer, Decoders, Limits, Request
from cxr_trt.images.files import Source, find_files
from cxr_trt.processors import processors
from cxr_trt.spec import Specification
from cxr_trt.tables.labels import Labels, read_labels
from cxr_trt.tables.matching import match
from cxr_trt.words import quantity

MIN_CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class CalibrationImages:
    """The chosen X-rays.

    pixels: uint8 [N, 1, height, width]. sha256: hash of the sorted hashes of their files.
    left_out: sentences that say which images were left out.
    """

    pixels: npt.NDArray[np.uint8]
    sha256: str
    seed: int
    left_out: tuple[str, ...]


def choose_images(
    paths: Sequence[Path], count: int, seed: int, spec: Specification, *, labels: Path | None, exclude: Path | None
) -> CalibrationImages:
    """Choose up to `count` chest X-rays at random.

    Args:
        paths: folders and files.
        count: how many to choose; fewer are chosen if there are not enough.
        seed: random seed for choosing images.
        spec: gives size and fit of the preprocessed images.
        labels: a table of labels that gives the patient of each image, so that the patients of `exclude` can be left
            out.
        exclude: the evaluation's table of labels. Its images are left out, and with `labels` also its patients.

    Raises:
        UsageError: the network sees several X-rays at once; fewer than 16 usable images; or a table that cannot be
            used.
    """
    if spec.planes > 1:
        raise UsageError(
            f"the network sees {spec.planes} X-rays of a study at once, and calibration cannot pair files yet; "
            "build it without int8"
        )
    sources = list(find_files(paths).sources)
    left_out = []
    if exclude:
        kept = _without_patients(sources, read_labels(exclude, ()), read_labels(labels, ()) if labels else None)
        left_out.append(f"{quantity(len(sources) - len(kept), 'image')} of {exclude} left out of the calibration")
        sources = kept
    order = np.random.default_rng(seed).permutation(len(sources))
    problems: dict[str, int] = {"could not be read": 0, "not like a chest X-ray": 0}
    with Decoders(processors(), spec.image_size, Limits(), spec.fit) as decoders:
        requests = (Request(sources[i]) for i in order)
        answers = (answer for _, answer in decoders.map(requests, 2 * processors()))
        chosen = list(islice(_usable(answers, problems), count))
    left_out += [f"{quantity(number, 'image')} left out: {problem}" for problem, number in problems.items() if number]
    if len(chosen) < MIN_CALIBRATION_IMAGES:
        reasons = f" ({'; '.join(left_out)})" if left_out else ""
        raise UsageError(
            f"{', '.join(map(str, paths))}: only {len(chosen)} usable chest X-rays{reasons}, but a calibration needs "
            f"at least {MIN_CALIBRATION_IMAGES}, and preferably 256; name a folder with more"
        )
    if len(chosen) < count:
        left_out.append(f"calibrated on {len(chosen)} images instead of {count}, because there were no more")
    hashes = "".join(sorted(sha256 for sha256, _ in chosen))
    pixels = np.stack([image for _, image in chosen])[:, None]
    return CalibrationImages(pixels, hashlib.sha256(hashes.encode()).hexdigest(), seed, tuple(left_out))


def _usable(answers: Iterator[Answer], problems: dict[str, int]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    for answer in answers:
        if answer.image is None or answer.sha256 is None:
            problems["could not be read"] += 1
        elif picture_doubts(answer.image):
            problems["not like a chest X-ray"] += 1
        else:
            yield answer.sha256, answer.image


def _without_patients(sources: list[Source], evaluation: Labels, own: Labels | None) -> list[Source]:
    names = [source.name for source in sources]
    evaluated = match(names, evaluation.images, "the calibration images", evaluation.path)
    kept = [partner is None for partner in evaluated]
    if own and own.patients and evaluation.patients:
        patients = set(evaluation.patients)
        for i, row in enumerate(match(names, own.images, "the calibration images", own.path)):
            kept[i] = kept[i] and (row is None or own.patients[row] not in patients)
    return [source for source, keep in zip(sources, kept, strict=True) if keep]
