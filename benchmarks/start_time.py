"""How long a user waits for one X-ray, and for the help: medians of fresh processes, and of the inference alone."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.study import ROOT, Result
from benchmarks.tools.one_xray import PARTS
from benchmarks.tools.pictures import radiograph_file
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors
from cxr_trt.score.engine import Engine
from cxr_trt.words import quantity

AIMED_AT = 1.2  # seconds
PACKAGES = ("openvino", "onnxruntime")
TEXT = """\
# How long one X-ray takes

**Scoring a single X-ray takes {edge} s besides the inference with edge, which takes {edge_inference} s, and {paper} s
with paper, which takes {paper_inference} s.**

Medians of {rounds} fresh processes in turn, in seconds. `cxr-trt --help` takes {help:.2f} s.

{table}

- **command**: `cxr-trt score` on one X-ray (DICOM), from command to table.
- **inference**: in it, ten crops in float32.
- **rest**: starting Python, checking and opening the engine, reading the file; the median of the differences.

## Where the time goes

{parts}

Medians of as many processes that do one after the other what the command does in part at the same time: there, the
decoder starts while the engine is opened. On {processors} that both keep busy, this saves less than the shorter of the
two. The first inference is slower than those after it, above, because the backend still allocates its memory.

{verdict} Decoders start before what opens the engine is imported, and while it is opened; OpenVINO's engines are
compiled once and then kept; what a run may not need, such as pyarrow, is imported where it is needed. What is left is
mostly importing: `importing the command` above, and some of the same libraries once more in the decoder, which is a
process of its own so that a damaged file costs one row and no run.
"""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=9, help="Processes of each kind.")
def measure(rounds: int) -> Result:
    """Time commands from their start to their end, and the inference alone."""
    times: dict[str, list[float]] = {"help": []}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        engines, pictures = {}, {}
        for name in SHIPPED:
            _seconds("build-engine", name, "-o", folder / f"{name}.cxr")
            engines[name] = opened.enter_context(Engine(folder / f"{name}.cxr"))
            pixels = decode(radiograph_file().read_bytes()).pixels
            pictures[name] = preprocess(pixels, engines[name].spec.image_size)[None]
            engines[name].run(pictures[name])  # the first run of an engine is slower, which a user's one X-ray pays for
        for _ in range(rounds):
            times["help"].append(_seconds("--help"))
            for name, engine in engines.items():
                command = ("score", radiograph_file(), "-e", folder / f"{name}.cxr", "-o", folder / "scores.csv")
                times.setdefault(f"{name}, command", []).append(_seconds(*command, "--overwrite", "--fresh"))
                for part, value in zip(PARTS, _part_seconds(folder / f"{name}.cxr"), strict=True):
                    times.setdefault(f"{name}, {part}", []).append(value)
                started = time.perf_counter()
                engine.run(pictures[name])
                times.setdefault(f"{name}, inference", []).append(time.perf_counter() - started)
    for name in SHIPPED:
        pairs = zip(times[f"{name}, command"], times[f"{name}, inference"], strict=True)
        times[f"{name}, rest"] = [command - inference for command, inference in pairs]
    return {
        "rounds": rounds,
        "processors": processors(),
        "seconds": {what: statistics.median(own) for what, own in times.items()},
        "all": times,
    }


def _seconds(*arguments: object) -> float:
    """Of a command, from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "cxr_trt", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - started


def _part_seconds(bundle: Path) -> list[float]:
    """Of each of PARTS."""
    command = [sys.executable, "-m", "benchmarks.tools.one_xray", str(time.monotonic()), bundle, radiograph_file()]
    done = subprocess.run(list(map(str, command)), check=True, cwd=ROOT, capture_output=True, text=True)
    seconds: list[float] = json.loads(done.stdout)
    return seconds


def _verdict(seconds: dict[str, float]) -> str:
    """Whether what was aimed at was reached."""
    found = {name: seconds[f"{name}, rest"] for name in SHIPPED}
    judged = (
        f"{name} is within it" if own <= AIMED_AT else f"{name} is {own - AIMED_AT:.1f} s over it"
        for name, own in found.items()
    )
    return f"Aimed at were {AIMED_AT:g} s besides the inference: {', '.join(judged)}."


def page(result: Result) -> str:
    """The page of a result."""
    seconds: dict[str, float] = result["seconds"]
    parts = ("command", "inference", "rest")
    rows = [(f"`{name}`", *(f"{seconds[f'{name}, {part}']:.2f}" for part in parts)) for name in SHIPPED]
    part_rows = [(part, *(f"{seconds[f'{name}, {part}']:.2f}" for name in SHIPPED)) for part in PARTS]
    return TEXT.format(
        **{name: f"{seconds[f'{name}, rest']:.1f}" for name in SHIPPED},
        **{f"{name}_inference": f"{seconds[f'{name}, inference']:.1f}" for name in SHIPPED},
        rounds=result["rounds"],
        help=seconds["help"],
        table=markdown_table(("network", *parts), rows),
        verdict=_verdict(seconds),
        parts=markdown_table(("part", *(f"`{name}`" for name in SHIPPED)), part_rows),
        processors=quantity(result["processors"], "processor"),
    )
