"""What heat maps cost: seconds an X-ray of scoring with and without them, on the shipped model.

    make benchmark-heatmaps      writes benchmarks/results/heatmaps.json

The files are pydicom-data's chest radiograph (1841 x 1955 pixels), or those of a folder. The ways take turns in one
process, so that what else the machine does hits all alike; each is the whole of scoring: decoding, engine, pictures.
"""

import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.result import ROOT, provenance
from cxr_trt.engine.backend import BuildOptions
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.results.heatmaps import Heatmaps, drawn
from cxr_trt.images.files import Source, find_files
from cxr_trt.score.pipeline import score_files

RESULT = ROOT / "benchmarks" / "results" / "heatmaps.json"
BACKEND = "openvino"
ROUNDS, FILES = 5, 8
WAYS = {"none": None, "three highest": False, "three highest, full size": True}


def seconds(engine: Engine, sources: list[Source], full_size: bool | None, folder: Path) -> float:
    """Seconds an X-ray; `full_size` None: without heat maps."""
    started = time.perf_counter()
    if full_size is None:
        count = sum(result.row.error is None for result in score(engine, sources))
    else:
        maps = Heatmaps(folder, engine.spec, 3, raw_maps=False, full_size=full_size)
        results = score(engine, sources, class_maps=True, pictures=maps.largest)
        count = sum(result.row.error is None for result in drawn(results, maps.save))
    if count != len(sources):
        raise SystemExit("some files could not be scored")
    return (time.perf_counter() - started) / count


def main(images: str = "") -> None:
    """Measure on the files of a folder, or on the radiograph; print and write the result."""
    if images:
        files, name = [source.path for source in find_files(images).sources], Path(images).name
    else:
        path = Path(str(distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm")))
        files, name = [path] * FILES, path.name
    sources = [Source(path, f"{i}") for i, path in enumerate(files)]
    model, info = read_scoring_graph(ROOT / "cxr_trt" / "models" / "demo.onnx")
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary, "e.cxr")
        options = BuildOptions(1)
        build_bundle(model, info, BACKENDS[BACKEND], bundle, options, overwrite=False)
        with Engine(bundle) as engine:
            seconds(engine, sources[:2], None, Path(temporary))
            for _ in range(ROUNDS):
                for way, full_size in WAYS.items():
                    times[way].append(seconds(engine, sources, full_size, Path(temporary, "maps")))
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result[name] = {
        **provenance(("opencv-python-headless", BACKEND)),
        "backend": f"{BACKEND} {BACKENDS[BACKEND].version()}, {info.spec.views}",
        "files": len(sources),
        "rounds": ROUNDS,
        "seconds an X-ray": {way: summary(values, times["none"]) for way, values in times.items()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result[name], indent=2))


def summary(values: list[float], plain: list[float]) -> dict[str, float]:
    """Median, and the median over rounds of what it adds to the time without heat maps, in percent."""
    added = statistics.median(100 * (value / base - 1) for value, base in zip(values, plain, strict=True))
    return {"median": round(statistics.median(values), 3), "added, %": round(added, 1)}


if __name__ == "__main__":
    main(*sys.argv[1:])
