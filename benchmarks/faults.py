"""What a run of `cxr-trt score` comes to when something happens to it.

Every case is a real process on real files, with an engine that costs nothing. Whatever happened, the same command again
must end with the rows and heat maps of a run to which nothing happened; an assertion stops the study otherwise.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import click
import cv2
import numpy as np
import numpy.typing as npt
from cheap_engine import cheap_bundle

from benchmarks.study import Result
from benchmarks.tools.privileges import drop_privileges
from cxr_trt.engine.backend import Pending
from cxr_trt.errors import BackendError
from cxr_trt.images.files import find_files
from cxr_trt.markdown import markdown_table
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files

PACKAGES = ("onnxruntime", "opencv-python-headless")
MAX_SECONDS = 300  # far more than any run takes
BROKEN = 10  # which of the files is
STOPPED = "files are kept in"
TEXT = """\
# Faults

**{headline}** No row was lost, none was there twice, and no other file was left behind.

Runs of `cxr-trt score` over {files} files, one of them broken, with heat maps and an engine that costs nothing. After
each case the same command was given again, and ended with the rows and heat maps of a run to which nothing had
happened. Such a run exits with 1, because of the broken file. Random seed: {seed}.

{rows}
"""
JUMP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *); static long calls;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += ++calls % 3 ? -86400 * calls : 86400 * 365;
    return result;
}
"""


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


FaultStudy = Callable[[Place, random.Random, int], Outcome]


def killed(number: signal.Signals, code: int) -> FaultStudy:
    """Signals at random moments: SIGKILL from the start of the process on, others once it says that it scores."""

    def study(place: Place, rng: random.Random, count: int) -> Outcome:
        outcome = Outcome()
        while outcome.cases < count:
            if outcome.cases:
                place.measure()  # what else the machine does may have changed
            with place.output() as out:
                for _ in range(min(rng.randint(2, 6), count - outcome.cases)):
                    run = Run(place, out)
                    if number == signal.SIGKILL:
                        time.sleep(rng.uniform(0, place.seconds))
                    else:
                        run.wait_for("scoring")
                        time.sleep(rng.uniform(0, place.seconds - place.seconds_before))
                    if run.process.poll() is None:
                        run.process.send_signal(number)
                    run.process.wait(MAX_SECONDS)
                    if (out / "a.csv").exists():  # it had done its work before
                        break
                    assert "Traceback" not in run.messages(), run.messages()
                    outcome.add(run)
                    assert run.code == code, (run.code, run.messages())
                    assert number == signal.SIGKILL or STOPPED in run.messages(), run.messages()
                    place.check_journal(out)
                place.finish(out)
        return outcome

    return study


def full_disk(place: Place, rng: random.Random, count: int) -> Outcome:
    """Outputs on a file system of a few hundred KiB, made larger before the command is given again."""
    outcome = Outcome()
    for _ in range(count):
        with place.output() as out:
            size = rng.randrange(40, 25 * place.files)  # never enough for all heat maps
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", out], check=True)
            try:
                run = Run(place, out)
                outcome.add(run)
                assert run.code == 2, run.messages()
                assert "Traceback" not in run.messages(), run.messages()
                assert any(word in run.messages() for word in ("No space left", "disk is full", "disk I/O error"))
                subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
                place.finish(out)
            finally:
                subprocess.run(["umount", out], check=True)
    return outcome


def read_only(place: Place, rng: random.Random, count: int) -> Outcome:
    """The folder of outputs loses its permission to write during the run."""
    outcome = Outcome()
    for _ in range(count):
        with place.output() as out:
            run = Run(place, out)
            run.wait_for("scoring")
            time.sleep(rng.uniform(0, (place.seconds - place.seconds_before) / 2))
            out.chmod(0o500)
            outcome.add(run)
            out.chmod(0o700)
            assert run.code == 2, run.messages()
            assert "Permission denied" in run.messages() or "readonly" in run.messages(), run.messages()
            place.finish(out)
    return outcome


