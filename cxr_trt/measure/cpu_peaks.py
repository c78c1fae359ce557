"""What this machine's processors do at most, measured: multiplications in a precision, and bytes to and from memory.

A processor's data sheet says little about a virtual machine, which may get any part of one. The multiplications are
those of a large 1x1 convolution, a matrix product, by OpenVINO; the bytes are those of a copy by NumPy. Where the
processor does not multiply in the precision itself, they are those of the type that it multiplies in instead.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from cxr_trt.engine.cpu.openvino import core, has_bfloat16, has_float16
from cxr_trt.precision.int8 import quantize
from cxr_trt.processors import processors

CHANNELS, SIDE = 1024, 64  # of the convolution: 4.3 billion multiplications
COPIED_BYTES = 256 << 20  # more than a processor's cache holds
REPETITIONS = 5  # the fastest counts
LAYER = "features.conv"
TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


@dataclass(frozen=True)
class CpuPeaks:
    """See `cxr_trt.measure.roofline.Peaks`."""

    operations: dict[str, float]
    bandwidth: float


def measure_cpu_peaks(precision: str) -> CpuPeaks:
    """Measure, in a few seconds, with all processors that this process may use."""
    return CpuPeaks({precision: 2 * _multiplications_per_second(precision)}, _bytes_per_second())


def multiplied_in(precision: str) -> str:
    """The type that this processor multiplies in: float32 for a floating-point precision that it does not have."""
    return "int8" if precision == "int8" else TYPES[_hint(precision)]


def _hint(precision: str) -> str:
    """The floating-point type, for int8 that of what is not quantised, as OpenVINO calls it."""
    if precision == "fp16":
        return "f16" if has_float16() else "f32"
    return "bf16" if precision != "fp32" and has_bfloat16() else "f32"


def _multiplications_per_second(precision: str) -> float:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((CHANNELS, CHANNELS, 1, 1), np.float32)
    convolution = onnx.helper.make_node("Conv", ["x", "kernel"], ["y"], name=LAYER)
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["pixels"], ["x"], name="relu"), convolution],
        "peak",
        [onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    if precision == "int8":
        model = quantize(model, {LAYER: 4.0}, unsigned=True)
    properties = {"INFERENCE_PRECISION_HINT": _hint(precision), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(core().read_model(model.SerializeToString()), "CPU", properties)
    pixels = rng.standard_normal(shape, np.float32)
    return CHANNELS**2 * SIDE**2 / _least_seconds(lambda: compiled([pixels], share_inputs=True))


def _bytes_per_second() -> float:
    """Read and written by a copy, of which each processor does a part."""
    count = processors()
    source, target = np.ones(COPIED_BYTES, np.uint8), np.zeros(COPIED_BYTES, np.uint8)
    parts = list(zip(np.array_split(source, count), np.array_split(target, count), strict=True))
    with ThreadPoolExecutor(count) as threads:
        return 2 * COPIED_BYTES / _least_seconds(lambda: list(threads.map(_copy, parts)))


def _copy(part: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]) -> None:
    source, target = part
    np.copyto(target, source)


def _least_seconds(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
