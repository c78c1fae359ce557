"""Multiplications and bytes of layers that can be counted by hand, and of the network as PyTorch runs it."""

import numpy as np
import onnx
import openvino
import pytest

from cxr_trt.measure import cpu_peaks
from cxr_trt.measure.cpu_peaks import measure_cpu_peaks, multiplied_in
from cxr_trt.measure.gpu_peaks import GPU_PEAKS, GpuPeaks, find_gpu
from cxr_trt.measure.roofline import arithmetic_seconds, layers, seconds

GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
graph (uint8[N, 1, 8, 6] images) => (float[N, 5] probabilities)
<float[4, 1, 3, 3] stem, float[4] bias, float[2, 4, 1, 1] point, float[6, 2, 3, 3] grouped, float[5, 6] dense>
{
    grey = Cast <to: int = 1> (images)
    a = Conv <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]> (grey, stem, bias)
    b = Relu (a)
    c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
    d = Conv <kernel_shape = [1, 1]> (c, point)
    e = Concat <axis = 1> (c, d)
    f = Relu (e)
    axes = Constant <value_ints = [1]> ()
    starts = Constant <value_ints = [0]> ()
    ends = Constant <value_ints = [4]> ()
    g = Slice (f, starts, ends, axes)
    h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2> (g, grouped)
    spatial = Constant <value_ints = [2, 3]> ()
    i = ReduceMean <keepdims = 0> (h, spatial)
    logits = Gemm <transB = 1> (i, dense)
    probabilities = Sigmoid (logits)
}
"""


@pytest.fixture(scope="module")
def graph():
    model = onnx.parser.parse_model(GRAPH)
    shapes = {"stem": (4, 1, 3, 3), "bias": (4,), "point": (2, 4, 1, 1), "grouped": (6, 2, 3, 3), "dense": (5, 6)}
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    for i, node in enumerate(model.graph.node):
        node.name = f"{i} {node.op_type}"
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def found(graph):
    return layers(graph)


def test_layers_are_those_counted_by_hand(found):
    first, pool, point, grouped, dense = found
    # stem: 4 x 8 x 6 outputs of 9 products; it reads the image alone
    assert (first.multiplications, first.read, first.written) == (4 * 48 * 9, 0, 192)
    assert (first.weights, first.image_bytes) == (36 + 4, 48)
    assert (pool.multiplications, pool.read, pool.written, pool.weights) == (0, 192, 48, 0)
    # 1x1: 2 x 4 x 3 outputs of 4 products
    assert (point.multiplications, point.read, point.written, point.weights) == (24 * 4, 48, 24, 8)
    # in two groups: 6 x 4 x 3 outputs of 2 x 9 products; behind concatenation, activation and slice lie both tensors
    assert (grouped.multiplications, grouped.read, grouped.written) == (72 * 18, 48 + 24, 72)
    assert grouped.weights == 6 * 2 * 9
    # 5 outputs of 6 products; the mean before it costs its reading
    assert (dense.multiplications, dense.read, dense.written, dense.weights) == (30, 72, 5, 30)


def test_as_typed_elementwise_operations_are_kernels_unless_they_follow_a_convolution(graph):
    found = layers(graph, as_typed=True)
    assert [layer.name.split()[1] for layer in found] == ["Conv", "MaxPool", "Conv", "Relu", "Conv", "Gemm"]
    relu, grouped = found[3:5]
    assert (relu.multiplications, relu.read, relu.written, relu.weights) == (0, 48 + 24, 72, 0)
    assert (grouped.read, grouped.written) == (72, 72)  # behind the slice lies what the activation wrote


def test_bytes_are_those_of_the_precision_and_the_batch(found):
    first, point = found[0], found[2]
    assert first.bytes("fp32", 1) == 48 + 4 * (192 + 40)
    assert first.bytes("int8", 8) == 48 + 192 + 5
    assert point.bytes("fp16", 2) == 2 * (48 + 24 + 4)


def test_a_layer_takes_as_long_as_the_slower_of_arithmetic_and_traffic(found):
    gpu = GpuPeaks("x", "x", {"fp32": 1000.0}, bandwidth=400.0, source="")
    stem, point = found[0], found[2]
    assert seconds([stem], gpu, "fp32", 1) == pytest.approx(2 * 1728 / 1000)  # its 976 bytes take 2.44 s
    assert seconds([point], gpu, "fp32", 1) == pytest.approx(4 * 80 / 400)
    assert arithmetic_seconds([stem, point], gpu, "fp32") == pytest.approx(2 * (1728 + 96) / 1000)


def test_the_networks_multiplications_are_those_that_pytorch_performs(network, center_graph):
    torch = pytest.importorskip("torch")
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += output.numel() * module.weight[0].numel()

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, kinds)]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 448, 448))
    for hook in hooks:
        hook.remove()
    found = [layer for layer in layers(center_graph.model) if layer.name != "maps.merged"]
    assert sum(layer.multiplications for layer in found) == counted


DEVICES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H100 PCIe": None,
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100-PCIE-40GB": None,
    "Tesla T4": "T4",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": None,
    "Orin": None,  # several boards have this name
    "NVIDIA Thor": None,
}


@pytest.mark.parametrize("name", DEVICES)
def test_a_gpu_is_found_by_the_name_that_cuda_gives_it(name):
    gpu = find_gpu(name)
    assert (gpu.name if gpu else None) == DEVICES[name]


JETSONS = {
    ("p3767-0000", 8): "Orin NX",
    ("p3767-0001", 8): "Orin NX",
    ("p3767-0003", 8): "Orin Nano 8 GB",
    ("p3767-0004", 4): None,
    ("p3767-0005", 8): "Orin Nano 8 GB",
    ("p3701-0000", 16): "AGX Orin 64 GB",
    ("p3701-0004", 14): "AGX Orin 32 GB",
    ("p3701-0005", 8): "AGX Orin 64 GB",  # in a power mode that switches half of it off
    ("p3701-0008", 16): None,
    (None, 8): None,
}


@pytest.mark.parametrize(("board", "multiprocessors"), JETSONS)
def test_jetsons_of_one_name_are_told_apart_by_their_boards(board, multiprocessors):
    gpu = find_gpu("Orin", board=board, multiprocessors=multiprocessors)
    assert (gpu.name if gpu else None) == JETSONS[board, multiprocessors]


def test_thors_are_told_apart_by_their_multiprocessors():
    found = [find_gpu("NVIDIA Thor", multiprocessors=count) for count in (20, 12)]
    assert [gpu and gpu.name for gpu in found] == ["Thor T5000", None]


def test_peaks_are_ordered_and_sourced():
    for gpu in GPU_PEAKS:
        assert gpu.operations["fp32"] < gpu.operations["fp16"] < gpu.operations["int8"]
        assert gpu.operations["int8"] == pytest.approx(2 * gpu.operations["fp16"], rel=0.01)
        assert gpu.operations["fp32"] < gpu.operations.get("tf32", gpu.operations["fp16"]) <= gpu.operations["fp16"]
        assert gpu.source


def test_orins_do_the_same_per_core_and_cycle():
    """They have one architecture, so a number that was mistaken for another board's would show."""
    orins = [gpu for gpu in GPU_PEAKS if "Orin" in gpu.name]
    ratios = [gpu.operations["int8"] / gpu.operations["fp32"] for gpu in orins]
    assert len(orins) == 4
    assert ratios == pytest.approx([16] * 4, rel=0.03)


