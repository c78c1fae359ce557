"""Heat maps as files: a picture for each of the most probable findings of an X-ray."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from cxr_trt.calibrate.calibration import Calibration
from cxr_trt.errors import UsageError
from cxr_trt.findings import finding_file_name, listed, ranked_findings, same_findings
from cxr_trt.images.files import HEATMAP_MARK, JPEG_MARK, PNG_HEADER_BYTES, is_heatmap
from cxr_trt.results.drawing import Bytes, heat_map
from cxr_trt.results.raw_maps import MAPS_FILE, save_raw_maps
from cxr_trt.results.writer import result_path
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.boxes import PlacedBoxes
from cxr_trt.tables.rows import Row
from cxr_trt.words import disk_size, quantity

MAX_PICTURE_SIDE = 768  # pixels, unless the file's own size is asked for
FULL_SIZE_SIDE = 1 << 16  # pixels; no file has more
USUAL_PIXELS = 2500 * 3000  # of a digital radiograph, for the estimate of --full-size
MAX_BYTES_PER_PIXEL = {"png": 1.25, "jpeg": 0.19}  # of 15 heat maps; at least 0.68 and 0.09
JPEG_QUALITY = 88
NEVER = 2.0  # above every score

HeatmapFormat = Literal["png", "jpeg"]
Above = float | Literal["calibrated"]


@dataclass(frozen=True)
class HeatmapLook:
    """Which heat maps are drawn, and how.

    top: how many findings per X-ray, at most. above: only those with at least this score, or "calibrated": only those
    that the calibration calls positive. findings: only these.
    scale: lowest and highest value of the colours; by default each map's own median and largest value. scales: the same
    for single findings, by name.
    """

    top: int = 3
    above: Above | None = None
    findings: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    format: HeatmapFormat = "png"
    scales: tuple[tuple[str, float, float], ...] = ()


class HeatmapWriter:
    """Writes FOLDER/PATH/RANK-FINDING.png for the most probable findings of an X-ray, and maps.npz if asked for.

    See `cxr_trt.results.writer.ResultWriter`.
    """

    needs_identity = False
    refused = 0

    def __init__(
        self,
        folder: Path,
        spec: Specification,
        look: HeatmapLook,
        *,
        raw_maps: bool,
        full_size: bool,
        calibration: Calibration | None = None,
        boxes: PlacedBoxes | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            folder: for the files.
            spec: the specification of the engine.
            look: which heat maps are drawn, and how.
            raw_maps: whether class maps are saved too.
            full_size: whether pictures have the size of the X-ray's file.
            calibration: the engine's, for a look "calibrated".
            boxes: to draw over the maps of their findings.

        Raises:
            UsageError: the engine lacks a finding of the look, or the calibration that it needs.
        """
        self.folder, self._spec, self._look, self._raw_maps, self._boxes = folder, spec, look, raw_maps, boxes
        self._wanted = frozenset(_indices("--findings", look.findings, spec.findings)) or frozenset(
            range(len(spec.findings))
        )
        self._least = _least_scores(look.above, spec.findings, calibration)
        names = [name for name, _, _ in look.scales]
        places = _indices("--finding-range", names, spec.findings)
        self._scales = {place: (low, high) for place, (_, low, high) in zip(places, look.scales, strict=True)}
        self._pictures, self._bytes = 0, 0
        self.max_picture_side = FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        extras = f"{', maps' * raw_maps}{', full size' * full_size}"
        look_key = "" if look == HeatmapLook(look.top) else f", {look}"
        if look.above == "calibrated" and calibration:
            look_key += f", calibration {calibration.fingerprint}"
        if boxes:
            look_key += f", boxes {boxes.sha256[:16]}"
        self.artifacts_key = f"{look.top}{extras}{look_key} in {folder.resolve()}"

    def has_written(self, row: Row) -> bool:
        names = [*self._files(row).values(), *[MAPS_FILE] * self._raw_maps]
        return all((result_path(self.folder, row.path) / name).is_file() for name in names)

    def write(self, result: Result) -> None:
        row, picture, maps = result.row, result.picture, result.class_maps
        if picture is None or maps is None or not row.probabilities or not row.height or not row.width:
            return
        target = result_path(self.folder, row.path)
        boxes = self._boxes.by_path.get(row.path, ()) if self._boxes else ()
        try:
            target.mkdir(parents=True, exist_ok=True)
            for stale in filter(is_heatmap, list(target.iterdir())):
                stale.unlink()
            (target / MAPS_FILE).unlink(missing_ok=True)
            for finding, name in self._files(row).items():
                scale = self._scales.get(finding, self._look.scale)
                own_boxes = [box for place, box in boxes if place == finding]
                framed = heat_map(row, picture, maps[finding], finding, self._spec, scale, own_boxes)
                encoded = _encoded(framed, self._look.format)
                (target / name).write_bytes(encoded)
                self._pictures, self._bytes = self._pictures + 1, self._bytes + len(encoded)
            if self._raw_maps:
                save_raw_maps(target / MAPS_FILE, maps, self._spec, (row.height, row.width))
        except OSError as error:
            raise UsageError(f"{target}: cannot be written ({error.strerror}); choose another --heatmaps") from error

    def summary(self) -> list[str]:
        if not self._pictures:
            return [f"heat maps: {self.folder}"]
        return [f"heat maps: {self.folder}, {quantity(self._pictures, 'picture')} drawn, {disk_size(self._bytes)}"]

    def max_files(self, xrays: int) -> tuple[int, float]:
        """The most pictures of so many X-rays, and about how many bytes they and the class maps take.

        With pictures of full size, X-rays are taken for digital radiographs of USUAL_PIXELS.
        """
        pixels = USUAL_PIXELS if self.max_picture_side == FULL_SIZE_SIDE else MAX_PICTURE_SIDE**2
        pictures = xrays * min(self._look.top, len(self._wanted))
        rows, columns = self._spec.class_map_cells
        maps = 4 * rows * columns * len(self._spec.findings) * self._raw_maps
        return pictures, pictures * pixels * MAX_BYTES_PER_PIXEL[self._look.format] + xrays * maps

    def _files(self, row: Row) -> dict[int, str]:
        suffix = ".jpg" if self._look.format == "jpeg" else ".png"
        scores = row.probabilities or ()
        wanted = [finding for finding in self._wanted if scores and scores[finding] >= self._least[finding]]
        return finding_files(row, self._spec.findings, self._look.top, suffix, wanted)


