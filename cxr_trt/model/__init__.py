"""The network in PyTorch: its settings, its parts and its checkpoints."""
