"""Rubin et al. 2018, DualNet: a network for the frontal X-ray of a study, one for the lateral, and both together.

**A reconstruction.** Only the abstract and accounts by others were at hand. From the abstract: 473,064 X-rays and
206,574 reports of 63,478 patients of MIMIC-CXR; the frontal and the lateral X-ray of an exam are processed at once,
which is better than a network for each alone. From accounts: the outputs of two networks with weights of their own are
concatenated before the fully connected layers. From memory: DenseNet-121; 512 pixels; one model for PA and lateral and
one for AP and lateral; findings like those of ChestX-ray14; 70, 10 and 20 % of the patients. Chosen here: average
pooling, DenseNet's own; one linear layer; training as in `cxr_trt.systems.chexnet2017`.

A study is scored if it has both X-rays, which are stacked into one image, the frontal one above. Its row stands under
the path of the frontal X-ray. MIMIC-CXR must be applied for, so nothing was trained on it here.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import System

if TYPE_CHECKING:
    from cxr_trt.model.dual_network import DualNetwork


def build(_: str) -> "DualNetwork":
    """See `System.builder`."""
    from cxr_trt.model.backbones import densenet121
    from cxr_trt.model.dual_network import DualNetwork

    frontal, channels = densenet121()
    return DualNetwork(frontal, densenet121().features, channels)


RUBIN2018 = System(
    name="rubin2018",
    title="Rubin et al. 2018 (DualNet)",
    citation="J. Rubin, D. Sanghavi, C. Zhao, K. Lee, A. Qadir, M. Xu-Wilson: Large Scale Automated Reading of Frontal "
    "and Lateral Chest X-Rays using Dual Convolutional Neural Networks. arXiv 1804.07839",
    settings={"dualnet": "DenseNet-121 twice, for a frontal and a lateral X-ray (reconstruction)"},
    builder=build,
    image_size=512,
    crop_size=512,
    views="whole",
    maps="none",
    published=(),
    unpublished="its results are on MIMIC-CXR, and were not at hand",
    planes=2,
)
