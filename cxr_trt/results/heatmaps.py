"""Heat maps: class maps drawn over the X-ray that they were computed from (paper, sec. 4.4)."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import finding_file_name, ranked_findings
from cxr_trt.geometry import map_rectangle, scaled, upsample
from cxr_trt.images.files import HEATMAP_MARK, PNG_HEADER_BYTES, is_heatmap
from cxr_trt.results.raw_maps import MAPS_FILE, save_raw_maps
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row

MAX_PICTURE_SIDE = 768  # pixels, unless the file's own size is asked for
FULL_SIZE_SIDE = 1 << 16  # pixels; no file has more
MIN_FRAME_WIDTH = 480  # pixels, so that a caption fits
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform: equal steps of the map look like equal steps
MAX_OPACITY = 0.6  # where the map is highest

Bytes = npt.NDArray[np.uint8]


def overlay(
    picture: Bytes, class_map: npt.NDArray[np.float32], spec: Specification, size: tuple[int, int] | None = None
) -> Bytes:
    """Draw one class map over a picture.

    Args:
        picture: uint8 [H, W], the X-ray in any size.
        class_map: float32 [h, w].
        spec: the specification of the engine that made the map; it says where on the picture the map lies.
        size: (height, width) of the X-ray's file in pixels, if the picture is smaller.

    Returns:
        uint8 [H, W, 3], BGR. Colour and opacity rise from the map's smallest to its largest value. A thin line
        surrounds what the network saw, if that is not the whole picture.
    """
    height, width = picture.shape
    file_height, file_width = size or (height, width)
    rectangle = scaled(map_rectangle(spec, file_height, file_width), height / file_height, width / file_width)
    smooth, place = upsample(class_map, rectangle, height, width)
    low, high = float(class_map.min()), float(class_map.max())
    heat = np.zeros(picture.shape, np.uint16)
    heat[place] = np.rint((smooth - low) * (255 / ((high - low) or 1.0)))
    blended = _pixels(_blends().take(heat << 8 | picture))
    if smooth.shape != picture.shape:
        (top, bottom), (left, right) = ((part.start, part.stop - 1) for part in place)
        cv2.rectangle(blended, (left, top), (right, bottom), (128, 128, 128), 1)
    return blended


@cache
def _blends() -> npt.NDArray[np.uint32]:
    """The colour of each heat over each grey, by index 256 * heat + grey: four bytes, blue, green, red and 0."""
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLOUR_MAP)
    opacity = MAX_OPACITY * np.arange(256)[:, None, None] / 255
    blends = np.zeros((256, 256, 4), np.uint8)
    blends[..., :3] = np.rint((1 - opacity) * np.arange(256)[None, :, None] + opacity * colours)
    return blends.view(np.uint32).ravel()


def _pixels(colours: npt.NDArray[np.uint32]) -> Bytes:
    """Four-byte colours [H, W] as uint8 [H, W, 3], BGR."""
    return cv2.cvtColor(colours.view(np.uint8).reshape(*colours.shape, 4), cv2.COLOR_BGRA2BGR)  # type: ignore[return-value]


class HeatmapWriter:
    """Writes FOLDER/PATH/RANK-FINDING.png for the most probable findings of an X-ray, and maps.npz if asked for.

    See `cxr_trt.results.writer.ResultWriter`.
    """

    needs_identity = False
    refused = 0

    def __init__(self, folder: Path, spec: Specification, top: int, *, raw_maps: bool, full_size: bool) -> None:
        self.folder, self._spec, self._top, self._raw_maps = folder, spec, top, raw_maps
        self.max_picture_side = FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        extras = f"{', maps' * raw_maps}{', full size' * full_size}"
        self.artifacts_key = f"{top}{extras} in {folder.resolve()}"

    def has_written(self, row: Row) -> bool:
        names = [*self._files(row).values(), *[MAPS_FILE] * self._raw_maps]
        return all((self.folder / row.path / name).is_file() for name in names)

    def write(self, result: Result) -> None:
        row, picture, maps = result.row, result.picture, result.class_maps
        if picture is None or maps is None or not row.probabilities or not row.height or not row.width:
            return
        target = self.folder / row.path
        try:
            target.mkdir(parents=True, exist_ok=True)
            for stale in filter(is_heatmap, list(target.iterdir())):
                stale.unlink()
            (target / MAPS_FILE).unlink(missing_ok=True)
            for finding, name in self._files(row).items():
                framed = heat_map(row, picture, maps[finding], finding, self._spec)
                (target / name).write_bytes(_marked(cv2.imencode(".png", framed)[1].tobytes()))
            if self._raw_maps:
                save_raw_maps(target / MAPS_FILE, maps, self._spec, (row.height, row.width))
        except OSError as error:
            raise UsageError(f"{target}: cannot be written ({error.strerror}); choose another --heatmaps") from error

    def summary(self) -> list[str]:
        return [f"heat maps: {self.folder}"]

    def _files(self, row: Row) -> dict[int, str]:
        return finding_files(row, self._spec.findings, self._top, ".png")


def _marked(png: bytes) -> bytes:
    """A PNG file that says that it is a heat map, so that it is never taken for an X-ray."""
    return png[:PNG_HEADER_BYTES] + HEATMAP_MARK + png[PNG_HEADER_BYTES:]


def heat_map(row: Row, picture: Bytes, class_map: npt.NDArray[np.float32], finding: int, spec: Specification) -> Bytes:
    """Draw one finding of an X-ray: its class map over the picture, framed with probability, notice and warnings.

    Args:
        row: the X-ray's row, with probabilities.
        picture: uint8 [H, W], the X-ray in any size.
        class_map: float32 [h, w], the map of the finding.
        finding: index of the finding.
        spec: the specification of the engine that made the map.

    Returns:
        uint8 [H', W', 3], BGR.
    """
    assert row.probabilities is not None and row.height is not None and row.width is not None  # noqa: S101, PT018
    blended = overlay(picture, class_map, spec, (row.height, row.width))
    caption = f"{_drawable(spec.findings[finding])} {row.probabilities[finding]:.3f}"
    return frame(blended, class_map, caption, "; ".join((NOTICE, *row.warnings)))


def _drawable(finding: str) -> str:
    """A finding's name in the characters that OpenCV can draw: without accents, and ? for other alphabets."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", finding) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def finding_files(row: Row, findings: Sequence[str], top: int, suffix: str) -> dict[int, str]:
    """File names for the most probable findings of a row, by index of the finding; none for an error row."""
    ranked = enumerate(ranked_findings(row.probabilities or ())[:top], start=1)
    return {finding: f"{rank}-{finding_file_name(findings[finding])}{suffix}" for rank, finding in ranked}


