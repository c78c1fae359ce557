"""What a run of `cxr-trt score` comes to when something happens to it.

Every case is a real process on real files, with an engine that costs nothing. Whatever happened, the same command again
must end with the rows and heat maps of a run to which nothing happened; an assertion stops the study otherwise.
"""

import random
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import click

from benchmarks.study import Result
from benchmarks.tools.faults import FAULTS, why_not
from benchmarks.tools.interrupted_runs import BROKEN, Place
from benchmarks.tools.privileges import drop_privileges
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

PACKAGES = ("onnxruntime", "opencv-python-headless")
TEXT = """\
# Faults

**{headline}** No row was lost, none was there twice, and no other file was left behind.

Runs of `cxr-trt score` over {files} files, one of them broken, with heat maps and an engine that costs nothing. After
each case the same command was given again, and ended with the rows and heat maps of a run to which nothing had
happened. Such a run exits with 1, because of the broken file. Random seed: {seed}.

{rows}
"""


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FAULTS)), help="For a trial: these faults alone.")
@click.option("--share", type=float, default=1.0, help="Of the cases of a full run.")
@click.option("--files", type=click.IntRange(BROKEN + 10), default=60, help="In each run.")
@click.option("--seed", type=int, default=0, help="For the choice of moments and files.")
def measure(only: tuple[str, ...], share: float, files: int, seed: int) -> Result:
    """Let every fault happen, and give the same command again."""
    drop_privileges()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process, and its children, would ignore it
    workers = processors()
    places: SimpleQueue[Place] = SimpleQueue()

    def run(fault: str) -> Result:
        study, cases = FAULTS[fault]
        if reason := why_not(fault):
            return {"cases": 0, "exit_codes": {}, "message": f"not run: {reason}"}
        place = places.get()
        try:
            outcome = study(place, random.Random(f"{seed} {fault}"), max(1, round(cases * share)))
        finally:
            places.put(place)
        click.echo(f"{fault}: {outcome.cases} cases", err=True)
        return {
            "cases": outcome.cases,
            "exit_codes": {str(code): number for code, number in sorted(outcome.codes.items())},
            "message": outcome.message.replace(str(place.folder), "..."),
        }

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            places.put(Place(Path(name, str(number)), files))
        chosen = only or tuple(FAULTS)
        found = dict(zip(chosen, pool.map(run, chosen), strict=True))
    return {"files": files, "seed": seed, "faults": found}


def page(result: Result) -> str:
    """The page of a result."""
    faults: dict[str, Result] = result["faults"]
    rows = [
        (
            fault,
            str(own["cases"]),
            ", ".join(f"{code}: {number}" for code, number in own["exit_codes"].items()) or "-",
            own["message"],
        )
        for fault, own in faults.items()
    ]
    cases = sum(own["cases"] for own in faults.values())
    return TEXT.format(
        headline=f"All of {cases} runs to which something happened came to the right end when they were started again.",
        files=result["files"],
        seed=result["seed"],
        rows=markdown_table(("fault", "cases", "exit codes and how often", "a message"), rows),
    )
