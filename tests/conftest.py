import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle
from random_networks import random_graph

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.model.settings import SETTINGS
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    from click.testing import Result

    from cxr_trt.model.network import Network

NOBODY = 65534  # the user of that name


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests cache out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
def cli() -> "Callable[..., Result]":
    """Calls the command line in this process: `cli("score", folder, "-o", table)` gives exit code and output."""
    from click.testing import CliRunner

    from cxr_trt.cli import main

    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


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
def paper_model() -> Path:
    """The shipped scoring graph: ten crops."""
    return Path(__file__).parents[1] / "cxr_trt" / "models" / "paper.onnx"


@pytest.fixture(scope="session")
def demo_weights(paper_model: Path) -> dict[str, npt.NDArray[Any]]:
    """The state dict of the shipped model."""
    weights, _ = ScoringGraph.load(paper_model).network()
    return weights


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost PyTorch more than they give on maps of a few pixels, above all where others use the processors."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def center_graph(demo_weights: dict[str, npt.NDArray[Any]]) -> ScoringGraph:
    """The shipped model for the centre crop: a tenth of the time of ten crops."""
    info = GraphInfo.of_this_version(Specification(views="center"), "untrained", "0" * 64)
    return ScoringGraph.from_network(demo_weights, SETTINGS["paper"], info)


@pytest.fixture(scope="session")
def small_graph() -> ScoringGraph:
    """Ten crops of half the size, with random weights. Copy its model before changing it."""
    return random_graph("paper")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a bundle from a scoring graph; returns its folder."""

    def build(graph: ScoringGraph, backend: str = "openvino", max_batch: int = 1) -> Path:
        bundle = tmp_path_factory.mktemp("bundles") / "engine.cxr"
        build_bundle(BuildRequest(graph, BACKENDS[backend], options=BuildOptions(max_batch)), bundle)
        return bundle

    return build


@pytest.fixture(scope="session")
def center_bundle(build: Callable[..., Path], center_graph: ScoringGraph) -> Path:
    """A bundle of the centre-crop model. Copy it before changing it."""
    return build(center_graph)


@pytest.fixture(scope="session")
def cheap_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose scores are the mean grey: for everything around the engine."""
    return build_cheap_bundle(tmp_path_factory.mktemp("cheap") / "cheap.cxr")
