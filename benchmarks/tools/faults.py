"""Things that happen to a run of `cxr-trt score`, and what it must come to."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.tools.interrupted_runs import MAX_SECONDS, Outcome, Place, Run, rows_of
from cxr_trt.engine.backend import Pending
from cxr_trt.errors import BackendError
from cxr_trt.images.files import find_files
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files

STOPPED = "are kept in"
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
