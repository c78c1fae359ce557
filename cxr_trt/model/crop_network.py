"""What training, scoring and export ask of every network."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class CropNetwork(nn.Module, ABC):
    """A network that sees one crop at a time; several crops of an X-ray are the scoring graph's affair."""

    @abstractmethod
    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs and class maps of crops.

        Args:
            crops: [N, channels, H, W], normalised with the specification's mean and deviation.

        Returns:
            Logits [N, K], and class maps [N, K, h, w] that cover the crop evenly, or None if the network has none.
        """

    def forward(self, crops: Tensor) -> Tensor:
        """Crops [N, channels, H, W] to logits [N, K]."""
        return self.outputs_and_maps(crops)[0]
