"""Runs of `cxr-trt score` to which something happens, and what the same command must end with when given again."""

import csv
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from cheap_engine import cheap_bundle

MAX_SECONDS = 300  # far more than any run takes
BROKEN = 10  # which of the files is


@dataclass
class Outcome:
    """What a kind of fault led to: how many cases, their exit codes, and one message."""

    cases: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    message: str = ""

    def add(self, process: "Run") -> None:
        self.cases += 1
        self.codes[process.code] += 1
        lines = [
            line
            for line in process.messages().splitlines()
            if line.startswith(("Error", "error", "stopped", "the rows"))
        ]
        self.message = "; ".join(lines[:2]) or self.message


class Run:
    """A process of `cxr-trt score` with its messages in a file."""

    def __init__(self, place: "Place", out: Path, **variables: str) -> None:
        place.runs += 1
        self._log = place.folder / f"{place.runs}.log"
        arguments = [place.xrays, "-e", place.bundle, "-o", out / "a.csv"]
        arguments += ["--heatmaps", out / "maps", "--top", "1"]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cxr_trt", "score", *map(str, arguments)],
                stderr=log,
                env={**os.environ, **variables},
            )

    @property
    def code(self) -> int:
        return self.process.wait(MAX_SECONDS)

    def messages(self) -> str:
        return self._log.read_text()

    def wait_for(self, words: str) -> None:
        """Until it says that, or ends."""
        while words not in self.messages() and self.process.poll() is None:
            time.sleep(0.005)

    def decoders(self) -> list[int]:
        """Process ids."""
        task = Path(f"/proc/{self.process.pid}/task")
        try:
            return [int(pid) for thread in task.iterdir() for pid in (thread / "children").read_text().split()]
        except OSError:
            return []


class Place:
    """A folder of X-rays, an engine, and what a run to which nothing happens makes of them."""

    def __init__(self, folder: Path, files: int) -> None:
        self.folder, self.xrays, self.files = folder, folder / "xrays", files
        self.xrays.mkdir(parents=True)
        for i in range(files):
            picture = np.random.default_rng(i).integers(1, 256, (64, 64), np.uint8)
            cv2.imwrite(str(self.xrays / f"{i:03}.png"), picture)
        (self.xrays / f"{BROKEN:03}.png").write_bytes(b"broken")
        self.bundle = cheap_bundle(folder / "cheap.cxr", fails_on_black=True)
        self.count = self.runs = 0
        self.rows, self.maps = self.measure()
        self.good = [name for name, row in self.rows.items() if not row["error"]]
        assert len(self.rows) == files
        assert len(self.maps) == files - 1

    def measure(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Rows and heat maps of a run to which nothing happens; notes how many seconds it takes, now."""
        start = time.monotonic()
        with self.output() as out:
            run = Run(self, out)
            run.wait_for("scoring")
            self.seconds_before = time.monotonic() - start
            assert run.code == 1, run.messages()
            self.seconds = time.monotonic() - start
            return rows_of(out), maps_of(out)

    @contextmanager
    def output(self) -> Iterator[Path]:
        """A new folder for outputs."""
        self.count += 1
        out = self.folder / f"out{self.count}"
        out.mkdir()
        yield out
        shutil.rmtree(out)

    def finish(self, out: Path) -> Run:
        """The same command again, which must end as if nothing had happened."""
        run = Run(self, out)
        assert run.code == 1, run.messages()
        assert rows_of(out) == self.rows
        assert maps_of(out) == self.maps
        assert sorted(path.name for path in out.iterdir()) == [".a.csv.lock", "a.csv", "a.csv.journal", "maps"]
        return run

    def check_journal(self, out: Path) -> int:
        """The rows that a stopped run left: each as in the whole table. Returns how many."""
        if not (out / "a.csv.journal").exists():
            return 0
        for path in out.glob("a.csv.journal*"):  # a copy, so that the next run finds what the stopped one left
            shutil.copy(path, self.folder / path.name)
        with closing(sqlite3.connect(self.folder / "a.csv.journal")) as database:
            try:
                found = {name: json.loads(row) for name, row in database.execute("SELECT path, row FROM scored")}
            except sqlite3.OperationalError:
                found = {}  # killed before the first table was made
        for path in self.folder.glob("a.csv.journal*"):
            path.unlink()
        assert all((self.rows[name]["sha256"] or None) == row["sha256"] for name, row in found.items())
        return len(found)


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    """The table by path; a path that is there twice is an error."""
    with (out / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}


def maps_of(out: Path) -> dict[str, str]:
    """Heat maps by path, each as its hash."""
    files = (path for path in (out / "maps").rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
