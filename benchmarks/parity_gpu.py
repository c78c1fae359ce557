"""The AUC of the graphs that TensorRT is given, computed on a GPU in their own types, against PyTorch on that GPU.

    python -m benchmarks.parity_gpu DATA PLAN...     writes benchmarks/results/parity-gpu.json and docs/parity-gpu.md

ONNX Runtime's CUDA provider takes TensorRT's place (`pip install onnxruntime-gpu`): float16 is the GPU's own, int8 is
what it makes of Q/DQ nodes. DATA is as for `benchmarks.parity`; each PLAN is the precision.json of a bundle.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.contestants import load_network
from benchmarks.parity import MANY, MODEL, row
from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.tables.reading import read_labels
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision.plan import FLOAT32, Plan
from cxr_trt.model.scorer import Scorer
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import Source, find_files
from train.data import read_data
from train.split import write_split

PACKAGES = ("torch", "onnxruntime-gpu")
PROVIDER = "CUDAExecutionProvider"
BATCH = 8
TEXT = """\
{images} test images of a subset of ChestX-ray14, ten crops, the shipped demonstration model, whose AUC says nothing of
the method, on an {gpu}. Differences to PyTorch in float32 on the same GPU are paired; intervals are
over resampled patients. `largest of a finding`: of those with over {many} positives.

These are the graphs that TensorRT is given, in their own types, but **ONNX Runtime's CUDA provider computed them, not
TensorRT**, which could not be installed on that machine. `ms`: median milliseconds an X-ray in batches of {batch}, from
pictures in the host's memory to probabilities there; without CUDA graphs, plugin, or anything else of TensorRT's.

"""

Run = Callable[[np.ndarray], np.ndarray]


def on_pytorch() -> Run:
    """The shipped network in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _, info = read_scoring_graph(MODEL)
    scorer = Scorer(load_network(MODEL), info.spec).cuda()
    return lambda images: scorer(torch.from_numpy(images).cuda())[0].cpu().numpy()


def on_onnxruntime(plan: Plan) -> Run:
    """The graph that TensorRT is given in a plan's precision."""
    model, info = read_scoring_graph(MODEL)
    graph = plan.graph(model, info, share_crops=False, half=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=[(PROVIDER, {"use_tf32": 0})])
    if session.get_providers()[0] != PROVIDER:
        raise SystemExit("ONNX Runtime did not take its CUDA provider; see above")
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def pictures(sources: list[Source]) -> np.ndarray:
    """All images as the engines take them, uint8 [N, 1, size, size]."""
    _, info = read_scoring_graph(MODEL)
    with Decoders(8, info.spec.image_size, Limits(), info.spec.fit) as decoders:
        answers = [answer for _, answer in decoders.map((Request(source) for source in sources), 64)]
    return np.stack([answer.image for answer in answers])[:, None]


def measure(run: Run, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities [N, 14], and the median seconds an X-ray of the full batches."""
    run(images[:BATCH])
    run(images[: len(images) % BATCH or BATCH])  # the last batch's size is new as well
    results, seconds = [], []
    for i in range(0, len(images), BATCH):
        batch = images[i : i + BATCH]
        start = time.perf_counter()
        results.append(run(batch))
        if len(batch) == BATCH:
            seconds.append((time.perf_counter() - start) / BATCH)
    return np.concatenate(results), statistics.median(seconds)


def main() -> None:
    """Score, compare with PyTorch, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with images/ and labels.csv, as CXR14_DIR")
    parser.add_argument("plans", type=Path, nargs="+", help="precision.json of a bundle in float16 or int8")
    arguments = parser.parse_args()
    plans = [FLOAT32, *(Plan.from_json(path.read_text(encoding="utf-8")) for path in arguments.plans)]
    with tempfile.TemporaryDirectory() as name:
        test = Path(name, "test")
        write_split(read_data(arguments.data / "labels.csv", None), "test", arguments.data / "images", test)
        sources = list(find_files([test / "images"]).sources)
        labels = read_labels(test / "labels.csv")
        images = pictures(sources)
    runs = {"pytorch fp32": on_pytorch()}
    runs |= {f"onnxruntime {plan.precision}": on_onnxruntime(plan) for plan in plans}
    found = {name: measure(run, images) for name, run in runs.items()}
    reference, _ = found["pytorch fp32"]
    rows = {
        name: {**row(reference, values, sources, labels), "seconds_an_xray": seconds}
        for name, (values, seconds) in found.items()
    }
    result = {**provenance(PACKAGES), "gpu": torch.cuda.get_device_name(), "images": len(sources), "engines": rows}
    write(result, ROOT / "benchmarks/results/parity-gpu.json", to_markdown(result), ROOT / "docs" / "parity-gpu.md")


def to_markdown(result: dict[str, Any]) -> str:
    """The page of a result."""
    cells = []
    for name, values in result["engines"].items():
        mean, largest = values["auc"]["mean"], values["auc"]["largest"]
        interval = f"{mean['low']:+.5f} to {mean['high']:+.5f}"
        finding = f"{largest['difference']:.5f} ({largest['finding']})"
        probability = f"{values['largest_difference_of_a_probability']:.1e}"
        milliseconds = f"{1000 * values['seconds_an_xray']:.2f}"
        cells.append(
            (name, f"{mean['b']:.4f}", f"{mean['difference']:+.5f}", interval, finding, probability, milliseconds)
        )
    columns = ("graph", "mean AUC", "less PyTorch's", "95 % interval", "largest of a finding", "of a probability", "ms")
    text = TEXT.format(images=result["images"], gpu=result["gpu"], many=MANY, batch=BATCH)
    page = f"# AUC of each precision on a GPU\n\n{text}{table(columns, cells)}\n"
    return page + made_by("python -m benchmarks.parity_gpu", result)


if __name__ == "__main__":
    main()
