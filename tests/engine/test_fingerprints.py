"""Which engines are the same one: tuned otherwise, built on other processors, or built by an earlier version.

tests/engine/data/bundle_0.1.0 is a bundle of the graph of tests/support/cheap_engine.py, tuned and built for OpenVINO.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from cheap_engine import cheap_graph

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.config import CpuConfig
from cxr_trt.engine.manifest import CPU_SETTINGS, read_manifest
from cxr_trt.engine.registry import BACKENDS
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


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_how_a_cpu_is_used_is_no_part_of_the_fingerprint(tmp_path, name):
    manifests = []
    for number, config in enumerate((CpuConfig(1, 1), CpuConfig(2, 4, hyper_threading=True))):
        request = BuildRequest(cheap_graph(), BACKENDS[name], options=BuildOptions(config.max_batch))
        request = replace(request, cpu_configs=(config,))
        manifests.append(build_bundle(request, tmp_path / f"{number}.cxr"))
    assert [manifest.settings["streams"] for manifest in manifests] == [1, 2]
    assert manifests[0].fingerprint == manifests[1].fingerprint
    assert set(CpuConfig._fields) == set(CPU_SETTINGS)


@pytest.mark.parametrize("changed", [{"share_crops": False}, {"float32_layers": ["a"]}, {"backend_version": "0"}])
def test_what_else_an_engine_is_made_of_is_a_part_of_it(tmp_path, changed):
    manifest = build_bundle(BuildRequest(cheap_graph(), BACKENDS["onnxruntime"]), tmp_path / "engine.cxr")
    if "backend_version" in changed:
        other = replace(manifest, **changed)
    else:
        other = replace(manifest, settings={**manifest.settings, **changed})
    assert other.fingerprint != manifest.fingerprint


def test_on_a_gpu_the_largest_batch_is_a_part_of_the_engine(tmp_path):
    manifest = build_bundle(BuildRequest(cheap_graph(), BACKENDS["onnxruntime"]), tmp_path / "engine.cxr")
    settings = {name: value for name, value in manifest.settings.items() if name != "streams"}
    one, two = (replace(manifest, settings={**settings, "max_batch": batch}) for batch in (1, 2))
    assert one.fingerprint != two.fingerprint
