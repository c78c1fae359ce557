"""The AUC of the graphs that TensorRT is given, computed on a GPU in their own types, beside PyTorch's on that GPU.

ONNX Runtime's CUDA provider takes TensorRT's place (`pip install onnxruntime-gpu`): float16 is the GPU's own, int8 is
what it makes of Q/DQ nodes.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from benchmarks.parity import COLUMNS, MIN_POSITIVES, REFERENCE, compare_with_reference, comparison_cells, headline
from benchmarks.study import PAPER_MODEL, Result, cxr14_option
from benchmarks.tools.networks import load_network
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.files import find_files
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.model.scorer import Scorer
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan
from cxr_trt.tables.labels import read_labels
from train.data import read_data
from train.split import write_split

PACKAGES = ("torch", "onnxruntime-gpu")
PROVIDER = "CUDAExecutionProvider"
BATCH = 8
TEXT = """\
# AUC of each precision on a GPU

**{headline}**

These are the graphs that TensorRT is given, in their own types, but **ONNX Runtime's CUDA provider computed them, not
TensorRT**, which could not be installed on that machine.

{images} test images of a subset of ChestX-ray14, ten crops, with the shipped network `paper`, whose AUC says
nothing about the method, on an {gpu}.

{table}

- **less PyTorch's**: the difference of the mean AUC from PyTorch in float32 on the same GPU, paired, with its interval
  over resampled patients.
- **largest per finding**: the largest difference in the AUC of a finding with more than {positives} positives.
- **ms per X-ray**: the median in batches of {batch}, from pictures in the host's memory to probabilities there; without
  CUDA graphs, the plugin, or anything else of TensorRT's.
"""

Images = npt.NDArray[np.uint8]
Run = Callable[[Images], Floats]


@click.command()
@cxr14_option
@click.option(
    "--plan",
    "plans",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="precision.json of a bundle in float16 or int8; may be given several times.",
)
def measure(data: Path, plans: tuple[Path, ...]) -> Result:
    """Score the test images on the GPU with PyTorch, and with ONNX Runtime in each precision."""
    chosen = [FLOAT32, *(PrecisionPlan.from_json(path.read_text(encoding="utf-8")) for path in plans)]
    graph = ScoringGraph.load(PAPER_MODEL)
    with tempfile.TemporaryDirectory() as name:
        test = Path(name, "test")
        write_split(read_data(data / "labels.csv", None), "test", data / "images", test)
        sources = list(find_files([test / "images"]).sources)
        labels = read_labels(test / "labels.csv", FINDINGS)
        images = load_images([source.path for source in sources], graph.spec.image_size, graph.spec.fit)
    runs = {REFERENCE: _on_pytorch(graph)}
    runs |= {f"onnxruntime {plan.precision}": _on_onnxruntime(graph, plan) for plan in chosen}
    found = {name: _score(run, images) for name, run in runs.items()}
    reference, _ = found[REFERENCE]
    rows = {
        name: {**compare_with_reference(reference, values, sources, labels), "seconds_per_xray": seconds}
        for name, (values, seconds) in found.items()
    }
    return {"gpu": torch.cuda.get_device_name(), "images": len(sources), "engines": rows}


def _on_pytorch(graph: ScoringGraph) -> Run:
    """The shipped network in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    scorer = Scorer(load_network(PAPER_MODEL), graph.spec).cuda()

    def run(images: Images) -> Floats:
        probabilities: Floats = scorer(torch.from_numpy(images).cuda())[0].cpu().numpy()
        return probabilities

    return run


def _on_onnxruntime(graph: ScoringGraph, plan: PrecisionPlan) -> Run:
    """The graph that TensorRT is given in a plan's precision."""
    model = plan.engine_graph(graph, BACKENDS["tensorrt"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[(PROVIDER, {"use_tf32": 0})])
    if session.get_providers()[0] != PROVIDER:  # it falls back to the CPU without an error
        raise click.ClickException("ONNX Runtime did not take its CUDA provider; see above")

    def run(images: Images) -> Floats:
        probabilities: Floats = session.run(["probabilities"], {"images": images})[0]
        return probabilities

    return run


def _score(run: Run, images: Images) -> tuple[Floats, float]:
    """Probabilities [N, 14], and the median seconds per X-ray of the full batches."""
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


def page(result: Result) -> str:
    """The page of a result."""
    rows = [
        (*comparison_cells(name, values), f"{1000 * values['seconds_per_xray']:.2f}")
        for name, values in result["engines"].items()
    ]
    return TEXT.format(
        headline=headline(result["engines"]),
        images=result["images"],
        gpu=result["gpu"],
        positives=MIN_POSITIVES,
        batch=BATCH,
        table=markdown_table((*COLUMNS, "ms per X-ray"), rows),
    )
