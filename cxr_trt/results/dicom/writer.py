"""Writes FOLDER/PATH.report.dcm and FOLDER/PATH.RANK-FINDING.dcm for each DICOM file that is scored.

These files alone carry the identifiers of a patient and a study. highdicom is imported only when a result is made, so
that everything else works without it.
"""

import datetime
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_trt.errors import DicomHeaderError, UsageError
from cxr_trt.outputs import replacing
from cxr_trt.results.drawing import heat_map
from cxr_trt.results.heatmaps import FULL_SIZE_SIDE, MAX_PICTURE_SIDE, finding_files
from cxr_trt.results.writer import result_path
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

    Files of other formats have no results. Without class maps there are no heat maps.
    """

    needs_identity = True

    def __init__(self, folder: Path, spec: Specification, top: int, *, full_size: bool, class_maps: bool) -> None:
        self.folder, self._spec, self._top = folder, spec, top if class_maps else 0
        self.max_picture_side = 0 if not class_maps else FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        self.artifacts_key = f"DICOM results of {top}{', full size' * full_size} in {folder.resolve()}"
        self.refused = 0
        self._refusals: list[str] = []
        self._other_formats = 0  # scored files that are not DICOM

    def has_written(self, row: Row) -> bool:
        """Whether the files for a scored row are there; files of other formats need none."""
        if row.format != "DICOM":
            return True
        names = (REPORT_FILE, *self._captures(row).values())
        return all(self._path(row, name).is_file() for name in names)

    def write(self, result: Result) -> None:
        row = result.row
        self._other_formats += row.error is None and row.format != "DICOM"
        if result.identity is None or not row.probabilities:
            return
        self._remove(row)
        try:
            made = self._results(result)
        except DicomHeaderError as error:
            self.refused += 1
            if len(self._refusals) < MAX_SHOWN_REFUSALS:
                self._refusals.append(f"no DICOM result for {row.path}: {error}")
            return
        folder = self._path(row, "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be made ({error.strerror}); choose another --dicom-results") from error
        for name, dataset in made.items():
            with replacing(self._path(row, name)) as partial:
                dataset.save_as(partial, enforce_file_format=True)

    def summary(self) -> list[str]:
        sentences = list(self._refusals)
        if self.refused > len(self._refusals):
            sentences.append(f"and {self.refused - len(self._refusals)} more DICOM files have no DICOM result")
        if self._other_formats:
            files = "1 file that is" if self._other_formats == 1 else f"{self._other_formats} files that are"
            sentences.append(f"no DICOM results for {files} not DICOM")
        if not self._top:
            sentences.append("DICOM results without pictures: the network has no class maps to make heat maps of")
        return [*sentences, f"DICOM results, with patients' identifiers: {self.folder}"]

    def _results(self, result: Result) -> "dict[str, Dataset]":
        """The results by file name. The report comes last: once it is there, all are."""
        from cxr_trt.results.dicom.capture import secondary_capture
        from cxr_trt.results.dicom.source import source_image
        from cxr_trt.results.dicom.structured_report import structured_report

        row, picture, maps = result.row, result.picture, result.class_maps
        assert result.identity is not None  # noqa: S101
        source = source_image(result.identity)
        now = datetime.datetime.now()
        made: dict[str, Dataset] = {}
        for rank, (finding, name) in enumerate(self._captures(row).items(), start=1):
            assert picture is not None and maps is not None  # noqa: S101, PT018
            drawn = heat_map(row, picture, maps[finding], finding, self._spec)
            rgb = np.ascontiguousarray(drawn[:, :, ::-1])
            made[name] = secondary_capture(source, row, rgb, self._spec.findings[finding], rank, now)
        return {**made, REPORT_FILE: structured_report(source, row, self._spec.findings, now)}

    def _captures(self, row: Row) -> dict[int, str]:
        return finding_files(row, self._spec.findings, self._top, ".dcm")

    def _path(self, row: Row, name: str) -> Path:
        """A result of a file: its own name goes before, so that no two files share a result, and none is a folder."""
        return result_path(self.folder, f"{row.path}.{name}")

    def _remove(self, row: Row) -> None:
        file = self._path(row, REPORT_FILE)
        capture = re.compile(re.escape(self._path(row, "").name) + r"\d+-[^.]+\.dcm")
        captures = [path for path in file.parent.glob("*.dcm") if capture.fullmatch(path.name)]
        for stale in (file, *captures):
            stale.unlink(missing_ok=True)
