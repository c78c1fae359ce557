from functools import cache

import cv2
import numpy as np
import pytest

from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.model.settings import SETTINGS
from cxr_trt.precision import planning
from cxr_trt.spec import Specification
from cxr_trt.views import Size

SMALL_SIZES = (288, 224)  # of image and crop: a quarter of the time, and dense views are possible


@pytest.fixture(scope="session")
def chests(tmp_path_factory, radiographs):
    """A folder of 18 PNGs: one radiograph, turned, shifted and with other contrast."""
    folder = tmp_path_factory.mktemp("chests")
    picture = preprocess(decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels, 512)
    rng = np.random.default_rng(0)
    for i in range(18):
        turn = cv2.getRotationMatrix2D((256, 256), rng.uniform(-8, 8), rng.uniform(0.95, 1.15))
        turn[:, 2] += rng.uniform(-20, 20, 2)
        moved = cv2.warpAffine(picture, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
        shade = np.clip(moved * rng.uniform(0.8, 1.1) + rng.uniform(-15, 15), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:08d}_000.png"), shade)
    return folder


@pytest.fixture(scope="session")
def bundles_of_size(cli, demo_weights, chests, tmp_path_factory):
    """Builds the shipped network for the centre crop in each precision: a function of image size and crop size."""

    @cache
    def bundles(image_size, crop_size):
        folder = tmp_path_factory.mktemp("precisions")
        spec = Specification(views="center", image_size=Size.square(image_size), crop_size=Size.square(crop_size))
        info = GraphInfo.of_this_version(spec, "untrained", "0" * 64)
        ScoringGraph.from_network(demo_weights, SETTINGS["paper"], info).save(folder / "model.onnx")
        options = {
            "fp32": ("--backend", "openvino"),
            "fp16": (),
            "int8": ("--backend", "openvino", "--calibrate", chests, "--calibration-images", 16),
        }
        for precision, of_precision in options.items():
            command = ("build-engine", folder / "model.onnx", "-o", folder / f"{precision}.cxr", "--no-tune")
            result = cli(*command, "--precision", precision, *of_precision)
            assert result.exit_code == 0, result.output
        return {precision: folder / f"{precision}.cxr" for precision in options}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "MAX_SCANNED_IMAGES", 2)  # the sensitivity scan is most of the time
        yield bundles


@pytest.fixture(scope="session")
def bundles(bundles_of_size):
    return bundles_of_size(*SMALL_SIZES)


@pytest.fixture(scope="session")
def int8_bundle(bundles):
    return bundles["int8"]


@pytest.fixture(scope="session")
def float16_bundle(bundles):
    return bundles["fp16"]


@pytest.fixture(scope="session")
def graph_file(bundles):
    """The scoring graph that they were built from."""
    return bundles["fp32"].with_name("model.onnx")
