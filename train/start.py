"""Weights to start a training from: a checkpoint, a scoring graph such as the shipped model, or what labels say."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_trt.errors import CheckpointError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.layouts import BATCH_COUNTER_KEY
from cxr_trt.model.network import Network, PooledMapsNetwork
from cxr_trt.model.settings import SETTINGS
from cxr_trt.systems.yan2018 import YAN2018
from train.batches import known_labels


def start_weights(path: Path, setting: str) -> dict[str, Tensor]:
    """Read the state dict of a network of this setting.

    Raises:
        CheckpointError: the checkpoint cannot be read, or the file has another setting.
        GraphError: the scoring graph cannot be read.
    """
    if path.suffix != ".onnx":
        return load_checkpoint(path, setting).network.state_dict()
    if setting not in SETTINGS:
        raise CheckpointError(
            f"{path}: a scoring graph can only start networks of {YAN2018.name}; start {setting} from a checkpoint"
        )
    weights, settings = ScoringGraph.load(path).network()
    if settings != SETTINGS[setting]:
        raise CheckpointError(f"{path}: holds {settings}, which is not the recipe's setting {setting}")
    own = Network(settings).state_dict()
    return own | {key: torch.tensor(weights[key]) for key in own if not key.endswith(BATCH_COUNTER_KEY)}


def set_prior_bias(network: PooledMapsNetwork, labels: npt.NDArray[np.uint8]) -> None:
    """Set the bias of the transfer layer so that constant maps give each finding its frequency in labels [N, 14]."""
    frequency = known_labels(labels).nanmean(0).nan_to_num().clamp(0.5 / len(labels), 1 - 0.5 / len(labels))
    bias = torch.logit(frequency) / (1 + network.pooling.alpha)
    with torch.no_grad():
        network.get_parameter("transfer.conv.bias").copy_(bias.repeat_interleave(network.transfer.maps_per_finding))
