"""A checkpoint that can be used like an engine: it is scored in PyTorch, for comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cxr_trt.engine.backend import Outputs, Pending
from cxr_trt.errors import UsageError
from cxr_trt.export.from_module import xrv_resnet_spec
from cxr_trt.export.network_reference import reference_outputs, reference_probabilities
from cxr_trt.hashing import hash_file
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.families import load_xrv_resnet, run_module
from cxr_trt.model.network import Network
from cxr_trt.model.scorer import Scorer
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.spec import Specification
from cxr_trt.views import ViewSet

Images = Sequence[npt.NDArray[np.uint8]]
Score = Callable[[Images, bool], Outputs]


class Reference:
    """A `cxr_trt.engine.backend.ScoringEngine` in float32 PyTorch on the CPU.

    Only networks of the paper's family give class maps.
    """

    max_batch = 1
    in_flight = 1

    def __init__(self, checkpoint: Path, setting: str | None, view_set: ViewSet | None) -> None:
        """Load a checkpoint, as `load_checkpoint` and `load_xrv_resnet` do. Without a view set, its own are used."""
        self._score: Score
        network: nn.Module
        if xrv := load_xrv_resnet(checkpoint):
            network, spec, sha256 = xrv.module, xrv_resnet_spec(xrv), hash_file(checkpoint)
            self.warnings = CAUTIONS["trained"]
        else:
            loaded = load_checkpoint(checkpoint, setting)
            network, spec, sha256 = loaded.network, loaded.spec, loaded.sha256
            self.warnings = CAUTIONS[loaded.weights]
        self.spec = replace(spec, views=view_set or spec.views)
        self.fingerprint = f"{sha256[:16]}-{self.spec.sha256[:16]}"
        self._score = (
            _family_score(Scorer(network, self.spec))
            if isinstance(network, Network)
            else _crop_score(network, self.spec)
        )

    def submit(self, images: Images, class_maps: bool) -> Pending:
        outputs = self._score(images, class_maps)
        return lambda: outputs


def _family_score(scorer: Scorer) -> Score:
    def score(images: Images, class_maps: bool) -> Outputs:
        probabilities, maps = scorer(torch.from_numpy(np.stack(images)[:, None]))
        return Outputs(probabilities.numpy(), maps.numpy() if class_maps else None)

    return score


def _crop_score(network: nn.Module, spec: Specification) -> Score:
    def run(crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return run_module(network, torch.from_numpy(crops)).numpy()

    def score(images: Images, class_maps: bool) -> Outputs:
        if class_maps:
            raise UsageError("this checkpoint gives no class maps in PyTorch; build an engine from it")
        found = [reference_probabilities(reference_outputs(run, spec, image), spec) for image in images]
        return Outputs(np.array(found, np.float32), None)

    return score
