"""The backends by name."""

from cxr_trt.engine.backend import Backend
from cxr_trt.engine.onnxruntime import OnnxRuntimeBackend
from cxr_trt.engine.openvino import OpenVinoBackend
from cxr_trt.engine.tensorrt import TensorRTBackend

BACKENDS: dict[str, Backend] = {
    "tensorrt": TensorRTBackend("tensorrt"),
    "tensorrt-rtx": TensorRTBackend("tensorrt_rtx"),
    "openvino": OpenVinoBackend(),
    "onnxruntime": OnnxRuntimeBackend(),
}
