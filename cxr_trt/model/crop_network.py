"""What training, scoring and export ask of every network."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class CropNetwork(nn.Module, ABC):
    """A network that sees one crop at a time; several crops of an X-ray are the scoring graph's affair.

    A submodule with a true attribute `stays_float32` is computed in float32 in engines of every precision.

    part: the submodule in training, if the network is trained part by part: the outputs are then that part's. Empty
        for the whole network.
    backbones: the prefixes of the parameters that ImageNet weights fill.
    """

    backbones: ClassVar[tuple[str, ...]] = ("features.",)
    part: str = ""

    @abstractmethod
    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs and class maps of crops.

        Args:
            crops: [N, channels, H, W], normalised with the specification's mean and deviation.

        Returns:
            Logits [N, K], and class maps [N, K, h, w] that cover the crop evenly, or None if the network has none.
        """

    def training_outputs(self, crops: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step compares: logits [N, L] and labels [N, L] of 0, 1, or NaN where unknown.

        By default the outputs and `labels` [N, K]; a network may learn more than it is scored by.
        """
        return self(crops), labels

    def forward(self, crops: Tensor) -> Tensor:
        """Crops [N, channels, H, W] to logits [N, K]."""
        return self.outputs_and_maps(crops)[0]
