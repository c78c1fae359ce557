"""ImageNet weights of torchvision's DenseNet-121 into the backbone (paper, sec. 3.1)."""

from pathlib import Path

from cxr_trt.errors import CheckpointError
from cxr_trt.model.layouts import BATCH_COUNTER_KEY, CLASSIFIER_KEYS, torchvision_keys
from cxr_trt.model.network import Network
from cxr_trt.model.weights_file import read_weights


def load_imagenet(network: Network, path: Path) -> list[str]:
    """Fill the backbone from a torchvision DenseNet-121 state dict (densenet121-a639ec97.pth).

    Returns:
        The keys that the file does not have and that stay random: the gates' and the transfer layer's.

    Raises:
        CheckpointError: the file cannot be read without running code from it, or does not fit the backbone exactly.
    """
    weights = {
        key: value for key, value in torchvision_keys(read_weights(path)[1]).items() if key not in CLASSIFIER_KEYS
    }
    own = network.state_dict()
    random = [key for key in own if not key.startswith("features.") or ".se." in key]
    needed = {key for key in own if key not in random and not key.endswith(BATCH_COUNTER_KEY)}
    wrong = sorted(needed ^ weights.keys()) or [key for key in sorted(needed) if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(f"{path}: is not torchvision's DenseNet-121: {wrong[0]} and {len(wrong) - 1} more differ")
    network.load_state_dict({**own, **weights})
    return random
