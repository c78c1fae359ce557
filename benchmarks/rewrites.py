"""Seconds an X-ray of the CPU backends, and what each exact rewrite of the graph gives; on the shipped model.

    make bench-rewrites      writes benchmarks/results/rewrites.json

All engines score the same picture in turn, in one process, so that what else the machine does hits all alike.
"""

import json
import statistics
from dataclasses import replace

from benchmarks.result import ROOT, provenance
from cxr_trt.engine.choice import measure
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.export.rewrites import NONE, Rewrites, read_network
from cxr_trt.export.graph_building import build_graph

RESULT = ROOT / "benchmarks" / "results" / "rewrites.json"
NAMES = ("onnxruntime", "openvino")
ROUNDS = 7
REWRITES = {
    "none": NONE,
    "average_maps": replace(NONE, average_maps=True),
    "fold_norms": replace(NONE, fold_norms=True),
    "pool_first": replace(NONE, pool_first=True),
    "all but share_crops": Rewrites(share_crops=False),
    "all": Rewrites(),
}


def main() -> None:
    """Measure, print and write the result."""
    made = provenance(NAMES)
    model, info = read_scoring_graph(ROOT / "cxr_trt" / "models" / "demo.onnx")
    weights, settings = read_network(model, info)
    engines = {
        (name, label): (
            BACKENDS[name],
            build_graph(weights, settings, info.spec, {}, class_maps=True, rewrites=chosen),
        )
        for name in NAMES
        for label, chosen in REWRITES.items()
    }
    seconds = measure(engines, info.spec, ROUNDS)
    result = {
        **made,
        "rounds": ROUNDS,
        "ten crops, seconds an X-ray": {
            name: {label: _summary(seconds[name, label], seconds[name, "none"]) for label in REWRITES} for name in NAMES
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text(), end="")


def _summary(values: list[float], plain: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "times faster than none": round(statistics.median(b / a for a, b in zip(values, plain, strict=True)), 3),
    }


if __name__ == "__main__":
    main()
