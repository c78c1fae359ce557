"""Processes that train together, one per GPU: `torchrun --nproc-per-node 4 -m train ...`. Without torchrun, one.

They share the batch of each step, and their gradients are added up, so that every process takes the same step. Only the
first process validates and writes.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


class Group:
    """The processes of one torchrun, connected within a `with` block.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: the device of this process: the GPU of its number on this machine, or the CPU.
    """

    def __init__(self, kind: str) -> None:
        """Find this process's place; kind is "cpu" or "cuda"."""
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if kind == "cuda" else kind)

    def __enter__(self) -> "Group":
        if self.size > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the processes, in one transfer."""
        if self.size > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            together = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(together)
            parts = together.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.reshape(gradient.shape))

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a number over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def from_first(self, *values: float) -> list[float]:
        """The numbers that the first process passes in, for all processes."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        found: list[float] = shared.tolist()
        return found
