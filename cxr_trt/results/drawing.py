"""Drawing a heat map: a class map over the X-ray that it was computed from, with what explains it (paper, sec. 4.4)."""

import unicodedata
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.geometry import Rectangle, map_rectangle, scaled, upsample
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row

MIN_FRAME_WIDTH = 480  # pixels, so that a caption fits
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform: equal steps of the map look like equal steps
MAX_OPACITY = 0.6  # where the map is highest
BOX_COLOUR = (255, 216, 77)  # BGR; not a colour of the map
BAR_MEANING = "bar: class map, the evidence before the sigmoid; clear where it is low"
BOX_MEANING = "blue box: drawn by a reader"

Bytes = npt.NDArray[np.uint8]


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


def heat_map(
    row: Row,
    picture: Bytes,
    class_map: npt.NDArray[np.float32],
    finding: int,
    spec: Specification,
    scale: tuple[float, float] | None = None,
    boxes: Sequence[Rectangle] = (),
) -> Bytes:
    """Draw one finding of an X-ray: its class map over the picture, framed with probability, notice and warnings.

    Args:
        row: the X-ray's row, with probabilities.
        picture: uint8 [H, W], the X-ray in any size.
        class_map: float32 [h, w], the map of the finding.
        finding: index of the finding.
        spec: the specification of the engine that made the map.
        scale: lowest and highest value of the colours; by default `own_scale`.
        boxes: to draw, in pixels of the X-ray's file.

    Returns:
        uint8 [H', W', 3], BGR.
    """
    assert row.probabilities is not None and row.height is not None and row.width is not None  # noqa: S101, PT018
    scale = scale or own_scale(class_map)
    blended = overlay(picture, class_map, spec, (row.height, row.width), scale)
    caption = f"{_drawable(spec.findings[finding])} {row.probabilities[finding]:.3f}"
    for box in boxes:
        _draw_box(blended, scaled(box, picture.shape[0] / row.height, picture.shape[1] / row.width))
    meanings = (BAR_MEANING, BOX_MEANING) if boxes else (BAR_MEANING,)
    notes = (NOTICE, *row.warnings, f"file {_drawable(row.path)}", *meanings)
    return frame(blended, scale, caption, notes)


def _draw_box(picture: Bytes, box: Rectangle) -> None:
    """Draw the outline of a box on a picture, with a black line around it."""
    first, last = (round(box.x), round(box.y)), (round(box.x + box.width), round(box.y + box.height))
    thickness = max(1, round(max(picture.shape) / 384))
    cv2.rectangle(picture, first, last, (0, 0, 0), 3 * thickness)
    cv2.rectangle(picture, first, last, BOX_COLOUR, thickness)


def own_scale(class_map: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The colours of a map by itself: the lower half of its values is clear."""
    return float(np.median(class_map)), float(class_map.max())


def _drawable(finding: str) -> str:
    """A finding's name in the characters that OpenCV can draw: without accents, and ? for other alphabets."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", finding) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


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
