"""How long newcomers wait: the commands of the guides one after the other, each from its start to its end.

`tests/docs/test_walks.py` walks the same ways on small inputs.
"""

import gzip
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.study import PAPER_MODEL, ROOT, Result, cxr14_option
from benchmarks.tools.networks import load_network
from cxr_trt.images.files import find_files
from cxr_trt.markdown import markdown_table

PACKAGES = ("openvino", "onnxruntime", "torch")
LAPTOP, NUMBERS, CHECKPOINTS = (f"docs/guide/{name}.md" for name in ("laptop", "reading-the-numbers", "checkpoints"))
INSTALL = "pip install ."
SCORE = "cxr-trt score xrays/ -e edge.cxr -o scores.csv --heatmaps heatmaps/ --raw-maps"


class Step(NamedTuple):
    """A command, what it is for, and the page that has it."""

    what: str
    command: str
    page: str


WALKS = {
    "with a laptop and a folder of X-rays": (
        Step("clone and install", INSTALL, LAPTOP),
        Step("see what is installed", "cxr-trt doctor", LAPTOP),
        Step("build an engine of the shipped network", "cxr-trt build-engine edge -o edge.cxr", LAPTOP),
        Step("score the folder, with heat maps", SCORE, LAPTOP),
        Step(
            "make the report",
            "cxr-trt report scores.csv -o report.html --images xrays/ --heatmaps heatmaps/",
            LAPTOP,
        ),
        Step("the same folder once more", SCORE, LAPTOP),
    ),
    "with NIH's test set": (
        Step(
            "score the files of NIH's list",
            "cxr-trt score images/ --files-from test_list.txt --engine mine.cxr -o nih.parquet",
            NUMBERS,
        ),
        Step("evaluate with NIH's labels", "cxr-trt evaluate nih.parquet Data_Entry_2017_v2020.csv", NUMBERS),
        Step(
            "make the report with these labels",
            "cxr-trt report nih.parquet -o nih.html --images images/ --labels Data_Entry_2017_v2020.csv",
            NUMBERS,
        ),
    ),
    "with a checkpoint": (
        Step("export it", "cxr-trt export run/best.safetensors -o model.onnx", CHECKPOINTS),
        Step("build an engine", "cxr-trt build-engine run/best.safetensors -o mine.cxr", "README.md"),
        Step("score the folder", "cxr-trt score xrays/ -e mine.cxr -o mine.parquet", "README.md"),
        Step(
            "compare checkpoint and engine",
            "cxr-trt compare run/best.safetensors mine.cxr test-images/ --labels labels.csv",
            CHECKPOINTS,
        ),
    ),
}
"""The commands that each newcomer gives, in order."""

FIRST_RESULT = 5  # commands of the first walk that end with its report

TEXT = """\
# From the first command to the result

**{first_walk}: {first:.0f} s from the clone to the report of {files} X-rays, with the shipped network.** Below is what
three newcomers type, with the time of each command and its longest silence: how long it said nothing. All commands
stand in the guides. The first includes cloning from a local disk and making the environment; how long that takes
depends on where pip gets the packages from, here a mirror in the same network.

{walks}

X-rays: {files} of ChestX-ray14 in `xrays/` and in `images/`, {compared} of them in `test-images/`. The checkpoint has
the shipped network's weights. One round.
"""


@click.command()
@cxr14_option
@click.option("--files", type=click.IntRange(4), default=20, help="X-rays in each folder.")
@click.option("--only", multiple=True, type=click.Choice(list(WALKS)), help="These walks alone.")
def measure(data: Path, files: int, only: tuple[str, ...]) -> Result:
    """Walk each way once, in a folder of its own."""
    walks = {}
    with tempfile.TemporaryDirectory() as name:
        engine = Path(name, "edge.cxr")
        for number, walk in enumerate(only or WALKS):
            folder = Path(name, str(number))
            prepare(folder, data, files, None if any("-o mine.cxr" in step.command for step in WALKS[walk]) else engine)
            python = folder / "cxr-trt" / ".venv" / "bin" / "python" if WALKS[walk][0].command == INSTALL else None
            walks[walk] = [timed(step.command, folder, python or sys.executable) for step in WALKS[walk]]
            if (folder / "edge.cxr").exists() and not engine.exists():
                shutil.copytree(folder / "edge.cxr", engine)
    return {"files": files, "compared": compared(files), "walks": walks}


def compared(files: int) -> int:
    """How many X-rays checkpoint and engine are compared on: PyTorch takes longer."""
    return max(2, files // 4)


def prepare(folder: Path, data: Path, files: int, engine: Path | None) -> None:
    """Make what the commands are given; `mine.cxr` is a copy of an engine that was built before."""
    from cxr_trt.model.checkpoint import save_checkpoint

    wanted = set((data / "metadata" / "test_list.txt").read_text(encoding="utf-8").split())
    stems = {Path(name).stem for name in wanted}
    sources = [source.path for source in find_files(data / "images").sources if source.path.stem in stems][:files]
    for name, count in (("xrays", files), ("images", files), ("test-images", compared(files))):
        (folder / name).mkdir(parents=True)
        for source in sources[:count]:
            shutil.copy(source, folder / name)
    shutil.copy(data / "metadata" / "test_list.txt", folder)
    shutil.copy(data / "labels.csv", folder)
    with gzip.open(data / "metadata" / "Data_Entry_2017_v2020.csv.gz") as packed:
        (folder / "Data_Entry_2017_v2020.csv").write_bytes(packed.read())
    (folder / "run").mkdir()
    save_checkpoint(load_network(PAPER_MODEL), folder / "run" / "best.safetensors", weights="demonstration")
    if engine and engine.exists():
        shutil.copytree(engine, folder / "mine.cxr")


def timed(
    command: str, folder: Path, python: str | Path = sys.executable, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of a command, and its longest silence. Raises ClickException if it fails.

    INSTALL begins with a clone and its environment, in which `python` then lies.
    """
    arguments = [str(python), "-m", "cxr_trt", *shlex.split(command)[1:]]
    if command == INSTALL:
        clone = f"git clone --quiet {shlex.quote(str(ROOT))} cxr-trt && cd cxr-trt"
        arguments = ["bash", "-ec", f"{clone}; {sys.executable} -m venv .venv; . .venv/bin/activate; {command}"]
    started = heard = clock()
    silence, said = 0.0, b""
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now = clock()
            silence, heard, said = max(silence, now - heard), now, said + line
    ended = clock()
    if process.returncode:
        raise click.ClickException(f"{command}: {said.decode(errors='replace')[-2000:]}")
    return {"seconds": round(ended - started, 2), "silence": round(max(silence, ended - heard), 2)}


def page(result: Result) -> str:
    """The page of a result."""
    walks: dict[str, list[dict[str, float]]] = result["walks"]
    sections = []
    for walk, measured in walks.items():
        rows = [
            (step.what, f"`{step.command}`", f"{own['seconds']:.1f}", f"{own['silence']:.1f}")
            for step, own in zip(WALKS[walk], measured, strict=True)
        ]
        total = sum(own["seconds"] for own in measured)
        table = markdown_table(("", "command", "seconds", "longest silence"), [*rows, ("all", "", f"{total:.1f}", "")])
        sections.append(f"## {walk[0].upper()}{walk[1:]}\n\n{table}")
    first_walk, first = next(iter(walks.items()))
    return TEXT.format(
        first_walk=f"{first_walk[0].upper()}{first_walk[1:]}",
        first=sum(own["seconds"] for own in first[:FIRST_RESULT]),
        files=result["files"],
        compared=result["compared"],
        walks="\n\n".join(sections),
    )
