"""All backends by name."""

from cxr_trt.engine.backend import Backend
from cxr_trt.engine.cpu.onnxruntime import OnnxRuntimeBackend
from cxr_trt.engine.cpu.openvino import OpenVinoBackend
from cxr_trt.engine.gpu.onnxruntime_cuda import CudaBackend
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend

BACKENDS: dict[str, Backend] = {
    "tensorrt": TensorRTBackend("tensorrt"),
    "tensorrt-rtx": TensorRTBackend("tensorrt_rtx"),
    "cuda": CudaBackend(),
    "openvino": OpenVinoBackend(),
    "onnxruntime": OnnxRuntimeBackend(),
}
