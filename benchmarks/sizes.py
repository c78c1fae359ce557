"""Megabytes of an engine of each shipped network by precision, for those backends that can build here.

In int8 every layer but the first and the last is quantized. A calibration may leave some out, and each of those adds a
little.
"""

import tempfile
from pathlib import Path

import click

from benchmarks.study import Result
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.engine.backend import Backend, BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table
from cxr_trt.precision.float16 import layer_of
from cxr_trt.precision.int8 import quantizable
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan

PACKAGES = ("openvino", "onnxruntime", "tensorrt-rtx")
MAX_BATCH = 8
PRECISIONS = ("fp32", "fp16", "int8")  # bf16 engines have the files of fp32
TEXT = """\
# How large engines are

**{headline}**

Megabytes of the engine alone, for ten crops. A bundle also holds the scoring graph: {graphs}; the weights in the files
that are shipped are float16. In int8 all layers but the first and the last are int8; a layer that a calibration leaves
out adds a little.

{table}

Empty: the backend has no such engine of its own. On a CPU, float16 is computed as float32.
"""


@click.command()
def measure() -> Result:
    """Build an engine of each precision with each backend that can build here, and weigh it."""
    return {"max_batch": MAX_BATCH, "megabytes": {name: _of_network(path) for name, path in SHIPPED.items()}}


def _of_network(path: Path) -> Result:
    """Of one network, the megabytes of its graph, of its file and of its engines."""
    graph = ScoringGraph.load(path).with_views("ten-crop")
    inner = quantizable(graph.rewritten(Rewrites(share_crops=False)))[1:-1]
    calibration = Int8Calibration("", 0, "", 0, "max", {layer_of(node.name): 1.0 for node in inner}, {})
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
        "scoring graph": round(graph.model.ByteSize() / 1e6, 1),
        "as shipped": path.stat().st_size / 1e6,
        "engines": engines,
    }


def _megabytes(graph: ScoringGraph, backend: Backend, plan: PrecisionPlan) -> float:
    model = plan.engine_graph(graph, backend)
    with tempfile.TemporaryDirectory() as folder:
        backend.build(model, Path(folder), BuildOptions(MAX_BATCH))
        return round(sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, 1)


def page(result: Result) -> str:
    """The page of a result."""
    megabytes: dict[str, Result] = result["megabytes"]
    rows = [
        (
            f"`{name}`",
            f"`{backend}`",
            *(f"{sizes[precision]:.1f}" if precision in sizes else "" for precision in PRECISIONS),
        )
        for name, own in megabytes.items()
        for backend, sizes in own["engines"].items()
    ]
    largest = {
        name: {precision: max(sizes[precision] for sizes in own["engines"].values()) for precision in ("fp32", "int8")}
        for name, own in megabytes.items()
    }
    found = (f"{own['fp32']:.0f} MB in float32 and {own['int8']:.0f} MB in int8 with {n}" for n, own in largest.items())
    graphs = (
        f"{own['scoring graph']:.1f} MB with `{name}` ({own['as shipped']:.1f} MB in the file that is shipped)"
        for name, own in megabytes.items()
    )
    return TEXT.format(
        headline=f"An engine has at most {'; '.join(found)}.",
        graphs=", ".join(graphs),
        table=markdown_table(("network", "backend", *PRECISIONS), rows),
    )
