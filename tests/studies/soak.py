"""A long run over small files with an engine that costs nothing: `make soak` writes docs/soak.md and docs/soak.png.

What may grow with the number of files is the journal, and nothing else: memory, open files, threads and temporary files
of the run and its decoders are sampled from outside.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from cheap_engine import cheap_bundle
from seeds import content, dataset, jpeg, png
from study import ROOT, header, table

KINDS = ("MiB of memory", "MiB of a decoder", "open files", "threads", "processes", "temporary files")


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


def draw(samples: list[tuple[float, ...]], target: Path) -> None:
    """Each value over the rows."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6), sharex=True, layout="constrained")
    for i, (kind, axis) in enumerate(zip(KINDS, axes.flat, strict=True), start=1):
        drawn = [values[i] for values in samples]
        axis.plot([values[0] for values in samples], drawn)
        axis.set(title=kind, ylim=(0, 1.2 * max(drawn)))
    for axis in axes[1]:
        axis.set_xlabel("files")
    figure.savefig(target, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Run, write table and plot; exit code 1 if anything but the journal grows by more than a twentieth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "soak.md")
    parser.add_argument("--no-plot", dest="plot", action="store_false")
    parser.add_argument("--any-growth", action="store_true", help="for runs too short to tell")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        samples, seconds = run(Path(name), options.files, every=0.5)
    rows: list[tuple[object, ...]] = []
    for i, kind in enumerate(KINDS, start=1):
        values = [sample[i] for sample in samples]
        change = growth(samples, i)
        rows.append((kind, f"{min(values):.0f}", f"{np.median(values):.0f}", f"{max(values):.0f}", f"{change:+.1%}"))
    text = (
        f"{options.files} small files, a tenth of them broken, scored in one run of {seconds:.0f} s with an engine "
        f"that costs nothing: {len(samples)} samples of the run and its decoders. Growth: the median of the last fifth "
        "of the run over that of the second."
    )
    page = header("Soak", "make soak", text) + table(("", "least", "median", "most", "growth"), rows)
    options.output.write_text(page + "\n![the samples over the number of files](soak.png)\n")
    if options.plot:
        draw(samples, options.output.with_suffix(".png"))
    print(options.output.read_text())
    sys.exit(not options.any_growth and any(growth(samples, i) > 0.05 for i in range(1, len(KINDS) + 1)))


if __name__ == "__main__":
    main()
