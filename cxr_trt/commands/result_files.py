"""What `cxr-trt score` writes beside the table: whether it may, where, how much, and who writes it."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from cxr_trt.commands.messages import say
from cxr_trt.errors import UsageError
from cxr_trt.results.dicom.writer import DicomResultWriter, check_highdicom
from cxr_trt.results.heatmaps import HeatmapLook, HeatmapWriter
from cxr_trt.results.writer import ResultWriter, check_result_folder
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.storage import Location
from cxr_trt.tables.boxes import PlacedBoxes
from cxr_trt.words import disk_size, quantity


def check_heatmap_options(heatmaps: Path | None, look: HeatmapLook, boxes: Path | None, *, raw_maps: bool) -> None:
    """Raise UsageError for options about heat maps where none are drawn, and for a scale that is none."""
    options = {
        "--raw-maps": raw_maps,
        "--boxes": boxes is not None,
        "--heatmaps-above": look.above is not None,
        "--findings": bool(look.findings),
        "--heatmap-range": look.scale is not None,
        "--finding-range": bool(look.scales),
    }
    if not heatmaps and (given := [option for option, is_given in options.items() if is_given]):
        raise UsageError(f"{given[0]} is about heat maps; add --heatmaps FOLDER")
    for low, high in filter(None, (look.scale, *((low, high) for _, low, high in look.scales))):
        if not low < high:
            raise UsageError(f"a colour scale from {low:g} to {high:g} has no colours; give the lower value first")


def check_result_options(heatmaps: Path | None, dicom_results: Path | None, *, full_size: bool) -> None:
    """Raise UsageError for options of result files that exclude or lack each other."""
    if full_size and not (heatmaps or dicom_results):
        raise UsageError("--full-size is about heat maps; add --heatmaps FOLDER")
    if heatmaps and dicom_results and _overlap(heatmaps, dicom_results):
        raise UsageError(
            f"{dicom_results} and {heatmaps} overlap, but only DICOM results may carry patients' identifiers; "
            "choose another --dicom-results"
        )
    if dicom_results:
        check_highdicom()


def check_result_folders(
    folders: Iterable[Path | None], scored: Sequence[Location], journal: Journal | None, *, overwrite: bool
) -> None:
    """Raise UsageError for a folder that may not be written; what this journal's runs made may be."""
    local = [path for path in scored if isinstance(path, Path)]
    for folder in filter(None, folders):
        is_ours = journal is not None and journal.has_made(str(folder.resolve()))
        check_result_folder(folder, local, overwrite=overwrite or is_ours)


def result_writers(
    engine: Engine,
    heatmaps: Path | None,
    dicom_results: Path | None,
    look: HeatmapLook,
    boxes: PlacedBoxes | None,
    *,
    raw_maps: bool,
    full_size: bool,
) -> list[ResultWriter]:
    """The writers that were asked for. Raises UsageError for what the engine or a look does not allow."""
    if heatmaps and not engine.has_class_maps:
        raise UsageError(
            "--heatmaps: this engine gives no class maps, which heat maps are made of; leave the option out"
        )
    writers: list[ResultWriter] = []
    if heatmaps:
        calibration = engine.calibration
        options = {"raw_maps": raw_maps, "full_size": full_size}
        writers.append(HeatmapWriter(heatmaps, engine.spec, look, **options, calibration=calibration, boxes=boxes))
    if dicom_results:
        writers.append(
            DicomResultWriter(
                dicom_results, engine.spec, look.top, full_size=full_size, class_maps=engine.has_class_maps
            )
        )
    return writers


def announce_heatmaps(writer: HeatmapWriter, xrays: int) -> None:
    """Say beforehand how much will be written, and whether there is room for it."""
    pictures, needed = writer.max_files(xrays)
    say(f"heat maps: at most {quantity(pictures, 'picture')}, about {disk_size(needed)}, in {writer.folder}")
    free = shutil.disk_usage(writer.folder).free
    if free < needed:
        say(f"only {disk_size(free)} are free there; --heatmap-format jpeg and --heatmaps-above take less", "warning")


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)
