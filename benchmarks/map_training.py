"""What makes maps local that labels alone have taught: networks `edge` that differ in one thing, judged without boxes.

All boxes at hand are on test X-rays, so what decides is measured on validation X-rays. Only the network that it decides
for, and the one that all are held against, are then compared with the boxes.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.study import ROOT, Result, cxr14_option
from benchmarks.tools.edge_maps import boxes_of_test_images, localized, maps_of_crop, read_picture
from benchmarks.tools.edge_variants import BASE, VARIANTS, Study
from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.comparison import compare_areas
from cxr_trt.evaluate.localization import Accuracy, shown
from cxr_trt.findings import FINDINGS
from cxr_trt.markdown import markdown_table
from cxr_trt.memory import keep_freed_memory
from cxr_trt.model.edge import EdgeNetwork
from cxr_trt.views import NETWORK_STRIDE
from train.data import DataSet, read_data
from train.recipe import read_recipe

PACKAGES = ("torch", "timm")
EPOCHS = 6
BATCH = 16
SAME_PLACE = 16  # pixels between two hottest points that are the same place
ALLOWED_LOSS = 0.01  # of validation AUC, for what is chosen
MEASURES = ("pointing", "IoU 0.1")


TEXT = """\
# What makes maps point

**{headline}**

Maps learn where a finding is from labels that say only that it is there. These networks `edge` differ in one thing
each. All are trained on the same {train} X-rays for {epochs} epochs, from ImageNet weights.

{variants}

The radiologists' boxes are all on test X-rays and may decide nothing. So the {val} validation X-rays do, without boxes,
by the highest point of the map of each finding that an X-ray has:

{table}

- **AUC**: mean of the findings, centre crop; the difference has its 95 % interval from {resamples} resamples of
  patients.
- **of those with findings**: the same, only of the validation X-rays that have a finding. It is lower, and nearer to an
  AUC of the test X-rays: {found_test:.0%} of those have a finding, {found_val:.0%} of the validation X-rays and
  {found_train:.0%} of the training X-rays. To tell X-rays with findings from those without is easier, the more so as
  the two kinds come largely from different sources.
- **steady**: how often the highest point stays within {same} pixels of its place on the X-ray when the crop moves by
  {stride} pixels down and across; only what both crops show counts.
- **at the edge**: how often the highest point of the centre crop lies within {stride} pixels of the crop's edge, which
  is {edge_area:.0%} of its area.

Chosen by rule: the steadiest whose validation AUC is at most {allowed} below that of `{base}`. On the {boxes} boxes of
{boxed} test X-rays, centre crop:

{localization}

{verdict}

