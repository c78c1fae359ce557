"""Checkpoints of other projects against those projects' own definitions, run directly."""

import re
from collections import OrderedDict

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import torchxrayvision
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import densenet121

from cxr_trt.errors import CheckpointError
from cxr_trt.export.from_checkpoint import export_checkpoint
from cxr_trt.export.pictures import check_pictures
from cxr_trt.findings import FINDINGS
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.views import Size

OUTPUTS = torchxrayvision.datasets.default_pathologies


class CheXNet(nn.Module):
    """The model of arnoweng/CheXNet and zoogzog/chexnet."""

    def __init__(self):
        super().__init__()
        self.densenet121 = densenet121(weights=None)
        self.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())

    def forward(self, x):
        return self.densenet121(x)


def settled(model, channels, size):
    """The model with batch statistics that pictures give, so that every layer matters."""
    pictures = torch.from_numpy(check_pictures(size)).float().expand(-1, channels, -1, -1)
    with torch.inference_mode():
        model.train()((pictures - 120) / (60 if channels == 3 else 0.25))
    return model.eval()


@pytest.fixture(scope="module")
def chexnet():
    torch.manual_seed(3)
    return settled(CheXNet(), 3, 224)


@pytest.fixture(scope="module")
def xrv():
    torch.manual_seed(4)
    model = settled(torchxrayvision.models.DenseNet(weights=None), 1, 224)
    nn.init.normal_(model.classifier.bias)
    model.op_threshs = torch.tensor(torchxrayvision.models.model_urls["all"]["op_threshs"])
    return model


@pytest.fixture(scope="module")
def radiograph(radiographs):
    return decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels


def run(graph, image):
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "class_maps"], {"images": image[None, None]})


def dotted(weights):
    """The keys as PyTorch 0.3 wrote them, without counters."""
    return OrderedDict(
        (re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key), value)
        for key, value in weights.items()
        if not key.endswith("num_batches_tracked")
    )


def save_chexnet(weights, path):
    torch.save({"epoch": 3, "state_dict": weights, "best_loss": 0.1, "optimizer": {}}, path)


def test_keys_of_old_pytorch_give_the_same_network(chexnet, tmp_path):
    weights = nn.DataParallel(chexnet).state_dict()
    save_chexnet(weights, tmp_path / "new.pth.tar")
    save_chexnet(dotted(weights), tmp_path / "old.pth.tar")
    new, old = (load_checkpoint(tmp_path / f"{name}.pth.tar") for name in ("new", "old"))
    assert (old.network.settings, old.spec) == (new.network.settings, new.spec)
    found = old.network.state_dict()
    for key, value in new.network.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(found[key], value)


def test_chexnet_scores_as_its_own_definition_does(chexnet, radiograph, tmp_path):
    save_chexnet(nn.DataParallel(chexnet).state_dict(), tmp_path / "model.pth.tar")
    graph = export_checkpoint(tmp_path / "model.pth.tar").graph
    image = preprocess(radiograph, graph.spec.image_size, graph.spec.fit)
    assert image.shape == (256, 256)
    crops = transforms.Compose(
        [
            transforms.TenCrop(224),
            transforms.Lambda(lambda crops: torch.stack([transforms.ToTensor()(crop) for crop in crops])),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(Image.fromarray(image).convert("RGB"))
    with torch.inference_mode():
        expected = chexnet(crops).mean(0).numpy()
    probabilities, maps = run(graph, image)
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.05
    assert maps.shape == (1, 14, 16, 16)  # crops lie 16 pixels apart, half a cell of their own maps


def test_torchxrayvision_scores_as_its_own_definition_does(xrv, radiograph, tmp_path):
    torch.save(xrv.state_dict(), tmp_path / "xrv.pt")
    graph = export_checkpoint(tmp_path / "xrv.pt").graph
    spec = graph.spec
    assert (spec.views, spec.image_size, spec.crop_size) == ("center", Size.square(224), Size.square(224))
    points = dict(zip(OUTPUTS, xrv.op_threshs.tolist(), strict=True))
    assert spec.operating_points == pytest.approx([points[finding] for finding in FINDINGS])
    image = preprocess(radiograph, 224, spec.fit)
    with torch.inference_mode():
        given = torch.from_numpy(torchxrayvision.utils.normalize(image, 255))[None, None]
        expected = dict(zip(OUTPUTS, xrv(given)[0].tolist(), strict=True))
    found = run(graph, image)[0][0]
    np.testing.assert_allclose(found, [expected[finding] for finding in FINDINGS], atol=1e-5)
    assert found.min() < 0.5 < found.max()  # on both sides of the operating points


def test_torchxrayvision_without_operating_points_gives_plain_probabilities(xrv, radiograph, tmp_path):
    weights = {key: value for key, value in xrv.state_dict().items() if key != "op_threshs"}
    torch.save(weights, tmp_path / "xrv.pt")
    graph = export_checkpoint(tmp_path / "xrv.pt").graph
    image = preprocess(radiograph, 224, "center-crop")
    given = torch.from_numpy(torchxrayvision.utils.normalize(image, 255))[None, None]
    with torch.inference_mode():
        logits = xrv.classifier(torch.relu(xrv.features(given)).mean((2, 3)))
    rows = [OUTPUTS.index(finding) for finding in FINDINGS]
    np.testing.assert_allclose(run(graph, image)[0], torch.sigmoid(logits[:, rows]), atol=1e-5)


@pytest.mark.parametrize("shape", [(301, 400), (400, 301), (302, 401), (400, 400)])
def test_the_central_square_is_torchxrayvisions(shape):
    image = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32), (5, 5), 0)
    cut = torchxrayvision.datasets.XRayCenterCrop()(image[None])
    expected = torchxrayvision.datasets.XRayResizer(224, engine="cv2")(cut)[0]
    np.testing.assert_allclose(preprocess(image, 224, "center-crop"), expected, atol=0.51)


