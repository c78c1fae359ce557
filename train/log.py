"""The output of a training: a bar on a terminal, lines elsewhere, and curves if TensorBoard is installed."""

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_UPDATES = {"bar": 1, "lines": 10}


class Log:
    """Progress on standard error, and curves in `folder`.

    start, total: number of steps that are done, and of all. Curves after `start`, which a killed run has left, are
        hidden.
    silent: whether to say and write nothing.
    """

    def __init__(self, folder: Path, start: int, total: int, *, silent: bool) -> None:
        self._last = time.monotonic()
        self._writer: Any = None
        self._silent = silent
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, disable=silent or self._plain)
        self._task = self._bar.add_task("", total=total, completed=start)
        self._bar.start()
        if silent:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            self.line("no curves: pip install tensorboard")
        else:
            self._writer = SummaryWriter(str(folder), purge_step=start)

    def line(self, text: str) -> None:
        if self._plain and not self._silent:
            click.echo(text, err=True)
        elif not self._silent:
            self._bar.console.print(text, highlight=False)

    def due(self) -> bool:
        """Whether it is time for `progress`."""
        if time.monotonic() - self._last < SECONDS_BETWEEN_UPDATES["lines" if self._plain else "bar"]:
            return False
        self._last = time.monotonic()
        return True

    def progress(self, done: int, text: str) -> None:
        """Show how many steps are done, with a text."""
        if self._plain:
            self.line(text)
        self._bar.update(self._task, completed=done, description=text)

    def curves(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if self._writer and value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._bar.stop()
        if self._writer:
            self._writer.close()
