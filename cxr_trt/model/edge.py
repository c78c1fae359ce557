"""EfficientNet-Lite with the paper's head."""

from typing import Any

import timm
from torch import Tensor, nn

from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.spec import Pooling

DROPPED_SHARE = 0.2  # of the activations' channels in training; EfficientNet's own share before its classifier


class EdgeNetwork(PooledMapsNetwork):
    """Crops [N, 3, H, W], normalised, to logits [N, 14], pooled from class maps [N, 14, H/32, W/32].

    name: of one of timm's networks, whose definition is used without its classifier.
    """

    def __init__(self, name: str, maps_per_finding: int, pooling: Pooling) -> None:
        backbone: Any = timm.create_model(name, num_classes=0, global_pool="")
        super().__init__(backbone, backbone.num_features, maps_per_finding, pooling)
        self.dropout = nn.Dropout2d(DROPPED_SHARE)

    def activations(self, crops: Tensor) -> Tensor:
        activations: Tensor = self.dropout(self.features(crops))
        return activations
