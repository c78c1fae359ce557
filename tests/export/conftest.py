import pytest

from cxr_trt.export.pictures import check_pictures
from cxr_trt.model.settings import SETTINGS
from cxr_trt.spec import Specification


@pytest.fixture(scope="session", params=["paper", "no-se"])
def small_network(request):
    """Random weights with batch statistics of the built-in pictures, at half the size: (weights, settings, spec)."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    settings = SETTINGS[request.param]
    torch.manual_seed(5)
    network = Network(settings)
    pictures = torch.from_numpy(check_pictures(224)).float().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        network.train()((pictures - 120) / 60)
    for name, value in network.state_dict().items():
        if "norm" in name and name.endswith(("weight", "bias")):
            value.uniform_(0.5, 1.5) if name.endswith("weight") else value.uniform_(-0.2, 0.2)
    weights = {key: value.numpy() for key, value in network.eval().state_dict().items()}
    return weights, settings, Specification(image_size=256, crop_size=224)