def changed_input(change: Callable[[Path], object]) -> FaultStudy:
    """Ten of the files are changed during the run, and put back before the command is given again."""

    def study(place: Place, rng: random.Random, count: int) -> Outcome:
        outcome = Outcome()
        for _ in range(count):
            files = [place.xrays / name for name in rng.sample(place.good[1:], 10)]
            before = {path: path.read_bytes() for path in files}
            with place.output() as out:
                run = Run(place, out)
                run.wait_for("scoring")
                time.sleep(rng.uniform(0, (place.seconds - place.seconds_before) / 2))
                for path in files:
                    change(path)
                outcome.add(run)
                assert run.code == 1, run.messages()
                rows = rows_of(out)
                assert list(rows) == list(place.rows)
                assert all(rows[name] == row for name, row in place.rows.items() if place.xrays / name not in before)
                for path, content in before.items():
                    path.write_bytes(content)
                place.finish(out)
        return outcome

    return study


def killed_decoders(place: Place, rng: random.Random, count: int) -> Outcome:
    """Both decoders are killed several times in a run, with signals of crashes and of the out-of-memory killer."""
    outcome = Outcome()
    for _ in range(count):
        with place.output() as out:
            run = Run(place, out)
            while not any((out / "maps").glob("*/*.png")) and run.process.poll() is None:
                time.sleep(0.005)
            for _ in range(2):
                time.sleep(rng.uniform(0, 0.3))
                for pid in run.decoders():
                    try:
                        os.kill(pid, rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))
                    except ProcessLookupError:
                        continue
            outcome.add(run)
            assert run.code in (1, 2), run.messages()
            place.finish(out)
    return outcome


class Failing:
    """A real engine that raises on some of its calls."""

    def __init__(self, engine: Engine, fails: Callable[[int], bool]) -> None:
        self.spec, self.fingerprint, self.warnings = engine.spec, engine.fingerprint, engine.warnings
        self.max_batch, self.in_flight = engine.max_batch, engine.in_flight
        self._engine, self._fails, self._calls = engine, fails, 0

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        self._calls += 1
        if self._fails(self._calls):
            raise BackendError("the engine failed")
        return self._engine.submit(images, class_maps)


def engine_fails_once(place: Place, rng: random.Random, count: int) -> Outcome:
    """One call of the engine raises: it is called again, and no row is lost."""
    outcome = Outcome(message="none: it is called again")
    with Engine(place.bundle) as engine:
        for _ in range(count):
            number = rng.randrange(1, place.files)
            failing = Failing(engine, number.__eq__)
            rows = [result.row for result in score_files(failing, find_files(place.xrays).sources)]
            assert [row.path for row in rows] == list(place.rows)
            assert sum(row.probabilities is not None for row in rows) == place.files - 1
            outcome.cases += 1
    return outcome


def engine_fails_always(place: Place, rng: random.Random, count: int) -> Outcome:
    """A picture on which the engine itself raises, every time; it is taken away before the command is given again."""
    outcome = Outcome()
    for _ in range(count):
        black = place.xrays / f"{rng.randrange(place.files):03}-black.png"
        cv2.imwrite(str(black), np.zeros((64, 64), np.uint8))
        with place.output() as out:
            run = Run(place, out)
            outcome.add(run)
            assert run.code == 2, run.messages()
            assert "ONNX Runtime failed" in run.messages()
            assert STOPPED in run.messages()
            black.unlink()
            place.finish(out)
    return outcome


def clock_jumps(place: Place, rng: random.Random, count: int) -> Outcome:
    """The wall clock goes back by days, or a year ahead, each time that it is read."""
    outcome = Outcome()
    library = place.folder / "jump.so"
    source = place.folder / "jump.c"
    source.write_text(JUMP)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    for _ in range(count):
        with place.output() as out:
            run = Run(place, out, LD_PRELOAD=str(library))
            outcome.add(run)
            assert run.code == 1, run.messages()
            assert rows_of(out) == place.rows
            place.finish(out)
    return outcome


