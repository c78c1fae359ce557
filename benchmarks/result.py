"""What every committed result says of itself, and the files that it consists of."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cxr_trt.measure.machine import describe_machine, versions

ROOT = Path(__file__).parents[1]


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Date, commit, machine and versions of a measurement that is made now."""
    dirty = _git("status", "--porcelain", "--untracked-files=no", ".", ":!benchmarks/results", ":!docs")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("rev-parse", "--short", "HEAD") + "-dirty" * bool(dirty),
        "machine": describe_machine(),
        "versions": versions(packages),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def stamp(json_path: Path, packages: Iterable[str]) -> None:
    """Add the provenance to a JSON object that a command of the package has just written."""
    result = {**provenance(packages), **json.loads(json_path.read_text(encoding="utf-8"))}
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def made_by(command: str, result: Mapping[str, Any]) -> str:
    """The line of a Markdown page that says where it comes from."""
    named = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return f"Made by `{command}` on {result['date']}, commit {result['commit']}, {result['machine']}; {named}.\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(result: Mapping[str, Any], json_path: Path, page: str, page_path: Path) -> None:
    """Write the numbers as JSON and the page about them."""
    for path, text in ((json_path, json.dumps(result, indent=2) + "\n"), (page_path, page)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
