"""Heat maps: class maps laid over the X-ray that the network saw (paper, sec. 4.4)."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import check_folder
from cxr_trt.score.pipeline import Result
from cxr_trt.score.rows import Row
from cxr_trt.spec import Specification

CAPTION_HEIGHT = 40  # pixels above the picture
BAR_WIDTH = 24  # pixels to the right of it
STRONGEST = 0.6  # opacity where the map is highest


def overlay(
    image: npt.NDArray[np.uint8], class_map: npt.NDArray[np.float32], spec: Specification
) -> npt.NDArray[np.uint8]:
    """Lay one class map over an image.

    Args:
        image: uint8 [size, size].
        class_map: float32 [h, w] over `spec.class_map_region`.
        spec: says where on the image the map lies.

    Returns:
        uint8 [size, size, 3], BGR. Colour and opacity rise from the map's smallest to its largest value.
    """
    offset, side = spec.class_map_region
    low, high = float(class_map.min()), float(class_map.max())
    scaled = (class_map - low) / ((high - low) or 1.0)
    smooth = np.clip(cv2.resize(scaled, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    heat = np.zeros(image.shape, np.float32)
    heat[offset : offset + side, offset : offset + side] = smooth
    colours = cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = STRONGEST * heat[:, :, None]
    blended = (1 - opacity) * image[:, :, None] + opacity * colours
    return np.rint(blended).astype(np.uint8)


def check_heatmaps(folder: Path, scored: Iterable[Path], *, overwrite: bool) -> None:
    """Raise UsageError if heat maps cannot be written to `folder`, or lie in a folder that is scored."""
    for path in scored:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{folder} lies in {path}, where its pictures would be scored next time; choose another")
    check_folder(folder)
    if any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder} is not empty; add --overwrite to replace heat maps there, or choose another")


def has_heatmaps(row: Row, folder: Path, top: int) -> bool:
    """Whether the files that `save_heatmaps` writes for a scored row are there."""
    return all((folder / row.path / name).is_file() for _, name in _pictures(row, top))


def save_heatmaps(result: Result, spec: Specification, folder: Path, top: int) -> None:
    """Write FOLDER/PATH/RANK-FINDING.png for the `top` most probable findings; nothing for an error row.

    Heat maps of an earlier run for the same file are removed. Raises UsageError if the folder cannot be written.
    """
    if result.image is None or result.class_maps is None or result.row.probabilities is None:
        return
    target = folder / result.row.path
    try:
        target.mkdir(parents=True, exist_ok=True)
        for stale in (path for name in FINDINGS for path in target.glob(f"*-{name}.png")):
            stale.unlink()
        for finding, name in _pictures(result.row, top):
            caption = f"{FINDINGS[finding]} {result.row.probabilities[finding]:.3f}"
            picture = _framed(overlay(result.image, result.class_maps[finding], spec), caption, result.row.warnings)
            (target / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}); choose another --heatmaps") from error


def _pictures(row: Row, top: int) -> list[tuple[int, str]]:
    """The `top` most probable findings, by index, and the names of their files; none for an error row."""
    probabilities = row.probabilities or ()
    ranked = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:top]
    return [(finding, f"{rank}-{FINDINGS[finding]}.png") for rank, finding in enumerate(ranked, start=1)]


def _framed(picture: npt.NDArray[np.uint8], caption: str, warnings: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Add a caption above, with any warnings in small letters, and a colour bar to the right."""
    size = picture.shape[0]
    ramp = np.linspace(255, 0, size).astype(np.uint8)[:, None].repeat(BAR_WIDTH, 1)
    body = np.hstack([picture, cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)])
    header = np.zeros((CAPTION_HEIGHT, body.shape[1], 3), np.uint8)
    white, font = (255, 255, 255), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(header, caption, (6, 18), font, 0.55, white, 1, cv2.LINE_AA)
    cv2.putText(header, "; ".join(warnings), (6, 33), font, 0.35, white, 1, cv2.LINE_AA)
    return np.vstack([header, body])
