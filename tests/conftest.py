import os
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import onnx
import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.bundle import build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.graph_file import GraphInfo, read_scoring_graph
from cxr_trt.export.scoring_graph import scoring_graph
from cxr_trt.model.network import Network
from cxr_trt.spec import Specification
from train.untrained import untrained_network


@pytest.fixture(scope="session")
def radiographs() -> Path:
    """The folder of pydicom-data's DICOM files: RG1 is a chest, RG3 a leg, both MONOCHROME1."""
    return Path(str(distribution("pydicom-data").locate_file("data_store/data")))


@pytest.fixture(scope="session")
def cxr14() -> Path:
    """The folder of a subset of ChestX-ray14."""
    folder = Path(os.environ.get("CXR14_DIR") or Path(__file__).parents[2] / "shared" / "cxr14")
    if not folder.is_dir():
        pytest.skip("needs ChestX-ray14: set CXR14_DIR")
    return folder


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The shipped scoring graph: ten crops, untrained."""
    return Path(__file__).parents[1] / "cxr_trt" / "models" / "demo.onnx"


@pytest.fixture(scope="session")
def network() -> Network:
    """The paper's network with seeded random weights."""
    return untrained_network()


@pytest.fixture(scope="session")
def center_model(network: Network) -> onnx.ModelProto:
    """The scoring graph of `network` for the centre crop: a tenth of the time of ten crops."""
    spec = Specification(views="center")
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    metadata = GraphInfo.of(spec, False, "0" * 64).to_metadata()
    return scoring_graph(weights, network.settings, spec, metadata, class_maps=True)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a bundle from a model; returns its folder."""

    def build(model: onnx.ModelProto, backend: str = "openvino", max_batch: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("bundles")
        onnx.save(model, folder / "model.onnx")
        model, info = read_scoring_graph(folder / "model.onnx")
        options = BuildOptions(max_batch, lambda phase, fraction: None)
        build_bundle(model, info, BACKENDS[backend], folder / "engine.cxr", options, overwrite=False)
        return folder / "engine.cxr"

    return build


@pytest.fixture(scope="session")
def center_bundle(build: Callable[..., Path], center_model: onnx.ModelProto) -> Path:
    """A bundle of the centre-crop model. Copy it before changing it."""
    return build(center_model)
