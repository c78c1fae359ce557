"""What lists, parts and Ray cost beside `cxr-trt score`, also where something dies, and what that makes of many X-rays.

The engine costs nothing, so everything that is measured is overhead. Ray runs in a network namespace, which needs root.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import cv2
import numpy as np
from cheap_engine import SPEC, cheap_bundle
from ray_cluster import RayCluster, end, ray_cluster, why_not

from benchmarks.study import ROOT, Result
from benchmarks.tools.cluster_faults import FAULT_FILES, FAULTS, describe_faults, run_with_faults
from benchmarks.tools.memory import PeakMemory
from benchmarks.tools.pictures import radiograph
from cxr_trt.cluster.listing import FileList, write_list
from cxr_trt.images.files import Selection, Source
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

PACKAGES = ("onnxruntime", "opencv-python-headless", "pyarrow", "ray")
SIDE = 256  # pixels of the pictures, as in the study of growth
SHARD_FILES = 512
MAX_OVERHEAD = 0.10  # of a shard, as a share of the time of `score` on the same files, once both have started
LIST_SIZES = (1_000, 10_000, 100_000, 1_000_000)
EXTRAPOLATED = (1_000_000, 100_000_000)
LABELS = {
    "score": "`score xrays/ -o scores.csv`",
    "list": "`list xrays/`",
    "parts": "`score LIST`",
    "collect": "`collect -o scores.csv`",
    "ray": "`score LIST --ray`, one actor",
    "decoders": "`score LIST --ray --decoders 1`, one engine",
}
STORE_BYTES = 512 << 20  # of each node, for decoded shards
TEXT = """\
# Cluster

**Once started, the time for a shard of {shard_files} files differs from that of `score` by {parts_overhead:+.0%} with a
list and its parts{ray_overhead}. For {files:,} files, writing the list takes {list_share:.1%} of the time of `score`,
and collecting its parts {collect_share:.1%}.**

PNG files of {side} x {side} pixels and an engine that costs nothing, so that all that is measured is overhead: whatever
a network adds to each file adds to both. Medians of {rounds} rounds, in which the commands took turns, all with
{workers} decoding processes. Seconds are from start to end; memory is the peak of the process and its children
together, for Ray that of the command alone. "Once started" is the difference to the same command with {shard_files}
files. {ray}{decoders}

{runs}
{faults}
## Lists

Names of {name_bytes} bytes, shards of {shard_files} files. "Read a shard" includes opening the list.

{lists}

## Extrapolated, not measured

From the longest list above and the time of each shard: what a cluster's bookkeeping takes, whatever the engine. The
time for scoring comes on top and is divided among the machines; that of the list and of `collect` is not.

{extrapolated}
"""
DECODERS = """\
Once started, a shard takes {score:.2f} s with `score`, {ray:.2f} s with Ray, and {decoders:.2f} s where one actor
decodes for an engine on another node: with `--decoders`, it goes through Ray's object store, {decoded_mb:.0f} MB of
images. Here, both nodes are this machine, and there is no network between them."""


@click.command()
@click.option("--files", type=click.IntRange(2 * SHARD_FILES), default=6 * SHARD_FILES, help="How many are scored.")
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--longest", type=click.IntRange(1_000), default=LIST_SIZES[-1], help="Leave out longer lists.")
def measure(files: int, rounds: int, longest: int) -> Result:
    """Score the same files in all ways, kill what can die, and write and read lists of growing length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, count in (("all", files), ("one-shard", SHARD_FILES), ("faults", FAULT_FILES)):
            write_pictures(folder / kind, count)
        bundle = cheap_bundle(folder / "cheap.cxr")
        with optional_ray(folder) as ray:
            taken = [one_round(folder, bundle, ray) for _ in range(rounds)]
            per_shard = seconds_per_shard(folder, bundle, ray) if ray else None
            faults = run_with_faults(folder / "faults", folder, bundle, ray) if ray else []
        ways = taken[0]["all"]
        lists = [list_of(folder / f"list-{count}", count) for count in LIST_SIZES if count <= longest]
    return {
        "side": SIDE,
        "files": files,
        "rounds": rounds,
        "workers": processors(),
        "shard_files": SHARD_FILES,
        "decoded_mb": SHARD_FILES * SPEC.image_size.height * SPEC.image_size.width / 1e6,
        "name_bytes": len(name_of(0)),
        "runs": {
            way: {what: statistics.median(run["all"][way][what] for run in taken) for what in ("seconds", "mib")}
            for way in ways
        },
        "overhead": {
            way: statistics.median(once_started(run, way) / once_started(run, "score") - 1 for run in taken)
            for way in ("parts", "ray", "decoders")
            if way in ways
        },
        "seconds_per_shard": {
            way: statistics.median(once_started(run, way) for run in taken) / (files / SHARD_FILES - 1) for way in ways
        },
        "collect_seconds_per_file": statistics.median(once_started(run, "collect") for run in taken)
        / (files - SHARD_FILES),
        "no_ray": None if ray else why_not(),
        "ray_seconds_per_shard": per_shard,
        "faults": faults,
        "lists": lists,
    }


