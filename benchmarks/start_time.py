"""How long a user waits for one X-ray, and for the help: medians of fresh processes, and of the inference alone."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.study import PAPER_MODEL, ROOT, Result
from benchmarks.tools.pictures import radiograph_file
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table
from cxr_trt.score.engine import Engine

PACKAGES = ("openvino", "onnxruntime")
MEANINGS = {
    "help": "`cxr-trt --help`",
    "score": "`cxr-trt score` on one X-ray (DICOM), from command to table",
    "inference": "the inference in it: ten crops in float32",
    "beyond": "the rest: starting Python, checking and opening the engine, reading the file",
}
TEXT = """\
# How long one X-ray takes

**Scoring a single X-ray takes {beyond:.1f} s besides the inference, which takes {inference:.1f} s.**

Medians of {rounds} fresh processes in turn, in seconds.

{table}
"""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=9, help="Processes of each kind.")
def measure(rounds: int) -> Result:
    """Time commands from their start to their end, and the inference alone."""
    times: dict[str, list[float]] = {"help": [], "score": [], "inference": []}
    with tempfile.TemporaryDirectory() as name:
        bundle, table = Path(name, "demo.cxr"), Path(name, "scores.csv")
        _seconds("build-engine", PAPER_MODEL, "-o", bundle)
        picture = preprocess(decode(radiograph_file().read_bytes()).pixels, 512)[None]
        with Engine(bundle) as engine:
            engine.run(picture)  # the first run of an engine is slower, which a user's one X-ray pays for
            for _ in range(rounds):
                times["help"].append(_seconds("--help"))
                times["score"].append(
                    _seconds("score", radiograph_file(), "-e", bundle, "-o", table, "--overwrite", "--fresh")
                )
                started = time.perf_counter()
                engine.run(picture)
                times["inference"].append(time.perf_counter() - started)
    beyond = [score - inference for score, inference in zip(times["score"], times["inference"], strict=True)]
    medians = {name: round(statistics.median(values), 3) for name, values in (times | {"beyond": beyond}).items()}
    return {"rounds": rounds, "seconds": medians, "all": times}


def _seconds(*arguments: object) -> float:
    """Of a command, from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "cxr_trt", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - started


def page(result: Result) -> str:
    """The page of a result."""
    seconds: dict[str, float] = result["seconds"]
    rows = [(MEANINGS[name], f"{value:.2f}") for name, value in seconds.items()]
    return TEXT.format(**seconds, rounds=result["rounds"], table=markdown_table(("", "seconds"), rows))
