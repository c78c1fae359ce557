"""The AUC of int8 engines that keep the features of dense blocks in int8, beside float32 and int8 without that.

The network is `paper`, on a CPU, with float32 around what is int8. Its float32 is not held against PyTorch here: the
study `parity` does that.
"""

from functools import partial
from pathlib import Path

import click

from benchmarks.parity import COLUMNS, MIN_POSITIVES, compare_engines, comparison_cells, parity_options
from benchmarks.parity_cpu import ALLOWED, CALIBRATION_IMAGES, file_name, int8_plan
from benchmarks.study import PAPER_MODEL, Result
from benchmarks.tools.profiled_engines import Float32Around, Int8Features
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.openvino import OpenVinoBackend
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table
from cxr_trt.precision.plan import FLOAT32
from cxr_trt.score.engine import Engine

PACKAGES = ("openvino", "onnxruntime")
REFERENCE = "fp32"
IN_FLOAT, IN_INT8 = "int8, features in float32", "int8, features in int8"
TEXT = """\
# AUC of int8 with features in int8

**{headline}**

{images} test images of a subset of ChestX-ray14, ten crops, with the shipped network `paper`, whose AUC says
nothing about the method. All engines are OpenVINO's, with float32 in the layers that are not int8; int8 is calibrated
once, on {calibration} X-rays of other patients. How far float32 is from PyTorch: [the parity study](parity.md).

{table}

- **features**: what the dense blocks join, and each of their layers reads; in int8 with a scale per channel.
  `build-engine` keeps them so for ten crops, on processors without bfloat16: [what that
  saves](cpu-limits.md#what-is-kept).
- **less float32's**: the difference of the mean AUC, paired, with its interval over resampled patients.
- **largest per finding**: the largest difference in the AUC of a finding with more than {positives} positives.
- **largest of a probability**: the largest difference over all images and findings.
"""


@click.command()
@parity_options("parity-features")
def measure(data: Path, folder: Path, images: int | None) -> Result:
    """Score the test images with every engine, and compare."""
    graph = ScoringGraph.load(PAPER_MODEL)

    def opened(name: str, backend: OpenVinoBackend) -> Engine:
        target = folder / f"{file_name(name)}.cxr"
        if not target.exists():
            build_bundle(
                BuildRequest(graph, backend, FLOAT32 if name == REFERENCE else int8_plan(graph, folder, data)), target
            )
        return Engine(target)

    forms = {REFERENCE: OpenVinoBackend(), IN_FLOAT: Float32Around(), IN_INT8: Int8Features()}
    engines = {name: partial(opened, name, backend) for name, backend in forms.items()}
    return {
        "calibration_images": CALIBRATION_IMAGES,
        **compare_engines(engines, folder, data, images, REFERENCE),
    }


def problems(result: Result) -> list[str]:
    """The engines whose mean AUC differs by more than is allowed."""
    differences = {name: own["auc"]["mean"]["difference"] for name, own in result["engines"].items()}
    return [
        f"{name}: the mean AUC differs from float32's by {difference:+.5f}, more than {ALLOWED['int8']}"
        for name, difference in differences.items()
        if abs(difference) > ALLOWED["int8"]
    ]


def page(result: Result) -> str:
    """The page of a result."""
    engines = result["engines"]
    told = [f"{own['auc']['mean']['difference']:+.5f} in {name}" for name, own in engines.items() if name != REFERENCE]
    return TEXT.format(
        headline=f"The mean AUC less float32's: {'; '.join(told)}.",
        images=result["images"],
        calibration=result["calibration_images"],
        positives=MIN_POSITIVES,
        table=markdown_table(
            (*COLUMNS[:2], "less float32's", *COLUMNS[3:]), [comparison_cells(*item) for item in engines.items()]
        ),
    )
