"""Sampling a value at regular intervals while something else is measured."""

import threading
from collections.abc import Callable
from types import TracebackType


class Sampling:
    """Calls a function every `interval` seconds in a separate thread, while the context is open."""

    def __init__(self, sample: Callable[[], None], interval: float) -> None:
        self._sample, self._interval = sample, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()
