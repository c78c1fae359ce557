"""Time and peak memory of `cxr-trt score` with the number of files, and an engine that costs nothing: docs/growth.md.

make growth     20 minutes on two idle processors
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from benchmarks.memory import PeakMemory
from benchmarks.pictures import radiograph
from benchmarks.result import ROOT, made_by, provenance, table, write
from tests.studies.cheap_engine import cheap_bundle

COUNTS = (100, 1_000, 10_000, 100_000)
SIDE = 256  # pixels of the pictures: small, so that what is counted is what a file costs besides decoding
COMMAND = "make growth"
TEXT = """\
# Growth

`cxr-trt score` on so many PNG files of {side} x {side} pixels to a CSV, with an engine that costs nothing: what a file
costs whatever the network is. Files a second are those beyond the first {first}, for which starting counts; memory is
the most that it and its decoders have together.

{rows}
From {low:,} to {high:,} files, seconds a file change by the factor {factor:.2f}, and peak memory by {growth:+.0f} MiB.
"""


@click.command()
@click.option("--most", type=click.IntRange(100), default=COUNTS[-1], show_default=True, help="Leave out larger runs.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/growth.json")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "growth.md")
def main(most: int, json_path: Path, page: Path) -> None:
    """Measure, and write both files."""
    result: dict[str, Any] = {**provenance(("onnxruntime", "opencv-python-headless")), "side": SIDE, "runs": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = cheap_bundle(folder / "cheap.cxr")
        for count in (count for count in COUNTS if count <= most):
            result["runs"].append(run(bundle, folder / str(count), count))
    write(result, json_path, to_markdown(result), page)
    click.echo(page.read_text(encoding="utf-8"))


def run(bundle: Path, folder: Path, count: int) -> dict[str, Any]:
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


def to_markdown(result: dict[str, Any]) -> str:
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
    text = TEXT.format(
        side=result["side"],
        first=first["files"],
        rows=table(("files", "seconds", "files a second", "peak memory, MiB"), rows),
        low=low["files"],
        high=last["files"],
        factor=last["seconds"] / last["files"] / (low["seconds"] / low["files"]),
        growth=last["peak_mib"] - low["peak_mib"],
    )
    return f"{text}\n{made_by(COMMAND, result)}"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.growth")
