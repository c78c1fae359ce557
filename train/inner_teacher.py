"""Class maps and features of other networks as targets: where they see a finding, and by what.

Networks differ in how they pool their maps, and so in what the values mean; and in how many features they have. So
patterns are compared, not values.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.network import PooledMapsNetwork

SMALLEST_SPREAD = 1e-6  # of what is compared, below which it has no pattern


class InnerTeacher(nn.Module):
    """A network that pools its class maps, with the normalisation of its pixels."""

    def __init__(self, path: Path) -> None:
        """Read a checkpoint.

        Raises:
            CheckpointError: it cannot be read.
            UsageError: it is a scoring graph, or its network does not pool class maps of the 14 findings.
        """
        super().__init__()
        if path.suffix == ".onnx":
            raise UsageError(
                f"{path}: is a scoring graph; --inner-teacher takes the checkpoint that it was exported from"
            )
        checkpoint = load_checkpoint(path)
        network, spec = checkpoint.network, checkpoint.spec
        if not isinstance(network, PooledMapsNetwork) or spec.findings != FINDINGS:
            raise UsageError(
                f"{path}: cannot be an inner teacher, which must be a network that pools its class maps of the 14 "
                f"findings, such as paper or edge"
            )
        self.network, self.sha256 = network.requires_grad_(False).eval(), checkpoint.sha256
        self.mean, self.std = (
            nn.Buffer(torch.tensor(values)[:, None, None], persistent=False) for values in (spec.mean, spec.std)
        )

    @torch.no_grad()
    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, any, h, w] and class maps [N, 14, h, w] of uint8 crops [N, H, W]."""
        pixels = (crops[:, None].float() / 255 - self.mean) / self.std
        features = self.network.activations(pixels.contiguous(memory_format=torch.channels_last))
        return features, self.network.transfer(features)


class InnerTeachers(nn.Module):
    """Teachers whose class maps are averaged.

    sha256: of their checkpoints, in order of the alphabet.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read checkpoints; see `InnerTeacher`."""
        super().__init__()
        self.teachers = nn.ModuleList(InnerTeacher(path) for path in paths)
        self.sha256 = sorted(str(teacher.sha256) for teacher in self.teachers)

    def forward(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features of each teacher, and their mean class maps [N, 14, h, w], of uint8 crops [N, H, W]."""
        features, maps = zip(*(teacher(crops) for teacher in self.teachers), strict=True)
        return list(features), torch.stack(maps).mean(0)


def map_distance(maps: Tensor, taught: Tensor) -> Tensor:
    """How little class maps [N, K, h, w] follow a teacher's: 1 less the correlation, from 0 to 2, mean of the findings.

    The correlation is over all cells of a batch (of a process's part of it, if it is divided), so it is also learned in
    which X-rays a finding is seen. T. Huang et al. 2022 compare outputs so (NeurIPS, "Knowledge Distillation from A
    Stronger Teacher", arXiv 2205.10536, eq. 6).
    """
    own, other = (_centred(values.transpose(0, 1).flatten(1), 1) for values in (maps, taught))
    spread = (own.norm(dim=1) * other.norm(dim=1)).clamp_min(SMALLEST_SPREAD)
    distances: Tensor = 1 - (own * other).sum(1) / spread
    return distances.mean()


def feature_distance(features: Tensor, taught: Sequence[Tensor]) -> Tensor:
    """1 less the linear centred kernel alignment (CKA) of student and teacher over the cells of a batch, 0 to 1.

    Teachers may have other numbers of features than [N, C, h, w]; the mean of the teachers is taken. With fewer cells
    than features, even features that have nothing to do with each other are far from 1. CKA: S. Kornblith et al. 2019
    (ICML, "Similarity of Neural Network Representations Revisited", arXiv 1905.00414, sec. 3).
    """
    own = _cells(features)
    distances = []
    for other in map(_cells, taught):
        spread = (own.T @ own).norm() * (other.T @ other).norm()
        distances.append(1 - (own.T @ other).square().sum() / spread.clamp_min(SMALLEST_SPREAD))
    return torch.stack(distances).mean()


def _cells(features: Tensor) -> Tensor:
    """[N, C, h, w] to [N * h * w, C], centred."""
    return _centred(features.movedim(1, -1).flatten(0, -2), 0)


def _centred(values: Tensor, axis: int) -> Tensor:
    values = values.float()
    return values - values.mean(axis, keepdim=True)
