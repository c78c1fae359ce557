import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle
from onnx import numpy_helper

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.bundle import build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.graph_file import GraphInfo, read_scoring_graph
from cxr_trt.export.scoring_graph import scoring_graph
from cxr_trt.model.settings import SETTINGS
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    from cxr_trt.model.network import Network

NOBODY = 65534  # the user of that name


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


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of a user who is not root, for the time of the test: root may read and write everything."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        if root:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield Path(name)
        if root:
            os.seteuid(0)
        for path in Path(name).iterdir():
            path.chmod(0o700)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The shipped scoring graph: ten crops."""
    return Path(__file__).parents[1] / "cxr_trt" / "models" / "demo.onnx"


@pytest.fixture(scope="session")
def demo_weights(demo_model: Path) -> dict[str, npt.NDArray[Any]]:
    """The state dict of the shipped model."""
    model, _ = read_scoring_graph(demo_model)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="session")
def network(demo_weights: dict[str, npt.NDArray[Any]]) -> "Network":
    """The shipped model in PyTorch."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    network = Network(SETTINGS["paper"])
    own = network.state_dict()
    own.update({key: torch.tensor(demo_weights[key]) for key in own if not key.endswith("num_batches_tracked")})
    network.load_state_dict(own)
    return network.eval()


@pytest.fixture(scope="session")
def center_model(demo_weights: dict[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The shipped model for the centre crop: a tenth of the time of ten crops."""
    spec = Specification(views="center")
    metadata = GraphInfo.of(spec, "untrained", "0" * 64).to_metadata()
    return scoring_graph(demo_weights, SETTINGS["paper"], spec, metadata, class_maps=True)


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


@pytest.fixture(scope="session")
def cheap_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose scores are the mean grey: for everything around the engine."""
    return build_cheap_bundle(tmp_path_factory.mktemp("cheap") / "cheap.cxr")
