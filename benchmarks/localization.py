"""How well the shipped model's class maps find what radiologists boxed, beside controls and Grad-CAM.

All maps become regions by the same rule (`cxr_trt.geometry.strongest_region`), whose threshold comes from the
literature and was fitted to no box; and by that of Wang et al. 2017 (`cxr_trt.evaluate.wang`), to stand beside theirs.
"""

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.study import DEMO_MODEL, Result, cxr14_option
from benchmarks.tools.networks import load_network
from cxr_trt.commands.progress import FileProgress
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate import wang
from cxr_trt.evaluate.localization import Accuracy, Localization, hits, localize, shown, to_json, to_markdown
from cxr_trt.evaluate.wang import FindingOnXray, WangLocalization, compare_map, localize_as_wang
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, map_rectangle, strongest_region
from cxr_trt.images.files import Source
from cxr_trt.markdown import markdown_table
from cxr_trt.model.network import Network
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files
from cxr_trt.spec import Specification
from cxr_trt.tables.boxes import read_boxes

PACKAGES = ("onnxruntime", "openvino", "torch")
CLASS_MAPS = "class maps, ten crops"
METHODS = {
    CLASS_MAPS: "what `cxr-trt score` gives: the maps of all crops, mirror images flipped back, averaged",
    "class maps, centre crop": "of one crop, for comparison with the next line",
    "Grad-CAM, centre crop": "with the same weights and crop, from the last features (Selvaraju et al. 2017, ICCV)",
    "image centre": "the same for every image: falls with the distance from the centre",
    "random map": "16 x 16 independent uniform numbers, seed 0",
}
COLUMNS = ("pointing", "IoU 0.1", "IoU 0.3", "IoU 0.5", "IoU 0.7", "IoBB 0.1", "IoBB 0.5", "IoBB 0.9")

WANG = {
    "IoBB 0.1": (0.7277, 0.9931, 0.7124, 0.7886, 0.4352, 0.1645, 0.7500, 0.4591),
    "IoBB 0.5": (0.2833, 0.8767, 0.3333, 0.4227, 0.1411, 0.0126, 0.3833, 0.1836),
    "IoBB 0.9": (0.1333, 0.6849, 0.2091, 0.2520, 0.0588, 0.0126, 0.2416, 0.0816),
}
"""Wang et al. 2017 (CVPR), table 4, in the order of BOXED."""
BOXED = FINDINGS[:8]

TEXT = """\
# Where it looks

**{headline}**

How often the class maps of the shipped demonstration model agree with {boxes} boxes of {findings} findings, which
radiologists drew on {images} test images of {patients} patients (NIH; Wang et al. 2017). All of these images were
kept from training.

**Read it beside the controls.** A finding that lies in the middle of most images is found by the image centre too, and
a large box is hit by chance. What counts is the distance from the last two lines.

The rule: the strongest connected region of the map above 180/255 of the way from its lowest to its highest value, and
the box around it. The threshold is the higher one of Wang et al. (2017) and was fitted to no box. The measures are
those of `cxr-trt evaluate --boxes`; 95 % intervals come from {resamples} resamples of patients. Mean over the
findings:

{summary}

{methods}

Grad-CAM is nearly the class map here: the score is a maximum plus {alpha} times a minimum of a map that is linear in
the last features, so its gradient, averaged over positions, gives each feature the weight that the map gives it. What
differs is the bias, and that values below zero are cut off.

## Per finding

Class maps, ten crops:

{details}

## As Wang et al. report it

By the rule of Wang et al. (2017, CVPR): boxes around all regions above 60/255 and above 180/255, so that several boxes
may meet one of the radiologists', and those that meet none count as false positives of an X-ray (`cxr-trt evaluate
--boxes --wang`). Mean over the findings:

{wang}

Per finding, accuracy by IoBB, beside their table 4. **The networks and the X-rays differ**: theirs is a ResNet-50 from
ImageNet, trained on 70 % of 108,948 images, and tested with all boxes of the data set. Ours is a demonstration model,
tested with the boxes named above.

{published}

Checkpoint: {checkpoint}.
"""
Maps = dict[str, tuple[npt.NDArray[np.float32], Rectangle]]


@click.command()
@cxr14_option
@click.option("--limit", type=click.IntRange(1), help="For a trial: only the first N images.")
def measure(data: Path, limit: int | None) -> Result:
    """Compare maps with the boxes in boxes.csv, which lies beside labels.csv."""
    boxes = read_boxes(data / "boxes.csv")
    images = list(dict.fromkeys(box.image for box in boxes))[:limit]
    boxes = [box for box in boxes if box.image in set(images)]
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    if any(rows[image]["split"] != "test" for image in images):
        raise click.ClickException("some boxes are on images that the model was trained on")
    graph = ScoringGraph.load(DEMO_MODEL)
    found: dict[str, list[list[bool]]] = {method: [] for method in METHODS}
    as_wang: dict[str, list[FindingOnXray]] = {method: [] for method in METHODS}
    order: list[tuple[int, str]] = []  # finding and patient of each box
    for image, maps in _measured(graph, data / "images", images):
        patient = rows[image]["patient_id"]
        for name in dict.fromkeys(box.finding for box in boxes if box.image == image):
            drawn = [box.rectangle for box in boxes if box.image == image and box.finding == name]
            finding = FINDINGS.index(name)
            order += [(finding, patient)] * len(drawn)
            for method, (class_maps, rectangle) in maps.items():
                region = strongest_region(class_maps[finding], rectangle)
                found[method] += [hits(region, box) for box in drawn]
                as_wang[method].append(compare_map(class_maps[finding], rectangle, drawn, finding, patient))
    findings = np.array([finding for finding, _ in order])
    patients = [patient for _, patient in order]
    return {
        "checkpoint_sha256": graph.info.checkpoint_sha256,
        "alpha": graph.network()[1].alpha,
        "images": len(images),
        "methods": {
            method: to_json(localize(FINDINGS, np.array(hit), findings, patients)) for method, hit in found.items()
        },
        "wang": {method: wang.to_json(localize_as_wang(FINDINGS, xrays)) for method, xrays in as_wang.items()},
    }


