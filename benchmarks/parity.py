"""The AUC of every precision and CPU backend against PyTorch, on the test images, with the shipped model and ten crops.

    make parity     writes benchmarks/results/parity.json and docs/parity.md; hours; goes on where it was stopped

Calibration is on training images of other patients. float16 is ONNX Runtime's float32 with every result rounded: what
a GPU's float16 does to the scores but for the order of its sums.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.engine.backend import BuildOptions, ScoringEngine
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.precision.calibration_images import choose_images
from cxr_trt.precision.planning import plan_float16, plan_int8
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.comparison import AreaDifferences, compare_areas, compare_probabilities
from cxr_trt.tables.reading import Labels, read_labels
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision.plan import FLOAT32, Plan
from cxr_trt.engine.reference import Reference
from cxr_trt.precision import CALIBRATION_METHODS
from cxr_trt.commands.progress import FileProgress
from cxr_trt.images.files import Source, find_files
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import score_files
from train.data import read_data
from train.split import write_split
from train.start import start_weights

MODEL = ROOT / "cxr_trt" / "models" / "demo.onnx"
MANY = 100  # positives that a finding needs for its own difference to be judged
RESAMPLES = 1000
TEXT = """\
{images} test images of a subset of ChestX-ray14, ten crops, the shipped demonstration model, whose AUC says nothing of
the method. Differences to PyTorch are paired; intervals are over resampled patients. `largest of a finding`: largest
difference in AUC of a finding with over {many} positives; `of a probability`: of any image and finding.
"""


def quiet(phase: str, fraction: float) -> None:
    """Progress of a build that nobody looks at."""


def engines(folder: Path, data: Path) -> dict[str, Callable[[], ScoringEngine]]:
    """What is compared, each to be opened when its turn comes; bundles are built at their first turn."""
    model, info = read_scoring_graph(MODEL)

    def bundle(name: str, backend: str, plan: Callable[[], Plan]) -> ScoringEngine:
        target = folder / f"{name}.cxr"
        if not target.exists():
            options = BuildOptions(1)
            build_bundle(model, info, BACKENDS[backend], target, options, overwrite=False, plan=plan())
        return Engine(target)

    def int8(method: Any) -> Plan:
        exclude = folder / "test" / "labels.csv"
        images = choose_images([data / "images"], 256, 0, info.spec, labels=data / "labels.csv", exclude=exclude)
        return plan_int8(model, info, images, method, quiet)

    def half() -> Plan:
        images = choose_images(
            [data / "images"], 16, 0, info.spec, labels=data / "labels.csv", exclude=folder / "test" / "labels.csv"
        )
        return plan_float16(model, info, images.pixels, quiet)

    def reference() -> ScoringEngine:
        weights = folder / "demo.pt"
        torch.save(start_weights(MODEL, "paper"), weights)
        return Reference(weights, "paper", "ten-crop")

    chosen: dict[str, Callable[[], ScoringEngine]] = {
        "pytorch fp32": reference,
        "openvino fp32": partial(bundle, "openvino-fp32", "openvino", lambda: FLOAT32),
        "onnxruntime fp32": partial(bundle, "onnxruntime-fp32", "onnxruntime", lambda: FLOAT32),
        "onnxruntime fp16": partial(bundle, "onnxruntime-fp16", "onnxruntime", half),
    }
    for method in CALIBRATION_METHODS:
        name = f"openvino-int8-{method}"
        chosen[f"openvino int8, {method}"] = partial(bundle, name, "openvino", partial(int8, method))
    return chosen


def scores(engine: ScoringEngine, sources: list[Source], journal: Path) -> np.ndarray:
    """Probabilities [N, 14]; those that an earlier run has found are not computed again."""
    rows = []
    with Journal(journal, fresh=False) as known, FileProgress(len(sources)) as progress:
        find = partial(known.row, engine=engine.fingerprint, heatmaps=None)
        for result in score(engine, sources, known=find):
            if result.row.probabilities is None:
                raise SystemExit(f"{result.row.path}: {result.row.error}")
            if not result.is_known:
                known.add(result.row, None)
            rows.append(result.row.probabilities)
            progress.advance(error=False, known=result.is_known)
    return np.array(rows)


def summary(areas: AreaDifferences) -> dict[str, Any]:
    """The mean's difference, and the largest of a finding with enough positives."""
    judged = {
        name: abs(area.difference)
        for name, area in areas.findings.items()
        if area.difference is not None and (area.positives or 0) > MANY
    }
    finding = max(judged, key=judged.__getitem__)
    return {"mean": asdict(areas.mean), "largest": {"finding": finding, "difference": judged[finding]}}


