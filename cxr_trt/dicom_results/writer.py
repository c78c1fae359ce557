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
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import replacing
from cxr_trt.report.heatmaps import FULL_SIZE, LARGEST, heat_map, top_findings
from cxr_trt.score.pipeline import Result
from cxr_trt.score.rows import Row
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT = "report.dcm"
SHOWN = 20  # sentences about files without a result


def check_installed() -> None:
    """Raise UsageError if highdicom is not installed."""
    if find_spec("highdicom") is None:
        raise UsageError("--dicom-results needs highdicom: pip install 'cxr-trt[dicom-results]'")


class DicomResults:
    """Makes the results of one run.

    Attributes:
        folder: where they go.
        largest: the longest side in pixels that results are to bring their pictures with.
        place: what was asked for and where, for the journal.
        refused: how many DICOM files were scored but have no result; the first of them, with why, in `sentences`.
        others: how many PNG and JPEG files were scored.
    """

    def __init__(self, folder: Path, spec: Specification, top: int, *, full_size: bool) -> None:
        self.folder, self._spec, self._top = folder, spec, top
        self.largest = FULL_SIZE if full_size else LARGEST
        self.place = f"DICOM results of {top}{', full size' * full_size} in {folder.resolve()}"
        self.refused, self.others = 0, 0
        self.sentences: list[str] = []

    def are_there(self, row: Row) -> bool:
        """Whether the files for a scored row are there; there are none to be for PNG and JPEG."""
        if row.format != "DICOM":
            return True
        return all((self.folder / row.path / name).is_file() for name in (REPORT, *self._captures(row).values()))

    def save(self, result: Result) -> None:
        """Write the files for one result, and remove those of an earlier run; nothing for an error row or a known one.

        Raises UsageError if the folder cannot be written.
        """
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
            if len(self.sentences) < SHOWN:
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
        from cxr_trt.dicom_results.capture import secondary_capture
        from cxr_trt.dicom_results.report import structured_report
        from cxr_trt.dicom_results.source import source_image

        row, picture, maps = result.row, result.picture, result.class_maps
        assert result.identity is not None and picture is not None and maps is not None  # noqa: S101, PT018
        source = source_image(result.identity)
        now = datetime.datetime.now()
        made: dict[str, Dataset] = {}
        for rank, (finding, name) in enumerate(self._captures(row).items(), start=1):
            drawn = heat_map(row, picture, maps[finding], finding, self._spec)
            rgb = np.ascontiguousarray(drawn[:, :, ::-1])
            made[name] = secondary_capture(source, row, rgb, FINDINGS[finding], rank, now)
        return {**made, REPORT: structured_report(source, row, now)}

    def _captures(self, row: Row) -> dict[int, str]:
        """The findings that get a picture, by index, and the names of their files."""
        ranked = enumerate(top_findings(row, self._top), start=1)
        return {finding: f"{rank}-{FINDINGS[finding]}.dcm" for rank, finding in ranked}

    def _remove(self, target: Path) -> None:
        for stale in (target / REPORT, *(path for name in FINDINGS for path in target.glob(f"*-{name}.dcm"))):
            stale.unlink(missing_ok=True)
