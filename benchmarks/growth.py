"""Time and peak memory of `cxr-trt score` by the number of files, with an engine that costs nothing."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np
from cheap_engine import cheap_bundle

from benchmarks.study import ROOT, Result
from benchmarks.tools.memory import PeakMemory
from benchmarks.tools.pictures import radiograph
from cxr_trt.markdown import markdown_table

PACKAGES = ("onnxruntime", "opencv-python-headless")
COUNTS = (100, 1_000, 10_000, 100_000)
SIDE = 256  # pixels of the pictures: small, so that what is counted is what a file costs besides decoding
TEXT = """\
# Growth

**From {low:,} to {high:,} files the time per file changes by a factor of {factor:.2f}, and peak memory by {growth:+.0f}
MiB.**

`cxr-trt score` on PNG files of {side} x {side} pixels to a CSV table, with an engine that costs nothing: what a file
costs whatever the network is. "Files per second" leaves out the first {first} files and with them the start. Memory is
the peak of the process and its decoders together.

{rows}
"""


@click.command()
@click.option("--most", type=click.IntRange(COUNTS[0]), default=COUNTS[-1], help="Leave out runs with more files.")
def measure(most: int) -> Result:
    """Score 100 files, 1,000 and so on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = cheap_bundle(folder / "cheap.cxr")
        return {"side": SIDE, "runs": [run(bundle, folder / str(n), n) for n in COUNTS if n <= most]}


def run(bundle: Path, folder: Path, count: int) -> Result:
    """Score `count` files, each with its own content."""
    files = folder / "files"
    files.mkdir(parents=True)
    grey = cv2.resize(radiograph(), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    for i in range(count):
        grey[0, :4] = np.frombuffer(i.to_bytes(4, "big"), np.uint8)
        (files / f"{i:06}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    command = [sys.executable, "-m", "cxr_trt", "score", files, "-e", bundle, "-o", folder / "scores.csv"]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
    memory = PeakMemory(process.pid)
    with memory.watched():
        assert process.wait() == 0
    seconds = time.perf_counter() - start
    with (folder / "scores.csv").open(encoding="utf-8") as table_file:
        assert sum(1 for _ in table_file) == count + 1
    return {"files": count, "seconds": seconds, "peak_mib": memory.mib}


def page(result: Result) -> str:
    """The page of a result."""
    runs = result["runs"]
    first, last = runs[0], runs[-1]
    rows = [
        (
            f"{own['files']:,}",
            f"{own['seconds']:.1f}",
            "" if own is first else f"{(own['files'] - first['files']) / (own['seconds'] - first['seconds']):.0f}",
            f"{own['peak_mib']:.0f}",
        )
        for own in runs
    ]
    low = next(own for own in runs if own["files"] >= 1_000 or own is last)
    return TEXT.format(
        side=result["side"],
        first=first["files"],
        rows=markdown_table(("files", "seconds", "files per second", "peak memory, MiB"), rows),
        low=low["files"],
        high=last["files"],
        factor=last["seconds"] / last["files"] / (low["seconds"] / low["files"]),
        growth=last["peak_mib"] - low["peak_mib"],
    )
