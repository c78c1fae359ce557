"""How long a user waits for one X-ray, and for the help: medians of fresh processes, and of the inference alone.

make bench-start     two minutes on two idle processors; writes benchmarks/results/start.json
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pictures import source
from benchmarks.result import ROOT, provenance
from cxr_trt.score.engine import Engine
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess

RESULT = ROOT / "benchmarks" / "results" / "start.json"
ROUNDS = 9
COMMAND = (sys.executable, "-m", "cxr_trt")


def seconds(*arguments: object) -> float:
    """Of a command, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure in turn, print and write the result."""
    times: dict[str, list[float]] = {"help": [], "score": [], "inference": []}
    with tempfile.TemporaryDirectory() as name:
        bundle, table = Path(name, "demo.cxr"), Path(name, "scores.csv")
        seconds("build-engine", ROOT / "cxr_trt" / "models" / "demo.onnx", "-o", bundle)
        picture = preprocess(decode(source().read_bytes()).pixels, 512)[None]
        with Engine(bundle) as engine:
            engine.run(picture)  # the first run of an engine is slower, which a user's one X-ray pays for
            for _ in range(ROUNDS):
                times["help"].append(seconds("--help"))
                times["score"].append(seconds("score", source(), "-e", bundle, "-o", table, "--overwrite", "--fresh"))
                started = time.perf_counter()
                engine.run(picture)
                times["inference"].append(time.perf_counter() - started)
    beyond = [score - inference for score, inference in zip(times["score"], times["inference"], strict=True)]
    medians = {name: round(statistics.median(values), 3) for name, values in (times | {"beyond": beyond}).items()}
    result = {**provenance(("openvino", "onnxruntime")), "rounds": ROUNDS, "seconds": medians, "all": times}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(medians, indent=2))


if __name__ == "__main__":
    main()
