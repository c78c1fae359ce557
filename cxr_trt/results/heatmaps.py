"""Heat maps: class maps drawn over the X-ray that they were computed from (paper, sec. 4.4)."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import finding_file_name, listed, ranked_findings, same_findings
from cxr_trt.geometry import map_rectangle, scaled, upsample
from cxr_trt.images.files import HEATMAP_MARK, JPEG_MARK, PNG_HEADER_BYTES, is_heatmap
from cxr_trt.results.raw_maps import MAPS_FILE, save_raw_maps
from cxr_trt.results.writer import result_path
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row

MAX_PICTURE_SIDE = 768  # pixels, unless the file's own size is asked for
FULL_SIZE_SIDE = 1 << 16  # pixels; no file has more
MIN_FRAME_WIDTH = 480  # pixels, so that a caption fits
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform: equal steps of the map look like equal steps
MAX_OPACITY = 0.6  # where the map is highest

JPEG_QUALITY = 88
BAR_MEANING = "bar: class map, the evidence before the sigmoid; clear where it is low"

Bytes = npt.NDArray[np.uint8]
HeatmapFormat = Literal["png", "jpeg"]


def overlay(
    picture: Bytes,
    class_map: npt.NDArray[np.float32],
    spec: Specification,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
) -> Bytes:
    """Draw one class map over a picture.

    Args:
        picture: uint8 [H, W], the X-ray in any size.
        class_map: float32 [h, w].
        spec: the specification of the engine that made the map; it says where on the picture the map lies.
        size: (height, width) of the X-ray's file in pixels, if the picture is smaller.
        scale: lowest and highest value of the colours; by default `own_scale`.

    Returns:
        uint8 [H, W, 3], BGR. Colour and opacity rise over the scale, and are clear below it. A thin line
        surrounds what the network saw, if that is not the whole picture.
    """
    height, width = picture.shape
    file_height, file_width = size or (height, width)
    rectangle = scaled(map_rectangle(spec, file_height, file_width), height / file_height, width / file_width)
    smooth, place = upsample(class_map, rectangle, height, width)
    low, high = scale or own_scale(class_map)
    heat = np.zeros(picture.shape, np.uint16)
    heat[place] = np.rint(np.clip((smooth - low) * (255 / ((high - low) or 1.0)), 0, 255))
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


@dataclass(frozen=True)
class HeatmapLook:
    """Which heat maps are drawn, and how.

    top: how many findings per X-ray, at most. above: only those with at least this score. findings: only these.
    scale: lowest and highest value of the colours; by default each map's own median and largest value.
    """

    top: int = 3
    above: float | None = None
    findings: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    format: HeatmapFormat = "png"


class HeatmapWriter:
    """Writes FOLDER/PATH/RANK-FINDING.png for the most probable findings of an X-ray, and maps.npz if asked for.

    See `cxr_trt.results.writer.ResultWriter`.
    """

    needs_identity = False
    refused = 0

    def __init__(
        self, folder: Path, spec: Specification, look: HeatmapLook, *, raw_maps: bool, full_size: bool
    ) -> None:
        self.folder, self._spec, self._look, self._raw_maps = folder, spec, look, raw_maps
        self._wanted = _indices(look.findings, spec.findings)
        self._pictures, self._bytes = 0, 0
        self.max_picture_side = FULL_SIZE_SIDE if full_size else MAX_PICTURE_SIDE
        extras = f"{', maps' * raw_maps}{', full size' * full_size}"
        look_key = "" if look == HeatmapLook(look.top) else f", {look}"
        self.artifacts_key = f"{look.top}{extras}{look_key} in {folder.resolve()}"

    def has_written(self, row: Row) -> bool:
        names = [*self._files(row).values(), *[MAPS_FILE] * self._raw_maps]
        return all((result_path(self.folder, row.path) / name).is_file() for name in names)

    def write(self, result: Result) -> None:
        row, picture, maps = result.row, result.picture, result.class_maps
        if picture is None or maps is None or not row.probabilities or not row.height or not row.width:
            return
        target = result_path(self.folder, row.path)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for stale in filter(is_heatmap, list(target.iterdir())):
                stale.unlink()
            (target / MAPS_FILE).unlink(missing_ok=True)
            for finding, name in self._files(row).items():
                framed = heat_map(row, picture, maps[finding], finding, self._spec, self._look.scale)
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
        plural = "s" * (self._pictures != 1)
        return [f"heat maps: {self.folder}, {self._pictures} picture{plural} drawn, {self._bytes / 1e6:.1f} MB"]

    def _files(self, row: Row) -> dict[int, str]:
        suffix = ".jpg" if self._look.format == "jpeg" else ".png"
        files = finding_files(row, self._spec.findings, self._look.top, suffix, self._wanted)
        least = self._look.above or 0
        return {finding: name for finding, name in files.items() if (row.probabilities or ())[finding] >= least}


def _indices(names: Sequence[str], findings: Sequence[str]) -> frozenset[int] | None:
    """The findings with these names; None for all. Raises UsageError."""
    same = same_findings(names, findings)
    if unknown := [name for name in names if name not in same]:
        raise UsageError(f"--findings {unknown[0]}: the engine has no such finding; it has {listed(findings)}")
    return frozenset(findings.index(name) for name in same.values()) if names else None


def _encoded(picture: Bytes, picture_format: HeatmapFormat) -> bytes:
    """A PNG or JPEG file that says that it is a heat map, so that it is never taken for an X-ray."""
    if picture_format == "jpeg":
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        return jpeg[:2] + JPEG_MARK + jpeg[2:]
    png = cv2.imencode(".png", picture)[1].tobytes()
    return png[:PNG_HEADER_BYTES] + HEATMAP_MARK + png[PNG_HEADER_BYTES:]


def heat_map(
    row: Row,
    picture: Bytes,
    class_map: npt.NDArray[np.float32],
    finding: int,
    spec: Specification,
    scale: tuple[float, float] | None = None,
) -> Bytes:
    """Draw one finding of an X-ray: its class map over the picture, framed with probability, notice and warnings.

    Args:
        row: the X-ray's row, with probabilities.
        picture: uint8 [H, W], the X-ray in any size.
        class_map: float32 [h, w], the map of the finding.
        finding: index of the finding.
        spec: the specification of the engine that made the map.
        scale: see `HeatmapLook`.

    Returns:
        uint8 [H', W', 3], BGR.
    """
    assert row.probabilities is not None and row.height is not None and row.width is not None  # noqa: S101, PT018
    scale = scale or own_scale(class_map)
    blended = overlay(picture, class_map, spec, (row.height, row.width), scale)
    caption = f"{_drawable(spec.findings[finding])} {row.probabilities[finding]:.3f}"
    notes = (NOTICE, *row.warnings, f"file {_drawable(row.path)}", BAR_MEANING)
    return frame(blended, scale, caption, notes)


def own_scale(class_map: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The colours of a map by itself: the lower half of its values is clear."""
    return float(np.median(class_map)), float(class_map.max())


