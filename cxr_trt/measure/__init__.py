"""Measuring how fast an engine is on this machine."""
