"""The AUC of every precision and CPU backend beside PyTorch's, with the shipped network `paper` and ten crops.

Calibration is on training images of other patients. float16 is ONNX Runtime's float32 with every result rounded: what
a GPU's float16 does to the scores, if its convolutions sum in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch

from benchmarks.study import PAPER_MODEL, ROOT, Result, cxr14_option
from cxr_trt.commands.progress import FileProgress
from cxr_trt.engine.backend import ScoringEngine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.reference import Reference
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.comparison import AreaDifferences, compare_areas, compare_probabilities
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.files import Source, find_files
from cxr_trt.markdown import markdown_table
from cxr_trt.precision import CALIBRATION_METHODS, CalibrationMethod
from cxr_trt.precision.calibration_images import CalibrationImages, choose_images
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan
from cxr_trt.precision.planning import plan_float16, plan_int8
from cxr_trt.progress import ignore_progress
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import score_files
from cxr_trt.tables.labels import Labels, read_labels
from train.data import read_data
from train.split import write_split
from train.start import start_weights

PACKAGES = ("torch", "onnxruntime", "openvino")
REFERENCE = "pytorch fp32"
MIN_POSITIVES = 100  # that a finding needs for its own difference to be judged
RESAMPLES = 1000
SMALLEST_SHOWN = 0.00001
COLUMNS = ("", "mean AUC", "less PyTorch's", "95 % interval", "largest per finding", "largest of a probability")
Command = TypeVar("Command", bound=Callable[..., Any])
TEXT = """\
# AUC of each precision beside PyTorch

**{headline}**

{images} test images of a subset of ChestX-ray14, ten crops, with the shipped network `paper`, whose AUC says
nothing about the method.

{table}

