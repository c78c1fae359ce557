"""Yao et al. 2018: maps of probabilities from several resolutions, pooled by log-sum-exp with a learned, bounded r.

**A reconstruction.** Only the abstract, accounts by others and a re-implementation were at hand. From them: 512 pixels
without pre-training; residual blocks that halve the resolution and dense blocks that keep it; a decoder of nearest
upsampling, concatenation and dense blocks; 14, 28, 56 and 112 channels at 64, 32, 16 and 8 cells; a sigmoid for each of
64 x 64 cells; the formula of LSE-LBA. Chosen here: four layers of 14 channels in each dense block, one residual block
per halving, and one learned beta per finding. From memory: the lower bounds 0, 5 and 10, and training as in Yao 2017.

The pooled value is a probability already: no sigmoid follows. Class maps are the cells' logits.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.saliency_map import SaliencyMapNetwork

LOWER_BOUNDS = {f"yao2018-r{bound}": float(bound) for bound in (0, 5, 10)}


def build(setting: str) -> "SaliencyMapNetwork":
    """See `System.builder`."""
    from cxr_trt.model.saliency_map import SaliencyMapNetwork

    return SaliencyMapNetwork(LOWER_BOUNDS[setting])


YAO2018 = System(
    name="yao2018",
    title="Yao et al. 2018",
    citation="L. Yao, J. Prosky, E. Poblenz, B. Covington, K. Lyman: Weakly Supervised Medical Diagnosis and "
    "Localization from Multiple Resolutions. arXiv 1803.07703",
    settings={
        setting: f"encoder and decoder, LSE-LBA with r above {bound:.0f} (reconstruction)"
        for setting, bound in LOWER_BOUNDS.items()
    },
    builder=build,
    image_size=512,
    crop_size=512,
    views="whole",
    maps="pooled",
    published=(
        Published(
            "LSE-LBA",
            0.767,
            14,
            "official",
            "Li Yao's table (github.com/yaoli/chest_xray_14), mean computed from its values",
            "Cited as 0.761. Yan 2018, table 1, has the same 14 values under Yao [34].",
        ),
    ),
)
