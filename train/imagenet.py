"""Loading torchvision's ImageNet weights into a backbone (paper, sec. 3.1)."""

from pathlib import Path

from cxr_trt.errors import CheckpointError
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.layouts import BATCH_COUNTER_KEY, torchvision_keys
from cxr_trt.model.weights_file import read_weights

BACKBONE = "features."  # torchvision has it where its network has a module of that name
CLASSIFIERS = ("classifier.", "fc.", "aux1.", "aux2.")  # of torchvision's networks


def load_imagenet(network: CropNetwork, path: Path) -> list[str]:
    """Fill the backbone, or each of several, from torchvision's state dict of it (such as densenet121-a639ec97.pth).

    Returns:
        The keys that are not in the file and stay random, such as those of gates and of the last layers.

    Raises:
        CheckpointError: the file cannot be read without running code in it, or does not fit the backbone exactly.
    """
    if not network.backbones:
        raise CheckpointError(f"{path}: torchvision has no weights for this network; leave out --imagenet")
    weights = {
        prefix + key.removeprefix(BACKBONE): value
        for key, value in torchvision_keys(read_weights(path)[1]).items()
        for prefix in network.backbones
        if not key.startswith(CLASSIFIERS)
    }
    own = network.state_dict()
    random = [key for key in own if not key.startswith(network.backbones) or ".se." in key]
    needed = {key for key in own if key not in random and not key.endswith(BATCH_COUNTER_KEY)}
    wrong = sorted(needed ^ weights.keys()) or [key for key in sorted(needed) if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: is not torchvision's file of this network's backbone: {wrong[0]} and {len(wrong) - 1} more "
            "tensors differ"
        )
    network.load_state_dict({**own, **weights})
    return random
