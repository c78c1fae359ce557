"""Yan et al. 2018: DenseNet-121 with squeeze-and-excitation, a multi-map transfer layer and max-min pooling.

Its settings are the paper's network, the CheXNet that its authors trained for comparison, and the three ablations of
its table 2. "The paper" in this project is this one.
"""

from typing import TYPE_CHECKING

from cxr_trt.model.settings import SETTINGS
from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.network import Network

PRINTED = "Yan 2018, {}, printed"


def build(setting: str) -> "Network":
    """See `System.builder`."""
    from cxr_trt.model.network import Network

    return Network(SETTINGS[setting])


YAN2018 = System(
    name="yan2018",
    title="Yan et al. 2018",
    citation="C. Yan, J. Yao, R. Li, Z. Xu, J. Huang: Weakly Supervised Deep Learning for Thoracic Disease "
    "Classification and Localization on Chest X-rays. ACM BCB 2018, arXiv 1807.06067",
    settings={
        "paper": "squeeze-and-excitation gates, 12 maps per finding, max-min pooling",
        "chexnet": "no gates, one map per finding, maximum pooling: what its authors call CheXNet",
        "no-se": "the paper's without gates",
        "single-map": "the paper's with one map per finding",
        "max-only": "the paper's with maximum pooling",
    },
    builder=build,
    image_size=512,
    crop_size=448,
    views="ten-crop",
    maps="pooled",
    published=(
        Published("the whole network (paper)", 0.8302, 14, "official", PRINTED.format("table 1")),
        Published("one map per finding (single-map)", 0.8290, 14, "official", PRINTED.format("table 2")),
        Published("without gates (no-se)", 0.8279, 14, "official", PRINTED.format("table 2")),
        Published("maximum pooling (max-only)", 0.8220, 14, "official", PRINTED.format("table 2")),
        Published(
            "CheXNet, as its authors trained it (chexnet)",
            0.8180,
            14,
            "official",
            PRINTED.format("table 1"),
            "Differs from CheXNet in its last layers and its training; CheXNet itself is the system chexnet2017.",
        ),
    ),
)
