"""A second look at the part of a crop where a network's activations are highest (AG-CNN, Guan et al. 2018, sec. 3.2).

From heat map to crop everything has a fixed shape, so that the second look is part of one ONNX graph: which cells hang
together is a matrix, and cutting and resizing are two matrix products. All of it stays float32 in every engine, because
a threshold that flips moves the box.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Heat = Literal["min-max", "max"]
THRESHOLD = 0.7  # tau of eq. 4
SMALLEST_RANGE = 1e-12  # of a heat map, below which it is flat


class HottestBoxes(nn.Module):
    """The bounding box of the largest connected region of the heat map above a threshold (eqs. 3 and 4).

    The heat map is the maximum over the channels of the magnitudes. What it is scaled by is not given in the paper:
    heat "min-max" subtracts the least cell and divides by the range, "max" divides by the highest cell. Regions hang
    together along edges and corners; of equally large ones, the first in reading order counts.
    """

    stays_float32 = True

    def __init__(self, heat: Heat = "min-max", threshold: float = THRESHOLD) -> None:
        super().__init__()
        self.heat, self.threshold = heat, threshold

    def forward(self, activations: Tensor) -> Tensor:
        """[N, C, h, w] to boxes [N, 4] in cells: top, left, bottom, right. A flat map gives the whole map."""
        height, width = activations.shape[2:]
        mask = (self.scaled_heat(activations) > self.threshold).float()
        reach = mask[:, :, None] * mask[:, None] * _neighbours(height, width).to(mask)
        for _ in range(math.ceil(math.log2(height * width))):  # each product doubles the length of the ways
            reach = (reach @ reach).clamp(max=1)
        largest = reach.sum(2).argmax(1, keepdim=True)
        chosen = (torch.arange(height * width, device=mask.device) == largest).to(mask)
        region = (chosen[:, None] @ reach).squeeze(1)
        region = torch.where(region.amax(1, keepdim=True) > 0, region, torch.ones_like(region))
        region = region.reshape(-1, height, width)
        (top, bottom), (left, right) = _ends(region.amax(2)), _ends(region.amax(1))
        return torch.cat([top, left, bottom, right], 1)

    def scaled_heat(self, activations: Tensor) -> Tensor:
        """[N, C, h, w] to heat from 0 to 1, [N, h * w]."""
        heat = activations.float().abs().amax(1).flatten(1)
        lowest = heat.amin(1, keepdim=True) if self.heat == "min-max" else torch.zeros_like(heat[:, :1])
        return (heat - lowest) / (heat.amax(1, keepdim=True) - lowest).clamp(min=SMALLEST_RANGE)


class BoxCrops(nn.Module):
    """Cuts boxes from crops and resizes them to the crops' size, bilinearly."""

    stays_float32 = True

    def forward(self, crops: Tensor, boxes: Tensor, cells: tuple[int, int]) -> Tensor:
        """Crops [N, C, H, W] and boxes [N, 4] in cells, of which a crop has `cells`, to [N, C, H, W]."""
        top, left, bottom, right = boxes.float().chunk(4, 1)
        height, width = crops.shape[2:]
        down = _resizing(top * (height / cells[0]), bottom * (height / cells[0]), height)
        across = _resizing(left * (width / cells[1]), right * (width / cells[1]), width)
        return down[:, None] @ crops.float() @ across[:, None].transpose(2, 3)


def _neighbours(height: int, width: int) -> Tensor:
    """[cells, cells]: 1 where two cells touch, along an edge or at a corner, or are the same."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (((y[:, None] - y).abs() <= 1) & ((x[:, None] - x).abs() <= 1)).float()


def _ends(present: Tensor) -> tuple[Tensor, Tensor]:
    """The first position that is 1 in each row of [N, n], and the one behind the last; [N, 1] each."""
    count = present.shape[1]
    position = torch.arange(count, device=present.device, dtype=present.dtype)
    first = count + (present * (position - count)).amin(1, keepdim=True)
    return first, (present * (position + 1)).amax(1, keepdim=True)


def _resizing(start: Tensor, end: Tensor, side: int) -> Tensor:
    """Matrices [N, side, side] that resize the pixels from `start` to `end` (both [N, 1]) of a line to `side` pixels.

    Pixels are points at the centres of their squares, and what lies beyond the outermost ones is as they are.
    """
    pixel = torch.arange(side, device=start.device, dtype=start.dtype)
    source = start + (end - start) * ((pixel + 0.5) / side) - 0.5
    source = torch.minimum(torch.maximum(source, start), end - 1)
    return (1 - (source[:, :, None] - pixel).abs()).relu()
