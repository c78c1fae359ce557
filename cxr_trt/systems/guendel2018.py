"""Guendel et al. 2018, DNetLoc: DenseNet-121 on large images.

**A reconstruction.** Only the abstract, a reader's notes and the results as others cite them were at hand. From the
notes (alexhex7.github.io, 1 March 2018): 1,024 pixels, which two added convolutions with 3 filters of 3x3 and stride 2
bring to 256; 35 outputs, 21 of them for PLCO. From memory: a DenseNet-121 from ImageNet behind them; a sigmoid for each
finding; cross-entropies weighted by how rare each finding is in training. Chosen here: batch norm and a ReLU between
the added convolutions; average pooling, DenseNet's own.

The paper also learns the findings and their locations of PLCO, a data set that must be applied for, so here the network
learns from NIH's labels alone. NIH's boxes are no substitute: their images are in the test.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.class_activation import ClassActivationNetwork

STEM_CHANNELS = 3
LI_YAO = "Li Yao's table (github.com/yaoli/chest_xray_14)"


def build(_: str) -> "ClassActivationNetwork":
    """See `System.builder`."""
    from torch import nn

    from cxr_trt.model.backbones import densenet121
    from cxr_trt.model.class_activation import ClassActivationNetwork
    from cxr_trt.model.global_pooling import AveragePool

    features, channels = densenet121()
    stem = nn.Sequential(
        nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1, bias=False),
        nn.BatchNorm2d(STEM_CHANNELS),
        nn.ReLU(),
        nn.Conv2d(STEM_CHANNELS, 3, 3, 2, 1),
    )
    return ClassActivationNetwork(features, nn.ReLU(), AveragePool(), channels, stem)


GUENDEL2018 = System(
    name="guendel2018",
    title="Guendel et al. 2018 (DNetLoc)",
    citation="S. Guendel, S. Grbic, B. Georgescu, K. Zhou, L. Ritschl, A. Meier, D. Comaniciu: Learning to recognize "
    "Abnormalities in Chest X-Rays with Location-Aware Dense Networks. arXiv 1803.04565",
    settings={"dnetloc": "two convolutions and DenseNet-121, NIH's labels only (reconstruction)"},
    builder=build,
    image_size=1024,
    crop_size=1024,
    views="whole",
    maps="activation",
    published=(
        Published("DNetLoc", 0.807, 14, "official", LI_YAO, besides="PLCO"),
        Published("DNetLoc", 0.841, 14, "random by patient", LI_YAO, besides="PLCO"),
    ),
)
