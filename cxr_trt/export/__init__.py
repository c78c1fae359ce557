"""From a network to one scoring graph in ONNX."""
