"""The whole scoring computation in PyTorch: the reference with which every exported graph is compared."""

import torch
from torch import Tensor, nn

from cxr_trt.model.network import Network
from cxr_trt.spec import Specification
from cxr_trt.views import NETWORK_STRIDE


class Scorer(nn.Module):
    """uint8 images [N, 1, height, width] to probabilities [N, findings] and merged class maps [N, findings, h, w].

    For the paper's network and its relatives, whose class maps are pooled.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, spec: Specification) -> None:
        super().__init__()
        self.network, self.spec = network.eval(), spec
        self.register_buffer("mean", torch.tensor(spec.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[None, :, None, None])

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise, cut the views, run the network on each, pool, and average the probabilities (paper, sec. 4.2)."""
        spec = self.spec
        normalised = (images / 255 - self.mean) / self.std
        size, region, parts = spec.view_size, spec.class_map_region, spec.class_map_parts
        total = images.new_zeros((len(images), len(spec.findings), *spec.class_map_cells)).float()
        count = torch.zeros_like(total)
        probabilities = []
        for view in spec.view_list():
            crop = normalised[:, :, view.y : view.y + size.height, view.x : view.x + size.width]
            maps = self.network.class_maps(crop.flip(-1) if view.mirrored else crop)
            for y, x, height, width in spec.windows:
                scores = self.network.pool(maps[:, :, y : y + height, x : x + width])
                probabilities.append(self._at_operating_points(torch.sigmoid(scores)))
            maps = maps.repeat_interleave(parts.height, 2).repeat_interleave(parts.width, 3)
            top = (view.y - region.y) * parts.height // NETWORK_STRIDE
            left = (view.x - region.x) * parts.width // NETWORK_STRIDE
            rows, columns = slice(top, top + maps.shape[2]), slice(left, left + maps.shape[3])
            total[:, :, rows, columns] += maps.flip(-1) if view.mirrored else maps
            count[:, :, rows, columns] += 1
        return torch.stack(probabilities).mean(0), total / count

    def _at_operating_points(self, p: Tensor) -> Tensor:
        if not self.spec.operating_points:
            return p
        point = torch.tensor(self.spec.operating_points)
        return torch.where(p < point, p / (2 * point), 1 - (1 - p) / (2 * (1 - point)))