The image centre is the same for every X-ray. The rule for regions is that of [where it looks](localization.md).
"""


@click.command()
@cxr14_option
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=ROOT / "build" / "map-training",
    help="Where trainings are kept, so that a study that was stopped continues.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(VARIANTS)),
    help="Train only these; the others if they are finished.",
)
@click.option("--epochs", type=click.IntRange(2), default=EPOCHS, help="For a trial: train for fewer.")
@click.option("--limit", type=click.IntRange(BATCH), help="For a trial: only the first N images of each split.")
@click.option("--resamples", type=click.IntRange(1), default=1000, help="For the intervals.")
def measure(
    data: Path,
    folder: Path,
    only: Sequence[str],
    epochs: int,
    limit: int | None,
    resamples: int,
) -> Result:
    """Train each variant that is not finished, judge all by the validation X-rays, and compare two with the boxes."""
    keep_freed_memory()
    images = read_data(data / "labels.csv")
    study = Study(images, data / "images", folder, epochs, limit)
    rows = {split: study.rows(split) for split in ("train", "val")}
    networks = {
        name: study.trained(name) for name in VARIANTS if name in (BASE, *(only or VARIANTS)) or study.is_finished(name)
    }
    judged = {name: _judged(network, images, rows["val"], data / "images") for name, network in networks.items()}
    scores = {name: own.pop("scores") for name, own in judged.items()}
    found = (images.labels[rows["val"]] == 1).any(1)
    for name, own in judged.items():
        own["auc"] = _compared(scores[BASE], scores[name], images, rows["val"], resamples)
        own["auc_of_found"] = _compared(scores[BASE][found], scores[name][found], images, rows["val"][found], resamples)
    chosen = choose(judged)
    boxes = boxes_of_test_images(data, limit)
    localization = {
        name: localized(networks[name], data / "images", boxes, images, resamples)
        for name in dict.fromkeys((BASE, chosen))
    }
    return {
        "images": {split: len(own) for split, own in rows.items()},
        "found": {
            split: _share_with_findings(images, images.rows(split)[:limit]) for split in ("train", "val", "test")
        },
        "epochs": epochs,
        "resamples": resamples,
        "variants": judged,
        "chosen": chosen,
        "boxes": {"boxes": sum(map(len, boxes.values())), "boxed": len(boxes)},
        "localization": {**localization, "image centre": localized(None, data / "images", boxes, images, resamples)},
    }


def _compared(base: Floats, own: Floats, images: DataSet, rows: npt.NDArray[np.int64], resamples: int) -> Result:
    """The mean AUC of the validation X-rays in these rows, and what it is less that of the base."""
    patients = [images.patients[row] for row in rows]
    return vars(compare_areas(FINDINGS, base, own, images.labels[rows] == 1, patients, resamples, 0).mean)


def _share_with_findings(images: DataSet, rows: npt.NDArray[np.int64]) -> float:
    return float((images.labels[rows] == 1).any(1).mean())


def choose(judged: dict[str, Result]) -> str:
    """The steadiest variant whose AUC is not much lower."""
    good = [name for name, own in judged.items() if own["auc"]["difference"] >= -ALLOWED_LOSS]
    return max(good, key=lambda name: judged[name]["steady"])


def _judged(network: EdgeNetwork, images: DataSet, rows: npt.NDArray[np.int64], folder: Path) -> Result:
    """Scores [N, 14], and what the highest points of the maps do."""
    recipe = read_recipe("edge")
    margin = recipe.image_size - recipe.crop_size
    scores, steady, at_edge = [], [], []
    for row in rows:
        picture = read_picture(folder / images.names[row], recipe.image_size)
        whole, first, last = (
            maps_of_crop(network, picture, start, recipe.crop_size) for start in (margin // 2, 0, margin)
        )
        scores.append(network.pool(whole[None])[0].sigmoid().numpy().astype(np.float64))
        cells = margin * whole.shape[-1] // recipe.crop_size
        for finding in np.flatnonzero(images.labels[row] == 1):
            y, x = _highest(whole[finding])
            at_edge.append(min(y, x, whole.shape[-1] - 1 - y, whole.shape[-1] - 1 - x) < cells)
            moved = np.subtract(_highest(first[finding, cells:, cells:]), _highest(last[finding, :-cells, :-cells]))
            steady.append(np.hypot(*moved) * margin / cells <= SAME_PLACE)
    return {"scores": np.array(scores), "steady": float(np.mean(steady)), "at_edge": float(np.mean(at_edge))}


def _highest(class_map: Tensor) -> tuple[int, int]:
    y, x = divmod(int(class_map.argmax()), class_map.shape[1])
    return y, x


def page(result: Result) -> str:
    """The page of a result."""
    recipe, judged, chosen = read_recipe("edge"), result["variants"], result["chosen"]
    rows = [(name, *_cells(judged.get(name))) for name in VARIANTS]
    located = [
        (name, *(shown(Accuracy(**own["mean"][measure])) for measure in MEASURES))
        for name, own in result["localization"].items()
    ]
    return TEXT.format(
        headline=_headline(judged, chosen, result["localization"]),
        variants="\n".join(f"- **{name}**: {variant.text}" for name, variant in VARIANTS.items()),
        table=markdown_table(
            ("network", "AUC", f"less that of `{BASE}`", "of those with findings", "steady", "at the edge"), rows
        ),
        verdict=_verdict(judged, chosen, result["localization"]),
        localization=markdown_table(("maps", *MEASURES), located),
        epochs=result["epochs"],
        resamples=result["resamples"],
        same=SAME_PLACE,
        stride=NETWORK_STRIDE,
        edge_area=1 - (1 - 2 * NETWORK_STRIDE / recipe.crop_size) ** 2,
        allowed=ALLOWED_LOSS,
        base=BASE,
        **{f"found_{split}": share for split, share in result["found"].items()},
        **{what: f"{count:,}" for what, count in (result["images"] | result["boxes"]).items()},
    )


def _cells(own: Result | None) -> tuple[str, ...]:
    if own is None:
        return "not measured", "", "", "", ""
    of_found = own["auc_of_found"]["b"]  # None if too few X-rays have a finding, in a trial
    found = "undefined" if of_found is None else f"{of_found:.4f}"
    areas = f"{own['auc']['b']:.4f}", _difference(own["auc"]), found
    return *areas, f"{own['steady']:.0%}", f"{own['at_edge']:.0%}"


def _difference(area: Result) -> str:
    if not area["low"] and not area["high"]:
        return ""
    return f"{area['difference']:+.4f} ({area['low']:+.4f} to {area['high']:+.4f})"


def _verdict(judged: dict[str, Result], chosen: str, located: dict[str, Result]) -> str:
    """Whether the choice is better than what it changes."""
    if chosen == BASE:
        return f"So the shipped network stays `{BASE}` as it is."
    area = judged[chosen]["auc"]
    own, base = (Accuracy(**located[name]["mean"]["pointing"]) for name in (chosen, BASE))
    if area["low"] > 0 or (own.low is not None and base.high is not None and own.low > base.high):
        return f"**{chosen.capitalize()}** is better by more than chance can explain."
    return (
        f"The choice is not better than `{BASE}` by more than chance can explain, in AUC or in the boxes, so the "
        "shipped network stays as it is."
    )


def _headline(judged: dict[str, Result], chosen: str, located: dict[str, Result]) -> str:
    base = f"{judged[BASE]['steady']:.0%} with `{BASE}`"
    if chosen == BASE:
        steady = f"None of the changes is steadier without a lower AUC: the highest point stays in place in {base}"
    else:
        steady = (
            f"The highest point of a map stays in place in {judged[chosen]['steady']:.0%} with `{chosen}`, in {base}"
        )
    pointing = {name: own["mean"]["pointing"]["value"] for name, own in located.items()}
    inside = ", ".join(f"{value:.0%} with `{name}`" for name, value in pointing.items() if name in judged)
    return f"{steady}; it lies in the boxes in {inside}; the image centre does in {pointing['image centre']:.0%}."
