"""Guan et al. 2018, AG-CNN: a branch for the whole X-ray, one for the part where the first is most active, and fusion.

What the paper leaves open, and what was chosen here:

- How a heat map comes to the range from 0 to 1: per image, from its least to its highest cell.
- Regions of the heat map hang together along edges and corners. Their cells are those of the last activations, 7 x 7
  of 224 pixels, so a box has edges at multiples of 32 pixels.
- A flat heat map gives the whole X-ray.
- While one part is trained, the batch norms of the others keep their statistics too.
- Class maps are not in the paper: the global branch's activations, as the fusion layer weighs them.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, Split, System

if TYPE_CHECKING:
    from cxr_trt.model.two_pass import TwoPassNetwork

BACKBONES = {"agcnn-resnet50": "resnet50", "agcnn-densenet121": "densenet121"}
TABLE_1 = "Guan 2018 (arXiv v1), table 1, printed"
SPLIT: Split = "random by image"


def build(setting: str) -> "TwoPassNetwork":
    """See `System.builder`."""
    from cxr_trt.model import backbones
    from cxr_trt.model.two_pass import Branch, TwoPassNetwork

    backbone = backbones.BACKBONES[BACKBONES[setting]]
    return TwoPassNetwork(Branch(*backbone()), Branch(*backbone()))


GUAN2018 = System(
    name="guan2018",
    title="Guan et al. 2018 (AG-CNN)",
    citation="Q. Guan, Y. Huang, Z. Zhong, Z. Zheng, L. Zheng, Y. Yang: Diagnose like a Radiologist: Attention Guided "
    "Convolutional Neural Network for Thorax Disease Classification. arXiv 1801.09927",
    settings={
        "agcnn-resnet50": "ResNet-50 twice, maximum pooling, fusion",
        "agcnn-densenet121": "DenseNet-121 twice, maximum pooling, fusion",
    },
    builder=build,
    image_size=256,
    crop_size=224,
    views="center",
    maps="activation",
    parts=("global_branch", "local_branch", "fusion"),
    published=(
        Published("DenseNet-121, fusion", 0.871, 14, SPLIT, TABLE_1),
        Published("ResNet-50, fusion", 0.868, 14, SPLIT, TABLE_1),
        Published("ResNet-50, global branch", 0.841, 14, SPLIT, TABLE_1),
        Published("DenseNet-121, global branch", 0.84, 14, SPLIT, TABLE_1),
        Published("ResNet-50, local branch", 0.817, 14, SPLIT, TABLE_1),
        Published("DenseNet-121, local branch", 0.81, 14, SPLIT, TABLE_1),
    ),
)
