"""How well the class maps of the shipped models find what radiologists boxed, beside controls and Grad-CAM.

All maps become regions by the same rule (`cxr_trt.geometry.strongest_region`), whose threshold comes from the
literature and was fitted to no box; and by that of Wang et al. 2017 (`cxr_trt.evaluate.wang`), to stand beside theirs.
What the committed result has of the slow network `paper` is not measured again if it has the same weights.
"""

import csv
import json
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.study import PAPER_MODEL, RESULTS, Result, cxr14_option
from benchmarks.tools.edge_maps import centre_maps
from benchmarks.tools.networks import load_network
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.sources import SHIPPED
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
from cxr_trt.views import ViewSet

PACKAGES = ("onnxruntime", "openvino", "torch")
ENGINES: dict[str, tuple[str, ViewSet]] = {
    "edge, ten crops": ("edge", "ten-crop"),
    "edge, centre crop": ("edge", "center"),
    "paper, ten crops": ("paper", "ten-crop"),
}
"""Class maps as `cxr-trt score` gives them: of which shipped network, with which views."""
SHOWN_WHOLE, PAPER_MAPS = "edge, ten crops", "paper, ten crops"
METHODS = {
    SHOWN_WHOLE: "what `cxr-trt score` gives with `edge`: the maps of all crops, mirror images flipped back, averaged",
    "edge, centre crop": "the map of that crop alone",
    PAPER_MAPS: "the same with `paper`, whose crops are larger",
    "paper, centre crop": "the map of that crop alone, for comparison with the next line",
    "paper, centre crop, Grad-CAM": "from the last features (Selvaraju et al. 2017, ICCV)",
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

How often the class maps of the shipped demonstration models, `edge` and `paper` (`cxr_trt/models/edge-card.md` and
`paper-card.md`), agree with {boxes} boxes of {findings} findings, which radiologists drew on
{images} test images of {patients} patients (NIH; Wang et al. 2017). None of these images was used in training.

**Read it beside the controls.** A finding that lies in the middle of most images is found by the image centre too, and
a large box is hit by chance. What counts is the distance from the last two lines.

The rule: the strongest connected region of the map above 180/255 of the way from its lowest to its highest value, and
the box around it. The threshold is the higher one of Wang et al. (2017) and was fitted to no box. The measures are
those of `cxr-trt evaluate --boxes`; 95 % intervals come from {resamples} resamples of patients. Means of findings:

{summary}

{methods}

Grad-CAM is nearly the class map here: the score is a maximum plus {alpha} times a minimum of a map that is linear in
the last features, so its gradient, averaged over positions, gives each feature the weight that the map gives it. What
differs is the bias, and that values below zero are cut off.

## Per finding

Of {shown_whole}:

{details}

## As Wang et al. report it

By the rule of Wang et al. (2017, CVPR): boxes around all regions above 60/255 and above 180/255, so that several boxes
may meet one of the radiologists', and those that meet none count as false positives of an X-ray (`cxr-trt evaluate
--boxes --wang`). Mean over the findings:

{wang}

Per finding, accuracy by IoBB, beside their table 4. **The networks and the X-rays differ**: theirs is a ResNet-50 from
ImageNet, trained on 70 % of 108,948 images, and tested with all boxes of the data set. Ours is {shown_whole}, a
demonstration, tested with the boxes named above.

{published}

Checkpoints: {checkpoints}. {kept}
"""
Maps = dict[str, tuple[npt.NDArray[np.float32], Rectangle]]


@click.command()
@cxr14_option
@click.option("--limit", type=click.IntRange(1), help="For a trial: only the first N images.")
@click.option("--anew", is_flag=True, help="Measure `paper` even if the committed result has it.")
def measure(data: Path, limit: int | None, anew: bool) -> Result:
    """Compare maps with the boxes in boxes.csv, which lies beside labels.csv."""
    boxes = read_boxes(data / "boxes.csv")
    images = list(dict.fromkeys(box.image for box in boxes))[:limit]
    boxes = [box for box in boxes if box.image in set(images)]
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    if any(rows[image]["split"] != "test" for image in images):
        raise click.ClickException("some boxes are on images that the model was trained on")
    graphs = {name: ScoringGraph.load(path) for name, path in SHIPPED.items()}
    kept = {} if anew else _kept(graphs, len(images))
    chosen = [method for method in METHODS if method.split(",")[0] not in kept]
    found: dict[str, list[list[bool]]] = {method: [] for method in chosen}
    as_wang: dict[str, list[FindingOnXray]] = {method: [] for method in chosen}
    order: list[tuple[int, str]] = []  # finding and patient of each box
    for image, maps in _measured(graphs, data / "images", images, chosen):
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
    methods = {method: to_json(localize(FINDINGS, np.array(hit), findings, patients)) for method, hit in found.items()}
    by_wang = {method: wang.to_json(localize_as_wang(FINDINGS, xrays)) for method, xrays in as_wang.items()}
    committed = _committed() if kept else {"methods": {}, "wang": {}}
    return {
        "checkpoints_sha256": {name: graph.info.checkpoint_sha256 for name, graph in graphs.items()},
        "kept": kept,
        "alpha": graphs["paper"].network()[1].alpha,
        "images": len(images),
        "methods": {method: methods.get(method) or committed["methods"][method] for method in METHODS},
        "wang": {method: own for method in METHODS if (own := by_wang.get(method) or committed["wang"].get(method))},
    }


def _committed() -> Result:
    result: Result = json.loads((RESULTS / "localization.json").read_text(encoding="utf-8"))
    return result


def _kept(graphs: dict[str, ScoringGraph], images: int) -> dict[str, str]:
    """When the slow network was measured, if its weights and the images are those of the committed result."""
    committed, weights = _committed(), graphs["paper"].info.checkpoint_sha256
    if (committed["images"], committed["checkpoints_sha256"]["paper"]) != (images, weights):
        return {}
    return {"paper": committed["kept"].get("paper", f"{committed['date']} at commit {committed['commit']}")}


def _measured(
    graphs: dict[str, ScoringGraph], folder: Path, images: list[str], chosen: Collection[str]
) -> Iterator[tuple[str, Maps]]:
    """For each image the maps [14, h, w] of the chosen methods and what they cover, in pixels of the file."""
    rng = np.random.default_rng(0)
    network = load_network(PAPER_MODEL) if PAPER_MAPS in chosen else None
    with ExitStack() as opened:
        engines = {}
        for method in [method for method in ENGINES if method in chosen]:
            name, views = ENGINES[method]
            bundle = Path(opened.enter_context(tempfile.TemporaryDirectory()), "e.cxr")
            build_bundle(BuildRequest(graphs[name].with_views(views), BACKENDS["openvino"]), bundle)
            engines[method] = opened.enter_context(Engine(bundle))
        progress = opened.enter_context(FileProgress(len(images)))
        sources = [Source(folder / image, image) for image in images]
        scored = [score_files(engine, sources, class_maps=True) for engine in engines.values()]
        for results in zip(*scored, strict=True):
            maps: Maps = {}
            for (method, engine), result in zip(engines.items(), results, strict=True):
                image, height, width = result.row.path, result.row.height, result.row.width
                if result.class_maps is None or height is None or width is None:
                    raise click.ClickException(f"{image}: {result.row.error}")
                maps[method] = (result.class_maps, map_rectangle(engine.spec, height, width))
                if method == PAPER_MAPS and network and result.image is not None:
                    crop = replace(engine.spec, views="center")
                    own, cam = centre_crop_maps(network, result.image, crop)
                    maps["paper, centre crop"] = (own, map_rectangle(crop, height, width))
                    maps["paper, centre crop, Grad-CAM"] = (cam, map_rectangle(crop, height, width))
            maps["image centre"] = (centre_maps(), Rectangle(0, 0, height, width))
            maps["random map"] = (rng.random((len(FINDINGS), 16, 16), np.float32), Rectangle(0, 0, height, width))
            yield image, maps
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
    ours = methods[SHOWN_WHOLE]
    summary = [(name, *(shown(own.mean[column]) for column in COLUMNS)) for name, own in methods.items()]
    pointing = {name: own.mean["pointing"].value for name, own in methods.items()}
    return TEXT.format(
        headline=f"The highest point of the class map lies in {pointing[SHOWN_WHOLE]:.0%} of the boxes with edge and "
        f"in {pointing[PAPER_MAPS]:.0%} with paper; the image centre lies in {pointing['image centre']:.0%}, and the "
        f"highest point of a random map in {pointing['random map']:.0%}.",
        boxes=ours.boxes,
        findings=len(ours.findings),
        images=result["images"],
        patients=ours.patients,
        resamples=ours.resamples,
        checkpoints=", ".join(f"{name} {sha256[:16]}" for name, sha256 in result["checkpoints_sha256"].items()),
        shown_whole=SHOWN_WHOLE,
        kept=" ".join(f"The rows of {name} are of {origin}." for name, origin in result["kept"].items()),
        alpha=result["alpha"],
        summary=markdown_table(("maps", *COLUMNS), summary),
        methods="\n".join(f"- **{name}**: {text}" for name, text in METHODS.items()),
        details=to_markdown(ours),
        wang=_wang_table(as_wang),
        published=_published(as_wang[SHOWN_WHOLE].accuracy),
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
    missing = [name for name in METHODS if name not in methods]
    note = f"\n\nNot compared by this rule yet: {'; '.join(missing)}." if missing else ""
    return markdown_table(("maps", *columns), rows) + note


def _published(ours: Localization) -> str:
    """Wang's accuracies beside ours by their rule."""
    names = [name for name in BOXED if name in ours.findings]
    rows = []
    for measure_name, values in WANG.items():
        theirs = dict(zip(BOXED, values, strict=True))
        rows.append((f"Wang et al., {measure_name}", *(f"{theirs[name]:.2f}" for name in names)))
        own = (f"{ours.findings[name][1][measure_name].value:.2f}" for name in names)
        rows.append((f"ours, {measure_name}", *own))
    return markdown_table(("", *names), rows)
