"""Wang et al. 2017, ChestX-ray8: an ImageNet network, a transition layer, global pooling and a prediction layer.

What the paper leaves open, and what was chosen here:

- The transition layer's kernel, norm and activation are not given: a 3x3 convolution, batch norm and ReLU.
- It has as many channels as the backbone gives: 1,024 for GoogLeNet and 2,048 for ResNet-50, as in the paper, and 256
  for AlexNet and 512 for VGG-16.
- The paper's maps have 8, 16 or 32 cells per side. Here the backbone's stride decides: 32 cells of 1,024 pixels.
- The backbones are torchvision's (`cxr_trt.model.backbones`), not Caffe's.
- ImageNet's mean and deviation.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.class_activation import ClassActivationNetwork

BACKBONE_TITLES = {"alexnet": "AlexNet", "googlenet": "GoogLeNet", "vgg16": "VGG-16", "resnet50": "ResNet-50"}
POOLING_TITLES = {"average": "average", "max": "maximum", "lse": "log-sum-exp"}
LSE_R = 10.0  # the best of the seven that the paper tried
TABLE_3 = "Wang 2017 (arXiv v5), table 3, mean computed from its values"


def build(setting: str) -> "ClassActivationNetwork":
    """See `System.builder`."""
    from torch import nn

    from cxr_trt.model.backbones import BACKBONES
    from cxr_trt.model.class_activation import ClassActivationNetwork
    from cxr_trt.model.global_pooling import AveragePool, LsePool, MaxPool

    backbone, pooling = setting.split("-")
    features, channels = BACKBONES[backbone]()
    transition = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
        )
    )
    pool = {"average": AveragePool(), "max": MaxPool(), "lse": LsePool(LSE_R)}[pooling]
    return ClassActivationNetwork(features, transition, pool, channels)


WANG2017 = System(
    name="wang2017",
    title="Wang et al. 2017",
    citation="X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers: ChestX-ray8: Hospital-scale Chest X-ray "
    "Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR "
    "2017, arXiv 1705.02315",
    settings={
        f"{backbone}-{pooling}": f"{BACKBONE_TITLES[backbone]}, transition layer, {POOLING_TITLES[pooling]} pooling"
        for backbone in BACKBONE_TITLES
        for pooling in POOLING_TITLES
    },
    builder=build,
    image_size=1024,
    crop_size=1024,
    views="whole",
    maps="activation",
    published=(
        Published(
            "ResNet-50",
            0.745,
            14,
            "official",
            "Wang 2017 (arXiv v5), table 17, mean computed from its values",
        ),
        Published("ResNet-50", 0.696, 8, "random by image", TABLE_3),
        Published("ResNet-50, cross-entropy without weights", 0.658, 8, "random by image", TABLE_3),
        Published("AlexNet", 0.639, 8, "random by image", TABLE_3),
        Published("GoogLeNet", 0.639, 8, "random by image", TABLE_3),
        Published("VGG-16", 0.625, 8, "random by image", TABLE_3),
        Published(
            "ChestX-ray8, as Yan et al. 2018 cite it",
            0.7381,
            14,
            "random by image",
            "Yan 2018, table 1",
            "Printed there beside results on the official split; Li Yao's table (github.com/yaoli/chest_xray_14) lists "
            "the same values as split by image.",
        ),
    ),
)
