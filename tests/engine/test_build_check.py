"""The check at the end of every build: the engine against its scoring graph."""

import json
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from simulated_gpu import SimulatedGpu, SimulatedNetwork

from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.build_check import check_parity
from cxr_trt.engine.cpu.openvino import OpenVinoBackend
from cxr_trt.engine.gpu.pipeline import BATCHES_IN_FLIGHT, GpuRunner
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph


@pytest.fixture
def runner(center_bundle):
    settings = json.loads((center_bundle / "manifest.json").read_text())["settings"]
    graph = ScoringGraph.load(center_bundle / "model.onnx")
    runner = BACKENDS["openvino"].open(center_bundle, graph.spec, settings)
    yield runner, graph, settings
    runner.close()


def changed(model, value):
    """The same graph with another bias of the transfer layer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    bias = next(tensor for tensor in copy.graph.initializer if tensor.name == "transfer.conv.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(168, value, np.float32), bias.name))
    return copy


def test_the_difference_stands_in_the_manifest(runner):
    runner, graph, settings = runner
    parity = check_parity(runner, graph.model, check_pictures(graph.spec.image_size)[:1], "fp32")
    assert asdict(parity) == settings["parity"]
    assert parity.mean <= parity.largest <= 1e-5
    assert settings["share_crops"] is True


@pytest.mark.parametrize("value", [0.01, np.nan])
def test_an_engine_that_differs_is_refused(runner, value):
    runner, graph, _ = runner
    with pytest.raises(BackendError, match="nothing was written: the engine's probabilities differ"):
        check_parity(runner, changed(graph.model, value), check_pictures(graph.spec.image_size)[:1], "fp32")


def test_an_engine_that_differs_in_full_batches_only_is_refused(center_bundle, runner, monkeypatch):
    _, graph, settings = runner
    runner = BACKENDS["openvino"].open(center_bundle, graph.spec, {**settings, "max_batch": 2, "streams": 2})
    pictures = check_pictures(graph.spec.image_size)[:1]
    check_parity(runner, graph.model, pictures, "fp32")
    submit = runner.submit
    monkeypatch.setattr(
        runner, "submit", lambda images, class_maps: submit([image // len(images) for image in images], class_maps)
    )
    with pytest.raises(BackendError, match="nothing was written"):
        check_parity(runner, graph.model, pictures, "fp32")
    runner.close()


GREY = """
<ir_version: 10, opset_import: ["": 20]>
grey (uint8[N, 1, 16, 16] images) => (float[N, 14] probabilities)
<float white = {300}, int64[2] sides = {2, 3}>
{
    pixels = Cast <to: int = 1> (images)
    mean = ReduceMean <keepdims: int = 0> (pixels, sides)
    scaled = Div (mean, white)
    probabilities = Add (scaled, steps)
}
"""


class OneContext(SimulatedNetwork):
    """All its contexts are one, so that shapes and addresses change after graphs were captured."""

    enqueue = None

    def context(self, workspace, size, batch=None):
        self.enqueue = self.enqueue or super().context(workspace, size).enqueue
        return SimpleNamespace(enqueue=self.enqueue, close=lambda: None)


@pytest.mark.parametrize("network", [SimulatedNetwork, OneContext])
def test_graphs_are_replayed_after_batches_of_other_sizes(network):
    model = onnx.parser.parse_model(GREY)
    steps = np.arange(14, dtype=np.float32)[None] / 100
    model.graph.initializer.append(numpy_helper.from_array(steps, "steps"))
    gpu = SimulatedGpu()
    with gpu.current():
        runner = GpuRunner(gpu, network(gpu, max_batch=4))
    if network is SimulatedNetwork:
        assert check_parity(runner, model, check_pictures(16), "fp32").largest < 1e-6
        assert gpu.calls.count("launch") >= 10 * BATCHES_IN_FLIGHT / 2
    else:
        with pytest.raises(BackendError, match="differ from the scoring graph's by nan"):
            check_parity(runner, model, check_pictures(16), "fp32")
    runner.close()


class BrokenBackend(OpenVinoBackend):
    """Builds from other weights than it is given."""

    def build(self, graph, folder, options):
        bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "transfer.conv.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(14, 1, np.float32), bias.name))
        return super().build(graph, folder, options)


def test_no_bundle_is_left_of_an_engine_that_differs(center_bundle, tmp_path):
    shutil.copy(center_bundle / "model.onnx", tmp_path)
    graph = ScoringGraph.load(tmp_path / "model.onnx")
    with pytest.raises(BackendError, match="differ from the scoring graph's"):
        build_bundle(BuildRequest(graph, BrokenBackend()), tmp_path / "new.cxr")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
