"""NVIDIA's parser and builder take every graph that we make: each setting and precision, on the CPU."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import GraphInfo
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.plan import FLOAT32, Plan
from cxr_trt.export.graph_building import build_graph
from cxr_trt.model.settings import SETTINGS
from cxr_trt.spec import Specification

RTX = BACKENDS["tensorrt-rtx"]


def weights(setting):
    """Random weights of the full network."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    torch.manual_seed(0)
    return {key: value.numpy() for key, value in Network(SETTINGS[setting]).state_dict().items()}


def plans(model):
    layers = [node.name for node in model.graph.node if node.op_type == "Conv" and "block" in node.name]
    calibration = Int8Calibration("", 0, "", 0, "max", dict.fromkeys(layers, 4.0), {})
    return FLOAT32, Plan("fp16"), Plan("int8", calibration=calibration)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("view_set", ["ten-crop", "center"])
def test_all_precisions_build(setting, view_set, tmp_path):
    if reason := RTX.why_not_build():
        pytest.skip(reason)
    settings = SETTINGS[setting]
    pooling = {name: getattr(settings, name) for name in ("k_max", "k_min", "alpha")}
    spec = Specification(views=view_set, **pooling)
    info = GraphInfo.of(spec, "untrained", "0" * 64)
    model = build_graph(weights(setting), settings, spec, info.to_metadata(), class_maps=True)

    def size(plan):
        folder = tmp_path / plan.precision
        folder.mkdir()
        RTX.build(plan.graph(model, info, share_crops=False, half=True), folder, BuildOptions(2))
        return (folder / "engine.plan").stat().st_size

    with ThreadPoolExecutor(2) as threads:
        sizes = list(threads.map(size, plans(model)))
    assert np.argsort(sizes).tolist() == [2, 1, 0]  # the smaller the type, the smaller the engine
