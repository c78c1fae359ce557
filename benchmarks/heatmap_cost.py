"""What heat maps cost: seconds per X-ray with and without them, with each shipped network.

The ways of scoring take turns in one process, so that what else the machine does affects all alike. Each is the whole
of scoring: decoding, engine, pictures.
"""

import statistics
import tempfile
import time
from pathlib import Path

import click

from benchmarks.study import Result
from benchmarks.tools.pictures import radiograph_file
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.files import Source, find_files
from cxr_trt.markdown import markdown_table
from cxr_trt.results.heatmaps import HeatmapLook, HeatmapWriter
from cxr_trt.results.writer import write_results
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files
from cxr_trt.views import ViewSet

PACKAGES = ("opencv-python-headless", "openvino")
BACKEND = "openvino"
VIEWS: ViewSet = "ten-crop"
FULL_SIZE = {"none": None, "three highest": False, "three highest, full size": True}
"""By way of scoring, whether heat maps have the size of the file; None for no heat maps."""
TEXT = """\
# What heat maps cost

**Three heat maps per X-ray add {headline}.**

{content}: {files} files in each of {rounds} rounds ({backend}, float32). Seconds per X-ray are medians; what is
added is the median of the ratios of each round. Pictures add a larger part where the network takes less.

{table}
"""


@click.command()
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True), help="A folder, in place of pydicom-data's RG1."
)
@click.option("--rounds", type=click.IntRange(1), default=5, help="In which the ways take turns.")
@click.option("--files", type=click.IntRange(1), default=8, help="How often RG1 is scored in a round.")
def measure(images: Path | None, rounds: int, files: int) -> Result:
    """Score the same files with and without heat maps."""
    if images:
        paths, content = (
            [found.path for found in find_files(images).sources],
            f"The files of the folder `{images.name}`",
        )
    else:
        paths, content = [radiograph_file()] * files, "The chest X-ray RG1 of pydicom-data (DICOM, 1841 x 1955 pixels)"
    sources = [Source(path, str(number)) for number, path in enumerate(paths)]
    return {
        "content": content,
        "backend": f"{BACKEND} {BACKENDS[BACKEND].version()}, {VIEWS}",
        "files": len(sources),
        "rounds": rounds,
        "seconds_per_xray": {name: _of_network(path, sources, rounds) for name, path in SHIPPED.items()},
    }


def _of_network(model: Path, sources: list[Source], rounds: int) -> dict[str, dict[str, float]]:
    """What each way of scoring takes."""
    times: dict[str, list[float]] = {way: [] for way in FULL_SIZE}
    with tempfile.TemporaryDirectory() as name:
        build_bundle(BuildRequest(ScoringGraph.load(model).with_views(VIEWS), BACKENDS[BACKEND]), Path(name, "e.cxr"))
        with Engine(Path(name, "e.cxr")) as engine:
            _seconds(engine, sources[:2], None, Path(name))
            for _ in range(rounds):
                for way, full_size in FULL_SIZE.items():
                    times[way].append(_seconds(engine, sources, full_size, Path(name, "maps")))
    return {way: _summary(values, times["none"]) for way, values in times.items()}


def _seconds(engine: Engine, sources: list[Source], full_size: bool | None, folder: Path) -> float:
    """Seconds per X-ray; `full_size` None: without heat maps."""
    started = time.perf_counter()
    if full_size is None:
        results = score_files(engine, sources)
    else:
        maps = HeatmapWriter(folder, engine.spec, HeatmapLook(3), raw_maps=False, full_size=full_size)
        found = score_files(engine, sources, class_maps=True, max_picture_side=maps.max_picture_side)
        results = write_results(found, [maps])
    count = sum(result.row.error is None for result in results)
    if count != len(sources):
        raise click.ClickException("some files could not be scored")
    return (time.perf_counter() - started) / count


def _summary(values: list[float], plain: list[float]) -> dict[str, float]:
    """Median, and the median over rounds of what it adds to the time without heat maps, in per cent."""
    added = statistics.median(100 * (value / base - 1) for value, base in zip(values, plain, strict=True))
    return {"median": round(statistics.median(values), 3), "percent_added": round(added, 1)}


def page(result: Result) -> str:
    """The page of a result."""
    measured: dict[str, dict[str, dict[str, float]]] = result["seconds_per_xray"]
    rows = [
        (f"`{name}`", way, f"{own['median']:.3f}", f"{own['percent_added']:.1f} %")
        for name, ways in measured.items()
        for way, own in ways.items()
    ]
    added = [
        f"{ways['three highest']['percent_added']:.0f} % to the time of scoring with {name}, and "
        f"{ways['three highest, full size']['percent_added']:.0f} % in the full size of the file"
        for name, ways in measured.items()
    ]
    return TEXT.format(
        headline="; ".join(added),
        **{key: result[key] for key in ("content", "files", "rounds", "backend")},
        table=markdown_table(("network", "heat maps", "seconds per X-ray", "added"), rows),
    )
