"""ImageNet weights of torchvision's DenseNet-121 into the backbone (paper, sec. 3.1)."""

import re
from pathlib import Path

import torch
from torch import Tensor

from cxr_trt.errors import CheckpointError
from cxr_trt.model.network import Network

OLD_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # torchvision's files say norm.1 for norm1
CLASSIFIER = ("classifier.weight", "classifier.bias")
COUNTER = "num_batches_tracked"  # missing in old files, and of no influence


def load_imagenet(network: Network, path: Path) -> list[str]:
    """Fill the backbone from a torchvision DenseNet-121 state dict (densenet121-a639ec97.pth).

    Returns:
        The keys that the file does not have and that stay random: the gates' and the transfer layer's.

    Raises:
        CheckpointError: the file cannot be read without running code from it, or does not fit the backbone exactly.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of ImageNet weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: not a plain state dict; download torchvision's densenet121 again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: not a state dict; give torchvision's densenet121 file")
    weights = {OLD_KEY.sub(r"\1\2.", key): value for key, value in content.items() if key not in CLASSIFIER}
    own = network.state_dict()
    random = [key for key in own if not key.startswith("features.") or ".se." in key]
    needed = {key for key in own if key not in random and not key.endswith(COUNTER)}
    given = {key for key in weights if not key.endswith(COUNTER)}
    wrong = sorted(needed ^ given) or [key for key in sorted(needed) if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(f"{path}: is not torchvision's DenseNet-121: {wrong[0]} and {len(wrong) - 1} more differ")
    network.load_state_dict({**own, **{key: weights[key] for key in needed}})
    return random
