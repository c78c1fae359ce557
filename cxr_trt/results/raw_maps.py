"""The class maps of an X-ray in a file, maps.npz: written beside heat maps, read by `evaluate --boxes` and `report`."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.geometry import Rectangle, map_rectangle
from cxr_trt.results.writer import result_path
from cxr_trt.spec import Specification

MAPS_FILE = "maps.npz"


class RawMaps(NamedTuple):
    """The class maps of an X-ray and where they lie.

    findings: names [F].
    class_maps: float32 [F, h, w].
    rectangle: the part of the X-ray that they cover.
    size: (height, width) of the X-ray's file in pixels.
    """

    findings: tuple[str, ...]
    class_maps: npt.NDArray[np.float32]
    rectangle: Rectangle
    size: tuple[int, int]


def save_raw_maps(path: Path, class_maps: npt.NDArray[np.float32], spec: Specification, size: tuple[int, int]) -> None:
    """Write the maps of one X-ray.

    Args:
        path: the file to write.
        class_maps: float32 [findings, h, w].
        spec: the specification of the engine that made them.
        size: (height, width) of the X-ray's file in pixels.
    """
    rectangle = np.array(map_rectangle(spec, *size))
    np.savez(path, class_maps=class_maps, findings=np.array(spec.findings), rectangle=rectangle, size=np.array(size))


def read_raw_maps(folder: Path, name: str) -> RawMaps:
    """Read the maps of one X-ray of a table of scores.

    Args:
        folder: the folder of `cxr-trt score --heatmaps FOLDER --raw-maps`.
        name: the X-ray's path in the table.

    Raises:
        UsageError: the maps are missing or damaged.
    """
    path = result_path(folder, name) / MAPS_FILE
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            maps, names, rectangle, size = (
                np.asarray(file[key]) for key in ("class_maps", "findings", "rectangle", "size")
            )
        if maps.dtype != np.float32 or maps.ndim != 3 or names.shape != maps.shape[:1] or not np.isfinite(maps).all():
            raise ValueError("not a map per finding")
        height, width = map(int, size)
        return RawMaps(tuple(map(str, names)), maps, Rectangle(*map(float, rectangle)), (height, width))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path}: not there; make it with `cxr-trt score --heatmaps {folder} --raw-maps`") from error
    except (EOFError, OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: holds no class maps ({error}); score the X-ray again") from error
