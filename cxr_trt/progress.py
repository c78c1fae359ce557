"""How long jobs report their progress; `cxr_trt.commands.progress` shows it."""

from collections.abc import Callable

ProgressCallback = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done, 0 to 1."""


def ignore_progress(phase: str, fraction: float) -> None:
    """Do nothing; for callers that show no progress."""
