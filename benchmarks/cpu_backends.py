"""Seconds an X-ray of the two CPU backends, interleaved in one process, on the shipped model.

    make benchmark-cpu      writes benchmarks/results/cpu_backends.json

Both run the same ten-crop graph on the same picture in turn, so that what else the machine does hits both alike.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.bundle import Engine, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.graph_file import read_scoring_graph
from cxr_trt.export.pictures import check_pictures

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "cpu_backends.json"
NAMES = ("onnxruntime", "openvino")
ROUNDS = 15


def processor() -> str:
    """The processor's name as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def measure() -> dict[str, list[float]]:
    """Seconds of each call, by backend, after one call that does not count."""
    model, info = read_scoring_graph(ROOT / "cxr_trt" / "models" / "demo.onnx")
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for name in NAMES:
            bundle = Path(folder, f"{name}.cxr")
            build_bundle(model, info, BACKENDS[name], bundle, BuildOptions(1, lambda *_: None), overwrite=False)
            engines[name] = Engine(bundle)
        picture = check_pictures(info.spec.image_size)[:1]
        for round_number in range(ROUNDS + 1):
            for name, engine in engines.items():
                start = time.perf_counter()
                engine.run(picture)
                if round_number:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure, print and write the result."""
    seconds = measure()
    ratios = [a / b for a, b in zip(*(seconds[name] for name in NAMES), strict=True)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{processor()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}",
        "versions": {name: BACKENDS[name].version() for name in NAMES},
        "rounds": ROUNDS,
        "seconds_per_xray": {
            name: {
                "median": round(statistics.median(values), 3),
                "min": round(min(values), 3),
                "max": round(max(values), 3),
            }
            for name, values in seconds.items()
        },
        f"ratio_{NAMES[0]}_to_{NAMES[1]}": round(statistics.median(ratios), 3),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text(), end="")


if __name__ == "__main__":
    main()
