import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from cxr_trt.errors import CheckpointError  # noqa: E402
from cxr_trt.export.storage import pack  # noqa: E402
from cxr_trt.model.network import Network  # noqa: E402
from cxr_trt.model.settings import SETTINGS  # noqa: E402
from train.start import start_weights  # noqa: E402


def test_a_training_starts_from_the_weights_of_a_scoring_graph(center_graph, network, tmp_path):
    onnx.save(pack(center_graph.model), tmp_path / "model.onnx")
    started = Network(SETTINGS["paper"])
    started.load_state_dict(start_weights(tmp_path / "model.onnx", "paper"))
    expected = network.state_dict()
    for key, value in started.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, expected[key])


def test_a_scoring_graph_cannot_start_another_system(center_graph, tmp_path):
    center_graph.save(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="can only start networks of yan2018; start chexnet-2017 from a"):
        start_weights(tmp_path / "model.onnx", "chexnet-2017")


def test_a_scoring_graph_of_another_setting_is_refused(center_graph, tmp_path):
    center_graph.save(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="which is not the recipe's setting single-map"):
        start_weights(tmp_path / "model.onnx", "single-map")
