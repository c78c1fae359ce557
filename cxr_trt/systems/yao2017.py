"""Yao et al. 2017: a DenseNet trained from scratch, and an LSTM that decides one finding after the other.

What the paper leaves open, and what was chosen here:

- How features become a vector: averages of 4 x 4 cells, with which the parameters of models b are close to the printed
  number; for model a the printed number wants about 100 cells.
- Four blocks of three layers, as in table 1; the figure's caption says four. The pooling between blocks has stride 2,
  where 1 is printed.
- A step sees the one label before it, the first one a label of 0.
- The initial states come from networks with one hidden layer of 100, with a hyperbolic tangent.
- Grey images with mean 0.5 and deviation 0.25.
- The paper has an AUC for model a only, and calls marginals of the others intractable. Over 14 findings they are not:
  settings sum over all sequences of labels, and those named "greedy" follow the sequence that a threshold of 0.5
  gives.

There are no class maps.
"""

from typing import TYPE_CHECKING

from cxr_trt.findings import FINDINGS
from cxr_trt.systems.system import Published, System

if TYPE_CHECKING:
    from cxr_trt.model.crop_network import CropNetwork

BY_FREQUENCY = (
    *("Hernia", "Pneumonia", "Fibrosis", "Edema", "Emphysema", "Cardiomegaly", "Pleural_Thickening", "Consolidation"),
    *("Pneumothorax", "Mass", "Nodule", "Atelectasis", "Effusion", "Infiltration"),
)  # in ChestX-ray14, the rarest first
ORDERS = {"b1": BY_FREQUENCY, "b2": tuple(sorted(FINDINGS))}
ORDER_TITLES = {"b1": "rarest first", "b2": "alphabetical"}


def build(setting: str) -> "CropNetwork":
    """See `System.builder`."""
    from cxr_trt.model.label_chain import IndependentLabels, LabelChain

    _, model, *greedy = setting.split("-")
    if model == "a":
        return IndependentLabels(38)
    return LabelChain(19, ORDERS[model], "greedy" if greedy else "exact")


YAO2017 = System(
    name="yao2017",
    title="Yao et al. 2017",
    citation="L. Yao, E. Poblenz, D. Dagunts, B. Covington, D. Bernard, K. Lyman: Learning to diagnose from scratch by "
    "exploiting dependencies among labels. arXiv 1710.10501",
    settings={
        "yao2017-a": "DenseNet, independent findings",
        **{
            f"yao2017-{model}{suffix}": f"DenseNet and LSTM, {title}, {marginals} marginals"
            for model, title in ORDER_TITLES.items()
            for suffix, marginals in (("", "exact"), ("-greedy", "greedy"))
        },
    },
    builder=build,
    image_size=512,
    crop_size=512,
    views="whole",
    maps="none",
    mean=(0.5,),
    std=(0.25,),
    published=(
        Published(
            "model a, independent findings",
            0.798,
            14,
            "random by image",
            "Yao 2017 (arXiv v2), printed",
            "Its 14 printed values average 0.803. For models b no AUC was published.",
        ),
    ),
)
