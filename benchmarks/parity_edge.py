"""The AUC of fp32, fp16 and int8 on the CPU backends with the shipped network `edge`, beside its float32.

Its float32 is not held against PyTorch here: every export is, before it is written.
"""

from pathlib import Path

import click

from benchmarks.parity import (
    COLUMNS,
    MIN_POSITIVES,
    compare_engines,
    comparison_cells,
    cpu_engines,
    headline,
    parity_options,
)
from benchmarks.study import Result
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table

PACKAGES = ("onnxruntime", "openvino")
REFERENCE = "onnxruntime fp32"
TEXT = """\
# AUC of each precision, with the network edge

**{headline}**

{images} test images of a subset of ChestX-ray14, ten crops, with the shipped network `edge`, a demonstration. int8 is
calibrated by the largest magnitudes (`max`) on 256 training images of other patients. float16 is ONNX Runtime's float32
with every result rounded: what a GPU's float16 does to the scores, if its convolutions sum in float32.

{table}

- **less float32's**: the difference of the mean AUC from that of ONNX Runtime's float32, paired, with its interval over
  resampled patients.
- **largest per finding**: the largest difference in the AUC of a finding with more than {positives} positives.
- **largest of a probability**: the largest difference over all images and findings.
"""


@click.command()
@parity_options("parity-edge")
def measure(data: Path, folder: Path, images: int | None) -> Result:
    """Score the test images with every engine, and compare."""
    engines = cpu_engines(ScoringGraph.load(SHIPPED["edge"]), folder, data, ["max"])
    return compare_engines(engines, folder, data, images, REFERENCE)


def page(result: Result) -> str:
    """The page of a result."""
    engines = result["engines"]
    others = {name: values for name, values in engines.items() if name != REFERENCE}
    columns = (*COLUMNS[:2], "less float32's", *COLUMNS[3:])
    return TEXT.format(
        headline=headline(others, "that of ONNX Runtime's float32"),
        images=result["images"],
        positives=MIN_POSITIVES,
        table=markdown_table(columns, [comparison_cells(*item) for item in engines.items()]),
    )