def test_what_does_not_fit_is_refused_and_named(chexnet, xrv, tmp_path):
    path = tmp_path / "model.pth"
    weights = {f"module.densenet121.{key}": value for key, value in chexnet.densenet121.state_dict().items()}
    without_thorax = {**xrv.state_dict(), "op_threshs": xrv.op_threshs.clone()}
    without_thorax["op_threshs"][:2] = torch.nan
    imagenet = {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    for content, sentence in (
        ({**weights, "module.more": torch.zeros(1)}, "unexpected more"),
        (
            {key: value for key, value in weights.items() if "denseblock2.denselayer3.norm1.weight" not in key},
            r"missing features\.denseblock2\.denselayer3\.norm1\.weight",
        ),
        ({**weights, "module.densenet121.features.norm5.bias": torch.zeros(3)}, r"wrong shape features\.norm5\.bias"),
        (without_thorax, "was not trained on Atelectasis, Consolidation; use one with all 14"),
        ({**densenet121(weights=None).state_dict(), **imagenet}, "knows no findings; train with it first: python -m"),
        (
            densenet121(weights=None, num_classes=5).state_dict(),
            "5 outputs and 3 input channels, so it is from no known",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=sentence) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match="leave out --setting"):
        load_checkpoint(path, "chexnet")


NONSENSE = {
    "features.conv0.weight": torch.zeros(64, 1, 7, 7),
    "classifier.weight": torch.zeros(18, 1024),
    "classifier.bias": torch.zeros(18),
    "op_threshs": torch.zeros(18),
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features.conv0.weight": torch.zeros(64)}, "a shape that no DenseNet has"),
        ({"classifier.weight": torch.zeros(18)}, "a shape that no DenseNet has"),
        ({"classifier.bias": torch.tensor(0.0)}, "a shape that no DenseNet has"),
        ({"classifier.weight": torch.zeros(3, 1024)}, "a shape that no DenseNet has"),
        ({"op_threshs": torch.zeros(3)}, "has 3 operating points"),
        ({"op_threshs": torch.zeros(18, 18)}, "has 324 operating points"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(tmp_path, changes, sentence):
    torch.save({**NONSENSE, **changes}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "a.pt")


def test_the_whole_model_of_torchxrayvision_is_a_pickle_and_refused(xrv, tmp_path):
    torch.save(xrv, tmp_path / "nih-densenet121-best.pt")
    with pytest.raises(CheckpointError, match=r"save it with torch\.save\(model\.state_dict\(\), path\)"):
        load_checkpoint(tmp_path / "nih-densenet121-best.pt")


def test_ten_equal_crops_are_refused(xrv, tmp_path):
    torch.save(xrv.state_dict(), tmp_path / "xrv.pt")
    with pytest.raises(CheckpointError, match="leave out --views"):
        export_checkpoint(tmp_path / "xrv.pt", view_set="ten-crop")