def second_run(place: Place, rng: random.Random, count: int) -> Outcome:
    """A second process is given the same output while the first is at work."""
    outcome = Outcome()
    for _ in range(count):
        with place.output() as out:
            first = Run(place, out)
            first.wait_for("scoring")
            first.process.send_signal(signal.SIGSTOP)  # or it could end before the second looks
            second = Run(place, out)
            outcome.add(second)
            assert second.code == 2, second.messages()
            first.process.send_signal(signal.SIGCONT)
            assert "another process is writing there" in second.messages()
            assert first.code == 1
            place.finish(out)
    return outcome


FAULTS: dict[str, tuple[FaultStudy, int]] = {
    # name: study, cases in the full run
    "SIGKILL at a random moment": (killed(signal.SIGKILL, -9), 100),
    "SIGTERM at a random moment": (killed(signal.SIGTERM, 143), 60),
    "SIGINT (Ctrl-C) at a random moment": (killed(signal.SIGINT, 130), 60),
    "disk full": (full_disk, 8),
    "output folder turned read-only": (read_only, 3),
    "10 inputs deleted during the run": (changed_input(lambda path: path.unlink()), 3),
    "10 inputs truncated during the run": (changed_input(lambda path: os.truncate(path, 50)), 3),
    "10 inputs replaced during the run": (changed_input(lambda path: shutil.copy(path.with_name("000.png"), path)), 3),
    "decoders killed": (killed_decoders, 8),
    "engine raises once": (engine_fails_once, 5),
    "engine raises always, on one picture": (engine_fails_always, 3),
    "wall clock jumps": (clock_jumps, 3),
    "second run on the same output": (second_run, 3),
}


def why_not(name: str) -> str | None:
    """None if this study can be made here."""
    if name == "disk full" and os.geteuid() != 0:
        return "needs root, to mount a small file system"
    if name == "wall clock jumps" and not shutil.which("gcc"):
        return "needs gcc"
    return None


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FAULTS)), help="For a trial: these faults alone.")
@click.option("--share", type=float, default=1.0, help="Of the cases of a full run.")
@click.option("--files", type=click.IntRange(BROKEN + 10), default=60, help="In each run.")
@click.option("--seed", type=int, default=0, help="For the choice of moments and files.")
def measure(only: tuple[str, ...], share: float, files: int, seed: int) -> Result:
    """Let every fault happen, and give the same command again."""
    drop_privileges()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process, and its children, would ignore it
    workers = os.cpu_count() or 1
    places: SimpleQueue[Place] = SimpleQueue()

    def run(fault: str) -> Result:
        study, cases = FAULTS[fault]
        if reason := why_not(fault):
            return {"cases": 0, "exit_codes": {}, "message": f"not run: {reason}"}
        place = places.get()
        try:
            outcome = study(place, random.Random(f"{seed} {fault}"), max(1, round(cases * share)))
        finally:
            places.put(place)
        click.echo(f"{fault}: {outcome.cases} cases", err=True)
        return {
            "cases": outcome.cases,
            "exit_codes": {str(code): number for code, number in sorted(outcome.codes.items())},
            "message": outcome.message.replace(str(place.folder), "..."),
        }

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            places.put(Place(Path(name, str(number)), files))
        chosen = only or tuple(FAULTS)
        found = dict(zip(chosen, pool.map(run, chosen), strict=True))
    return {"files": files, "seed": seed, "faults": found}


def page(result: Result) -> str:
    """The page of a result."""
    faults: dict[str, Result] = result["faults"]
    rows = [
        (
            fault,
            str(own["cases"]),
            ", ".join(f"{code}: {number}" for code, number in own["exit_codes"].items()) or "-",
            own["message"],
        )
        for fault, own in faults.items()
    ]
    cases = sum(own["cases"] for own in faults.values())
    return TEXT.format(
        headline=f"All of {cases} runs to which something happened came to the right end when they were started again.",
        files=result["files"],
        seed=result["seed"],
        rows=markdown_table(("fault", "cases", "exit codes and how often", "a message"), rows),
    )
