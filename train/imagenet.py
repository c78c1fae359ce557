"""Loading torchvision's ImageNet weights of DenseNet-121 into the backbone (paper, sec. 3.1)."""

from pathlib import Path

from cxr_trt.errors import CheckpointError
from cxr_trt.model.layouts import BATCH_COUNTER_KEY, CLASSIFIER_KEYS, torchvision_keys
from cxr_trt.model.network import Network
from cxr_trt.model.weights_file import read_weights


def load_imagenet(network: Network, path: Path) -> list[str]:
    """Fill the backbone from a torchvision DenseNet-121 state dict (densenet121-a639ec97.pth).

    Returns:
        The keys that are not in the file and stay random: those of the gates and of the transfer layer.

    Raises:
        CheckpointError: the file cannot be read without running code in it, or does not fit the backbone exactly.
    """
    weights = {
        key: value for key, value in torchvision_keys(read_weights(path)[1]).items() if key not in CLASSIFIER_KEYS
    }
    own = network.state_dict()
    random = [key for key in own if not key.startswith("features.") or ".se." in key]
    needed = {key for key in own if key not in random and not key.endswith(BATCH_COUNTER_KEY)}
    wrong = sorted(needed ^ weights.keys()) or [key for key in sorted(needed) if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: is not torchvision's DenseNet-121: {wrong[0]} and {len(wrong) - 1} more tensors differ"
        )
    network.load_state_dict({**own, **weights})
    return random
