import shutil

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cxr_trt.cli import main
from cxr_trt.engine.gpu import cuda_core, py_cuda
from cxr_trt.precision import planning
from cxr_trt.errors import BackendError
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess


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
def graph(center_bundle, tmp_path_factory):
    """The file of the shipped model's graph for the centre crop."""
    return shutil.copy(center_bundle / "model.onnx", tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture(scope="session")
def int8(graph, chests, tmp_path_factory):
    bundle = tmp_path_factory.mktemp("int8") / "int8.cxr"
    calibration = ("--precision", "int8", "--calibrate", chests, "--calibration-images", 16)
    arguments = ("build-engine", graph, "-o", bundle, *calibration, "--backend", "openvino", "--no-tune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "SCANNED", 3)  # images of the sensitivity scan, which is most of the time
        result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="session")
def fp16(graph, tmp_path_factory):
    bundle = tmp_path_factory.mktemp("fp16") / "fp16.cxr"
    result = CliRunner().invoke(
        main, ["build-engine", "--no-tune", *map(str, (graph, "-o", bundle, "--precision", "fp16"))]
    )
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture
def gpu_by_cuda_core():
    """The first GPU, by cuda-core."""
    try:
        return cuda_core.gpus()[0]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["cuda-core", "PyCUDA"])
def gpu(request):
    """The first GPU, by each adapter that is installed."""
    if request.param == "cuda-core":
        return request.getfixturevalue("gpu_by_cuda_core")
    driver = pytest.importorskip("pycuda.driver", reason="PyCUDA cannot be imported", exc_type=ImportError)
    return py_cuda.gpus(driver)[0]
