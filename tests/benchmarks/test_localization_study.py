import numpy as np
import pytest

from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.spec import Specification

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")

from benchmarks.localization import WANG, _published, _wang_table, centre_crop_maps
from benchmarks.study import PAPER_MODEL
from benchmarks.tools.networks import load_network
from cxr_trt.evaluate.wang import compare_map, localize_as_wang
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle
from cxr_trt.score.engine import Engine


@pytest.fixture(scope="module")
def image(radiographs):
    return preprocess(decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels, 512)


def test_the_class_maps_are_the_engines(image, center_bundle):
    own, _ = centre_crop_maps(load_network(PAPER_MODEL), image, Specification(views="center"))
    with Engine(center_bundle) as engine:
        expected = engine.run(image[None], class_maps=True).class_maps[0]
    np.testing.assert_allclose(own, expected, atol=1e-3)


def test_grad_cam_is_the_class_map_without_bias_cut_at_zero(image):
    """Exactly so for max-min pooling of a map that is linear in the features: see docs/studies/localization.md."""
    network = load_network(PAPER_MODEL)
    maps, cams = centre_crop_maps(network, image, Specification(views="center"))
    settings = network.settings
    biases = network.transfer.conv.bias.detach().numpy().reshape(14, settings.maps_per_finding).mean(1)
    weight = (1 + settings.alpha) / maps[0].size
    expected = np.maximum(weight * (maps - biases[:, None, None]), 0)
    np.testing.assert_allclose(cams, expected, atol=1e-5)
    assert cams.max() > 1e-3


def test_published_accuracies_fall_with_the_threshold():
    for low, high in zip(list(WANG.values())[:-1], list(WANG.values())[1:], strict=True):
        assert all(a >= b for a, b in zip(low, high, strict=True))
        assert len(low) == 8


def test_by_wangs_rule_both_thresholds_give_boxes():
    """Of a low and a high region, the box on the low one is found; the high one is false by either threshold."""
    class_map = np.zeros((8, 8), np.float32)
    class_map[:2, :2], class_map[6:, 6:] = 0.5, 1
    xray = compare_map(class_map, Rectangle(0, 0, 8, 8), [Rectangle(0, 0, 2, 2)], 0, "patient")
    own = localize_as_wang(FINDINGS, [xray], resamples=0)
    assert _wang_table({"maps": own}).splitlines()[2].startswith("| maps | 1.00 | 2.00 | 1.00 | 2.00 |")
    assert f"| ours, IoBB 0.5 | {own.accuracy.findings['Atelectasis'][1]['IoBB 0.5'].value:.2f} |" in _published(
        own.accuracy
    )
