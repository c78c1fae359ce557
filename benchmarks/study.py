"""What all studies share: where their files lie, what a result says of its origin, and how both files are written."""

import json
import re
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from cxr_trt.measure.machine import describe_machine, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "studies"
PAPER_MODEL = ROOT / "cxr_trt" / "models" / "paper.onnx"

LINE_LENGTH = 120  # of the pages

Result = dict[str, Any]

cxr14_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="CXR14_DIR",
    default=ROOT.parent / "shared" / "cxr14",
    help="A subset of ChestX-ray14: a folder with images/ and labels.csv. Also CXR14_DIR.",
)


@dataclass(frozen=True)
class Study:
    """A study by its name, which its result file and its page have too.

    shows: what it is about, in one line. needs: what must be there. duration: about how long, on two idle processors.
    module: in `benchmarks`, with `PACKAGES` (whose versions matter), `measure` (a click command that returns the
    result), `page(result)`, and if there is a picture `draw(result, path)`; `problems(result)` gives sentences on what
    is not as it should be. options: of `measure`, for this study.
    """

    name: str
    shows: str
    needs: str
    duration: str
    module: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The module."""
        return import_module(f"benchmarks.{self.module or self.name.replace('-', '_')}")

    def result(self, folder: Path = RESULTS) -> Result:
        """What was measured last."""
        result: Result = json.loads((folder / f"{self.name}.json").read_text(encoding="utf-8"))
        return result

    def is_measured(self, folder: Path = RESULTS) -> bool:
        """Whether there is a result."""
        return (folder / f"{self.name}.json").is_file()

    def unmeasured_page(self) -> str:
        """The page of a study that has not been run since it was written."""
        return f"# {self.name}\n\n{self.shows} **Not measured yet**: `python -m benchmarks {self.name}` does.\n"

    def page(self, result: Result) -> str:
        """The page of a result, with where it comes from at its end."""
        text: str = self.load().page(result)
        return f"{_wrapped(text)}\n\n{_origin(self.name, result)}\n"

    def measure(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Measure, and write the result to a folder."""
        if "data" in options and not options["data"].is_dir():
            raise click.UsageError(f"{options['data']} is not there; say with --data where ChestX-ray14 is")
        module = self.load()
        origin = _provenance(module.PACKAGES)
        result = {**origin, **module.measure.callback(**options)}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2) + "\n"
        (folder / f"{self.name}.json").write_text(text, encoding="utf-8")

    def write_page(self, results: Path, pages: Path) -> None:
        """Make page and picture from the result in a folder."""
        pages.mkdir(parents=True, exist_ok=True)
        if not self.is_measured(results):
            (pages / f"{self.name}.md").write_text(self.unmeasured_page(), encoding="utf-8")
            return
        result = self.result(results)
        (pages / f"{self.name}.md").write_text(self.page(result), encoding="utf-8")
        if draw := getattr(self.load(), "draw", None):
            draw(result, pages / f"{self.name}.png")

    def problems(self, result: Result) -> list[str]:
        """What is not as it should be, a sentence each."""
        check = getattr(self.load(), "problems", None)
        return list(check(result)) if check else []


def _provenance(packages: tuple[str, ...]) -> Result:
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


def _origin(name: str, result: Result) -> str:
    lines = [f"Made by `python -m benchmarks {name}` on {result['date']} at commit {result['commit']}."]
    lines += ["", f"- Machine: {result['machine']}"]
    if used := result["versions"]:
        lines.append(f"- Versions: {', '.join(f'{package} {version}' for package, version in used.items())}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """Markdown with its paragraphs and list items filled to lines of one width; tables and the like as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith(("|", "#", "!", "```")):
            blocks.append(block)
            continue
        parts = re.split(r"\n(?=- )", block)
        blocks.append(
            "\n".join(
                textwrap.fill(
                    " ".join(part.split()),
                    LINE_LENGTH,
                    subsequent_indent="  " if part.startswith("- ") else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for part in parts
            )
        )
    return "\n\n".join(block for block in blocks if block)
