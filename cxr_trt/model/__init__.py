"""The network in PyTorch: its settings, its layers and its checkpoints."""
