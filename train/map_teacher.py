"""Class maps of other networks as targets: distillation of where a finding is seen, beside how likely it is.

Networks differ in how they pool their maps, and so in what their values mean. What is compared is thus the pattern
alone, by correlation, as T. Huang et al. 2022 compare outputs (NeurIPS, "Knowledge Distillation from A Stronger
Teacher", arXiv 2205.10536, eq. 6).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.network import PooledMapsNetwork

SMALLEST_SPREAD = 1e-6  # of the values of a map, below which it has no pattern


class MapTeacher(nn.Module):
    """A network that pools its class maps, with the normalisation of its pixels."""

    def __init__(self, path: Path) -> None:
        """Read a checkpoint.

        Raises:
            CheckpointError: it cannot be read.
            UsageError: its network does not pool class maps of the 14 findings.
        """
        super().__init__()
        checkpoint = load_checkpoint(path)
        network, spec = checkpoint.network, checkpoint.spec
        if not isinstance(network, PooledMapsNetwork) or spec.findings != FINDINGS:
            raise UsageError(
                f"{path}: cannot teach maps; --map-teacher takes a network that pools its class maps of the 14 "
                f"findings, such as paper or edge"
            )
        self.network, self.sha256 = network.requires_grad_(False).eval(), checkpoint.sha256
        self.mean, self.std = (
            nn.Buffer(torch.tensor(values)[:, None, None], persistent=False) for values in (spec.mean, spec.std)
        )

    @torch.no_grad()
    def forward(self, crops: Tensor) -> Tensor:
        """Class maps [N, 14, h, w] of uint8 crops [N, H, W]."""
        pixels = (crops[:, None].float() / 255 - self.mean) / self.std
        return self.network.class_maps(pixels.contiguous(memory_format=torch.channels_last))


class MapTeachers(nn.Module):
    """Several teachers, whose maps are averaged.

    sha256: of their checkpoints.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read checkpoints; see `MapTeacher`."""
        super().__init__()
        self.teachers = nn.ModuleList(MapTeacher(path) for path in paths)
        known = "".join(str(teacher.sha256) for teacher in self.teachers)
        self.sha256 = hashlib.sha256(known.encode()).hexdigest()

    def forward(self, crops: Tensor) -> Tensor:
        """The mean class maps [N, 14, h, w] of uint8 crops [N, H, W]."""
        return torch.stack([teacher(crops) for teacher in self.teachers]).mean(0)


def map_distance(maps: Tensor, taught: Tensor) -> Tensor:
    """How little class maps [N, K, h, w] follow a teacher's: 1 less the correlation, from 0 to 2, mean of the findings.

    The correlation is over all cells of a batch, so it is also learned in which X-rays a finding is seen.
    """
    own, other = (_centred(values) for values in (maps, taught))
    spread = (own.norm(dim=1) * other.norm(dim=1)).clamp_min(SMALLEST_SPREAD)
    distances: Tensor = 1 - (own * other).sum(1) / spread
    return distances.mean()


def _centred(maps: Tensor) -> Tensor:
    """[N, K, h, w] to [K, N * h * w], less the mean."""
    values = maps.float().transpose(0, 1).flatten(1)
    return values - values.mean(1, keepdim=True)
