"""A checkpoint that can be used like an engine: it is scored in PyTorch, for comparisons."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cxr_trt.engine.backend import Outputs, Pending
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.scorer import Scorer
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.views import ViewSet


class Reference:
    """A `cxr_trt.engine.backend.ScoringEngine` in float32 PyTorch on the CPU."""

    max_batch = 1
    in_flight = 1

    def __init__(self, checkpoint: Path, setting: str | None, view_set: ViewSet | None) -> None:
        """Load a checkpoint, as `load_checkpoint` does. Without a view set, its own views are used."""
        loaded = load_checkpoint(checkpoint, setting)
        self.spec = replace(loaded.spec, views=view_set or loaded.spec.views)
        self.fingerprint = f"{loaded.sha256[:16]}-{self.spec.sha256[:16]}"
        self.warnings = CAUTIONS[loaded.weights]
        self._scorer = Scorer(loaded.network, self.spec)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        probabilities, maps = self._scorer(torch.from_numpy(np.stack(images)[:, None]))
        outputs = Outputs(probabilities.numpy(), maps.numpy() if class_maps else None)
        return lambda: outputs
