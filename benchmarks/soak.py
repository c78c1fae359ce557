"""A long run over small files with an engine that costs nothing.

What may grow with the number of files is the journal, and nothing else: memory, open files, threads and temporary files
of the run and its decoders are sampled from outside.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import click
import cv2
import numpy as np
from cheap_engine import cheap_bundle
from seeds import content, dataset, jpeg, png

from benchmarks.study import Result
from cxr_trt.markdown import markdown_table

PACKAGES = ("onnxruntime", "opencv-python-headless", "pydicom")
KINDS = ("MiB of memory", "MiB of a decoder", "open files", "threads", "processes", "temporary files")
MAX_GROWTH = 0.05
MIN_FILES = 20_000  # of a run that is long enough to tell growth from noise
TEXT = """\
# Soak

**{headline}**

{files:,} small files, a tenth of them broken, were scored in one run of {seconds:.0f} s with an engine that costs
nothing. {count} samples of the run and its decoders were taken from outside. Growth compares the median of the last
fifth of the run with that of the second fifth.

{rows}

![the samples over the number of files](soak.png)
"""


@click.command()
@click.option("--files", type=click.IntRange(100), default=MIN_FILES, help="How many to score.")
@click.option("--interval", type=float, default=0.5, help="Seconds between samples.")
def measure(files: int, interval: float) -> Result:
    """Score many files in one run, and look at it from outside."""
    with tempfile.TemporaryDirectory() as name:
        samples, seconds = run(Path(name), files, interval)
    return {
        "files": files,
        "seconds": seconds,
        "kinds": KINDS,
        "samples": samples,
        "growth": {kind: growth(samples, i) for i, kind in enumerate(KINDS, start=1)},
    }


def make_files(folder: Path, count: int) -> None:
    """PNG, JPEG, DICOM, and one broken file in ten; no two alike."""
    for i in range(count):
        samples = np.random.default_rng(i).integers(0, 256, (48, 64), np.uint8)
        samples = cv2.GaussianBlur(samples, (0, 0), 3)
        if i % 3 == 2:
            data = content(dataset(Rows=48, Columns=64, PixelData=samples.tobytes()))
        else:
            data = png(samples) if i % 3 else jpeg(samples)
        suffix = ("jpg", "png", "dcm")[i % 3]
        (folder / f"{i:06}.{suffix}").write_bytes(data[: len(data) // 2] if i % 10 == 9 else data)


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def resident(pid: int) -> float:
    """MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def sample(pid: int, temporary: Path, out: Path) -> tuple[float, ...]:
    """The values of KINDS."""
    decoders = children(pid)
    everyone = [pid, *decoders]
    files = sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in everyone)
    threads = sum(len(list(Path(f"/proc/{process}/task").iterdir())) for process in everyone)
    rubbish = sum(1 for _ in temporary.rglob("*")) + sum(1 for path in out.iterdir() if "journal" not in path.name)
    return resident(pid), max(map(resident, decoders), default=0.0), files, threads, len(everyone), rubbish


def rows_in(journal: Path) -> int:
    """How far the run is, from a copy of its journal: it lets nobody else in."""
    wal = journal.with_name(journal.name + "-wal")
    with tempfile.TemporaryDirectory() as name:
        for path in (journal, wal):
            if path.exists():
                (Path(name) / path.name).write_bytes(path.read_bytes())
        with closing(sqlite3.connect(Path(name) / journal.name)) as database:
            try:
                return int(database.execute("SELECT count(*) FROM scored").fetchone()[0])
            except sqlite3.DatabaseError:  # not yet there, or copied in the middle of a write
                return -1


def run(folder: Path, count: int, every: float) -> tuple[list[tuple[float, ...]], float]:
    """Score `count` files. Returns samples (rows, then KINDS) and the seconds that it took."""
    for name in ("xrays", "out", "tmp"):
        (folder / name).mkdir()
    make_files(folder / "xrays", count)
    bundle, out = cheap_bundle(folder / "cheap.cxr"), folder / "out"
    command = [sys.executable, "-m", "cxr_trt", "score", folder / "xrays", "-e", bundle, "-o", out / "a.csv"]
    start, samples = time.monotonic(), []
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    process = subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        time.sleep(every)
        rows = rows_in(out / "a.csv.journal") if (out / "a.csv.journal").exists() else -1
        try:
            if rows > 0:
                samples.append((rows, *sample(process.pid, folder / "tmp", out)))
        except OSError:
            continue  # something ended while it was looked at
    seconds = time.monotonic() - start
    assert process.returncode == 1, process.communicate()[1]
    lines = (out / "a.csv").read_text().count("\n")
    assert lines == count + 1, lines
    process.communicate()
    most = max(values[KINDS.index("processes") + 1] for values in samples)
    running = [values for values in samples if values[KINDS.index("processes") + 1] == most]
    return running, seconds  # without those taken while the decoders were being started and ended


def growth(samples: list[tuple[float, ...]], index: int) -> float:
    """Growth from the second fifth to the last fifth of the run, as a share: medians, so that no one sample counts."""
    fifth = len(samples) // 5
    values = np.array([values[index] for values in samples])
    early, late = np.median(values[fifth : 2 * fifth]), np.median(values[-fifth:])
    return float((late - early) / max(early, 1))


def problems(result: Result) -> list[str]:
    """What grew with the number of files, in a run that is long enough."""
    if result["files"] < MIN_FILES:
        return []
    grown = {kind: share for kind, share in result["growth"].items() if not share <= MAX_GROWTH}
    return [f"{kind} grew by {share:.1%}" for kind, share in grown.items()]


def page(result: Result) -> str:
    """The page of a result."""
    rows = []
    for i, (kind, share) in enumerate(result["growth"].items(), start=1):
        values = [sample[i] for sample in result["samples"]]
        rows.append((kind, f"{min(values):.0f}", f"{np.median(values):.0f}", f"{max(values):.0f}", f"{share:+.1%}"))
    most = max(result["growth"].values())
    return TEXT.format(
        headline=f"Memory, open files, threads, processes and temporary files grow by at most {most:.1%} over the run.",
        files=result["files"],
        seconds=result["seconds"],
        count=len(result["samples"]),
        rows=markdown_table(("", "lowest", "median", "highest", "growth"), rows),
    )


def draw(result: Result, path: Path) -> None:
    """Each value over the rows."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    samples = result["samples"]
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6), sharex=True, layout="constrained")
    for i, (kind, axis) in enumerate(zip(KINDS, axes.flat, strict=True), start=1):
        drawn = [values[i] for values in samples]
        axis.plot([values[0] for values in samples], drawn)
        axis.set(title=kind, ylim=(0, 1.2 * max(drawn)))
    for axis in axes[1]:
        axis.set_xlabel("files")
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
