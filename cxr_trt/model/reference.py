"""A checkpoint as an engine: scored in PyTorch, for comparisons."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cxr_trt.engine.backend import Outputs
from cxr_trt.engine.bundle import UNTRAINED
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.scorer import Scorer
from cxr_trt.spec import Specification
from cxr_trt.views import ViewSet


class Reference:
    """A `cxr_trt.engine.backend.ScoringEngine` in float32 PyTorch on the CPU."""

    max_batch = 1

    def __init__(self, checkpoint: Path, setting: str | None, view_set: ViewSet) -> None:
        """Load a checkpoint, as `load_checkpoint` does."""
        loaded = load_checkpoint(checkpoint, setting)
        settings = loaded.network.settings
        self.spec = Specification(views=view_set, k_max=settings.k_max, k_min=settings.k_min, alpha=settings.alpha)
        self.fingerprint = f"{loaded.sha256[:16]}-{self.spec.sha256[:16]}"
        self.warnings: tuple[str, ...] = () if loaded.trained else (UNTRAINED,)
        self._scorer = Scorer(loaded.network, self.spec)

    def run(self, images: npt.NDArray[np.uint8], *, class_maps: bool = False) -> Outputs:
        size = self.spec.image_size
        probabilities, maps = self._scorer(torch.from_numpy(images.reshape(-1, 1, size, size)))
        return Outputs(probabilities.numpy(), maps.numpy() if class_maps else None)
