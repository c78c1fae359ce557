"""AG-CNN (Guan et al. 2018): a network that looks at a crop, then at its hottest part, and fuses what it has seen."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.global_pooling import MaxPool
from cxr_trt.model.second_pass import BoxCrops, Heat, HottestBoxes

OUTPUTS = len(FINDINGS) + 1  # "No Finding" is learned too (sec. 3.1)


class Branch(nn.Module):
    """A backbone, global maximum pooling and a linear layer of its own, which is only for training the branch."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.pool = features, MaxPool()
        self.prediction = nn.Linear(channels, OUTPUTS)

    def activations(self, crops: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, channels, h, w], from 0 up."""
        return torch.relu(self.features(crops))


class TwoPassNetwork(CropNetwork):
    """Crops [N, 3, H, W] to logits of the 14 findings, and maps: the global activations as the fusion weighs them.

    It is trained part by part. While a part is trained, the others do not change, and the outputs are that part's.

    global_branch, local_branch: of the same architecture, with weights of their own.
    """

    backbones = ("global_branch.features.", "local_branch.features.")

    def __init__(self, global_branch: Branch, local_branch: Branch, heat: Heat = "min-max") -> None:
        super().__init__()
        self.global_branch, self.local_branch = global_branch, local_branch
        self.boxes, self.box_crops = HottestBoxes(heat), BoxCrops()
        self.channels = global_branch.prediction.in_features
        self.fusion = nn.Linear(2 * self.channels, OUTPUTS)

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        outputs, activations = self._outputs(crops)
        weights = self.fusion.weight[: len(FINDINGS), : self.channels]
        return outputs[:, : len(FINDINGS)], conv2d(activations, weights[:, :, None, None])

    def training_outputs(self, crops: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        no_finding = 1 - labels.amax(1, keepdim=True)
        return self._outputs(crops)[0], torch.cat([labels, no_finding], 1)

    def _outputs(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """All 15 logits of the part in training, or of the fusion, and the global activations."""
        first = self.global_branch
        activations = first.activations(crops)
        pooled = first.pool(activations)
        if self.part == "global_branch":
            return first.prediction(pooled), activations
        cells = (activations.shape[2], activations.shape[3])
        local_pooled = self.local_branch.pool(
            self.local_branch.activations(self.box_crops(crops, self.boxes(activations), cells))
        )
        if self.part == "local_branch":
            return self.local_branch.prediction(local_pooled), activations
        return self.fusion(torch.cat([pooled, local_pooled], 1)), activations
