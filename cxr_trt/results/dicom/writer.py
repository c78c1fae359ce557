"""Writes FOLDER/PATH/report.dcm and FOLDER/PATH/RANK-FINDING.dcm for each DICOM file that is scored.

These files alone carry the identifiers of a patient and a study. highdicom is imported as results are made, so that
who makes none does without.
"""

import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_trt.errors import DicomHeaderError, UsageError
from cxr_trt.findings import FINDINGS, ranked_findings
from cxr_trt.outputs import replacing
from cxr_trt.results.heatmaps import FULL_SIZE_SIDE, MAX_PICTURE_SIDE, heat_map
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import Row

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT_FILE = "report.dcm"
MAX_SENTENCES = 20  # about files without a result


def check_highdicom() -> None:
    """Raise UsageError if highdicom is not installed."""
    if find_spec("highdicom") is None:
        raise UsageError("--dicom-results needs highdicom: pip install 'cxr-trt[dicom-results]'")


class DicomResultWriter:
    """Makes the results of one run. See `cxr_trt.results.writer.ResultWriter`.

    Attributes:
        refused: how many DICOM files were scored but have no result; the first of them, with why, in `sentences`.
        others: how many PNG and JPEG files were scored.
    """

    content = "DICOM results"
    needs_identity = True

    def __init__(self, folder: Path, spec: Specification, top: int, *, full_size: bool) -> None:
        self.folder, self._spec, self._top = folder, spec, top
        self.max_picture_side = FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        self.artifacts_key = f"DICOM results of {top}{', full size' * full_size} in {folder.resolve()}"
        self.refused, self.others = 0, 0
        self.sentences: list[str] = []

    def has_written(self, row: Row) -> bool:
        """Whether the files for a scored row are there; there are none to be for PNG and JPEG."""
        if row.format != "DICOM":
            return True
        return all((self.folder / row.path / name).is_file() for name in (REPORT_FILE, *self._captures(row).values()))

    def write(self, result: Result) -> None:
        row = result.row
        self.others += row.error is None and row.format != "DICOM"
        if result.identity is None or not row.probabilities:
            return
        target = self.folder / row.path
        self._remove(target)
        try:
            made = self._results(result)
        except DicomHeaderError as error:
            self.refused += 1
            if len(self.sentences) < MAX_SENTENCES:
                self.sentences.append(f"no DICOM result for {row.path}: {error}")
            return
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{target}: cannot be made ({error.strerror}); choose another --dicom-results") from error
        for name, dataset in made.items():
            with replacing(target / name) as partial:
                dataset.save_as(partial, enforce_file_format=True)

    def _results(self, result: Result) -> "dict[str, Dataset]":
        """By file name; the report is last, so that it says that all are there."""
        from cxr_trt.results.dicom.capture import secondary_capture
        from cxr_trt.results.dicom.source import source_image
        from cxr_trt.results.dicom.structured_report import structured_report

        row, picture, maps = result.row, result.picture, result.class_maps
        assert result.identity is not None and picture is not None and maps is not None  # noqa: S101, PT018
        source = source_image(result.identity)
        now = datetime.datetime.now()
        made: dict[str, Dataset] = {}
        for rank, (finding, name) in enumerate(self._captures(row).items(), start=1):
            drawn = heat_map(row, picture, maps[finding], finding, self._spec)
            rgb = np.ascontiguousarray(drawn[:, :, ::-1])
            made[name] = secondary_capture(source, row, rgb, FINDINGS[finding], rank, now)
        return {**made, REPORT_FILE: structured_report(source, row, now)}

    def _captures(self, row: Row) -> dict[int, str]:
        """The findings that get a picture, by index, and the names of their files."""
        ranked = enumerate(ranked_findings(row.probabilities or ())[: self._top], start=1)
        return {finding: f"{rank}-{FINDINGS[finding]}.dcm" for rank, finding in ranked}

    def _remove(self, target: Path) -> None:
        for stale in (target / REPORT_FILE, *(path for name in FINDINGS for path in target.glob(f"*-{name}.dcm"))):
            stale.unlink(missing_ok=True)