def main() -> None:
    """Score, compare with PyTorch, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with images/ and labels.csv, as CXR14_DIR")
    parser.add_argument("folder", type=Path, help="where bundles and journals are kept")
    parser.add_argument("--images", type=int, help="only so many of the test images; nothing is written then")
    arguments = parser.parse_args()
    test = arguments.folder / "test"
    write_split(read_data(arguments.data / "labels.csv", None), "test", arguments.data / "images", test)
    sources = list(find_files(test / "images").sources)
    if arguments.images:
        chosen = np.random.default_rng(0).permutation(len(sources))[: arguments.images]
        sources = [sources[i] for i in sorted(chosen)]
    labels = read_labels(test / "labels.csv")
    found: dict[str, np.ndarray] = {}
    for name, opened in engines(arguments.folder, arguments.data).items():
        print(name, flush=True)
        found[name] = scores(opened(), sources, arguments.folder / f"{name.replace(' ', '-')}.journal")
        print(json.dumps(row(found["pytorch fp32"], found[name], sources, labels), indent=1), flush=True)
    if not arguments.images:
        publish({name: row(found["pytorch fp32"], values, sources, labels) for name, values in found.items()}, sources)


def row(reference: np.ndarray, values: np.ndarray, sources: list[Source], labels: Labels) -> dict[str, Any]:
    """How one engine compares with PyTorch."""
    paths = [source.name for source in sources]
    partners = [partner for partner in labels.rows(paths, "the test images") if partner is not None]
    if labels.patients is None or len(partners) < len(paths):
        raise SystemExit("the test images need labels and patients")
    patients = [labels.patients[partner] for partner in partners]
    probabilities = compare_probabilities(reference, values, paths)
    areas = compare_areas(reference, values, labels.values[partners], patients, RESAMPLES, 0)
    return {
        "largest_difference_of_a_probability": probabilities.max_abs_diff,
        "mean_difference_of_a_probability": probabilities.mean_abs_diff,
        "auc": summary(areas),
    }


def publish(rows: dict[str, dict[str, Any]], sources: list[Source]) -> None:
    """Write the numbers and the page."""
    result = {**provenance(("torch", "onnxruntime", "openvino")), "images": len(sources), "engines": rows}
    cells = []
    for name, values in rows.items():
        mean, largest = values["auc"]["mean"], values["auc"]["largest"]
        interval = f"{mean['low']:+.5f} to {mean['high']:+.5f}"
        finding = f"{largest['difference']:.5f} ({largest['finding']})"
        probability = f"{values['largest_difference_of_a_probability']:.1e}"
        cells.append((name, f"{mean['b']:.4f}", f"{mean['difference']:+.5f}", interval, finding, probability))
    columns = ("engine", "mean AUC", "less PyTorch's", "95 % interval", "largest of a finding", "of a probability")
    page = f"# AUC of each precision against PyTorch\n\n{TEXT.format(images=len(sources), many=MANY)}\n"
    page += f"{table(columns, cells)}\n{made_by('make parity', result)}"
    write(result, ROOT / "benchmarks" / "results" / "parity.json", page, ROOT / "docs" / "parity.md")


if __name__ == "__main__":
    main()
