"""Progress on standard error: a bar on a terminal, elsewhere a plain line every few seconds."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cxr_trt.closing import Closing

SECONDS_BETWEEN_LINES = 10


class FileProgress(Closing):
    """Counts files; a context manager. Files that an earlier run has scored (`known`) do not count for the speed."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.errors, self.skipped, self.known = total, 0, 0, 0, 0
        self.started = self._last_line = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=self._plain)
        self._task = self._bar.add_task("", total=total, note="")

    @property
    def scored(self) -> int:
        """Files that gave scores."""
        return self.done - self.errors - self.skipped

    @property
    def files_per_second(self) -> float:
        return (self.done - self.known) / max(time.monotonic() - self.started, 1e-9)

    def advance(self, *, error: bool, known: bool = False, skipped: bool = False) -> None:
        self.done += 1
        self.errors += error
        self.skipped += skipped
        self.known += known
        note = f"{self.files_per_second:.2f} files/s" + (f", errors: {self.errors}" if self.errors else "")
        self._bar.update(self._task, completed=self.done, note=note)
        now = time.monotonic()
        if self._plain and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(f"{self.done} of {self.total} files, {note}", file=sys.stderr, flush=True)

    def __enter__(self) -> "FileProgress":
        self._bar.start()
        return self

    def close(self) -> None:
        self._bar.stop()


class PhaseProgress(Closing):
    """Shows the phases of an engine build: a callable for `BuildOptions.on_progress`, and a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=console, disable=self._plain)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, fraction: float) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=1.0)
            if self._plain:
                print(f"{phase} ...", file=sys.stderr, flush=True)
        self._bar.update(self._tasks[phase], completed=fraction)

    def __enter__(self) -> "PhaseProgress":
        self._bar.start()
        return self

    def close(self) -> None:
        self._bar.stop()
