"""What a training says: lines on standard error, and curves if TensorBoard is installed."""

import time
from pathlib import Path
from typing import Any

import click

SECONDS_BETWEEN_LINES = 10


class Log:
    """Lines now, curves in `folder`. Curves of steps after `start`, left by a run that was killed, are hidden."""

    def __init__(self, folder: Path, start: int, *, silent: bool) -> None:
        self._last = time.monotonic()
        self._writer: Any = None
        self._silent = silent
        if silent:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            self.line("no curves: pip install tensorboard")
        else:
            self._writer = SummaryWriter(str(folder), purge_step=start)

    def line(self, text: str) -> None:
        if not self._silent:
            click.echo(text, err=True)

    def due(self) -> bool:
        """Whether it is time for another line of progress."""
        if time.monotonic() - self._last < SECONDS_BETWEEN_LINES:
            return False
        self._last = time.monotonic()
        return True

    def curves(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if self._writer and value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer:
            self._writer.close()
