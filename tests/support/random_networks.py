"""Networks with random weights in which every layer matters, and their scoring graphs: needs PyTorch."""

from functools import cache
from typing import TYPE_CHECKING

import pytest

from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.model.settings import SETTINGS, ModelSettings
from cxr_trt.spec import Specification
from cxr_trt.views import Size

if TYPE_CHECKING:
    from cxr_trt.model.network import Network


def random_network(settings: ModelSettings) -> "Network":
    """Batch statistics are those of the built-in pictures, at half the paper's size."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    torch.manual_seed(5)
    network = Network(settings)
    pictures = torch.from_numpy(check_pictures(224)).float().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        network.train()((pictures - 120) / 60)
    for name, value in network.state_dict().items():
        if "norm" in name and name.endswith(("weight", "bias")):
            value.uniform_(0.5, 1.5) if name.endswith("weight") else value.uniform_(-0.2, 0.2)
    return network.eval()


@cache
def random_graph(setting: str) -> ScoringGraph:
    """Ten crops of half the paper's size. Copy its model before changing it."""
    network = random_network(SETTINGS[setting])
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    settings = network.settings
    spec = Specification(image_size=Size.square(256), crop_size=Size.square(224), pooling=settings.pooling)
    return ScoringGraph.from_network(weights, settings, GraphInfo.of_this_version(spec, "untrained", "0" * 64))
