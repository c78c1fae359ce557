"""Writes FOLDER/PATH/report.dcm and FOLDER/PATH/RANK-FINDING.dcm for each DICOM file that is scored.

These files alone carry the identifiers of a patient and a study. highdicom is imported only when a result is made, so
that everything else works without it.
"""

import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_trt.errors import DicomHeaderError, UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import replacing
from cxr_trt.results.heatmaps import FULL_SIZE_SIDE, MAX_PICTURE_SIDE, finding_files, heat_map
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import Row

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT_FILE = "report.dcm"
MAX_SHOWN_REFUSALS = 20


def check_highdicom() -> None:
    """Raise UsageError if highdicom is not installed."""
    if find_spec("highdicom") is None:
        raise UsageError("--dicom-results needs highdicom: pip install 'cxr-trt[dicom-results]'")


class DicomResultWriter:
    """Writes a structured report and heat maps for each scored DICOM file; see `cxr_trt.results.writer.ResultWriter`.

    PNG and JPEG files have no results.
    """

    content = "DICOM results"
    needs_identity = True

    def __init__(self, folder: Path, spec: Specification, top: int, *, full_size: bool) -> None:
        self.folder, self._spec, self._top = folder, spec, top
        self.max_picture_side = FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        self.artifacts_key = f"DICOM results of {top}{', full size' * full_size} in {folder.resolve()}"
        self.refused = 0
        self._refusals: list[str] = []
        self._other_formats = 0  # scored files in PNG and JPEG

    def has_written(self, row: Row) -> bool:
        """Whether the files for a scored row are there; PNG and JPEG files need none."""
        if row.format != "DICOM":
            return True
        names = (REPORT_FILE, *finding_files(row, self._top, ".dcm").values())
        return all((self.folder / row.path / name).is_file() for name in names)

    def write(self, result: Result) -> None:
        row = result.row
        self._other_formats += row.error is None and row.format != "DICOM"
        if result.identity is None or not row.probabilities:
            return
        target = self.folder / row.path
        self._remove(target)
        try:
            made = self._results(result)
        except DicomHeaderError as error:
            self.refused += 1
            if len(self._refusals) < MAX_SHOWN_REFUSALS:
                self._refusals.append(f"no DICOM result for {row.path}: {error}")
            return
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{target}: cannot be made ({error.strerror}); choose another --dicom-results") from error
        for name, dataset in made.items():
            with replacing(target / name) as partial:
                dataset.save_as(partial, enforce_file_format=True)

    def summary(self) -> list[str]:
        sentences = list(self._refusals)
        if self.refused > len(self._refusals):
            sentences.append(f"and {self.refused - len(self._refusals)} more DICOM files have no DICOM result")
        if self._other_formats:
            files = f"{self._other_formats} PNG or JPEG file{'s' * (self._other_formats != 1)}"
            sentences.append(f"no DICOM results for {files}")
        return [*sentences, f"DICOM results, with patients' identifiers: {self.folder}"]

    def _results(self, result: Result) -> "dict[str, Dataset]":
        """The results by file name. The report comes last: once it is there, all are."""
        from cxr_trt.results.dicom.capture import secondary_capture
        from cxr_trt.results.dicom.source import source_image
        from cxr_trt.results.dicom.structured_report import structured_report

        row, picture, maps = result.row, result.picture, result.class_maps
        assert result.identity is not None and picture is not None and maps is not None  # noqa: S101, PT018
        source = source_image(result.identity)
        now = datetime.datetime.now()
        made: dict[str, Dataset] = {}
        for rank, (finding, name) in enumerate(finding_files(row, self._top, ".dcm").items(), start=1):
            drawn = heat_map(row, picture, maps[finding], finding, self._spec)
            rgb = np.ascontiguousarray(drawn[:, :, ::-1])
            made[name] = secondary_capture(source, row, rgb, FINDINGS[finding], rank, now)
        return {**made, REPORT_FILE: structured_report(source, row, now)}

    def _remove(self, target: Path) -> None:
        for stale in (target / REPORT_FILE, *(path for name in FINDINGS for path in target.glob(f"*-{name}.dcm"))):
            stale.unlink(missing_ok=True)
