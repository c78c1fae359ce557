"""A bundle that an earlier version built is still read, and is the same engine as before.

tests/engine/data/bundle_0.1.0 is a bundle of the graph of tests/support/cheap_engine.py, tuned and built for OpenVINO.
"""

from pathlib import Path

from cxr_trt.engine.manifest import read_manifest
from cxr_trt.export.scoring_graph import ScoringGraph

BUNDLE = Path(__file__).parent / "data" / "bundle_0.1.0"
FINGERPRINT = "f59ce52c1baf3e9e-daae339eb3b0e109"  # as `cxr-trt inspect` printed it then


def test_an_earlier_bundle_is_read_and_keeps_its_fingerprint():
    manifest = read_manifest(BUNDLE)
    assert manifest.fingerprint == FINGERPRINT
    assert (manifest.graph.weights, manifest.graph.spec.views) == ("trained", "center")
    assert manifest.settings["tuning"]["streams x X-rays in each"].keys() == {"1 x 1", "1 x 2", "2 x 1"}


def test_its_scoring_graph_is_read_too():
    assert ScoringGraph.load(BUNDLE / "model.onnx").info == read_manifest(BUNDLE).graph
