"""Engines: bundles on disk, and the backends that build and run them."""
