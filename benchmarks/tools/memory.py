"""Memory of a process and of all that it started, from outside.

What the system calls a process's peak (ru_maxrss) begins with the memory of the process that it was started from.
"""

from pathlib import Path

from cxr_trt.measure.sampling import Sampling

SAMPLING_SECONDS = 0.1


class PeakMemory:
    """The most memory of a process and its descendants together within `with memory.watched():`, in `mib`.

    Pages that several of them share count once: it adds up proportional set sizes (Pss in proc_pid_smaps(5)).
    """

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid

    def watched(self) -> Sampling:
        return Sampling(self._look, SAMPLING_SECONDS)

    def _look(self) -> None:
        self.mib = max(self.mib, sum(map(proportional, family(self._pid))))


def family(pid: int) -> list[int]:
    """A process and its descendants, as far as they are still there."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(other for child in children for other in family(child))]


def proportional(pid: int) -> float:
    """The proportional set size of a process in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
