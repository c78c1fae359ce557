"""AG-CNN (Guan et al. 2018): its three parts against their equations, its graph in each precision, its training."""

import copy
import dataclasses

import numpy as np
import onnx
import pytest
from small_systems import small_two_pass

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from safetensors.torch import load_file  # noqa: E402

from cxr_trt.engine.backend import BuildOptions  # noqa: E402
from cxr_trt.engine.box_check import overlaps  # noqa: E402
from cxr_trt.engine.build import BuildRequest, build_bundle  # noqa: E402
from cxr_trt.engine.registry import BACKENDS  # noqa: E402
from cxr_trt.errors import BackendError  # noqa: E402
from cxr_trt.export.from_module import export_crop_network  # noqa: E402
from cxr_trt.export.network_graph import build_network_graph  # noqa: E402
from cxr_trt.export.pictures import check_pictures  # noqa: E402
from cxr_trt.export.scoring_graph import ScoringGraph  # noqa: E402
from cxr_trt.precision import planning  # noqa: E402
from cxr_trt.precision.calibration_images import CalibrationImages  # noqa: E402
from cxr_trt.precision.float16 import element_types, in_network, layer_of, to_float16  # noqa: E402
from cxr_trt.precision.int8 import quantize  # noqa: E402
from cxr_trt.precision.plan import PrecisionPlan  # noqa: E402
from cxr_trt.precision.planning import plan_float16, plan_int8  # noqa: E402
from cxr_trt.precision.ranges import measure_ranges  # noqa: E402
from cxr_trt.score.engine import Engine  # noqa: E402
from cxr_trt.spec import Specification  # noqa: E402
from cxr_trt.views import Size  # noqa: E402
from train.batches import LabelledImages  # noqa: E402
from train.group import Group  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.recipe import Recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = Specification(pooling=None, maps="none", views="center", image_size=Size.square(64), crop_size=Size.square(56))


@pytest.fixture(scope="module")
def network():
    return small_two_pass()


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("agcnn") / "agcnn.safetensors"
    return export_crop_network(network, "activation", SPEC, "untrained", "0" * 64, path, []).graph


def test_each_part_gives_its_own_outputs(network):
    """Maximum pooling and a linear layer for each branch; both pooled vectors for the fusion (sec. 3.1)."""
    crops, labels = torch.randn(4, 3, 56, 56), (torch.rand(4, 14) < 0.1).float()
    labels[0], labels[1, 3] = 0, 1

    def pooled(branch, images):
        return branch.features(images).double().numpy().clip(min=0).max((2, 3))

    def linear(layer, values):
        return values @ layer.weight.double().numpy().T + layer.bias.double().numpy()

    with torch.inference_mode():
        activations = network.global_branch.activations(crops)
        second = network.box_crops(crops, network.boxes(activations), (7, 7))
        first, local = pooled(network.global_branch, crops), pooled(network.local_branch, second)
        expected = {
            "global_branch": linear(network.global_branch.prediction, first),
            "local_branch": linear(network.local_branch.prediction, local),
            "": linear(network.fusion, np.concatenate([first, local], 1)),
        }
        assert not torch.allclose(crops, second, atol=0.5)
        for part, logits in expected.items():
            network.part = part
            found, known = network.training_outputs(crops, labels)
            np.testing.assert_allclose(found, logits, atol=1e-4)
            np.testing.assert_allclose(network(crops), logits[:, :14], atol=1e-4)
            assert torch.equal(known[:, :14], labels)
            assert known[:, 14].tolist() == [float(not row.any()) for row in labels]


def test_the_graph_is_the_network_in_onnxruntime_and_openvino(network, graph, build):
    assert graph.has_class_maps
    pictures = np.random.default_rng(0).integers(0, 256, (6, 1, 64, 64), np.uint8)
    pictures = np.concatenate([pictures, check_pictures(64)])
    normalised = (pictures[:, :, 4:60, 4:60] / 255 - np.reshape(SPEC.mean, (3, 1, 1))) / np.reshape(SPEC.std, (3, 1, 1))
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(normalised.astype(np.float32)))).numpy()
    assert expected.std(0).min() > 1e-3
    for backend in ("onnxruntime", "openvino"):
        bundle = build(graph, backend, max_batch=len(pictures))
        with Engine(bundle) as engine:
            found = engine.run(pictures[:, 0], class_maps=True)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        assert found.class_maps.shape == (len(pictures), 14, 7, 7)


def test_from_heat_map_to_crop_everything_stays_float32_in_float16(graph):
    typed = to_float16(graph.model, ())
    types = element_types(typed)
    onnx.checker.check_model(typed, full_check=True)
    nodes = {name: node for node in typed.graph.node for name in node.output}
    box = max(i for i, node in enumerate(typed.graph.node) if ".float32." in node.name)
    local = next(node for node in list(typed.graph.node)[box:] if node.op_type == "Conv")
    seen, waiting = set(), [local.input[0]]
    while waiting:
        name = waiting.pop()
        node = nodes.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if types[name] == onnx.TensorProto.FLOAT16 and node.op_type != "Cast":
            assert node.op_type == "Relu", node.name  # the activations that the heat map is made of
            continue
        waiting += node.input
    assert sum(not in_network(nodes[name].name) for name in seen) > 50


def xrays(count):
    """Blocks of grey, which give heat maps of all kinds, uint8 [N, 1, 64, 64]."""
    return np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), np.uint8).repeat(8, 2).repeat(8, 3)