def _indices(option: str, names: Sequence[str], findings: Sequence[str]) -> list[int]:
    """The findings with these names. Raises UsageError."""
    same = same_findings(names, findings)
    if unknown := [name for name in names if name not in same]:
        raise UsageError(f"{option} {unknown[0]}: the engine has no such finding; it has {listed(findings)}")
    return [findings.index(same[name]) for name in names]


def _least_scores(above: Above | None, findings: Sequence[str], calibration: Calibration | None) -> list[float]:
    """The score from which each finding gets a heat map; more than any score for one that was not fitted."""
    if above != "calibrated":
        return [above or 0.0] * len(findings)
    if calibration is None:
        raise UsageError(
            "--heatmaps-above calibrated: the engine has no calibration; fit one with `cxr-trt calibrate`, or give a "
            "score"
        )
    return [fit.threshold.score if (fit := calibration.fits.get(name)) else NEVER for name in findings]


def _encoded(picture: Bytes, picture_format: HeatmapFormat) -> bytes:
    """A PNG or JPEG file that says that it is a heat map, so that it is never taken for an X-ray."""
    if picture_format == "jpeg":
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        return jpeg[:2] + JPEG_MARK + jpeg[2:]
    png = cv2.imencode(".png", picture)[1].tobytes()
    return png[:PNG_HEADER_BYTES] + HEATMAP_MARK + png[PNG_HEADER_BYTES:]


def finding_files(
    row: Row, findings: Sequence[str], top: int, suffix: str, wanted: Collection[int] | None = None
) -> dict[int, str]:
    """File names for the most probable of the `wanted` findings of a row, by index; none for an error row."""
    candidates = [index for index in ranked_findings(row.probabilities or ()) if wanted is None or index in wanted]
    ranked = enumerate(candidates[:top], start=1)
    return {finding: f"{rank}-{finding_file_name(findings[finding])}{suffix}" for rank, finding in ranked}
