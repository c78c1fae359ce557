"""Megabytes of an engine of the paper's network by precision, for those backends that can build here.

In int8 every dense layer and transition is quantized. A calibration may leave some out, and each of those adds a
little.
"""

import tempfile
from pathlib import Path

import click

from benchmarks.study import PAPER_MODEL, Result
from cxr_trt.engine.backend import Backend, BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan

PACKAGES = ("openvino", "onnxruntime", "tensorrt-rtx")
MAX_BATCH = 8
PRECISIONS = ("fp32", "fp16", "int8")  # bf16 engines have the files of fp32
TEXT = """\
# How large engines are

**{headline}**

Megabytes of the engine alone, for ten crops of the shipped network `paper`. A bundle also holds the scoring graph,
{graph:.1f} MB ({shipped:.1f} MB in the file that is shipped, whose weights are float16). In int8 all layers that
can be are int8; a layer that a calibration leaves out adds a little.

{table}

Empty: the backend has no such engine of its own. On a CPU, float16 is computed as float32.
"""


@click.command()
def measure() -> Result:
    """Build an engine of each precision with each backend that can build here, and weigh it."""
    graph = ScoringGraph.load(PAPER_MODEL)
    layers = [
        node.name
        for node in graph.model.graph.node
        if node.op_type == "Conv" and ("block" in node.name or "transition" in node.name)
    ]
    calibration = Int8Calibration("", 0, "", 0, "max", dict.fromkeys(layers, 1.0), {})
    plans = (FLOAT32, PrecisionPlan("fp16"), PrecisionPlan("int8", calibration=calibration))
    engines = {
        name: {
            plan.precision: _megabytes(graph, backend, plan)
            for plan in plans
            if plan.precision in backend.precisions and not (backend.on_cpu and plan.precision == "fp16")
        }
        for name, backend in BACKENDS.items()
        if not backend.why_not_build()
    }
    return {
        "views": graph.spec.views,
        "max_batch": MAX_BATCH,
        "megabytes": {
            "scoring graph": round(graph.model.ByteSize() / 1e6, 1),
            "as shipped": PAPER_MODEL.stat().st_size / 1e6,
            "engines": engines,
        },
    }


def _megabytes(graph: ScoringGraph, backend: Backend, plan: PrecisionPlan) -> float:
    model = plan.engine_graph(graph, backend)
    with tempfile.TemporaryDirectory() as folder:
        backend.build(model, Path(folder), BuildOptions(MAX_BATCH))
        return round(sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, 1)


def page(result: Result) -> str:
    """The page of a result."""
    megabytes = result["megabytes"]
    engines: dict[str, dict[str, float]] = megabytes["engines"]
    rows = [
        (f"`{name}`", *(f"{own[precision]:.1f}" if precision in own else "" for precision in PRECISIONS))
        for name, own in engines.items()
    ]
    found = (f"{own['fp32']:.0f} MB in float32 and {own['int8']:.0f} MB in int8 ({n})" for n, own in engines.items())
    return TEXT.format(
        headline=f"An engine has {', '.join(found)}.",
        graph=megabytes["scoring graph"],
        shipped=megabytes["as shipped"],
        table=markdown_table(("backend", *PRECISIONS), rows),
    )
