"""The AUC of the precisions that CPUs have to themselves beside PyTorch's, with ten crops of the network `paper`.

bfloat16, and int8 in its variants: activations with a sign, as on a GPU, or without one where they are never negative;
and float32 or bfloat16 in the layers that are not int8. Calibration is on training images of other patients.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import click
import onnx

from benchmarks.parity import (
    COLUMNS,
    MIN_POSITIVES,
    REFERENCE,
    compare_engines,
    comparison_cells,
    parity_options,
    pytorch,
)
from benchmarks.study import PAPER_MODEL, Result
from benchmarks.tools.profiled_engines import Float32Around
from cxr_trt.engine.backend import ScoringEngine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.openvino import OpenVinoBackend, has_bfloat16
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table
from cxr_trt.precision.calibration_images import choose_images
from cxr_trt.precision.int8 import quantize
from cxr_trt.precision.plan import GraphForm, PrecisionPlan
from cxr_trt.precision.planning import plan_int8
from cxr_trt.progress import ignore_progress
from cxr_trt.score.engine import Engine

PACKAGES = ("torch", "openvino")
CALIBRATION_IMAGES = 256
ALLOWED = {"bf16": 0.0005, "int8": 0.003}  # by which the mean AUC may differ
TEXT = """\
# AUC of a CPU's own precisions beside PyTorch

**{headline}**

{images} test images of a subset of ChestX-ray14, ten crops, with the shipped network `paper`, whose AUC says
nothing about the method. All engines are OpenVINO's; int8 is calibrated once, on {calibration} X-rays.

{table}

- **signed, unsigned**: activations that are never negative have a sign in int8 as on a GPU, which halves their levels,
  or none. `build-engine` leaves it out for CPUs.
- **with float32, with bfloat16**: what the layers that are not int8 compute in. `build-engine` takes bfloat16 on
  processors that have it. On others it also keeps the features of dense blocks in int8, which is not part of this page:
  [what that does to the AUC](parity-features.md).
- **less PyTorch's**: the difference of the mean AUC, paired, with its interval over resampled patients.
- **largest per finding**: the largest difference in the AUC of a finding with more than {positives} positives.
- **largest of a probability**: the largest difference over all images and findings.
"""


@dataclass(frozen=True)
class _Signed(PrecisionPlan):
    """int8 whose activations all have a sign."""

    def engine_graph(self, graph: ScoringGraph, form: GraphForm, *, share_crops: bool | None = None) -> onnx.ModelProto:
        assert self.calibration
        return quantize(graph.rewritten(Rewrites()), self.calibration.thresholds)


@click.command()
@parity_options("parity-cpu")
def measure(data: Path, folder: Path, images: int | None) -> Result:
    """Score the test images with every engine, and compare."""
    if not has_bfloat16():
        raise click.ClickException("this study needs a processor with bfloat16")
    return {"calibration_images": CALIBRATION_IMAGES, **compare_engines(_engines(folder, data), folder, data, images)}


def _engines(folder: Path, data: Path) -> dict[str, Callable[[], ScoringEngine]]:
    """What is compared, each to be opened when its turn comes; bundles are built at their first turn."""
    graph = ScoringGraph.load(PAPER_MODEL)
    int8 = partial(int8_plan, graph, folder, data)

    def signed() -> PrecisionPlan:
        plan = int8()
        return _Signed(**{field.name: getattr(plan, field.name) for field in fields(plan)})

    def engine(name: str, backend: OpenVinoBackend, plan: Callable[[], PrecisionPlan]) -> Callable[[], ScoringEngine]:
        def opened() -> ScoringEngine:
            target = folder / f"{file_name(name)}.cxr"
            if not target.exists():
                build_bundle(BuildRequest(graph, backend, plan()), target)
            return Engine(target)

        return opened

    variants: dict[str, tuple[OpenVinoBackend, Callable[[], PrecisionPlan]]] = {
        "bf16": (OpenVinoBackend(), lambda: PrecisionPlan("bf16")),
        "int8, signed, with float32": (Float32Around(), signed),
        "int8, unsigned, with float32": (Float32Around(), int8),
        "int8, unsigned, with bfloat16": (OpenVinoBackend(), int8),
    }
    return {REFERENCE: partial(pytorch, folder), **{name: engine(name, *variant) for name, variant in variants.items()}}


def int8_plan(graph: ScoringGraph, folder: Path, data: Path) -> PrecisionPlan:
    """The calibration on training images of other patients than the test images', made once and kept in the folder."""
    plan_file = folder / "int8.json"
    if not plan_file.exists():
        exclude = folder / "test" / "labels.csv"
        calibration = choose_images(
            [data / "images"], CALIBRATION_IMAGES, 0, graph.spec, labels=data / "labels.csv", exclude=exclude
        )
        plan_file.write_text(plan_int8(graph, calibration, "max", ignore_progress).to_json())
    return PrecisionPlan.from_json(plan_file.read_text())


def file_name(name: str) -> str:
    """The name of an engine without commas and spaces."""
    return name.replace(",", "").replace(" ", "-")


def problems(result: Result) -> list[str]:
    """The engines whose mean AUC differs by more than is allowed."""
    found = []
    for name, values in result["engines"].items():
        difference, allowed = values["auc"]["mean"]["difference"], ALLOWED.get(name.partition(",")[0], 0.0)
        if abs(difference) > allowed:
            found.append(f"{name}: the mean AUC differs from PyTorch's by {difference:+.5f}, more than {allowed}")
    return found


def page(result: Result) -> str:
    """The page of a result."""
    engines: dict[str, Result] = result["engines"]
    told = [
        f"{values['auc']['mean']['difference']:+.5f} in {name}" for name, values in engines.items() if name != REFERENCE
    ]
    return TEXT.format(
        headline=f"The mean AUC less PyTorch's: {'; '.join(told)}.",
        images=result["images"],
        calibration=result["calibration_images"],
        positives=MIN_POSITIVES,
        table=markdown_table(COLUMNS, [comparison_cells(*item) for item in engines.items()]),
    )