def _drawable(finding: str) -> str:
    """A finding's name in the characters that OpenCV can draw: without accents, and ? for other alphabets."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", finding) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def finding_files(
    row: Row, findings: Sequence[str], top: int, suffix: str, wanted: frozenset[int] | None = None
) -> dict[int, str]:
    """File names for the most probable of the `wanted` findings of a row, by index; none for an error row."""
    candidates = [index for index in ranked_findings(row.probabilities or ()) if wanted is None or index in wanted]
    ranked = enumerate(candidates[:top], start=1)
    return {finding: f"{rank}-{finding_file_name(findings[finding])}{suffix}" for rank, finding in ranked}


def frame(picture: Bytes, scale: tuple[float, float], caption: str, notes: Sequence[str]) -> Bytes:
    """Add a caption and small notes above a picture, and to its right a colour bar with the ends of its scale.

    Args:
        picture: uint8 [H, W, 3].
        scale: lowest and highest value of the colours.
        caption: the finding and its probability.
        notes: small print; as many lines as it takes, so that nothing of it is lost.

    Returns:
        uint8 [H', W', 3], on black.
    """
    height, width = picture.shape[:2]
    body_width = max(width, MIN_FRAME_WIDTH)
    unit = max(body_width, 512) / 512  # the sizes below are for 512 pixels
    bar, margin, line = round(18 * unit), round(6 * unit), round(15 * unit)
    total_width = body_width + bar + round(52 * unit)
    lines = _wrapped("; ".join(notes), 0.36 * unit, total_width - 2 * margin)
    header = round(28 * unit) + line * len(lines)
    canvas = np.zeros((header + max(height, round(64 * unit)), total_width, 3), np.uint8)
    canvas[header : header + height, :width] = picture
    ramp = np.linspace(255, 0, height).astype(np.uint16)[:, None]
    canvas[header : header + height, body_width + margin : body_width + margin + bar] = _pixels(
        _blends()[ramp << 8 | 128]
    )
    right = body_width + margin + bar + margin // 2
    bold = max(1, round(unit))
    caption_size = 0.6 * unit * min(1, (total_width - 2 * margin) / _text_width(caption, 0.6 * unit, bold))
    texts = [(caption, margin, round(20 * unit), caption_size, bold)]  # the probability stands at its end
    texts += [(text, margin, round(37 * unit) + i * line, 0.36 * unit, 1) for i, text in enumerate(lines)]
    low, high = (f"{value:.2f}" for value in scale)
    texts.append((high, right, header + round(11 * unit), 0.36 * unit, 1))
    texts.append((low, right, header + max(height, round(30 * unit)) - round(4 * unit), 0.36 * unit, 1))
    for text, x, y, size, thickness in texts:
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (255,) * 3, thickness, cv2.LINE_AA)
    return canvas


def _wrapped(text: str, size: float, width: int) -> list[str]:
    """Lines of a text that are at most so many pixels wide; a word that is wider is cut into pieces."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if _text_width(joined, size, 1) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for character in word:
            if _text_width(lines[-1] + character, size, 1) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _text_width(text: str, size: float, thickness: int) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)[0][0]
