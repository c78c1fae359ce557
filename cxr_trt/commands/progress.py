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
)

from cxr_trt.closing import Closing
from cxr_trt.commands.messages import current, say

SECONDS_BETWEEN_LINES = 10
SECONDS_BETWEEN_EVENTS = 1  # of --progress json
ESTIMATED_AFTER_FILES = 20


class FileProgress(Closing):
    """Counts files; a context manager. Files that an earlier run has scored (`known`) do not count for the speed."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.errors, self.skipped, self.known = total, 0, 0, 0, 0
        self.started = self._last_line = time.monotonic()
        self._messages = current()
        self._has_estimate = False
        console = Console(stderr=True)
        style = self._messages.progress
        self._has_bar = style == "auto" and console.is_terminal and not self._messages.quiet
        self._has_lines = style != "none" and not self._has_bar and not self._messages.quiet
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not self._has_bar)
        self._task = self._bar.add_task("", total=total, note="")

    @property
    def scored(self) -> int:
        """Files that gave scores."""
        return self.done - self.errors - self.skipped

    @property
    def files_per_second(self) -> float:
        return (self.done - self.known) / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """By the average of this run; None while no file was read in it."""
        return (self.total - self.done) / self.files_per_second if self.done > self.known else None

    def advance(self, *, error: bool, known: bool = False, skipped: bool = False) -> None:
        self.done += 1
        self.errors += error
        self.skipped += skipped
        self.known += known
        if self._has_bar:
            self._bar.update(self._task, completed=self.done, note=self._note())
        now = time.monotonic()
        wait = SECONDS_BETWEEN_EVENTS if self._messages.progress == "json" else SECONDS_BETWEEN_LINES
        if self._has_lines and (now - self._last_line >= wait or self._is_time_for_estimate()):
            self._last_line = now
            self._show_line()

    def _is_time_for_estimate(self) -> bool:
        """Once, after the first files of a long run, whose first seconds say little."""
        is_time = not self._has_estimate and self.done - self.known == ESTIMATED_AFTER_FILES and self.total > 100
        self._has_estimate = self._has_estimate or is_time
        return is_time

    def _note(self) -> str:
        left = self.seconds_left
        parts = [f"{self.files_per_second:.2f} files/s"] if left is not None else []
        parts += [f"{in_words(left)} left"] if left is not None and self.done < self.total else []
        parts += [f"errors: {self.errors}"] if self.errors else []
        return ", ".join(parts)

    def _show_line(self) -> None:
        if self._messages.progress == "json":
            self._messages.event("progress", **self.numbers())
        else:
            print(
                ", ".join(filter(None, (f"{self.done} of {self.total} files", self._note()))),
                file=sys.stderr,
                flush=True,
            )

    def numbers(self) -> dict[str, int | float | None]:
        """How far it is, as plain values."""
        left = self.seconds_left
        return {
            "done": self.done,
            "total": self.total,
            "errors": self.errors,
            "skipped": self.skipped,
            "known": self.known,
            "files_per_second": round(self.files_per_second, 3),
            "seconds_left": None if left is None else round(left, 1),
        }

    def __enter__(self) -> "FileProgress":
        self._bar.start()
        return self

    def close(self) -> None:
        self._bar.stop()
        if self._has_lines and self._messages.progress == "json":
            self._messages.event("end", **self.numbers())


def in_words(seconds: float) -> str:
    """A duration as one says it: "8 s", "12 min", "46 h"."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


class PhaseProgress(Closing):
    """Shows the phases of an engine build: a callable for `BuildOptions.on_progress`, and a context manager."""

    def __init__(self) -> None:
        console, messages = Console(stderr=True), current()
        self._plain = not console.is_terminal or messages.progress != "auto" or messages.quiet
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=console, disable=self._plain)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, fraction: float) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=1.0)
            if self._plain:
                say(f"{phase} ...")
        self._bar.update(self._tasks[phase], completed=fraction)

    def __enter__(self) -> "PhaseProgress":
        self._bar.start()
        return self

    def close(self) -> None:
        self._bar.stop()
