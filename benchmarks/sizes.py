"""Megabytes of an engine of the shipped model by precision, for those backends that can build here.

    make sizes     writes benchmarks/results/sizes.json

In int8 every dense layer and transition is quantized; a calibration may leave some out, each of which adds a little.
"""

import json
import tempfile
from pathlib import Path

import click

from benchmarks.result import ROOT, provenance
from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.plan import FLOAT32, Plan

MODEL = ROOT / "cxr_trt" / "models" / "demo.onnx"
RESULT = ROOT / "benchmarks" / "results" / "sizes.json"
MAX_BATCH = 8


def main() -> None:
    """Build, weigh and write."""
    model, info = read_scoring_graph(MODEL)
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and ("block" in node.name or "transition" in node.name)
    ]
    calibration = Int8Calibration("", 0, "", 0, "max", dict.fromkeys(layers, 1.0), {})
    plans = (FLOAT32, Plan("fp16"), Plan("int8", calibration=calibration))
    sizes: dict[str, dict[str, float]] = {}
    for name, backend in BACKENDS.items():
        if backend.why_not_build():
            continue
        for plan in plans:
            if plan.precision not in backend.precisions or (backend.on_cpu and plan.precision == "fp16"):
                continue  # on a CPU float16 is stored as float32
            graph = plan.graph(model, info, share_crops=backend.share_crops, half=not backend.on_cpu)
            with tempfile.TemporaryDirectory() as folder:
                backend.build(graph, Path(folder), BuildOptions(MAX_BATCH))
                size = sum(path.stat().st_size for path in Path(folder).iterdir())
            sizes.setdefault(name, {})[plan.precision] = round(size / 1e6, 1)
    result = {
        **provenance(("openvino", "onnxruntime", "tensorrt-rtx")),
        "views": info.spec.views,
        "max_batch": MAX_BATCH,
        "megabytes": {"scoring graph": round(model.ByteSize() / 1e6, 1), "as shipped": MODEL.stat().st_size / 1e6}
        | sizes,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(json.dumps(result["megabytes"], indent=2))


if __name__ == "__main__":
    main()
