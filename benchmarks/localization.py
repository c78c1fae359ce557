"""How well the shipped model's class maps find what radiologists boxed, beside controls and Grad-CAM.

    make localization       writes docs/localization.md and benchmarks/results/localization.json

All maps become regions by the same rule (`cxr_trt.geometry.strongest_region`), whose threshold comes from the
literature and was fitted to no box.
"""

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnx import numpy_helper

from benchmarks.result import ROOT, provenance
from cxr_trt.engine.backend import BuildOptions
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.boxes import Box, read_boxes
from cxr_trt.evaluate.localization import Localization, hits, localize, shown, to_json, to_markdown
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.export.rewrites import read_network
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, map_rectangle, strongest_region
from cxr_trt.model.network import Network
from cxr_trt.images.files import Source
from cxr_trt.score.pipeline import score_files
from cxr_trt.spec import Specification

MODEL = ROOT / "cxr_trt" / "models" / "demo.onnx"
PAGE = ROOT / "docs" / "localization.md"
RESULT = ROOT / "benchmarks" / "results" / "localization.json"

METHODS = {
    "class maps, ten crops": "what `cxr-trt score` gives: the maps of all crops, mirrors flipped back, averaged",
    "class maps, centre crop": "of one crop, for comparison with the next line",
    "Grad-CAM, centre crop": "on the same weights and crop, from the last features (Selvaraju et al. 2017, ICCV)",
    "image centre": "the same for every image: falls with the distance from the centre",
    "random map": "16 x 16 independent uniform numbers, seed 0",
}

WANG = {
    "IoBB 0.1": (0.7277, 0.9931, 0.7124, 0.7886, 0.4352, 0.1645, 0.7500, 0.4591),
    "IoBB 0.5": (0.2833, 0.8767, 0.3333, 0.4227, 0.1411, 0.0126, 0.3833, 0.1836),
    "IoBB 0.9": (0.1333, 0.6849, 0.2091, 0.2520, 0.0588, 0.0126, 0.2416, 0.0816),
}
"""Wang et al. 2017 (CVPR), table 4, in the order of BOXED."""
BOXED = FINDINGS[:8]

TEXT = """\
# Where it looks

How often the shipped demonstration model's class maps agree with {boxes} boxes of {findings} findings that radiologists
drew on {images} test images of {patients} patients (NIH; Wang et al. 2017), all of which were kept from training.

**Read it with the controls.** A finding that lies at the middle of most images is found by the image's centre too, and
a large box is met by chance. What counts is the distance from the last two lines.

The rule: the map's strongest connected region above 180/255 of the way from its smallest to its largest value, and the
box around it. The threshold is the higher one of Wang et al. (2017) and was fitted to no box. The measures are those of
[reading the numbers](reading-the-numbers.md#boxes); 95 % intervals come from {resamples} resamples of patients.

Made by `make localization` on {date}, commit {commit}, {machine}; checkpoint {checkpoint}, mean over the findings:

{summary}

{methods}

Grad-CAM on this network is nearly its class map: the score is a maximum plus {alpha} times a minimum of a map that is
linear in the last features, so its gradient, averaged over positions, gives each feature the weight that the map gives
it. What differs is the bias and that values below zero are cut off.

## Findings

Class maps, ten crops:

{details}

## Published

Wang et al. (2017, CVPR, table 4), accuracy at IoBB. **Another protocol**: a ResNet-50 from ImageNet, trained on 70 %
of 108,948 images; boxes around all regions above 60/255 and above 180/255, so that several boxes may meet one; all
boxes of the data set. Ours are a demonstration model's on the boxes named above.

{published}
"""


