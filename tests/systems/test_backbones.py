"""The backbones against torchvision's own networks, with weights as torchvision's ImageNet files hold them."""

import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from torchvision import models  # noqa: E402

from cxr_trt.errors import CheckpointError  # noqa: E402
from cxr_trt.systems import find_system  # noqa: E402
from train.imagenet import load_imagenet  # noqa: E402

SETTINGS = {
    "alexnet": "alexnet-max",
    "densenet121": "chexnet-2017",
    "googlenet": "googlenet-max",
    "resnet50": "resnet50-max",
    "vgg16": "vgg16-max",
}


def reference(name):
    """torchvision's network, in which every layer matters; GoogLeNet as torchvision sets it up for its weights."""
    torch.manual_seed(1)
    options = {"transform_input": True, "aux_logits": True, "init_weights": True} if name == "googlenet" else {}
    network = getattr(models, name)(weights=None, **options)
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5) if key.endswith("var") else value.normal_(0, 0.1)
    return network.eval()


def pooled_input(network, crops):
    """What a torchvision network pools: the input of its last average pooling, or of DenseNet's classifier."""
    seen = []
    layer = network.features if isinstance(network, models.DenseNet) else network.avgpool
    if isinstance(network, models.DenseNet):
        layer.register_forward_hook(lambda _, __, output: seen.append(torch.relu(output)))
    else:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(crops)
    return seen[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_imagenet_weights_give_torchvisions_features(name, tmp_path):
    imagenet, crops = reference(name), torch.randn(1, 3, 96, 96)
    classifier = {"classifier.6.bias": torch.zeros(1000)} if name == "vgg16" else {}
    weights = {key: value for key, value in imagenet.state_dict().items() if not key.startswith("classifier.")}
    torch.save(weights | classifier, tmp_path / "imagenet.pth")
    network = find_system(SETTINGS[name]).build(SETTINGS[name]).eval()
    random = load_imagenet(network, tmp_path / "imagenet.pth")
    assert {key.split(".")[0] for key in random} <= {"transition", "prediction"}
    with torch.inference_mode():
        found, expected = network.features(crops), pooled_input(imagenet, crops)
        found = torch.relu(found) if name == "densenet121" else found
    assert expected.std() > 1e-3 * expected.mean().abs()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(reference("resnet50").state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(
        CheckpointError, match=r"is not the ImageNet file of this network's backbone: features\.0\.bias"
    ):
        load_imagenet(find_system("alexnet-max").build("alexnet-max"), tmp_path / "resnet50.pth")
