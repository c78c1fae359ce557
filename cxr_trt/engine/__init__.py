"""Engines: bundles on disk, and a file for each backend."""