def main(folder: str, limit: str = "") -> None:
    """Measure on the data in `folder` (images/, labels.csv, boxes.csv), and write page and result.

    With a `limit` of images, for trying it out, print the page and write nothing.
    """
    boxes = read_boxes(Path(folder, "boxes.csv"))
    images = list(dict.fromkeys(box.image for box in boxes))[: int(limit) if limit else None]
    boxes = [box for box in boxes if box.image in set(images)]
    with Path(folder, "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    if any(rows[image]["split"] != "test" for image in images):
        raise SystemExit("some boxes are on images that the model was trained on")
    found: dict[str, list[list[bool]]] = {method: [] for method in METHODS}
    order: list[Box] = []
    for image, maps in measured(Path(folder, "images"), images):
        for box in (box for box in boxes if box.image == image):
            order.append(box)
            for method, (class_maps, rectangle) in maps.items():
                found[method].append(hits(strongest_region(class_maps[box.finding], rectangle), box.rectangle))
    findings = np.array([box.finding for box in order])
    patients = [rows[box.image]["patient_id"] for box in order]
    results = {method: localize(np.array(hit), findings, patients) for method, hit in found.items()}
    page, content = written(results, len(images))
    if limit:
        print(page)
        return
    PAGE.write_text(page, encoding="utf-8")
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


Maps = dict[str, tuple[npt.NDArray[np.float32], Rectangle]]


def measured(folder: Path, images: list[str]) -> Iterator[tuple[str, Maps]]:
    """For each image the maps [14, h, w] of METHODS and what they cover, in pixels of the file."""
    model, info = read_scoring_graph(MODEL)
    network = torch_network()
    rng, started = np.random.default_rng(0), time.monotonic()
    y, x = np.mgrid[-7.5:8, -7.5:8]
    centre = np.broadcast_to(-np.hypot(y, x).astype(np.float32), (len(FINDINGS), 16, 16))
    with tempfile.TemporaryDirectory() as temporary:
        options = BuildOptions(1)
        build_bundle(model, info, BACKENDS["openvino"], Path(temporary, "e.cxr"), options, overwrite=False)
        with Engine(Path(temporary, "e.cxr")) as engine:
            sources = (Source(folder / image, image) for image in images)
            for count, result in enumerate(score(engine, sources, class_maps=True), start=1):
                size = (result.row.height, result.row.width)
                whole = Rectangle(0, 0, *size)
                noise = rng.random((len(FINDINGS), 16, 16), np.float32)
                crop = replace(engine.spec, views="center")
                own, cam = centre_crop_maps(network, result.image, crop)
                yield (
                    result.row.path,
                    {
                        "class maps, ten crops": (result.class_maps, map_rectangle(engine.spec, *size)),
                        "class maps, centre crop": (own, map_rectangle(crop, *size)),
                        "Grad-CAM, centre crop": (cam, map_rectangle(crop, *size)),
                        "image centre": (centre, whole),
                        "random map": (noise, whole),
                    },
                )
                if count % 50 == 0:
                    speed = count / (time.monotonic() - started)
                    print(f"{count} of {len(images)} images, {speed:.2f} a second", file=sys.stderr, flush=True)


def torch_network() -> Network:
    """The shipped model in PyTorch."""
    model, info = read_scoring_graph(MODEL)
    _, settings = read_network(model, info)
    weights = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    network = Network(settings)
    own = network.state_dict()
    own.update({key: weights[key] for key in own if not key.endswith("num_batches_tracked")})
    network.load_state_dict(own)
    return network.eval()


def centre_crop_maps(
    network: Network, image: npt.NDArray[np.uint8], spec: Specification
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Class maps and Grad-CAM, float32 [14, h, w], of the centre crop of an image, uint8 [size, size].

    Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2): each feature of the last layer is weighted with the mean over
    positions of the gradient of the finding's score; the sum is cut at zero.
    """
    (view,) = spec.view_list()
    side = slice(view.y, view.y + spec.crop_size), slice(view.x, view.x + spec.crop_size)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    crop = ((torch.tensor(image[side]) / 255 - mean) / std)[None]
    with torch.no_grad():
        features = torch.relu(network.features(crop))
    features.requires_grad_()
    maps = network.transfer(features)
    scores = network.pool(maps)[0]
    cams = []
    for finding in range(len(FINDINGS)):
        (gradient,) = torch.autograd.grad(scores[finding], features, retain_graph=True)
        cams.append(torch.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1))[0])
    return maps.detach()[0].numpy(), torch.stack(cams).detach().numpy()


def written(results: dict[str, Localization], images: int) -> tuple[str, dict[str, object]]:
    """The page, and what the result file holds."""
    model, info = read_scoring_graph(MODEL)
    _, settings = read_network(model, info)
    ours = results["class maps, ten crops"]
    made = provenance(("onnxruntime", "openvino", "torch"))
    columns = ["pointing", "IoU 0.1", "IoU 0.3", "IoU 0.5", "IoU 0.7", "IoBB 0.1", "IoBB 0.5", "IoBB 0.9"]
    page = TEXT.format(
        boxes=ours.boxes,
        findings=len(ours.findings),
        images=images,
        patients=ours.patients,
        resamples=ours.resamples,
        date=made["date"],
        commit=made["commit"],
        machine=made["machine"],
        checkpoint=info.checkpoint_sha256[:16],
        alpha=settings.alpha,
        summary=summary(results, columns),
        methods="\n".join(f"- {name}: {text}" for name, text in METHODS.items()),
        details=to_markdown(ours),
        published=published(ours),
    )
    content = {
        **made,
        "checkpoint_sha256": info.checkpoint_sha256,
        "images": images,
        "methods": {name: to_json(result) for name, result in results.items()},
    }
    return page, content


def summary(results: dict[str, Localization], columns: list[str]) -> str:
    """A row a method: the means."""
    lines = [f"| maps | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(shown(result.mean[column]) for column in columns)} |"
        for name, result in results.items()
    ]
    return "\n".join(lines)


def published(ours: Localization) -> str:
    """Wang's accuracies beside ours."""
    names = [name for name in BOXED if name in ours.findings]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for measure, values in WANG.items():
        theirs = dict(zip(BOXED, values, strict=True))
        lines.append(f"| Wang et al., {measure} | {' | '.join(f'{theirs[name]:.2f}' for name in names)} |")
        own = (f"{ours.findings[name][1][measure].value:.2f}" for name in names)
        lines.append(f"| this model, {measure} | {' | '.join(own)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
