"""What a system is: the networks of a publication, and the facts that belong to them.

A system is described without PyTorch, which only `build` imports, so that the command line stays light.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cxr_trt.errors import UsageError
from cxr_trt.model.imagenet import IMAGENET_MEAN, IMAGENET_STD
from cxr_trt.spec import MapKind
from cxr_trt.views import ViewSet

if TYPE_CHECKING:
    from cxr_trt.model.crop_network import CropNetwork

Split = Literal["official", "random by patient", "random by image"]
"""How training and test images of ChestX-ray14 were divided: as NIH's lists do, or at random.

A split by image has images of one patient on both sides, which raises every AUC. Results of different splits must not
be compared.
"""


@dataclass(frozen=True)
class Published:
    """A mean AUC on ChestX-ray14 as it was published, by the system's authors or by others who ran their method.

    network: which of the system's networks, in the publication's words.
    findings: over how many findings the mean is.
    source: the publication, its table, and whether the mean was printed or computed from printed values.
    besides: what the network was trained with besides labels of ChestX-ray14, such as another data set.
    """

    network: str
    mean_auc: float
    findings: int
    split: Split
    source: str
    note: str = ""
    besides: str = ""


@dataclass(frozen=True)
class System:
    """A publication's networks.

    name: that of its module, and in the headers of checkpoints.
    title: authors and year, as a table names it.
    settings: its networks by the names that recipes and `--setting` use, each with a description. No other system has
        the same names.
    builder: makes the network of a setting, with random weights.
    image_size, crop_size: pixels per side of the resized image and of what the network sees of it.
    views: how an X-ray is scored.
    mean, std: per input channel, for pixels from 0 to 1.
    maps: what its class maps are.
    published: its published results, the best known first.
    unpublished: why there is no published result on ChestX-ray14, if there is none.
    planes: how many X-rays of a study its networks see at once, stacked from top to bottom; `image_size` is that of
        one.
    parts: the parts of its networks that are trained one after the other; none if they are trained as a whole.
    """

    name: str
    title: str
    citation: str
    settings: Mapping[str, str]
    builder: Callable[[str], "CropNetwork"]
    image_size: int
    crop_size: int
    views: ViewSet
    maps: MapKind
    published: tuple[Published, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    parts: tuple[str, ...] = ()
    unpublished: str = ""
    planes: int = 1

    def build(self, setting: str) -> "CropNetwork":
        """A network with random weights, by the name of its setting; needs PyTorch.

        Raises:
            UsageError: the system has no such setting.
        """
        if setting not in self.settings:
            raise UsageError(f"setting {setting!r} is none of {self.name}'s, which are {', '.join(self.settings)}")
        return self.builder(setting)