def _measured(graph: ScoringGraph, folder: Path, images: list[str]) -> Iterator[tuple[str, Maps]]:
    """For each image the maps [14, h, w] of METHODS and what they cover, in pixels of the file."""
    network = load_network(DEMO_MODEL)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-7.5:8, -7.5:8]
    centre = np.broadcast_to(-np.hypot(y, x).astype(np.float32), (len(FINDINGS), 16, 16))
    with tempfile.TemporaryDirectory() as name:
        build_bundle(BuildRequest(graph, BACKENDS["openvino"]), Path(name, "e.cxr"))
        with Engine(Path(name, "e.cxr")) as engine, FileProgress(len(images)) as progress:
            sources = (Source(folder / image, image) for image in images)
            crop = replace(engine.spec, views="center")
            for result in score_files(engine, sources, class_maps=True):
                row = result.row
                if result.image is None or result.class_maps is None or row.height is None or row.width is None:
                    raise click.ClickException(f"{row.path}: {row.error}")
                size = (row.height, row.width)
                own, cam = centre_crop_maps(network, result.image, crop)
                yield (
                    row.path,
                    {
                        CLASS_MAPS: (result.class_maps, map_rectangle(engine.spec, *size)),
                        "class maps, centre crop": (own, map_rectangle(crop, *size)),
                        "Grad-CAM, centre crop": (cam, map_rectangle(crop, *size)),
                        "image centre": (centre, Rectangle(0, 0, *size)),
                        "random map": (rng.random((len(FINDINGS), 16, 16), np.float32), Rectangle(0, 0, *size)),
                    },
                )
                progress.advance(error=False)


def centre_crop_maps(
    network: Network, image: npt.NDArray[np.uint8], spec: Specification
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Class maps and Grad-CAM, float32 [14, h, w], of the centre crop of an image, uint8 [size, size].

    Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2): each feature of the last layer is weighted with the mean over
    positions of the gradient of the finding's score; the sum is cut at zero.
    """
    (view,) = spec.view_list()
    side = slice(view.y, view.y + spec.crop_size.height), slice(view.x, view.x + spec.crop_size.width)
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


def page(result: Result) -> str:
    """The page of a result."""
    methods = {name: _localization(own) for name, own in result["methods"].items()}
    as_wang = {
        name: WangLocalization(*(_localization(own[part]) for part in WangLocalization._fields))
        for name, own in result["wang"].items()
    }
    ours = methods[CLASS_MAPS]
    summary = [(name, *(shown(own.mean[column]) for column in COLUMNS)) for name, own in methods.items()]
    pointing = {name: own.mean["pointing"].value for name, own in methods.items()}
    return TEXT.format(
        headline=f"The highest point of the class map lies in {pointing[CLASS_MAPS]:.0%} of the boxes, the image "
        f"centre in {pointing['image centre']:.0%}, and that of a random map in {pointing['random map']:.0%}.",
        boxes=ours.boxes,
        findings=len(ours.findings),
        images=result["images"],
        patients=ours.patients,
        resamples=ours.resamples,
        checkpoint=result["checkpoint_sha256"][:16],
        alpha=result["alpha"],
        summary=markdown_table(("maps", *COLUMNS), summary),
        methods="\n".join(f"- **{name}**: {text}" for name, text in METHODS.items()),
        details=to_markdown(ours),
        wang=_wang_table(as_wang),
        published=_published(as_wang[CLASS_MAPS].accuracy),
    )


def _localization(own: Result) -> Localization:
    """The inverse of `to_json`."""

    def accuracies(values: Result) -> dict[str, Accuracy]:
        return {name: Accuracy(**value) for name, value in values.items()}

    findings = {}
    for finding, values in own["findings"].items():
        shares = {name: value for name, value in values.items() if name != "boxes"}
        findings[finding] = (values["boxes"], accuracies(shares))
    return Localization(findings, accuracies(own["mean"]), own["boxes"], own["patients"], own["resamples"])


def _wang_table(methods: dict[str, WangLocalization]) -> str:
    """Mean accuracy and false positives of each method."""
    columns = [f"{measure_name}: {part}" for measure_name in WANG for part in ("accuracy", "false positives per X-ray")]
    rows = [
        (name, *(shown(part.mean[measure_name]) for measure_name in WANG for part in own))
        for name, own in methods.items()
    ]
    return markdown_table(("maps", *columns), rows)


def _published(ours: Localization) -> str:
    """Wang's accuracies beside ours by their rule."""
    names = [name for name in BOXED if name in ours.findings]
    rows = []
    for measure_name, values in WANG.items():
        theirs = dict(zip(BOXED, values, strict=True))
        rows.append((f"Wang et al., {measure_name}", *(f"{theirs[name]:.2f}" for name in names)))
        own = (f"{ours.findings[name][1][measure_name].value:.2f}" for name in names)
        rows.append((f"this model, {measure_name}", *own))
    return markdown_table(("", *names), rows)
