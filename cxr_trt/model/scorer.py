"""The whole scoring computation in PyTorch: the reference with which every exported graph is compared."""

import torch
from torch import Tensor, nn

from cxr_trt.errors import GraphError
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.network import Network
from cxr_trt.spec import Specification
from cxr_trt.views import NETWORK_STRIDE


class Scorer(nn.Module):
    """uint8 images [N, 1, size, size] to probabilities [N, 14] and merged class maps [N, 14, h, w].

    Raises:
        GraphError: the network is not of the paper's family.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: CropNetwork, spec: Specification) -> None:
        super().__init__()
        if not isinstance(network, Network):
            raise GraphError("only networks of the system yan2018 can be scored and exported; give another checkpoint")
        self.network, self.spec = network.eval(), spec
        self.register_buffer("mean", torch.tensor(spec.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[None, :, None, None])

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise, cut the views, run the network on each, pool, and average the probabilities (paper, sec. 4.2)."""
        normalised = (images / 255 - self.mean) / self.std
        size = self.spec.view_size
        (start, side), cell = self.spec.class_map_region, self.spec.class_map_cell
        total = images.new_zeros((len(images), len(self.spec.findings), side // cell, side // cell)).float()
        count = torch.zeros_like(total)
        probabilities = []
        for view in self.spec.view_list():
            crop = normalised[:, :, view.y : view.y + size, view.x : view.x + size]
            maps = self.network.class_maps(crop.flip(-1) if view.mirrored else crop)
            for top, left, height, width in self.spec.windows:
                scores = self.network.pool(maps[:, :, top : top + height, left : left + width])
                probabilities.append(self._at_operating_points(torch.sigmoid(scores)))
            maps = maps.repeat_interleave(NETWORK_STRIDE // cell, 2).repeat_interleave(NETWORK_STRIDE // cell, 3)
            rows, columns = (
                slice((offset - start) // cell, (offset - start + size) // cell) for offset in (view.y, view.x)
            )
            total[:, :, rows, columns] += maps.flip(-1) if view.mirrored else maps
            count[:, :, rows, columns] += 1
        return torch.stack(probabilities).mean(0), total / count

    def _at_operating_points(self, p: Tensor) -> Tensor:
        if not self.spec.operating_points:
            return p
        point = torch.tensor(self.spec.operating_points)
        return torch.where(p < point, p / (2 * point), 1 - (1 - p) / (2 * (1 - point)))
