"""Exporting a network as a scoring graph: one ONNX model."""
