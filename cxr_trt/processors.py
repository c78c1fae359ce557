"""How many processors this process may use: those of its affinity, as far as its control group's quota goes."""

import math
import os
from pathlib import Path

ROOT = Path("/")


def processors(root: Path = ROOT) -> int:
    """The number of logical processors that this process may use; a part of one that a quota allows counts as one.

    Args:
        root: where Linux's `proc` and `sys` are.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = cgroup_quota(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cores(root: Path = ROOT) -> int:
    """The number of cores that this process may use, as far as Linux tells; otherwise the number of processors."""
    found = set()
    for number in os.sched_getaffinity(0):
        topology = root / "sys" / "devices" / "system" / "cpu" / f"cpu{number}" / "topology"
        try:
            found.add((topology / "thread_siblings_list").read_text())
        except OSError:
            found.add(str(number))
    return min(len(found), processors(root))


def cgroup_quota(root: Path = ROOT) -> float | None:
    """The processors that control groups allow, such as 2.5: the least of this process's group and those above it.

    A container sees its own group as the topmost one; its path then is "/", or one of the host that is not there.

    Returns:
        None if there is no limit: see cgroups(7), `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1.
    """
    try:
        groups = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:
            mounted, read = root / "sys" / "fs" / "cgroup", _quota_of_version_2
        elif "cpu" in controllers.split(","):
            mounted, read = root / "sys" / "fs" / "cgroup" / "cpu", _quota_of_version_1
        else:
            continue
        folder = mounted / path.lstrip("/")
        while True:
            quotas.append(read(folder))
            if folder == mounted or ".." in folder.parts:
                break
            folder = folder.parent
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of_version_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_of_version_1(folder: Path) -> float | None:
    try:
        quota, period = (int((folder / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError):
        return None
