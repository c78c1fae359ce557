"""Heat maps: class maps laid over the X-ray they were computed from (paper, sec. 4.4)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import map_rectangle, scaled, upsample
from cxr_trt.outputs import check_folder
from cxr_trt.score.pipeline import Result
from cxr_trt.score.rows import NOTICE, Row
from cxr_trt.spec import Specification

LARGEST = 768  # pixels of a picture's longer side, unless the file's own size is asked for
FULL_SIZE = 1 << 16
NARROWEST = 480  # pixels of the frame, so that a caption fits
COLOURS = cv2.COLORMAP_INFERNO  # perceptually uniform: equal steps of the map look like equal steps
STRONGEST = 0.6  # opacity where the map is highest
MAPS = "maps.npz"
AHEAD = 2  # results that may wait to be drawn

Bytes = npt.NDArray[np.uint8]


def overlay(
    picture: Bytes, class_map: npt.NDArray[np.float32], spec: Specification, size: tuple[int, int] | None = None
) -> Bytes:
    """Lay one class map over a picture.

    Args:
        picture: uint8 [H, W], the file's picture in any size.
        class_map: float32 [h, w].
        spec: of the engine that made the map; says where on the picture it lies.
        size: (height, width) of the file's picture in pixels, if this one is smaller.

    Returns:
        uint8 [H, W, 3], BGR. Colour and opacity rise from the map's smallest to its largest value. A thin line
        surrounds what the network saw, where that is not the whole picture.
    """
    height, width = picture.shape
    own = size or (height, width)
    rectangle = scaled(map_rectangle(spec, *own), height / own[0], width / own[1])
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
    """Colours [256 * heat + grey] of 256 heats over 256 greys: four bytes, blue, green, red and 0."""
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLOURS)
    opacity = STRONGEST * np.arange(256)[:, None, None] / 255
    blends = np.zeros((256, 256, 4), np.uint8)
    blends[..., :3] = np.rint((1 - opacity) * np.arange(256)[None, :, None] + opacity * colours)
    return blends.view(np.uint32).ravel()


def _pixels(colours: npt.NDArray[np.uint32]) -> Bytes:
    """Four-byte colours [H, W] as uint8 [H, W, 3], BGR."""
    return cv2.cvtColor(colours.view(np.uint8).reshape(*colours.shape, 4), cv2.COLOR_BGRA2BGR)  # type: ignore[return-value]


def check_heatmaps(folder: Path, scored: Iterable[Path], *, overwrite: bool, what: str = "heat maps") -> None:
    """Raise UsageError if heat maps, or `what`, cannot be written to `folder`, or lie in a folder that is scored."""
    for path in scored:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{folder} lies in {path}, where its pictures would be scored next time; choose another")
    check_folder(folder)
    if any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder} is not empty; add --overwrite to replace {what} there, or choose another")


class Heatmaps:
    """Writes FOLDER/PATH/RANK-FINDING.png for the most probable findings of a result, and on request maps.npz.

    `largest` is the longest side in pixels that results are to bring their pictures with.
    """

    def __init__(self, folder: Path, spec: Specification, top: int, *, raw_maps: bool, full_size: bool) -> None:
        self.folder, self._spec, self._top, self._raw_maps = folder, spec, top, raw_maps
        self.largest = FULL_SIZE if full_size else LARGEST
        extras = f"{', maps' * raw_maps}{', full size' * full_size}"
        self.place = f"{top}{extras} in {folder.resolve()}"

    def are_there(self, row: Row) -> bool:
        """Whether the files for a scored row are there."""
        names = [name for _, name in _pictures(row, self._top)] + [MAPS] * self._raw_maps
        return all((self.folder / row.path / name).is_file() for name in names)

    def save(self, result: Result) -> None:
        """Write the files for one result, and remove those of an earlier run; nothing for an error row or a known one.

        Raises UsageError if the folder cannot be written.
        """
        row, picture, maps = result.row, result.picture, result.class_maps
        if picture is None or maps is None or not row.probabilities or not row.height or not row.width:
            return
        target = self.folder / row.path
        try:
            target.mkdir(parents=True, exist_ok=True)
            for stale in (path for name in FINDINGS for path in target.glob(f"*-{name}.png")):
                stale.unlink()
            (target / MAPS).unlink(missing_ok=True)
            for finding, name in _pictures(row, self._top):
                framed = heat_map(row, picture, maps[finding], finding, self._spec)
                (target / name).write_bytes(cv2.imencode(".png", framed)[1].tobytes())
            if self._raw_maps:
                self._save_maps(target / MAPS, maps, row.height, row.width)
        except OSError as error:
            raise UsageError(f"{target}: cannot be written ({error.strerror}); choose another --heatmaps") from error

    def _save_maps(self, path: Path, maps: npt.NDArray[np.float32], height: int, width: int) -> None:
        rectangle = np.array(map_rectangle(self._spec, height, width))
        np.savez(
            path, class_maps=maps, findings=np.array(FINDINGS), rectangle=rectangle, size=np.array((height, width))
        )


def drawn(results: Iterable[Result], save: Callable[[Result], None]) -> Iterator[Result]:
    """Pass results on in order, each after `save` has drawn it, which happens while the engine works on the next."""
    pending: deque[tuple[Result, Future[None]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="draw") as thread:
        for result in results:
            pending.append((result, thread.submit(save, result)))
            if len(pending) > AHEAD:
                done, saved = pending.popleft()
                saved.result()
                yield done
        for done, saved in pending:
            saved.result()
            yield done


def heat_map(row: Row, picture: Bytes, class_map: npt.NDArray[np.float32], finding: int, spec: Specification) -> Bytes:
    """Draw one finding of a scored row: its class map over the picture, framed with probability, notice and warnings.

    Args:
        row: with probabilities.
        picture: uint8 [H, W], the file's picture in any size.
        class_map: float32 [h, w], of the finding.
        finding: its index.
        spec: of the engine that made the map.

    Returns:
        uint8 [H', W', 3], BGR.
    """
    assert row.probabilities is not None and row.height is not None and row.width is not None  # noqa: S101, PT018
    drawn = overlay(picture, class_map, spec, (row.height, row.width))
    caption = f"{FINDINGS[finding]} {row.probabilities[finding]:.3f}"
    return frame(drawn, class_map, caption, "; ".join((NOTICE, *row.warnings)))


def top_findings(row: Row, top: int) -> list[int]:
    """The `top` most probable findings by index, highest first; none for an error row."""
    probabilities = row.probabilities or ()
    return sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:top]


def _pictures(row: Row, top: int) -> list[tuple[int, str]]:
    """The `top` most probable findings, by index, and the names of their files; none for an error row."""
    return [
        (finding, f"{rank}-{FINDINGS[finding]}.png") for rank, finding in enumerate(top_findings(row, top), start=1)
    ]


def frame(picture: Bytes, class_map: npt.NDArray[np.float32], caption: str, notes: str) -> Bytes:
    """A picture with a caption and small notes above, and a colour bar with the map's extremes to the right.

    Args:
        picture: uint8 [H, W, 3].
        class_map: that was laid over it.
        caption: the finding and its probability.
        notes: cut at the frame's edge.

    Returns:
        uint8 [H', W', 3], on black.
    """
    height, width = picture.shape[:2]
    body_width = max(width, NARROWEST)
    unit = max(body_width, 512) / 512  # of the sizes below, in pixels
    header, bar, margin = round(44 * unit), round(18 * unit), round(6 * unit)
    canvas = np.zeros((header + max(height, round(64 * unit)), body_width + bar + round(52 * unit), 3), np.uint8)
    canvas[header : header + height, :width] = picture
    ramp = np.linspace(255, 0, height).astype(np.uint16)[:, None]
    canvas[header : header + height, body_width + margin : body_width + margin + bar] = _pixels(
        _blends()[ramp << 8 | 128]
    )
    right = body_width + margin + bar + margin // 2
    for text, x, y, size in (
        (caption, margin, round(20 * unit), 0.6),
        (notes, margin, round(37 * unit), 0.36),
        (f"{class_map.max():.2f}", right, header + round(11 * unit), 0.36),
        (f"{class_map.min():.2f}", right, header + max(height, round(30 * unit)) - round(4 * unit), 0.36),
    ):
        thickness = max(1, round(unit))
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size * unit, (255,) * 3, thickness, cv2.LINE_AA)
    return canvas
