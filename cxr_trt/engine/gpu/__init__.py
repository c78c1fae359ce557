"""The backends for NVIDIA GPUs: TensorRT and TensorRT-RTX."""
