"""Scoring a list on a Ray cluster of which something dies: how long it takes, and whether a row is wrong afterwards."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from ray_cluster import RayCluster, end, wait_for

from benchmarks.study import ROOT, Result
from benchmarks.tools.memory import family
from cxr_trt.markdown import markdown_table

FAULT_FILES, SHARD_FILES = 1_024, 64
PARTS_BEFORE = 4
FAULTS = {
    "none": "nothing dies",
    "actor": "an actor is killed",
    "command": "the command is killed, and started again",
    "files": "the engine dies of one file, a decoder of another",
    "node": "a node is killed with all its processes",
}
TEXT = f"""
## When something dies

{FAULT_FILES:,} files in shards of {SHARD_FILES}, on two nodes with one actor each. What dies is killed by its process
id after {PARTS_BEFORE} parts. Rows are compared with those of `score` without Ray; the two files that something dies of
have error rows instead.

"""


def run_with_faults(xrays: Path, folder: Path, bundle: Path, ray: RayCluster) -> list[Result]:
    """Kill one thing after the other; the node is the last one, for it does not come back."""
    listed, whole = folder / "faults-list", folder / "whole.csv"
    cxr_trt("list", xrays, "-o", listed, "--shard", SHARD_FILES)
    cxr_trt("score", xrays, "-e", bundle, "-o", whole)
    expected = rows_of(whole)
    deadly = [xrays / row[0] for row in expected[SHARD_FILES : SHARD_FILES + 2]]
    found = []
    for fault in FAULTS:
        parts, table = folder / f"{fault}-parts", folder / f"{fault}.csv"
        with deadly_files(*(deadly if fault == "files" else ())) as names:
            begin = time.perf_counter()
            score(fault, ("score", listed, "-e", bundle, "-o", parts, "--ray", ray.address), parts, ray)
            seconds = time.perf_counter() - begin
        cxr_trt("collect", parts, "--list", listed, "-o", table, code=1 if names else 0)
        found.append({"fault": fault, "seconds": seconds, **wrong_rows(rows_of(table), expected, names)})
    return found


@contextmanager
def deadly_files(black: Path | None = None, crash: Path | None = None) -> Iterator[list[str]]:
    """For a while the first is black, of which the engine dies, and of the other a decoder: see `ray_cluster`."""
    if black is None or crash is None:
        yield []
        return
    before = {path: path.read_bytes() for path in (black, crash)}
    black.write_bytes(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
    crash.write_bytes(b"crash")
    yield [path.name for path in before]
    for path, content in before.items():
        path.write_bytes(content)


def score(fault: str, words: Sequence[object], parts: Path, ray: RayCluster) -> None:
    """Score a list, and kill something in the middle."""
    process = ray.start(*words)
    wait_for(lambda: len(list(parts.glob("part-*"))) >= PARTS_BEFORE)
    if fault == "actor":
        os.kill(ray.actors()[0], signal.SIGKILL)
    elif fault == "command":
        process.kill()
        process.communicate()
        process = ray.start(*words)
    elif fault == "node":
        for pid in family(ray.raylets[0]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    end(process, 1 if fault == "files" else 0)


def wrong_rows(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], deadly: Sequence[str]) -> Result:
    """Counts of rows that are not as they should be, and of error rows of the files that something dies of."""
    names = [row[0] for row in found]
    others = {tuple(row) for row in found if row[0] not in deadly}
    return {
        "missing": len({row[0] for row in expected} - set(names)),
        "doubled": len(names) - len(set(names)),
        "different": len(others - set(map(tuple, expected))),
        "error_rows": sum(row[0] in deadly and bool(row[-2]) for row in found),
    }


def rows_of(table: Path) -> list[list[str]]:
    """The rows of a CSV table, with its header. The last but one column holds errors."""
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def cxr_trt(*words: object, code: int = 0) -> None:
    """Run a command here, which must end with this exit code."""
    command = [sys.executable, "-m", "cxr_trt", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr


def describe_faults(found: Sequence[Result]) -> str:
    """This part of the page."""
    if not found:
        return ""
    columns = ("missing", "doubled", "different", "error_rows")
    rows = [(FAULTS[one["fault"]], f"{one['seconds']:.1f}", *(str(one[column]) for column in columns)) for one in found]
    heads = ("", "seconds", "rows missing", "doubled", "different", "error rows instead")
    return f"{TEXT}{markdown_table(heads, rows)}\n"
