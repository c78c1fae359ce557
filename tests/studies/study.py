"""What the committed results of studies begin with."""

import ctypes
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def header(title: str, command: str, text: str) -> str:
    """The head of a Markdown file: title, command, date, commit, machine, and what the table says."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    where = f"{processor}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"# {title}\n\n{text}\n\nMade by `{command}` on {date}, commit {commit()}, {where}.\n"


@cache
def commit() -> str:
    """What git says of the working tree when it is first asked: a study that writes its page twice changes it."""
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n" + "\n".join(lines) + "\n"


def drop_privileges() -> None:
    """For processes started from now on, permissions of files count even for root (capabilities(7))."""
    drop, override, search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (override, search):
            if libc.prctl(drop, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")
