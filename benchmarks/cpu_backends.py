"""Seconds an X-ray of the two CPU backends, interleaved in one process, on the shipped model.

    make benchmark-cpu      writes benchmarks/results/cpu_backends.json

Both run the same ten-crop graph on the same picture in turn, so that what else the machine does hits both alike.
"""

import json
import os
import platform
import statistics
import subprocess
from datetime import date
from pathlib import Path

from cxr_trt.engine.choice import measure
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.graph_file import read_scoring_graph

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "cpu_backends.json"
NAMES = ("onnxruntime", "openvino")
ROUNDS = 15


def processor() -> str:
    """The processor's name as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main() -> None:
    """Measure, print and write the result."""
    model, info = read_scoring_graph(ROOT / "cxr_trt" / "models" / "demo.onnx")
    seconds = measure(NAMES, model, info, ROUNDS)
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