@pytest.fixture(scope="module")
def int8(graph):
    return calibrated(graph)


def calibrated(graph):
    return plan_int8(graph, CalibrationImages(xrays(12), "0" * 64, 0, ()), "max", lambda *_: None)


@pytest.mark.parametrize(
    ("precision", "backend"), [("fp16", "onnxruntime"), ("int8", "openvino"), ("int8", "onnxruntime")]
)
def test_low_precision_builds_and_says_how_many_boxes_it_moves(precision, backend, graph, int8, tmp_path):
    plan = int8 if precision == "int8" else plan_float16(graph, xrays(8), lambda *_: None)
    request = BuildRequest(graph, BACKENDS[backend], plan, BuildOptions(1), images=xrays(40))
    settings = build_bundle(request, tmp_path / "engine.cxr").settings
    boxes = settings["second_pass"]
    assert boxes["boxes"] == 40
    assert boxes["moved"] < 20
    assert 0.5 < boxes["mean_overlap"] <= 1
    assert settings["parity"]["images"] == 4


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_each_of_ten_crops_has_a_box_of_its_own(backend, graph, tmp_path):
    spec = dataclasses.replace(graph.spec, views="ten-crop", image_size=Size.square(72))
    crops = ScoringGraph.around(graph.network_graph, dataclasses.replace(graph.info, spec=spec))
    manifest = build_bundle(BuildRequest(crops, BACKENDS[backend]), tmp_path / "engine.cxr")
    assert manifest.settings["parity"]["largest"] < 1e-4


def test_bfloat16_is_refused_because_it_would_blur_the_second_look(graph, tmp_path):
    with pytest.raises(BackendError, match="must stay float32, which openvino cannot do within bf16"):
        build_bundle(BuildRequest(graph, BACKENDS["openvino"], PrecisionPlan("bf16")), tmp_path / "engine.cxr")


def test_tensorrt_rtx_builds_each_precision(graph, int8, tmp_path):
    backend = BACKENDS["tensorrt-rtx"]
    if reason := backend.why_not_build():
        pytest.skip(reason)
    for plan in (PrecisionPlan(), PrecisionPlan("tf32"), PrecisionPlan("fp16"), int8):
        manifest = build_bundle(BuildRequest(graph, backend, plan), tmp_path / f"{plan.precision}.cxr")
        assert manifest.settings["second_pass"]["boxes"] == 2


def test_the_local_branch_is_calibrated_on_what_the_quantized_global_branch_shows_it(graph, monkeypatch):
    """With thresholds so low that clipping moves boxes."""
    monkeypatch.setattr(planning, "MAX_UNIT_ERROR", np.inf)
    monkeypatch.setattr(planning, "choose_clipping", lambda histogram, _: histogram.top / 8)
    thresholds = calibrated(graph).calibration.thresholds
    model = build_network_graph(graph.network_graph, graph.spec, {}, class_maps=False)
    layers = [layer_of(node.name) for node in model.graph.node]
    box = max(i for i, layer in enumerate(layers) if ".float32." in layer)
    inputs = {layer: node.input[0] for layer, node in zip(layers, model.graph.node, strict=True) if layer in thresholds}
    behind = [layer for layer in thresholds if layers.index(layer) > box]
    assert (len(behind), len(thresholds)) == (5, 9)  # all convolutions but the first one

    first = quantize(model, {layer: value for layer, value in thresholds.items() if layer not in behind})
    seen = {
        name: measure_ranges(one, xrays(12), tuple(inputs.values()), lambda _: None).histograms
        for name, one in (("float32", model), ("quantized", first))
    }
    for layer, name in inputs.items():
        expected = seen["quantized" if layer in behind else "float32"][name]
        assert thresholds[layer] == expected.top / 8, layer
    assert any(thresholds[layer] != seen["float32"][inputs[layer]].top / 8 for layer in behind)


def test_overlaps_are_intersection_over_union():
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 7]], np.float32)
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [4, 4, 5, 5], [0, 0, 7, 1]], np.float32)
    np.testing.assert_allclose(overlaps(boxes, others), [1, 1 / 7, 0, 1 / 13])


def test_three_stages_train_one_part_each_and_leave_the_others_bit_equal(network, tmp_path):
    """Weights and batch statistics, in the network and in its checkpoints."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (16, 14)).astype(np.uint8)
    images = LabelledImages(xrays(16)[:, 0], labels, np.full((16, 3), np.nan, np.float32), 64)
    trained = copy.deepcopy(network)
    for part in ("global_branch", "local_branch", "fusion"):
        before = {key: value.clone() for key, value in trained.state_dict().items()}
        recipe = Recipe(
            *("agcnn-resnet50", 64, 64, 6, 0.01, 1, 2), optimizer="sgd", momentum=0.9, select="auc", part=part
        )
        (tmp_path / part).mkdir()
        Trainer(recipe, trained, images, np.arange(12), np.arange(12, 16), "", tmp_path / part, Group("cpu")).run()
        saved = load_file(tmp_path / part / "last.safetensors")
        for key, value in trained.state_dict().items():
            assert torch.equal(value, saved[key]), key
            assert torch.equal(value, before[key]) != key.startswith(part), key
    trained.part = ""
    assert not torch.equal(trained(torch.ones(1, 3, 56, 56)), network(torch.ones(1, 3, 56, 56)))
