"""Rajpurkar et al. 2017, CheXNet: DenseNet-121 with its last fully connected layer replaced.

Average pooling is DenseNet's own. The network that Yan et al. trained under this name is another one: the setting
`chexnet` of `cxr_trt.systems.yan2018`.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.class_activation import ClassActivationNetwork


def build(_: str) -> "ClassActivationNetwork":
    """See `System.builder`."""
    from torch import nn

    from cxr_trt.model.backbones import densenet121
    from cxr_trt.model.class_activation import ClassActivationNetwork
    from cxr_trt.model.global_pooling import AveragePool

    features, channels = densenet121()
    return ClassActivationNetwork(features, nn.ReLU(), AveragePool(), channels)


CHEXNET2017 = System(
    name="chexnet2017",
    title="Rajpurkar et al. 2017 (CheXNet)",
    citation="P. Rajpurkar, J. Irvin, K. Zhu, B. Yang, H. Mehta, T. Duan, D. Ding, A. Bagul, C. Langlotz, "
    "K. Shpanskaya, M. P. Lungren, A. Y. Ng: CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays with Deep "
    "Learning. arXiv 1711.05225",
    settings={"chexnet-2017": "DenseNet-121, average pooling"},
    builder=build,
    image_size=224,
    crop_size=224,
    views="whole",
    maps="activation",
    published=(
        Published(
            "DenseNet-121",
            0.841,
            14,
            "random by patient",
            "CheXNet (arXiv v3), mean computed from its values",
            "70 % of the patients for training, 10 % for validation, 20 % for the test.",
        ),
    ),
)
