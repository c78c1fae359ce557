"""The backends for CPUs: OpenVINO and ONNX Runtime."""
