"""TensorRT's progress while it builds."""

from typing import Any

from cxr_trt.progress import ProgressCallback


class BuildProgress:
    """Turns TensorRT's nested phases into one fraction that never falls.

    Attributes:
        monitor: the IProgressMonitor for TensorRT.
        error: the exception that `on_progress` raised, if any: it cannot pass through TensorRT's own code. The build is
            then cancelled.
    """

    def __init__(self, trt: Any, on_progress: ProgressCallback) -> None:
        self.error: BaseException | None = None
        self._on_progress = on_progress
        self._fraction = 0.0
        self._phases: dict[str | None, tuple[str | None, int, int]] = {}  # name: parent, steps, steps done
        progress = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                progress._phases[phase_name] = parent_phase, num_steps, 0

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress._step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                progress._phases.pop(phase_name, None)

        self.monitor = Monitor()

    def _step(self, name: str, step: int) -> bool:
        if phase := self._phases.get(name):
            self._phases[name] = *phase[:2], step + 1
        self._fraction = max(self._fraction, min(self._done(name), 1.0))
        try:
            self._on_progress("build", self._fraction)
        except BaseException as error:  # KeyboardInterrupt too
            self.error = self.error or error
        return self.error is None

    def _done(self, name: str) -> float:
        """The fraction of the whole build that is done: a phase is part of the current step of its parent phase."""
        fraction, phase = 0.0, self._phases.get(name)
        for _ in range(len(self._phases)):  # bounded: names repeat, so the chain of parents might be a circle
            if phase is None:
                break
            parent, steps, done = phase
            fraction, phase = (done + fraction) / max(steps, 1), self._phases.get(parent)
        return fraction