def once_started(run: dict[str, dict[str, Result]], way: str) -> float:
    """The seconds that a command takes for all files more than for those of one shard."""
    return float(run["all"][way]["seconds"] - run["one-shard"][way]["seconds"])


def write_pictures(folder: Path, count: int) -> None:
    """So many files, each with its own content."""
    folder.mkdir()
    grey = cv2.resize(radiograph(), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    for i in range(count):
        grey[0, :4] = np.frombuffer(i.to_bytes(4, "big"), np.uint8)
        (folder / f"{i:06}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())


@contextmanager
def optional_ray(folder: Path) -> Iterator[RayCluster | None]:
    """A cluster, or None where none can be started."""
    if why_not():
        yield None
        return
    (folder / "ray").mkdir()
    with ray_cluster(folder / "ray", store_bytes=STORE_BYTES) as cluster:
        yield cluster


def one_round(folder: Path, bundle: Path, ray: RayCluster | None) -> dict[str, dict[str, Result]]:
    """All files and those of one shard in each way, to outputs that do not exist yet."""
    return {kind: each_way(folder, kind, bundle, ray) for kind in ("one-shard", "all")}


def each_way(folder: Path, kind: str, bundle: Path, ray: RayCluster | None) -> dict[str, Result]:
    """Score the files of a folder in each way."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    options = ("-e", bundle, "--workers", processors())
    found = {
        "score": command("score", folder / kind, *options, "-o", out / "scores.csv"),
        "list": command("list", folder / kind, "-o", out / "list", "--shard", SHARD_FILES),
        "parts": command("score", out / "list", *options, "-o", out / "parts"),
        "collect": command("collect", out / "parts", "--list", out / "list", "-o", out / "collected.csv"),
    }
    assert (out / "collected.csv").read_bytes() == (out / "scores.csv").read_bytes()
    if ray:
        actors = ("--ray", ray.address, "--actors", 1)
        for way, decoders in (("ray", ()), ("decoders", ("--decoders", 1))):
            parts, table = out / f"{way}-parts", out / f"{way}.csv"
            found[way] = timed(ray.start("score", out / "list", *options, "-o", parts, *actors, *decoders))
            command("collect", parts, "--list", out / "list", "-o", table)
            assert table.read_bytes() == (out / "scores.csv").read_bytes()
    return found


def command(*arguments: object) -> Result:
    """What `cxr-trt` with these arguments takes."""
    words = [sys.executable, "-m", "cxr_trt", *map(str, arguments)]
    return timed(subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def timed(process: "subprocess.Popen[str]") -> Result:
    """Seconds and peak memory of a command that has just been started, and must end with 0."""
    start, memory = time.perf_counter(), PeakMemory(process.pid)
    with memory.watched():
        end(process, 0)
    return {"seconds": time.perf_counter() - start, "mib": memory.mib}


def seconds_per_shard(folder: Path, bundle: Path, ray: RayCluster) -> float:
    """What a shard costs with one actor beside its files: the same files in one shard, and each in its own."""
    files = min(500, len(list((folder / "all").iterdir())))
    seconds: list[float] = []
    for shard_files in (files, 1):
        made, parts = folder / f"list-by-{shard_files}", folder / f"parts-by-{shard_files}"
        command("list", folder / "all", "--limit", files, "-o", made, "--shard", shard_files)
        options = ("-o", parts, "--ray", ray.address, "--actors", 1)
        seconds.append(timed(ray.start("score", made, "-e", bundle, *options))["seconds"])
    return (seconds[1] - seconds[0]) / (files - 1)


def name_of(number: int) -> str:
    """As a hospital's archive may have it."""
    return f"site{number % 37:02}/{2005 + number % 19}/{number * 2654435761 % (1 << 64):016x}/{number:09}.dcm"


def list_of(folder: Path, count: int) -> Result:
    """A list of files that do not exist: their sizes are given."""
    sources = tuple(Source(Path("/xrays", name_of(i)), name_of(i)) for i in range(count))
    start = time.perf_counter()
    write_list(Selection(sources, {}, "/xrays"), folder, SHARD_FILES, sizes=[8_000_000] * count, overwrite=False)
    written = time.perf_counter() - start
    del sources
    reading = []
    for number in range(5):
        start = time.perf_counter()
        files = FileList.open(folder)
        files.sources(files.shards.count * number // 5)
        reading.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"files": count, "written": written, "bytes": size, "read_shard": statistics.median(reading)}


def problems(result: Result) -> list[str]:
    """What is not as it should be, a sentence each."""
    found = [
        f"{LABELS[way]}: a shard takes {share:+.1%} of the time of `score` more, not {MAX_OVERHEAD:.0%} at most"
        for way, share in result["overhead"].items()
        if way != "decoders" and not share <= MAX_OVERHEAD
    ]
    for fault in result["faults"]:
        if any(fault[what] for what in ("missing", "doubled", "different")):
            found.append(f"{FAULTS[fault['fault']]}: rows are missing, doubled or different")
    return found


def page(result: Result) -> str:
    """The page of a result."""
    runs, files, overhead = result["runs"], result["files"], result["overhead"]
    rows = [
        (
            LABELS[way],
            f"{run['seconds']:.1f}",
            f"{overhead[way]:+.1%}" if way in overhead else "",
            f"{run['mib']:.0f}",
        )
        for way, run in runs.items()
    ]
    lists = [
        (
            f"{one['files']:,}",
            f"{one['bytes'] / 1e6:.1f}",
            f"{one['written']:.1f}",
            f"{1000 * one['read_shard']:.1f}",
        )
        for one in result["lists"]
    ]
    return TEXT.format(
        files=files,
        parts_overhead=overhead["parts"],
        ray_overhead=f", and by {overhead['ray']:+.0%} with Ray" if "ray" in overhead else "",
        list_share=runs["list"]["seconds"] / runs["score"]["seconds"],
        collect_share=runs["collect"]["seconds"] / runs["score"]["seconds"],
        side=result["side"],
        rounds=result["rounds"],
        workers=result["workers"],
        ray="" if result["no_ray"] is None else f"Ray was not run: {result['no_ray']}.",
        decoders=DECODERS.format(decoded_mb=result["decoded_mb"], **result["seconds_per_shard"])
        if "decoders" in runs
        else "",
        runs=markdown_table(("command", "seconds", "once started, beside `score`", "peak memory, MiB"), rows),
        faults=describe_faults(result["faults"]),
        name_bytes=result["name_bytes"],
        shard_files=result["shard_files"],
        lists=markdown_table(("files", "list, MB", "write it, seconds", "read a shard, ms"), lists),
        extrapolated=markdown_table(
            ("X-rays", "shards", "list, GB", "write it, minutes", "Ray with one actor, minutes", "`collect`, minutes"),
            [_extrapolated(result, count) for count in EXTRAPOLATED],
        ),
    )


def _extrapolated(result: Result, count: int) -> tuple[str, ...]:
    longest = result["lists"][-1]
    times, shards = count / longest["files"], -(-count // result["shard_files"])
    per_shard = result["ray_seconds_per_shard"]
    collect = result["collect_seconds_per_file"] * count
    return (
        f"{count:,}",
        f"{shards:,}",
        f"{longest['bytes'] * times / 1e9:.2f}",
        f"{longest['written'] * times / 60:.1f}",
        "" if per_shard is None else f"{per_shard * shards / 60:.1f}",
        f"{collect / 60:.1f}",
    )
