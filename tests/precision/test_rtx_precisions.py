"""NVIDIA's parser and builder take every graph that we make: each setting and precision, on the CPU."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.model.settings import SETTINGS
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan
from cxr_trt.spec import Specification

RTX = BACKENDS["tensorrt-rtx"]
PAIRS = [(setting, view_set) for setting in SETTINGS for view_set in ("ten-crop", "center")]
WITH_AND_WITHOUT_GATES = [("paper", "ten-crop"), ("chexnet", "center")]


def random_weights(setting):
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    torch.manual_seed(0)
    return {key: value.numpy() for key, value in Network(SETTINGS[setting]).state_dict().items()}


def plans(graph):
    layers = [node.name for node in graph.model.graph.node if node.op_type == "Conv" and "block" in node.name]
    calibration = Int8Calibration("", 0, "", 0, "max", dict.fromkeys(layers, 4.0), {})
    return FLOAT32, PrecisionPlan("tf32"), PrecisionPlan("fp16"), PrecisionPlan("int8", calibration=calibration)


@pytest.mark.parametrize(
    ("setting", "view_set"),
    [pytest.param(*pair, marks=() if pair in WITH_AND_WITHOUT_GATES else pytest.mark.slow) for pair in PAIRS],
)
def test_all_precisions_build(setting, view_set, tmp_path):
    if reason := RTX.why_not_build():
        pytest.skip(reason)
    settings = SETTINGS[setting]
    spec = Specification(views=view_set, pooling=settings.pooling)
    info = GraphInfo.of_this_version(spec, "untrained", "0" * 64)
    graph = ScoringGraph.from_network(random_weights(setting), settings, info)

    def size(plan):
        folder = tmp_path / plan.precision
        folder.mkdir()
        options = BuildOptions(2, tf32=plan.precision == "tf32")
        model = plan.engine_graph(graph, RTX)
        RTX.build(model, folder, options)
        return (folder / "engine.plan").stat().st_size

    with ThreadPoolExecutor(2) as threads:
        sizes = list(threads.map(size, plans(graph)))
    float32, tf32, float16, int8 = sizes
    assert float32 > float16 > int8  # the smaller the type, the smaller the engine
    assert tf32 > float16
