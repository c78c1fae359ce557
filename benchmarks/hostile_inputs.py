"""What becomes of hostile and odd files: each is one row of a table, whatever the file does to its decoder."""

import tempfile
from pathlib import Path

import click
from cheap_engine import cheap_bundle

from benchmarks.study import Result
from benchmarks.tools.hostile_files import CASES, SCORED
from benchmarks.tools.privileges import drop_privileges
from cxr_trt.images.decoders import Limits
from cxr_trt.images.files import Source
from cxr_trt.markdown import markdown_table
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files
from cxr_trt.tables.rows import Row

PACKAGES = ("opencv-python-headless", "pydicom", "imagecodecs", "pillow")
LIMITS = Limits(memory=512 << 20, seconds=30)
TEXT = """\
# Hostile inputs

**{headline}**

All were scored in one run, by decoders with {memory} MiB of memory and {seconds:g} s for each file.

{rows}
"""


@click.command()
def measure() -> Result:
    """Make every file and score them all in one run."""
    drop_privileges()
    with tempfile.TemporaryDirectory() as name:
        bundle = cheap_bundle(Path(name) / "cheap.cxr")
        (Path(name) / "files").mkdir()
        found = {title: _outcome(row) for title, row in _outcomes(Path(name) / "files", bundle).items()}
    return {"memory_mib": LIMITS.memory >> 20, "seconds": LIMITS.seconds, "outcomes": found}


def _outcomes(workplace: Path, bundle: Path) -> dict[str, Row]:
    """Make every case in a folder of its own and score them all in one run."""
    sources = []
    for number, (title, (name, make, _)) in enumerate(CASES.items()):
        path = workplace / str(number) / name
        path.parent.mkdir()
        sources.append(Source(make(path) or path, title))
    with Engine(bundle) as engine:
        return {result.row.path: result.row for result in score_files(engine, sources, limits=LIMITS, workers=2)}


def _outcome(row: Row) -> str:
    """In words."""
    if row.error:
        return f"error row: {row.error}"
    return "; ".join([f"{SCORED}, {row.width} x {row.height}", *row.warnings])


def problems(result: Result) -> list[str]:
    """Files of which something else became than expected."""
    outcomes: dict[str, str] = result["outcomes"]
    return [
        f"{title}: {outcomes[title]!r} does not hold {expected!r}"
        for title, (_, _, expected) in CASES.items()
        if expected not in outcomes[title]
    ]


def page(result: Result) -> str:
    """The page of a result."""
    outcomes: dict[str, str] = result["outcomes"]
    scored = sum(outcome.startswith(SCORED) for outcome in outcomes.values())
    return TEXT.format(
        headline=f"Each of {len(outcomes)} hostile or odd files became one row: {scored} were scored, "
        f"{len(outcomes) - scored} are error rows that say why. None ended the run.",
        memory=result["memory_mib"],
        seconds=result["seconds"],
        rows=markdown_table(("file", "outcome"), list(outcomes.items())),
    )
