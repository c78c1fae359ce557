"""Checkpoints of other projects: known by their keys, turned into weights of this project's network.

All of them are torchvision's DenseNet-121 with a linear classifier on the mean of the last features. A linear layer and
a mean commute, so the classifier becomes the transfer layer with one map a finding, and the mean the pooling with k of
all cells: the same scores, and class maps besides.

- torchvision: the backbone under `features.`, in old files with `norm.1` for `norm1`.
- CheXNet re-implementations (arnoweng/CheXNet, zoogzog/chexnet): all under `module.densenet121.`, the classifier a
  `Sequential(Linear(1024, 14), Sigmoid())`, the 14 findings in this project's order. Images resized to 256 pixels,
  crops of 224, ImageNet statistics.
- torchxrayvision (`torchxrayvision.models.DenseNet`): one input channel from -1024 to 1024, 224 pixels without crops,
  18 outputs of which 14 are ours by name, and operating points that become 0.5.
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
from cxr_trt.spec import Specification
from cxr_trt.views import NETWORK_STRIDE

BATCH_COUNTER_KEY = "num_batches_tracked"  # missing in old files, and of no influence
CLASSIFIER_KEYS = ("classifier.weight", "classifier.bias")
CROP_PIXELS = 224  # pixels, in both projects
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
    """Weights under this project's keys, and the network and treatment of images that they want."""

    weights: dict[str, Tensor]
    settings: ModelSettings
    spec: Specification


def torchvision_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the keys of torchvision's DenseNet-121, and leave out the counters of batches."""
    renamed = {}
    for key, value in weights.items():
        if key.endswith(BATCH_COUNTER_KEY):
            continue
        key = re.sub(r"^(module\.)?(densenet121\.)?", "", key)
        key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
        renamed[re.sub(r"^classifier\.0\.", "classifier.", key)] = value
    return renamed


def adapt(weights: Mapping[str, Tensor], path: Path) -> Adapted | None:
    """Turn a checkpoint of another project into ours; None if it has no classifier, so is none of them.

    Raises:
        CheckpointError: it has a classifier, but is of no known project, or lacks a finding.
    """
    named = torchvision_keys(weights)
    if not all(key in named for key in (*CLASSIFIER_KEYS, "features.conv0.weight")):
        return None
    first, weight, bias = (named[key] for key in ("features.conv0.weight", *CLASSIFIER_KEYS))
    if (first.ndim, weight.ndim, bias.ndim) != (4, 2, 1) or len(weight) != len(bias):
        raise CheckpointError(f"{path}: its classifier or its first convolution has a shape that no DenseNet has")
    channels, outputs = first.shape[1], len(bias)
    if (channels, outputs) == (3, len(FINDINGS)):
        rows, settings = list(range(outputs)), MEAN_POOLED_SETTINGS
        spec = Specification(image_size=256, crop_size=CROP_PIXELS, fit="center-square", k_max=CROP_CELLS, alpha=0.0)
    elif (channels, outputs) == (1, len(XRV_OUTPUTS)):
        rows = [XRV_OUTPUTS.index(finding) for finding in FINDINGS]
        settings, spec = _torchxrayvision(named.pop(XRV_POINTS, None), rows, path)
    elif (channels, outputs) == (3, 1000):
        raise CheckpointError(
            f"{path}: is torchvision's DenseNet-121 for ImageNet, which knows no findings; train with it: "
            f"python -m train --imagenet {path}"
        )
    else:
        raise CheckpointError(
            f"{path}: a DenseNet with {outputs} outputs and {channels} input channels is of no known project; CheXNet "
            f"has {len(FINDINGS)} and 3, torchxrayvision {len(XRV_OUTPUTS)} and 1"
        )
    weight, bias = (named.pop(key)[rows] for key in CLASSIFIER_KEYS)
    named |= {"transfer.conv.weight": weight[:, :, None, None], "transfer.conv.bias": bias}
    counters = {
        key.replace("running_mean", BATCH_COUNTER_KEY): torch.tensor(0) for key in named if key.endswith("running_mean")
    }
    return Adapted(named | counters, settings, spec)


def _torchxrayvision(points: Tensor | None, rows: list[int], path: Path) -> tuple[ModelSettings, Specification]:
    if points is not None and points.shape != (len(XRV_OUTPUTS),):
        raise CheckpointError(f"{path}: has {points.numel()} operating points, not one for each of its outputs")
    operating = () if points is None else tuple(points.double()[rows].tolist())
    if missing := [name for name, point in zip(FINDINGS, operating, strict=False) if not 0 < point < 1]:
        raise CheckpointError(
            f"{path}: this torchxrayvision model was not trained on {', '.join(missing)}; take one with all 14 "
            "findings, such as densenet121-res224-all"
        )
    spec = Specification(
        views="center",
        image_size=CROP_PIXELS,
        crop_size=CROP_PIXELS,
        mean=(0.5,),
        std=(1 / 2048,),
        fit="center-square",
        operating_points=operating,
        k_max=CROP_CELLS,
        alpha=0.0,
    )
    return ModelSettings(**{**vars(MEAN_POOLED_SETTINGS), "channels": 1}), spec