def frame(picture: Bytes, class_map: npt.NDArray[np.float32], caption: str, notes: str) -> Bytes:
    """Add a caption and small notes above a picture, and to its right a colour bar with the map's extremes.

    Args:
        picture: uint8 [H, W, 3].
        class_map: the map that was drawn over it.
        caption: the finding and its probability.
        notes: small print; cut off at the edge of the frame.

    Returns:
        uint8 [H', W', 3], on black.
    """
    height, width = picture.shape[:2]
    body_width = max(width, MIN_FRAME_WIDTH)
    unit = max(body_width, 512) / 512  # the sizes below are for 512 pixels
    header, bar, margin = round(44 * unit), round(18 * unit), round(6 * unit)
    canvas = np.zeros((header + max(height, round(64 * unit)), body_width + bar + round(52 * unit), 3), np.uint8)
    canvas[header : header + height, :width] = picture
    ramp = np.linspace(255, 0, height).astype(np.uint16)[:, None]
    canvas[header : header + height, body_width + margin : body_width + margin + bar] = _pixels(
        _blends()[ramp << 8 | 128]
    )
    right = body_width + margin + bar + margin // 2
    (caption_width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, max(1, round(unit)))
    caption_size = 0.6 * min(1, (canvas.shape[1] - 2 * margin) / caption_width)  # the probability stands at its end
    for text, x, y, size in (
        (caption, margin, round(20 * unit), caption_size),
        (notes, margin, round(37 * unit), 0.36),
        (f"{class_map.max():.2f}", right, header + round(11 * unit), 0.36),
        (f"{class_map.min():.2f}", right, header + max(height, round(30 * unit)) - round(4 * unit), 0.36),
    ):
        thickness = max(1, round(unit))
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size * unit, (255,) * 3, thickness, cv2.LINE_AA)
    return canvas