- **less PyTorch's**: the difference of the mean AUC, paired, with its interval over resampled patients.
- **largest per finding**: the largest difference in the AUC of a finding with more than {positives} positives.
- **largest of a probability**: the largest difference over all images and findings.
"""


def parity_options(study: str) -> Callable[[Command], Command]:
    """The options of a study that scores the test images: --data, --folder and --images."""
    folder = click.option(
        "--folder",
        type=click.Path(path_type=Path),
        default=ROOT / "build" / study,
        help="Where engines and scores are kept, so that a study that was stopped continues.",
    )
    images = click.option("--images", type=click.IntRange(1), help="For a trial: only N of the test images.")
    return lambda command: cxr14_option(folder(images(command)))


@click.command()
@parity_options("parity")
def measure(data: Path, folder: Path, images: int | None) -> Result:
    """Score the test images with every engine, and compare."""
    engines: dict[str, Callable[[], ScoringEngine]] = {REFERENCE: partial(pytorch, folder)}
    engines |= cpu_engines(ScoringGraph.load(PAPER_MODEL), folder, data)
    return compare_engines(engines, folder, data, images)


def compare_engines(
    engines: Mapping[str, Callable[[], ScoringEngine]],
    folder: Path,
    data: Path,
    images: int | None,
    reference: str = REFERENCE,
) -> Result:
    """Score the test images with each engine, and compare with one of them.

    Args:
        engines: opened one after the other.
        folder: keeps the test images' links and the scores, so that a study that was stopped continues.
        data: ChestX-ray14.
        images: how many of the test images to take; None means all.
        reference: the name of the engine that the others are compared with.
    """
    test = folder / "test"
    write_split(read_data(data / "labels.csv", None), "test", data / "images", test)
    sources = list(find_files(test / "images").sources)
    if images:
        chosen = np.random.default_rng(0).permutation(len(sources))[:images]
        sources = [sources[i] for i in sorted(chosen)]
    found: dict[str, Floats] = {}
    for name, opened in engines.items():
        click.echo(name, err=True)
        found[name] = _scores(opened(), sources, folder / f"{name.replace(' ', '-')}.journal")
    labels = read_labels(test / "labels.csv", FINDINGS)
    rows = {name: compare_with_reference(found[reference], values, sources, labels) for name, values in found.items()}
    return {"images": len(sources), "engines": rows}


def pytorch(folder: Path) -> ScoringEngine:
    """The shipped network in PyTorch; `folder` gets its weights."""
    weights = folder / "demo.pt"
    torch.save(start_weights(PAPER_MODEL, "paper"), weights)
    return Reference(weights, "paper", "ten-crop")


def cpu_engines(
    graph: ScoringGraph, folder: Path, data: Path, methods: Sequence[CalibrationMethod] = CALIBRATION_METHODS
) -> dict[str, Callable[[], ScoringEngine]]:
    """Engines of fp32, fp16, and int8 by these methods; each is built and opened when its turn comes."""

    def bundle(name: str, backend: str, plan: Callable[[], PrecisionPlan]) -> ScoringEngine:
        target = folder / f"{name}.cxr"
        if not target.exists():
            build_bundle(BuildRequest(graph, BACKENDS[backend], plan()), target)
        return Engine(target)

    def calibration_images(count: int) -> CalibrationImages:
        exclude = folder / "test" / "labels.csv"
        return choose_images([data / "images"], count, 0, graph.spec, labels=data / "labels.csv", exclude=exclude)

    def float16() -> PrecisionPlan:
        return plan_float16(graph, calibration_images(16).pixels, ignore_progress)

    def int8(method: CalibrationMethod) -> PrecisionPlan:
        return plan_int8(graph, calibration_images(256), method, ignore_progress)

    chosen: dict[str, Callable[[], ScoringEngine]] = {
        "openvino fp32": partial(bundle, "openvino-fp32", "openvino", lambda: FLOAT32),
        "onnxruntime fp32": partial(bundle, "onnxruntime-fp32", "onnxruntime", lambda: FLOAT32),
        "onnxruntime fp16": partial(bundle, "onnxruntime-fp16", "onnxruntime", float16),
    }
    for method in methods:
        name = f"openvino-int8-{method}"
        chosen[f"openvino int8, {method}"] = partial(bundle, name, "openvino", partial(int8, method))
    return chosen


def _scores(engine: ScoringEngine, sources: list[Source], journal: Path) -> Floats:
    """Probabilities [N, 14]; those that an earlier run has found are not computed again."""
    rows = []
    with Journal(journal, fresh=False) as known, FileProgress(len(sources)) as progress:
        find = partial(known.row, engine=engine.fingerprint, artifacts_key=None)
        for result in score_files(engine, sources, known=find):
            if result.row.probabilities is None:
                raise click.ClickException(f"{result.row.path}: {result.row.error}")
            if not result.is_known:
                known.add(result.row, None)
            rows.append(result.row.probabilities)
            progress.advance(error=False, known=result.is_known)
    return np.array(rows)


def compare_with_reference(reference: Floats, values: Floats, sources: list[Source], labels: Labels) -> Result:
    """How the probabilities of one engine compare with those of another."""
    paths = [source.name for source in sources]
    partners = [partner for partner in labels.rows(paths, "the test images") if partner is not None]
    if labels.patients is None or len(partners) < len(paths):
        raise click.ClickException("the test images need labels and patients")
    patients = [labels.patients[partner] for partner in partners]
    probabilities = compare_probabilities(FINDINGS, reference, values, paths)
    areas = compare_areas(FINDINGS, reference, values, labels.values[partners], patients, RESAMPLES, 0)
    if areas.mean.difference is None:
        raise click.ClickException("too few images: no finding has both positives and negatives")
    return {
        "largest_difference_of_a_probability": probabilities.max_abs_diff,
        "mean_difference_of_a_probability": probabilities.mean_abs_diff,
        "auc": _summary(areas),
    }


def _summary(areas: AreaDifferences) -> Result:
    """The mean's difference, and the largest of a finding with enough positives."""
    judged = {
        name: abs(area.difference)
        for name, area in areas.findings.items()
        if area.difference is not None and (area.positives or 0) > MIN_POSITIVES
    }
    if not judged:  # in a trial
        return {"mean": asdict(areas.mean), "largest": {"finding": "none", "difference": 0.0}}
    finding = max(judged, key=judged.__getitem__)
    return {"mean": asdict(areas.mean), "largest": {"finding": finding, "difference": judged[finding]}}


def comparison_cells(name: str, values: Result) -> tuple[str, ...]:
    """A row of the table with COLUMNS."""
    mean, largest = values["auc"]["mean"], values["auc"]["largest"]
    return (
        name,
        f"{mean['b']:.4f}",
        f"{mean['difference']:+.5f}",
        f"{mean['low']:+.5f} to {mean['high']:+.5f}",
        f"{largest['difference']:.5f} ({largest['finding']})",
        f"{values['largest_difference_of_a_probability']:.1e}",
    )


def headline(engines: dict[str, Result], reference: str = "PyTorch's") -> str:
    """By how much each precision moves the mean AUC from that of the reference, at most."""
    largest: dict[str, float] = {}
    for name, values in engines.items():
        precision = name.partition(",")[0].split()[-1]
        largest[precision] = max(largest.get(precision, 0.0), abs(values["auc"]["mean"]["difference"]))
    found = (
        f"{value:.5f} in {precision}" if value >= SMALLEST_SHOWN else f"less than {SMALLEST_SHOWN:.5f} in {precision}"
        for precision, value in largest.items()
    )
    return f"The mean AUC differs from {reference} by at most: {', '.join(found)}."


def page(result: Result) -> str:
    """The page of a result."""
    return TEXT.format(
        headline=headline(result["engines"]),
        images=result["images"],
        positives=MIN_POSITIVES,
        table=markdown_table(COLUMNS, [comparison_cells(*item) for item in result["engines"].items()]),
    )
