"""Li et al. 2018: a grid of patches, each with a probability, whose bag is positive if one of them is.

**A reconstruction.** Only accounts of the paper by others were at hand, and its table as others cite it. From them: a
pre-activation ResNet; features brought to P x P cells by maximum pooling or bilinearly; the bag's product with its
factors squeezed into [0.98, 1]. From memory: P of 12, 16 and 20; 512 pixels; ResNet-50; Adam with 0.001, divided by 10
every 10 epochs; batches of 5.

- Because of the squeezing, a bag's probability is at most 0.945, 0.994 or 0.9997 for P = 12, 16 or 20.
- The paper also learns from NIH's boxes, in five folds. All boxed images are test images of the official split, so on
  that split only the bags are learned (recipe `li2018-bags`), which leaks nothing and is an ablation of the paper's
  method. The recipe `li2018` learns boxes too, on a split of its own: five folds over the patients with boxes, a random
  split of the others, and no patient on two sides (`train/boxed_folds.py`). The paper's own split is by image, so its
  published result is another one's.
- A patch is inside a box if they share an area. The loss of a box is weighed with 5, as in accounts.
- Class maps are the patches' logits.
"""

from typing import TYPE_CHECKING

from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.patch_bags import PatchBagNetwork

PATCHES = {f"li2018-{patches}": patches for patches in (12, 16, 20)}


def build(setting: str) -> "PatchBagNetwork":
    """See `System.builder`."""
    from cxr_trt.model.patch_bags import PatchBagNetwork

    return PatchBagNetwork(PATCHES[setting])


LI2018 = System(
    name="li2018",
    title="Li et al. 2018",
    citation="Z. Li, C. Wang, M. Han, Y. Xue, W. Wei, L.-J. Li, L. Fei-Fei: Thoracic Disease Identification and "
    "Localization with Limited Supervision. CVPR 2018, arXiv 1711.06373",
    settings={
        setting: f"pre-activation ResNet-50, bags of {patches} x {patches} patches (reconstruction)"
        for setting, patches in PATCHES.items()
    },
    builder=build,
    image_size=512,
    crop_size=512,
    views="whole",
    maps="pooled",
    published=(
        Published(
            "with boxes in training",
            0.8064,
            14,
            "random by image",
            "Yan 2018, table 1, mean computed from its values",
            "Li Yao's table (github.com/yaoli/chest_xray_14) has 0.81 instead of 0.87 for Cardiomegaly, and so a mean "
            "of 0.802.",
            besides="boxes",
        ),
    ),
)
