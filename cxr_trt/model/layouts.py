"""Checkpoints of other projects: recognised by their keys, and converted to weights of this project's network.

All of them are torchvision's DenseNet-121 with a linear classifier on the mean of the last features. A linear layer and
a mean commute, so the classifier becomes the transfer layer with one map per finding, and the mean becomes the pooling
with k equal to the number of cells: the scores are the same, and there are class maps in addition.

- torchvision: the backbone is under `features.`; old files have `norm.1` instead of `norm1`.
- CheXNet re-implementations (arnoweng/CheXNet, zoogzog/chexnet): everything is under `module.densenet121.`; the
  classifier is a `Sequential(Linear(1024, 14), Sigmoid())`, with the 14 findings in this project's order. Images are
  resized to 256 pixels and cropped to 224, and normalised with ImageNet statistics.
- torchxrayvision (`torchxrayvision.models.DenseNet`): one input channel from -1024 to 1024, 224 pixels without crops,
  18 outputs, of which a model may have been trained on fewer, and operating points that become 0.5.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cxr_trt.errors import CheckpointError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import Pooling, Specification
from cxr_trt.views import NETWORK_STRIDE, Size

BATCH_COUNTER_KEY = "num_batches_tracked"  # missing in old files; it has no influence on the scores
CLASSIFIER_KEYS = ("classifier.weight", "classifier.bias")
CROP_PIXELS = 224  # for CheXNet and torchxrayvision alike
CROP_CELLS = (CROP_PIXELS // NETWORK_STRIDE) ** 2
MEAN_POOLED_SETTINGS = ModelSettings(squeeze_excitation=False, maps_per_finding=1, k_max=CROP_CELLS, k_min=1, alpha=0.0)

XRV_POINTS = "op_threshs"
XRV_OUTPUTS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)  # torchxrayvision.datasets.default_pathologies


@dataclass(frozen=True)
class Adapted:
    """Weights with this project's keys, and the settings and the specification that belong to them."""

    weights: dict[str, Tensor]
    settings: ModelSettings
    spec: Specification


def torchvision_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights to the keys of torchvision's DenseNet-121, and drop the batch counters."""
    renamed = {}
    for key, value in weights.items():
        if key.endswith(BATCH_COUNTER_KEY):
            continue
        key = re.sub(r"^(module\.)?(densenet121\.)?", "", key)
        key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
        renamed[re.sub(r"^classifier\.0\.", "classifier.", key)] = value
    return renamed


def adapt(weights: Mapping[str, Tensor], path: Path) -> Adapted | None:
    """Convert a checkpoint of another project; None if it has no classifier, so that it is not from another project.

    Raises:
        CheckpointError: it has a classifier, but comes from no known project, or lacks a finding.
    """
    renamed = torchvision_keys(weights)
    if not all(key in renamed for key in (*CLASSIFIER_KEYS, "features.conv0.weight")):
        return None
    first, weight, bias = (renamed[key] for key in ("features.conv0.weight", *CLASSIFIER_KEYS))
    if (first.ndim, weight.ndim, bias.ndim) != (4, 2, 1) or len(weight) != len(bias):
        raise CheckpointError(
            f"{path}: its classifier or its first convolution has a shape that no DenseNet has; use another checkpoint"
        )
    channels, outputs = first.shape[1], len(bias)
    if (channels, outputs) == (3, len(FINDINGS)):
        rows, settings = list(range(outputs)), MEAN_POOLED_SETTINGS
        spec = Specification(
            image_size=Size.square(256),
            crop_size=Size.square(CROP_PIXELS),
            fit="center-crop",
            pooling=Pooling(CROP_CELLS, 1, 0.0),
        )
    elif (channels, outputs) == (1, len(XRV_OUTPUTS)):
        rows, operating = reported_outputs(renamed.pop(XRV_POINTS, None), path)
        settings, spec = _torchxrayvision(rows, operating)
    elif (channels, outputs) == (3, 1000):
        raise CheckpointError(
            f"{path}: is torchvision's DenseNet-121 for ImageNet, which knows no findings; train with it first: "
            f"python -m train --imagenet {path}"
        )
    else:
        raise CheckpointError(
            f"{path}: this DenseNet has {outputs} outputs and {channels} input channels, so it is from no known "
            f"project: CheXNet has {len(FINDINGS)} and 3, and torchxrayvision has {len(XRV_OUTPUTS)} and 1"
        )
    weight, bias = (renamed.pop(key)[rows] for key in CLASSIFIER_KEYS)
    renamed |= {"transfer.conv.weight": weight[:, :, None, None], "transfer.conv.bias": bias}
    counters = {
        key.replace("running_mean", BATCH_COUNTER_KEY): torch.tensor(0)
        for key in renamed
        if key.endswith("running_mean")
    }
    return Adapted(renamed | counters, settings, spec)


def reported_outputs(points: Tensor | None, path: Path) -> tuple[list[int], tuple[float, ...]]:
    """Which of XRV_OUTPUTS a model of torchxrayvision was trained on, by index, and their operating points.

    Args:
        points: the model's operating points [18], not a number where it was not trained; None if it has none.
        path: the checkpoint, for messages.
    """
    if points is None:
        return list(range(len(XRV_OUTPUTS))), ()
    if points.shape != (len(XRV_OUTPUTS),):
        raise CheckpointError(
            f"{path}: has {points.numel()} operating points for {len(XRV_OUTPUTS)} outputs; use another checkpoint"
        )
    values = points.double().tolist()
    rows = [i for i, point in enumerate(values) if 0 < point < 1]
    if not rows:
        raise CheckpointError(
            f"{path}: its operating points say that it was trained on nothing; use another checkpoint"
        )
    return rows, tuple(values[i] for i in rows)


def _torchxrayvision(rows: list[int], operating: tuple[float, ...]) -> tuple[ModelSettings, Specification]:
    spec = Specification(
        views="center",
        findings=tuple(XRV_OUTPUTS[row] for row in rows),
        image_size=Size.square(CROP_PIXELS),
        crop_size=Size.square(CROP_PIXELS),
        mean=(0.5,),
        std=(1 / 2048,),
        fit="center-crop",
        operating_points=operating,
        pooling=Pooling(CROP_CELLS, 1, 0.0),
    )
    return ModelSettings(**{**vars(MEAN_POOLED_SETTINGS), "channels": 1}), spec