@pytest.mark.parametrize(
    ("precision", "bfloat16", "float16", "expected", "hint"),
    [
        ("fp32", True, True, "float32", "f32"),
        ("bf16", True, False, "bfloat16", "bf16"),
        ("fp16", True, True, "float16", "f16"),
        ("fp16", True, False, "float32", "f32"),
        ("int8", True, True, "int8", "bf16"),
        ("int8", False, False, "int8", "f32"),
    ],
)
def test_peaks_are_of_the_type_that_the_processor_multiplies_in(
    precision, bfloat16, float16, expected, hint, monkeypatch
):
    """OpenVINO takes each type's name on any processor, and does what it can."""
    monkeypatch.setattr(cpu_peaks, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(cpu_peaks, "has_float16", lambda: float16)
    hints, compile_model = [], openvino.Core.compile_model

    def watched(self, model, device, properties):
        hints.append(properties["INFERENCE_PRECISION_HINT"])
        return compile_model(self, model, device, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    for name, small in (("CHANNELS", 32), ("SIDE", 8), ("COPIED_BYTES", 1 << 20)):
        monkeypatch.setattr(cpu_peaks, name, small)
    assert measure_cpu_peaks(precision).operations[precision] > 0
    assert multiplied_in(precision) == expected
    assert hints == [hint]


def test_int8_multiplies_faster_here_than_float32_and_nothing_is_beyond_belief():
    """Orders of magnitude: a processor that does less than a thousandth of this, or a thousand times it, is none."""
    peaks = {precision: measure_cpu_peaks(precision) for precision in ("fp32", "int8")}
    for precision, found in peaks.items():
        assert 1e9 < found.operations[precision] < 1e15
        assert 1e8 < found.bandwidth < 1e13
    assert peaks["int8"].operations["int8"] > peaks["fp32"].operations["fp32"]
